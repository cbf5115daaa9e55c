//! Silent monitoring and barging in (reference sections 5.1 and 9.6).

use std::sync::Arc;

use super::agent::{Agent, State};
use super::call::{Call, Participant, Party};
use super::dialog_requests::WRONG_STATE;
use super::lock;
use super::telephony::Change;
use super::world::{Caller, Calls, Refused, World};

const MONITOR: &str = "SUPERVISOR_MONITOR";

impl World {
    /// Carries out SILENT_MONITOR; `Ok` is 202.
    pub(super) fn silent_monitor(
        self: &Arc<Self>,
        caller: Caller<'_>,
        from: &str,
        to: &str,
    ) -> Result<(), Refused> {
        let mut calls = lock(&self.calls);
        let watched = self.watched(caller, from, to)?;
        let main = self.talking_on(&calls, &watched);
        let may = caller.agent.current() == State::NotReady
            && lock(&caller.agent.state).dialogs.is_empty();
        let Some(main) = main.filter(|_| may) else {
            self.refuse_later(caller);
            return Ok(());
        };
        self.record(caller, "SILENT_MONITOR", to);
        let id = calls.fresh_id();
        let supervisor = caller.agent;
        let mut call = Call {
            id,
            from: from.to_owned(),
            to: to.to_owned(),
            kind: MONITOR,
            parties: vec![Participant::new(
                from,
                Some(supervisor.clone()),
                Party::Initiating,
            )],
            associated: Some(main),
            ..Call::default()
        };
        lock(&supervisor.state).dialogs.push(id);
        self.emit(supervisor, &call, Change::Post, Some(caller));
        call.parties[0].enter(Party::Initiated);
        self.emit(supervisor, &call, Change::Put, Some(caller));
        let passive = Participant::new(to, Some(watched.clone()), Party::Alerting);
        call.parties.push(passive);
        lock(&watched.state).dialogs.push(id);
        self.emit(&watched, &call, Change::Post, None);
        for party in &mut call.parties {
            party.enter(Party::Active);
        }
        self.emit_all(&call, Some(caller));
        calls.map.insert(id, call);
        self.settle(&calls, supervisor);
        Ok(())
    }

    /// Carries out BARGE_CALL; `Ok` is 202.
    pub(super) fn barge(
        self: &Arc<Self>,
        caller: Caller<'_>,
        from: &str,
        to: &str,
        monitor: &str,
    ) -> Result<(), Refused> {
        let mut calls = lock(&self.calls);
        let watched = self.watched(caller, from, to)?;
        let supervisor = caller.agent;
        let found = monitor.parse().ok().and_then(|id: u64| {
            let call = calls.map.get(&id).filter(|call| call.kind == MONITOR)?;
            let at = call.position(supervisor)?;
            call.position(&watched)?;
            Some((id, at, call.associated?))
        });
        let Some((id, at, main)) = found else {
            self.refuse_later(caller);
            return Ok(());
        };
        self.record(caller, "BARGE_CALL", to);
        self.leave(&mut calls, id, at, Some(caller));
        let Some(mut call) = calls.map.remove(&main) else {
            return Ok(());
        };
        call.kind = "CONFERENCE";
        call.controller = Some(watched.id.clone());
        let before = call.agents();
        let joined = Participant::new(from, Some(supervisor.clone()), Party::Alerting);
        call.parties.push(joined);
        lock(&supervisor.state).dialogs.push(main);
        for agent in before {
            self.emit(&agent, &call, Change::Put, None);
        }
        self.emit(supervisor, &call, Change::Post, Some(caller));
        if let Some(party) = call.parties.last_mut() {
            party.enter(Party::Active);
        }
        self.emit_all(&call, Some(caller));
        calls.map.insert(main, call);
        self.settle(&calls, supervisor);
        Ok(())
    }

    /// A monitor call ends with the call that it is about.
    pub(super) fn end_monitors(self: &Arc<Self>, calls: &mut Calls, main: u64) {
        let ended: Vec<u64> = calls
            .map
            .values()
            .filter(|call| call.kind == MONITOR && call.associated == Some(main))
            .map(|call| call.id)
            .collect();
        for id in ended {
            self.leave(calls, id, 0, None);
        }
    }

    fn watched(&self, caller: Caller<'_>, from: &str, to: &str) -> Result<Arc<Agent>, Refused> {
        let supervisor = caller.agent;
        if !supervisor.spec.supervisor {
            return Err(Refused::new(401, "Unauthorized", "no supervisor", ""));
        }
        if from != lock(&supervisor.state).extension {
            return Err(Refused::input("not the supervisor's extension", from));
        }
        self.device(to)
            .filter(|agent| agent.spec.team == supervisor.spec.team)
            .ok_or_else(|| Refused::new(400, "Invalid Destination", "no such agent", to))
    }

    /// The call that an agent talks in.
    fn talking_on(&self, calls: &Calls, agent: &Agent) -> Option<u64> {
        lock(&agent.state).dialogs.iter().copied().find(|id| {
            calls.map.get(id).is_some_and(|call| {
                call.kind != MONITOR
                    && call
                        .position(agent)
                        .is_some_and(|at| call.parties[at].state == Party::Active)
            })
        })
    }

    fn refuse_later(&self, caller: Caller<'_>) {
        let node = format!("/finesse/api/User/{}/Dialogs", caller.agent.id);
        self.publish_error(caller, &node, &node, WRONG_STATE);
    }

    fn record(&self, caller: Caller<'_>, kind: &'static str, detail: &str) {
        let agent = &caller.agent.id;
        self.ledger
            .record(caller.node, agent, kind, caller.marks(), detail);
    }
}
