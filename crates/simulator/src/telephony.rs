//! What happens to calls: dialling, connecting, leaving, transfers; the events in the order of
//! section 9.6 and the agents' states that follow.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::agent::{Agent, State};
use super::call::{Call, Participant, Party};
use super::config::Deployment;
use super::lock;
use super::reasons;
use super::world::{Caller, Calls, World};

/// Kind of a Dialogs event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The agent gains the call.
    Post,
    /// Something changed in it.
    Put,
    /// It leaves him.
    Delete,
}

/// Why a number cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody could ever answer there.
    BadDestination,
    /// The agent there has a call.
    Busy,
}

impl World {
    /// Tells `agent` about a change of `call`.
    pub fn emit(&self, agent: &Agent, call: &Call, change: Change, caller: Option<Caller<'_>>) {
        if agent.session_count.load(Ordering::Acquire) == 0 {
            return;
        }
        let id = Caller::id_for(caller, agent);
        let list = format!("/finesse/api/User/{}/Dialogs", agent.id);
        let mut data = String::with_capacity(2048);
        if change == Change::Put {
            call.write(&mut data, "dialog", self.deployment());
            let source = format!("/finesse/api/Dialog/{}", call.id);
            self.publish_dialogs(agent, &data, "PUT", &id, &source);
        } else {
            let event = if change == Change::Post {
                "POST"
            } else {
                "DELETE"
            };
            data.push_str("<dialogs>");
            call.write(&mut data, "Dialog", self.deployment());
            data.push_str("</dialogs>");
            self.publish_dialogs(agent, &data, event, &id, &list);
        }
    }

    /// Tells every agent in the call that it changed.
    pub fn emit_all(&self, call: &Call, caller: Option<Caller<'_>>) {
        for agent in call.agents() {
            self.emit(&agent, call, Change::Put, caller);
        }
    }

    /// Finds who answers a number: an agent, or `None` for the outside.
    pub fn reach(&self, number: &str) -> Result<Option<Arc<Agent>>, Unreachable> {
        let bad = &self.config.bad_destinations;
        if bad.iter().any(|prefix| number.starts_with(prefix.as_str())) {
            return Err(Unreachable::BadDestination);
        }
        match self.device(number) {
            Some(agent) if !lock(&agent.state).dialogs.is_empty() => Err(Unreachable::Busy),
            found => Ok(found),
        }
    }

    /// Starts an outgoing call of `caller.agent` on device `from`; `linked` makes it a consult
    /// call. The device is given, because a sign-out may just have emptied the agent's own.
    pub fn dial(
        self: &Arc<Self>,
        calls: &mut Calls,
        caller: Caller<'_>,
        (from, to): (&str, &str),
        linked: Option<u64>,
        variables: Vec<(String, String)>,
    ) -> u64 {
        let agent = caller.agent;
        let id = calls.fresh_id();
        let target = self.reach(to);
        {
            let mut state = lock(&agent.state);
            state.dialogs.push(id);
            if self.deployment() == Deployment::Ucce && state.state == State::Ready {
                // UCCE 12.5: an own call from READY makes the agent not ready first.
                let reason = reasons::system(50006, "NOT_READY", "Own call");
                state.rest(State::NotReady, Some(reason));
                self.publish_user(agent, &state, "");
            }
        }
        let kind = match (linked, &target) {
            (Some(_), _) => "CONSULT",
            (None, Ok(Some(_)) | Err(Unreachable::Busy)) => "AGENT_INSIDE",
            (None, _) => "OUT",
        };
        let mut call = Call {
            id,
            to: to.to_owned(),
            kind,
            parties: vec![Participant::new(
                from,
                Some(agent.clone()),
                Party::Initiating,
            )],
            from: from.to_owned(),
            controller: linked.map(|_| agent.id.clone()),
            linked,
            variables,
            ..Call::default()
        };
        self.emit(agent, &call, Change::Post, Some(caller));
        call.parties[0].enter(Party::Initiated);
        self.emit(agent, &call, Change::Put, Some(caller));
        match target {
            Ok(callee) => self.offer(&mut call, to, callee, Some(caller)),
            Err(why) => {
                call.parties[0].enter(Party::Failed);
                call.parties[0].cause = match why {
                    Unreachable::BadDestination => "BAD_DESTINATION",
                    Unreachable::Busy => "BUSY",
                };
                self.emit(agent, &call, Change::Put, Some(caller));
            }
        }
        let members = call.agents();
        calls.map.insert(id, call);
        for member in members {
            self.settle(calls, &member);
        }
        id
    }

    /// Rings a party: everybody in the call sees it, a called agent gains the call. The caller
    /// puts the call into the map and settles its agents.
    pub fn offer(
        self: &Arc<Self>,
        call: &mut Call,
        number: &str,
        callee: Option<Arc<Agent>>,
        caller: Option<Caller<'_>>,
    ) {
        let before = call.agents();
        let party = Participant::new(number, callee.clone(), Party::Alerting);
        call.parties.push(party);
        for agent in before {
            self.emit(&agent, call, Change::Put, caller);
        }
        let (id, number) = (call.id, number.to_owned());
        if let Some(agent) = callee {
            lock(&agent.state).dialogs.push(id);
            self.emit(&agent, call, Change::Post, caller);
            if !self.config.ring_timeout.is_zero() {
                self.later(self.config.ring_timeout, move |world| {
                    world.unanswered(id, &agent);
                });
            }
        } else {
            self.later(self.config.answer_delay, move |world| {
                let mut calls = lock(&world.calls);
                let at = calls.map.get(&id).and_then(|call| {
                    call.parties.iter().position(|p| {
                        p.agent.is_none() && p.address == number && p.state == Party::Alerting
                    })
                });
                if let Some(at) = at {
                    world.connect(&mut calls, id, at, None);
                }
            });
        }
    }

    /// A call comes in from outside for the agent on `to`. Returns its dialog id.
    ///
    /// # Errors
    /// Nobody is signed in there, or he has a call.
    pub fn inbound(
        self: &Arc<Self>,
        from: &str,
        to: &str,
        variables: Vec<(String, String)>,
    ) -> Result<u64, &'static str> {
        let mut calls = lock(&self.calls);
        let agent = match self.reach(to) {
            Ok(Some(agent)) => agent,
            Ok(None) => return Err("nobody is signed in on that extension"),
            Err(_) => return Err("busy"),
        };
        let ready = agent.current() == State::Ready;
        let id = calls.fresh_id();
        let mut call = Call {
            id,
            from: from.to_owned(),
            to: to.to_owned(),
            kind: if ready { "ACD_IN" } else { "OTHER_IN" },
            parties: vec![Participant::new(from, None, Party::Initiated)],
            variables,
            ..Call::default()
        };
        self.offer(&mut call, to, Some(agent.clone()), None);
        calls.map.insert(id, call);
        self.settle(&calls, &agent);
        Ok(id)
    }

    /// The outside party of a call hangs up; `false` when there is no such call or party.
    pub fn hang_up(self: &Arc<Self>, id: u64) -> bool {
        let mut calls = lock(&self.calls);
        let outside = calls
            .map
            .get(&id)
            .and_then(|call| call.parties.iter().position(|p| p.agent.is_none()));
        if let Some(at) = outside {
            self.leave(&mut calls, id, at, None);
        }
        outside.is_some()
    }

    /// The party at `at` answers.
    pub fn connect(
        self: &Arc<Self>,
        calls: &mut Calls,
        id: u64,
        at: usize,
        caller: Option<Caller<'_>>,
    ) {
        let Some(call) = calls.map.get_mut(&id) else {
            return;
        };
        if let Some(party) = call.parties.get_mut(at) {
            party.enter(Party::Active);
        }
        for party in &mut call.parties {
            if matches!(party.state, Party::Initiating | Party::Initiated) {
                party.enter(Party::Active);
            }
        }
        self.emit_all(call, caller);
        let (members, main, owner) = (call.agents(), call.linked, call.controller.clone());
        if let Some(main) = main.and_then(|main| calls.map.get_mut(&main)) {
            // From now on the held leg offers TRANSFER and CONFERENCE.
            main.linked = Some(id);
            if let Some(owner) = owner.and_then(|owner| self.agent(&owner)) {
                self.emit(owner, main, Change::Put, None);
            }
        }
        for member in members {
            self.settle(calls, &member);
        }
    }

    /// The party at `at` leaves; with fewer than two left the call ends for all.
    pub fn leave(
        self: &Arc<Self>,
        calls: &mut Calls,
        id: u64,
        at: usize,
        caller: Option<Caller<'_>>,
    ) {
        let Some(mut call) = calls.map.remove(&id) else {
            return;
        };
        if let Some(party) = call.parties.get_mut(at) {
            party.enter(Party::Dropped);
        }
        let left = call.parties.iter().filter(|p| !p.over());
        if left.count() < 2 {
            self.end(calls, call, caller);
            self.end_monitors(calls, id);
            return;
        }
        let gone = call.parties.get(at).and_then(|party| party.agent.clone());
        if let Some(agent) = &gone {
            self.emit(agent, &call, Change::Put, caller);
            self.take_away(agent, &call, caller);
        }
        call.parties.remove(at);
        self.emit_all(&call, caller);
        calls.map.insert(id, call);
        if let Some(agent) = &gone {
            self.settle(calls, agent);
        }
    }

    /// The call is over for all; an agent who wraps up keeps it until that is done.
    fn end(self: &Arc<Self>, calls: &mut Calls, mut call: Call, caller: Option<Caller<'_>>) {
        for party in &mut call.parties {
            let wraps_up = party.agent.as_ref().is_some_and(|agent| {
                let state = lock(&agent.state);
                call.preview.is_none()
                    && state.dialogs.len() == 1
                    && matches!(state.pending, Some(State::Work | State::WorkReady))
            });
            party.enter(if wraps_up {
                Party::WrapUp
            } else {
                Party::Dropped
            });
        }
        self.unlink(calls, &call);
        for agent in call.agents() {
            self.emit(&agent, &call, Change::Put, caller);
            let wraps_up = call
                .position(&agent)
                .is_some_and(|at| call.parties[at].state == Party::WrapUp);
            if !wraps_up {
                self.take_away(&agent, &call, caller);
            }
            self.settle(calls, &agent);
        }
        if call.parties.iter().any(|p| p.state == Party::WrapUp) {
            calls.map.insert(call.id, call);
        }
    }

    /// Wrap-up is over: the calls that were kept for it leave the agent.
    pub fn end_wrap_up(self: &Arc<Self>, agent: &Arc<Agent>) {
        let mut calls = lock(&self.calls);
        let ids = lock(&agent.state).dialogs.clone();
        for id in ids {
            let Some(call) = calls.map.get_mut(&id) else {
                continue;
            };
            let Some(at) = call.position(agent) else {
                continue;
            };
            if call.parties[at].state != Party::WrapUp {
                continue;
            }
            call.parties[at].enter(Party::Dropped);
            let over = call.parties.iter().all(|p| p.state == Party::Dropped);
            self.emit(agent, call, Change::Put, None);
            self.take_away(agent, call, None);
            if over {
                calls.map.remove(&id);
            }
        }
    }

    /// The call leaves an agent: DELETE, and it is off his list.
    pub fn take_away(&self, agent: &Agent, call: &Call, caller: Option<Caller<'_>>) {
        lock(&agent.state).dialogs.retain(|id| *id != call.id);
        self.emit(agent, call, Change::Delete, caller);
    }

    fn unlink(&self, calls: &mut Calls, ended: &Call) {
        let other = ended.linked.and_then(|other| calls.map.get_mut(&other));
        if let Some(other) = other.filter(|other| other.linked == Some(ended.id)) {
            other.linked = None;
            self.emit_all(other, None);
        }
    }

    /// Joins the consult call `consult` into the held call `main`. The agent leaves (transfer)
    /// or stays (conference).
    pub fn merge(
        self: &Arc<Self>,
        calls: &mut Calls,
        caller: Caller<'_>,
        main: u64,
        consult: u64,
        stay: bool,
    ) {
        let (Some(mut call), Some(mut leg)) = (calls.map.remove(&main), calls.map.remove(&consult))
        else {
            return;
        };
        let agent = caller.agent;
        let id = Some(caller);
        (call.linked, call.secondary) = (None, Some(consult));
        let at = call.position(agent).unwrap_or_default();
        let before: Vec<Arc<Agent>> = call.agents();
        let joining: Vec<Participant> = leg
            .parties
            .iter()
            .filter(|p| !p.is(agent))
            .cloned()
            .collect();
        if stay {
            call.kind = "CONFERENCE";
            call.parties[at].enter(Party::Active);
        } else {
            call.parties[at].enter(Party::Dropped);
            self.take_away(agent, &call, id);
            call.parties.remove(at);
        }
        for party in &mut leg.parties {
            party.enter(Party::Dropped);
        }
        for member in leg.agents() {
            self.take_away(&member, &leg, id);
        }
        call.parties.extend(joining.iter().cloned());
        for member in before.iter().filter(|m| stay || m.id != agent.id) {
            self.emit(member, &call, Change::Put, id);
        }
        for member in joining.iter().filter_map(|party| party.agent.as_ref()) {
            lock(&member.state).dialogs.push(main);
            self.emit(member, &call, Change::Post, id);
        }
        let mut members = call.agents();
        members.push(agent.clone());
        calls.map.insert(main, call);
        for member in members {
            self.settle(calls, &member);
        }
    }

    /// Hands an active call to another number at once (blind transfer).
    pub fn hand_over(
        self: &Arc<Self>,
        calls: &mut Calls,
        caller: Caller<'_>,
        id: u64,
        number: &str,
        callee: Option<Arc<Agent>>,
    ) {
        let Some(mut call) = calls.map.remove(&id) else {
            return;
        };
        if let Some(at) = call.position(caller.agent) {
            call.parties[at].enter(Party::Dropped);
            self.emit(caller.agent, &call, Change::Put, Some(caller));
            self.take_away(caller.agent, &call, Some(caller));
            call.parties.remove(at);
        }
        call.kind = "TRANSFER";
        self.offer(&mut call, number, callee, Some(caller));
        let members = call.agents();
        calls.map.insert(id, call);
        self.settle(calls, caller.agent);
        for member in members {
            self.settle(calls, &member);
        }
    }

    fn unanswered(self: &Arc<Self>, id: u64, agent: &Arc<Agent>) {
        let mut calls = lock(&self.calls);
        let at = calls.map.get(&id).and_then(|call| {
            let at = call.position(agent)?;
            (call.parties[at].state == Party::Alerting).then_some(at)
        });
        let Some(at) = at else {
            return;
        };
        if self.deployment() == Deployment::Uccx {
            let mut state = lock(&agent.state);
            if state.base == State::Ready {
                state.base = State::NotReady;
                state.base_reason = Some(reasons::system(32763, "NOT_READY", "Ring no answer"));
            }
        }
        self.leave(&mut calls, id, at, None);
    }

    /// Derives the agent's state from his calls and publishes it if it changed.
    pub fn settle(self: &Arc<Self>, calls: &Calls, agent: &Arc<Agent>) {
        let mut state = lock(&agent.state);
        if state.state == State::Logout {
            return;
        }
        let held = match self.deployment() {
            Deployment::Ucce => State::Hold,
            Deployment::Uccx => State::Talking,
        };
        let base = state.base;
        let shown = state
            .dialogs
            .iter()
            .filter_map(|id| calls.map.get(id))
            .filter_map(|call| Some((call, call.parties[call.position(agent)?].state)))
            .filter_map(|(call, party)| match party {
                Party::Active | Party::Accepted if call.preview.is_some() => {
                    Some((1, State::ReservedOutboundPreview))
                }
                Party::Active => Some((3, State::Talking)),
                Party::Held => Some((2, held)),
                Party::Alerting if call.campaign() => Some((1, State::ReservedOutbound)),
                Party::Alerting if base == State::Ready => Some((1, State::Reserved)),
                _ => None,
            })
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, state)| state);
        match shown {
            Some(shown) if shown != state.state => state.enter(shown, None),
            None if matches!(
                state.state,
                State::Talking
                    | State::Hold
                    | State::Reserved
                    | State::ReservedOutbound
                    | State::ReservedOutboundPreview
            ) =>
            {
                self.enter_after_call(agent, &mut state);
            }
            _ => return,
        }
        self.publish_user(agent, &state, "");
    }
}
