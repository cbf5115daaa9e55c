//! Outbound campaigns: preview offers and calls the dialer places.

use std::sync::Arc;

use super::agent::{Agent, State};
use super::call::{Call, Participant, Party};
use super::lock;
use super::telephony::Change;
use super::world::{Caller, Calls, World};

/// How an agent answers an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preview {
    /// Calls the customer.
    Accept,
    /// Does not, now or ever.
    Refuse,
}

/// The address of the dialer.
const DIALER: &str = "dialer-1";

impl Call {
    /// Takes over what the agent says about a campaign call.
    pub(super) fn campaign_data(&mut self, action: &str, parameters: &[(String, String)]) {
        if action == "CANCEL_SCHEDULED_CALLBACK" {
            self.callback = None;
            return;
        }
        for (name, value) in parameters {
            match name.as_str() {
                "outboundClassification" => self.classification.clone_from(value),
                "callbackTime" => {
                    self.callback.get_or_insert_default().0.clone_from(value);
                }
                "callbackNumber" => {
                    self.callback.get_or_insert_default().1.clone_from(value);
                }
                _ => {}
            }
        }
    }
}

fn variables(status: &str, customer: &str) -> Vec<(String, String)> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        pair("BACampaign", "Renewals"),
        pair("BAStatus", status),
        pair("BACustomerNumber", customer),
    ]
}

impl World {
    /// A campaign offers a customer to the agent on `to` for preview. Returns the offer's id.
    ///
    /// # Errors
    /// Nobody is ready there.
    pub fn offer_preview(self: &Arc<Self>, customer: &str, to: &str) -> Result<u64, &'static str> {
        let mut calls = lock(&self.calls);
        let agent = self.ready_on(to)?;
        let id = calls.fresh_id();
        let call = Call {
            id,
            from: DIALER.to_owned(),
            to: to.to_owned(),
            kind: "OUTBOUND_PREVIEW",
            parties: vec![
                Participant::new(DIALER, None, Party::Active),
                Participant::new(to, Some(agent.clone()), Party::Active),
            ],
            variables: variables("PREVIEW_OUTBOUND_RESERVATION", customer),
            preview: Some(customer.to_owned()),
            ..Call::default()
        };
        lock(&agent.state).dialogs.push(id);
        self.emit(&agent, &call, Change::Post, None);
        calls.map.insert(id, call);
        self.settle(&calls, &agent);
        Ok(id)
    }

    /// The dialer has reached a customer and rings the agent on `to`. Returns the call's id.
    ///
    /// # Errors
    /// Nobody is ready there.
    pub fn dialed(self: &Arc<Self>, customer: &str, to: &str) -> Result<u64, &'static str> {
        let mut calls = lock(&self.calls);
        let agent = self.ready_on(to)?;
        let id = calls.fresh_id();
        let mut call = Call {
            id,
            from: customer.to_owned(),
            to: to.to_owned(),
            kind: "OTHER_IN",
            parties: vec![
                Participant::new(customer, None, Party::Active),
                Participant::new(to, Some(agent.clone()), Party::Alerting),
            ],
            variables: variables("PROGRESSIVE_OUTBOUND", customer),
            ..Call::default()
        };
        lock(&agent.state).dialogs.push(id);
        // Two packets: the first does not know yet that it is a campaign's.
        self.emit(&agent, &call, Change::Post, None);
        call.kind = "OUTBOUND";
        self.emit(&agent, &call, Change::Put, None);
        calls.map.insert(id, call);
        self.settle(&calls, &agent);
        Ok(id)
    }

    fn ready_on(&self, to: &str) -> Result<Arc<Agent>, &'static str> {
        let agent = self
            .device(to)
            .ok_or("nobody is signed in on that extension")?;
        match agent.current() {
            State::Ready => Ok(agent),
            _ => Err("not ready"),
        }
    }

    /// The agent's answer to an offer.
    pub(super) fn preview(
        self: &Arc<Self>,
        calls: &mut Calls,
        caller: Caller<'_>,
        id: u64,
        answer: Preview,
    ) {
        let Some(call) = calls.map.get_mut(&id) else {
            return;
        };
        let Some(at) = call.position(caller.agent) else {
            return;
        };
        let own = call.parties[at].address.clone();
        let customer = call.preview.clone().unwrap_or_default();
        if answer == Preview::Accept {
            call.parties[at].enter(Party::Accepted);
            self.emit_all(call, Some(caller));
        }
        self.leave(calls, id, at, Some(caller));
        if answer == Preview::Accept {
            let variables = variables("PREVIEW_OUTBOUND", &customer);
            let numbers = (own.as_str(), customer.as_str());
            let call = self.dial(calls, caller, numbers, None, variables);
            if let Some(call) = calls.map.get_mut(&call) {
                call.kind = "OUTBOUND";
                call.associated = Some(id);
                self.emit_all(call, Some(caller));
            }
        }
    }
}
