//! POST User/{id}/Dialogs and PUT Dialog/{id}: what an agent asks of a call (section 5.1).

use std::sync::Arc;

use super::agent::{Agent, State};
use super::call::{Call, Participant, Party};
use super::campaign::Preview;
use super::config::Deployment;
use super::lock;
use super::telephony::Unreachable;
use super::world::{Caller, Calls, Refused, World};
use super::xml;

/// Call variables a request may carry; more are a bad request.
const MAX_VARIABLES: usize = 64;

/// The body of a Dialog request.
#[derive(Debug, Default)]
pub struct DialogRequest {
    action: String,
    target: String,
    from: String,
    to: String,
    dtmf: String,
    variables: Vec<(String, String)>,
    wrap_up: Option<String>,
    media: bool,
    associated: String,
    /// `ActionParam`s other than the digits.
    parameters: Vec<(String, String)>,
}

impl DialogRequest {
    /// Reads the body.
    ///
    /// # Errors
    /// 400 when it is not XML, has no action or names a call variable twice.
    pub fn parse(body: &str) -> Result<Self, Refused> {
        let mut request = Self::default();
        let mut name_of = String::new();
        xml::leaves(body, |parent, name, text| match (parent, name) {
            ("CallVariable" | "callVariable", "name") => {
                request.media = true;
                text.clone_into(&mut name_of);
            }
            ("CallVariable" | "callVariable", "value") => {
                let name = std::mem::take(&mut name_of);
                request.variables.push((name, text.to_owned()));
            }
            ("ActionParam", "name") => text.clone_into(&mut name_of),
            ("ActionParam", "value") if name_of == "dtmfString" => {
                text.clone_into(&mut request.dtmf);
            }
            ("ActionParam", "value") => {
                let name = std::mem::take(&mut name_of);
                request.parameters.push((name, text.to_owned()));
            }
            (_, "associatedDialogUri") => text.clone_into(&mut request.associated),
            (_, "requestedAction") => text.clone_into(&mut request.action),
            (_, "targetMediaAddress") => text.clone_into(&mut request.target),
            (_, "fromAddress") => text.clone_into(&mut request.from),
            (_, "toAddress") => text.clone_into(&mut request.to),
            (_, "wrapUpReason") => request.wrap_up = Some(text.to_owned()),
            (_, "mediaProperties") => request.media = true,
            _ => {}
        })
        .map_err(|e| Refused::new(400, "Bad Request", &e.to_string(), ""))?;
        if request.action.is_empty() {
            return Err(Refused::missing("requestedAction"));
        }
        if request.variables.len() > MAX_VARIABLES {
            return Err(Refused::input("too many call variables", ""));
        }
        let mut names: Vec<String> = request
            .variables
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Refused::input("call variable named twice", &twice[0]));
        }
        Ok(request)
    }
}

/// A refusal by CTI after the 202: errorData, errorMessage, errorType.
pub(super) type Later = [&'static str; 3];
pub(super) const WRONG_STATE: Later = ["22", "CF_INVALID_OBJECT_STATE", "Generic Error"];
const BAD_NUMBER: Later = ["14", "CF_INVALID_DESTINATION", "Generic Error"];
const BUSY: Later = ["33", "CF_RESOURCE_BUSY", "Generic Error"];
const NO_SECOND_CALL: Later = ["22", "CF_INVALID_OBJECT_STATE", "Call Operation Failure"];
const OUT_OF_RANGE: Later = ["3", "CF_VALUE_OUT_OF_RANGE", "Generic Error"];
const NOT_CONTROLLER_UCCE: Later = ["20999", "CF_GENERIC_UNSPECIFIED", "Generic Error"];
const NOT_CONTROLLER_UCCX: Later = ["22", "CF_INVALID_OBJECT_STATE", "Invalid State"];

/// What an accepted request does to the call.
enum Plan {
    Nothing,
    Answer,
    /// The party at that position leaves.
    Leave(usize),
    /// The agent's own party changes its state.
    Switch(Party),
    Data,
    Consult,
    /// Answers the offer of a preview call.
    Preview(Preview),
    /// Something about a campaign call.
    Campaign,
    /// Joins that other call; the agent stays or not.
    Merge(u64, bool),
    HandOver(Option<Arc<Agent>>),
}

fn number(to: &str, own: &str) -> Result<(), Refused> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"*#+@.-_:".contains(&b);
    if to.is_empty() || to == own || to.len() > 128 || !to.bytes().all(legal) {
        return Err(Refused::new(
            400,
            "Invalid Destination",
            "illegal toAddress",
            to,
        ));
    }
    Ok(())
}

impl World {
    /// Carries out POST User/{id}/Dialogs; `Ok` is 202.
    ///
    /// # Errors
    /// The refusal to answer at once.
    pub fn post_dialog(
        self: &Arc<Self>,
        caller: Caller<'_>,
        request: DialogRequest,
    ) -> Result<(), Refused> {
        match request.action.as_str() {
            "MAKE_CALL" => {}
            "SILENT_MONITOR" => return self.silent_monitor(caller, &request.from, &request.to),
            "BARGE_CALL" => {
                let monitor = request.associated.rsplit('/').next().unwrap_or_default();
                return self.barge(caller, &request.from, &request.to, monitor);
            }
            other => return Err(Refused::input("unknown requestedAction", other)),
        }
        let uccx = self.deployment() == Deployment::Uccx;
        let mut calls = lock(&self.calls);
        let idle = {
            let state = lock(&caller.agent.state);
            let barred = uccx && state.state == State::Ready;
            if state.state == State::Logout || barred {
                return Err(Refused::state(state.state.name()));
            }
            if request.from.is_empty() {
                return Err(Refused::missing("fromAddress"));
            }
            if request.from != state.extension {
                return Err(Refused::input("not the agent's extension", &request.from));
            }
            if uccx && request.media {
                return Err(Refused::input("no mediaProperties here", "mediaProperties"));
            }
            if request.to.is_empty() {
                return Err(Refused::missing("toAddress"));
            }
            number(&request.to, &state.extension)?;
            state.dialogs.is_empty()
        };
        let agent = caller.agent;
        if !idle {
            let node = format!("/finesse/api/User/{}/Dialogs", agent.id);
            self.publish_error(caller, &node, &node, NO_SECOND_CALL);
            return Ok(());
        }
        self.ledger.record(
            caller.node,
            &agent.id,
            "MAKE_CALL",
            caller.marks(),
            &request.to,
        );
        let numbers = (request.from.as_str(), request.to.as_str());
        self.dial(&mut calls, caller, numbers, None, request.variables);
        Ok(())
    }

    /// Carries out PUT Dialog/{id}; `Ok` is 202.
    ///
    /// # Errors
    /// The refusal to answer at once.
    pub fn put_dialog(
        self: &Arc<Self>,
        caller: Caller<'_>,
        id: u64,
        request: DialogRequest,
    ) -> Result<(), Refused> {
        let Some(kind) = action(&request.action) else {
            return Err(Refused::input("unknown requestedAction", &request.action));
        };
        let mut calls = lock(&self.calls);
        let call = calls.map.get(&id).ok_or_else(|| {
            Refused::new(404, "Dialog Not Found", "no such dialog", &id.to_string())
        })?;
        let Some(at) = call.position(caller.agent) else {
            return Err(Refused::new(401, "Unauthorized", "not in this call", ""));
        };
        let own = call.parties[at].address.clone();
        if request.target.is_empty() && kind != "UPDATE_CALL_DATA" {
            return Err(Refused::missing("targetMediaAddress"));
        }
        let other_target = matches!(kind, "PARTICIPANT_DROP" | "UPDATE_CALL_DATA");
        if request.target != own && !other_target {
            return Err(Refused::input("not the agent's device", &request.target));
        }
        if matches!(kind, "CONSULT_CALL" | "TRANSFER_SST") {
            if request.to.is_empty() {
                return Err(Refused::missing("toAddress"));
            }
            number(&request.to, &own)?;
        }
        if kind == "SEND_DTMF" && call.parties[at].state == Party::Held {
            return Err(Refused::new(401, "Invalid State", "the call is held", kind));
        }
        let uccx = self.deployment() == Deployment::Uccx;
        if (kind == "PARTICIPANT_DROP" && uccx) || (kind == "START_RECORDING" && !uccx) {
            return Err(Refused::new(
                501,
                "Not Implemented",
                "not on this deployment",
                kind,
            ));
        }
        match self.plan(&calls, caller.agent, call, at, kind, &request) {
            Ok(plan) => {
                // Recorded first: who has seen the event finds the entry.
                let detail = format!("{id} {}", request.to);
                let (agent, detail) = (&caller.agent.id, detail.trim_end());
                self.ledger
                    .record(caller.node, agent, kind, caller.marks(), detail);
                self.perform(&mut calls, caller, id, at, plan, request);
            }
            Err(later) => {
                let node = format!("/finesse/api/User/{}/Dialogs", caller.agent.id);
                let source = format!("/finesse/api/Dialog/{id}");
                self.publish_error(caller, &node, &source, later);
            }
        }
        Ok(())
    }

    /// What CTI will do, or how it refuses; changes nothing.
    fn plan(
        &self,
        calls: &Calls,
        agent: &Agent,
        call: &Call,
        at: usize,
        kind: &str,
        request: &DialogRequest,
    ) -> Result<Plan, Later> {
        let party = call.parties[at].state;
        let offered = call.preview.is_some() && party == Party::Active;
        Ok(match kind {
            "ACCEPT" if offered => Plan::Preview(Preview::Accept),
            "REJECT" | "CLOSE" if offered => Plan::Preview(Preview::Refuse),
            "RECLASSIFY" | "UPDATE_SCHEDULED_CALLBACK" if call.campaign() => Plan::Campaign,
            "CANCEL_SCHEDULED_CALLBACK" if call.callback.is_some() => Plan::Campaign,
            "ANSWER" if party == Party::Alerting => Plan::Answer,
            "DROP" if party != Party::Alerting => Plan::Leave(at),
            "HOLD" if party == Party::Active => Plan::Switch(Party::Held),
            "RETRIEVE" if party == Party::Held => {
                if self.active_leg(calls, agent, call.id, false).is_some() {
                    return Err(WRONG_STATE);
                }
                Plan::Switch(Party::Active)
            }
            "UPDATE_CALL_DATA" => Plan::Data,
            "SEND_DTMF" if party == Party::Active => {
                self.check_dtmf(&request.dtmf)?;
                Plan::Nothing
            }
            "START_RECORDING" if party == Party::Active => Plan::Nothing,
            "CONSULT_CALL" if party == Party::Active => {
                if lock(&agent.state).dialogs.len() > 1 {
                    return Err(NO_SECOND_CALL);
                }
                Plan::Consult
            }
            "TRANSFER" | "CONFERENCE" if party == Party::Held => {
                let stay = kind == "CONFERENCE";
                let owner = call.controller.as_ref();
                if stay && owner.is_some_and(|owner| *owner != agent.id) {
                    return Err(match self.deployment() {
                        Deployment::Ucce => NOT_CONTROLLER_UCCE,
                        Deployment::Uccx => NOT_CONTROLLER_UCCX,
                    });
                }
                let leg = self.active_leg(calls, agent, call.id, !stay);
                Plan::Merge(leg.ok_or(WRONG_STATE)?, stay)
            }
            "TRANSFER_SST" if party == Party::Active => {
                Plan::HandOver(self.reach(&request.to).map_err(|why| match why {
                    Unreachable::BadDestination => BAD_NUMBER,
                    Unreachable::Busy => BUSY,
                })?)
            }
            "PARTICIPANT_DROP" if call.parties.len() > 2 => {
                let is_target = |party: &Participant| party.address == request.target;
                Plan::Leave(call.parties.iter().position(is_target).ok_or(WRONG_STATE)?)
            }
            _ => return Err(WRONG_STATE),
        })
    }

    fn perform(
        self: &Arc<Self>,
        calls: &mut Calls,
        caller: Caller<'_>,
        id: u64,
        at: usize,
        plan: Plan,
        request: DialogRequest,
    ) {
        match plan {
            Plan::Nothing => {}
            Plan::Answer => self.connect(calls, id, at, Some(caller)),
            Plan::Leave(who) => self.leave(calls, id, who, Some(caller)),
            Plan::Switch(to) => self.switch(calls, caller, id, at, to),
            Plan::Data => {
                if let Some(call) = calls.map.get_mut(&id) {
                    update_call_data(call, request);
                    self.emit_all(call, Some(caller));
                }
            }
            Plan::Consult => {
                let mut own = String::new();
                if let Some(call) = calls.map.get_mut(&id) {
                    call.controller = Some(caller.agent.id.clone());
                    own.clone_from(&call.parties[at].address);
                }
                self.switch(calls, caller, id, at, Party::Held);
                self.dial(calls, caller, (&own, &request.to), Some(id), Vec::new());
            }
            Plan::Preview(answer) => self.preview(calls, caller, id, answer),
            Plan::Campaign => {
                if let Some(call) = calls.map.get_mut(&id) {
                    call.campaign_data(&request.action, &request.parameters);
                    self.emit_all(call, Some(caller));
                }
            }
            Plan::Merge(leg, stay) => self.merge(calls, caller, id, leg, stay),
            Plan::HandOver(callee) => self.hand_over(calls, caller, id, &request.to, callee),
        }
    }

    fn switch(
        self: &Arc<Self>,
        calls: &mut Calls,
        caller: Caller<'_>,
        id: u64,
        at: usize,
        to: Party,
    ) {
        if let Some(call) = calls.map.get_mut(&id) {
            call.parties[at].enter(to);
            self.emit_all(call, Some(caller));
        }
        self.settle(calls, caller.agent);
    }

    /// The agent's other call that is active (or still ringing, if `ringing` counts).
    fn active_leg(&self, calls: &Calls, agent: &Agent, not: u64, ringing: bool) -> Option<u64> {
        lock(&agent.state)
            .dialogs
            .iter()
            .copied()
            .filter(|id| *id != not)
            .find(|id| {
                calls.map.get(id).is_some_and(|call| {
                    call.position(agent)
                        .is_some_and(|at| match call.parties[at].state {
                            Party::Active => true,
                            Party::Initiated => ringing && call.parties.len() > 1,
                            _ => false,
                        })
                })
            })
    }

    fn check_dtmf(&self, digits: &str) -> Result<(), Later> {
        let letters = self.deployment() == Deployment::Ucce;
        let legal = |b: u8| {
            b.is_ascii_digit() || b == b'*' || b == b'#' || (letters && (b'A'..=b'D').contains(&b))
        };
        if digits.is_empty() || !digits.bytes().all(legal) {
            return Err(OUT_OF_RANGE);
        }
        Ok(())
    }
}

fn update_call_data(call: &mut Call, request: DialogRequest) {
    for (name, value) in request.variables {
        let same = |other: &(String, String)| other.0.eq_ignore_ascii_case(&name);
        match call.variables.iter().position(same) {
            Some(at) => call.variables[at].1 = value,
            None if call.variables.len() < MAX_VARIABLES => call.variables.push((name, value)),
            None => {}
        }
    }
    if let Some(reason) = request.wrap_up {
        call.wrap_up = reason;
    }
}

/// The known actions; those without a campaign call to act on are refused by CTI.
fn action(name: &str) -> Option<&'static str> {
    const ACTIONS: [&str; 18] = [
        "ANSWER",
        "HOLD",
        "RETRIEVE",
        "DROP",
        "CONSULT_CALL",
        "TRANSFER",
        "CONFERENCE",
        "TRANSFER_SST",
        "SEND_DTMF",
        "UPDATE_CALL_DATA",
        "PARTICIPANT_DROP",
        "START_RECORDING",
        "ACCEPT",
        "REJECT",
        "CLOSE",
        "RECLASSIFY",
        "UPDATE_SCHEDULED_CALLBACK",
        "CANCEL_SCHEDULED_CALLBACK",
    ];
    ACTIONS.iter().copied().find(|known| *known == name)
}
