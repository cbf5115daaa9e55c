//! Answers in doubt, and what is found out of them later: by the platform, or by a member.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::ids::JobId;
use crate::downstream::calls::CallFor;
use crate::jobs::doubt::Proof;
use crate::jobs::ledger::{Key, Known};
use crate::jobs::life::{Stage, Tag};
use crate::model::{Action, AgentId, CallOutcome, Cause, Destination, Trace};
use crate::peer::OutcomeRecord;
use crate::state::timer::Timer;
use crate::wire::command::{Addressed, ClientCommand};
use crate::wire::event::ClientEvent;
use crate::wire::reply::{Outcome, Reply};
use crate::{Engine, Event, limits};

/// An answer in doubt that may still be found out.
#[derive(Debug, Clone)]
struct Doubt {
    agent: AgentId,
    command: String,
    identity: String,
    cause: Cause,
    tag: Arc<Tag>,
    to: Option<Destination>,
    /// What proves it, and when the platform is asked.
    proof: Option<(Proof, u64)>,
    since: u64,
}

/// Answers in doubt that may still be found out; the oldest give way.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    map: BTreeMap<Key, Doubt>,
}

impl Doubts {
    /// The command's trace.
    pub(crate) fn trace(&self, key: &Key) -> Option<Arc<Trace>> {
        self.map.get(key)?.cause.trace.clone()
    }

    fn remember(&mut self, key: Key, doubt: Doubt) {
        if self.map.len() >= limits::DOUBTS {
            let oldest = self.map.iter().min_by_key(|(_, doubt)| doubt.since);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.map.remove(&oldest);
            }
        }
        self.map.insert(key, doubt);
    }

    /// Those of which the platform is to be asked by now, each once.
    fn take_due(&mut self, now: u64) -> Vec<(Key, AgentId, Proof)> {
        let due = |doubt: &Doubt| doubt.proof.as_ref().is_some_and(|(_, at)| *at <= now);
        let all = self.map.iter_mut().filter(|(_, doubt)| due(doubt));
        all.filter_map(|(key, doubt)| {
            let (proof, _) = doubt.proof.take()?;
            Some((*key, doubt.agent.clone(), proof))
        })
        .collect()
    }

    /// When the platform is to be asked next, monotonic milliseconds.
    fn next_at(&self) -> Option<u64> {
        let next = self.map.values().filter_map(|doubt| doubt.proof.as_ref());
        next.map(|(_, at)| *at).min()
    }

    /// Those from before a time are found out no more.
    fn forget(&mut self, before: u64) {
        self.map.retain(|_, doubt| doubt.since >= before);
    }

    fn take(&mut self, key: &Key) -> Option<Doubt> {
        self.map.remove(key)
    }
}

impl Engine {
    /// An answer in doubt went out.
    pub(crate) fn remember_doubt(&mut self, id: JobId, command: &ClientCommand) {
        let job = self.jobs.get(id);
        let (Addressed::Agent(agent), Some(identity), Some((tag, Some((key, _))))) = (
            &command.addressee,
            &command.identity,
            job.map(|job| (job.tag.clone(), job.key)),
        ) else {
            return;
        };
        let intent = self.book.entry(&key);
        let made = intent.and_then(|entry| entry.intent.as_ref());
        let at = self.now.mono + limits::ASK_LATER_MS;
        let proof = self.proof(command, made.map(|intent| intent.at));
        let doubt = Doubt {
            agent: agent.clone(),
            command: command.spec.name.to_owned(),
            identity: identity.clone(),
            cause: command.cause(),
            tag,
            to: self.destination_of(command),
            proof: proof.map(|proof| (proof, at)),
            since: self.now.mono,
        };
        if doubt.proof.is_some() {
            self.timers.set_by(Timer::Doubt, at);
        }
        self.jobs.doubts.remember(key, doubt);
    }

    /// Looks at what waits, and asks for what may be found out by now.
    pub(crate) fn doubts_due(&mut self) {
        self.look_at_waiting();
        let now = self.now.mono;
        for (key, agent, proof) in self.jobs.doubts.take_due(now) {
            self.background_call(&agent, Action::ReadDialogs, CallFor::Later(key, proof));
        }
        if let Some(at) = self.jobs.doubts.next_at() {
            self.timers.set_by(Timer::Doubt, at);
        }
        let kept = now.saturating_sub(limits::LEDGER_RETENTION_MS);
        self.jobs.doubts.forget(kept);
    }

    pub(crate) fn asked_later(
        &mut self,
        key: Key,
        proof: &Proof,
        outcome: &CallOutcome,
        node: usize,
    ) {
        if !self.proven(&key, proof, outcome) {
            return;
        }
        let Some(record) = self.ledger.record(&key) else {
            return;
        };
        if record.reply.outcome != Outcome::InDoubt {
            return;
        }
        let reply = Reply {
            outcome: Outcome::Accepted,
            status: Some(202),
            downstream: Some(self.route.host(node).to_owned()),
            error: None,
            ..record.reply
        };
        let mut record = OutcomeRecord { reply, ..record };
        record.resolved = self.resolve(&record);
        self.journal().write_outcome(None, record);
    }

    /// A peer tells an outcome that may differ from ours.
    pub(crate) fn compare_outcomes(&mut self, theirs: &OutcomeRecord) {
        let Known::Finished(ours) = self.known(&theirs.key, theirs.body) else {
            return;
        };
        let doubt = Outcome::InDoubt;
        match (ours.outcome, theirs.reply.outcome) {
            (a, b) if a == b || b == doubt => {}
            (a, _) if a == doubt => {
                self.resolve(theirs);
            }
            _ => self.out.tell(Event::DoubleEffect {
                command: theirs.reply.command.clone(),
                agent: theirs.reply.id.clone(),
                outcomes: [&ours, &theirs.reply]
                    .map(|reply| format!("{} by {}", reply.outcome, reply.instance)),
            }),
        }
    }

    /// What was in doubt is known: duplicates get the definite outcome from now on, and the
    /// client is told once, by the instance that had answered in doubt; of two, by the one that has
    /// found it out. Whether it is told.
    fn resolve(&mut self, record: &OutcomeRecord) -> bool {
        self.ledger.resolve(&record.key, &record.reply);
        let doubt = self.jobs.doubts.take(&record.key);
        if doubt.is_some() || record.resolved {
            self.ledger.note_resolved(&record.key);
        }
        let Some(doubt) = doubt.filter(|_| !record.resolved) else {
            return record.resolved;
        };
        let outcome = record.reply.outcome;
        self.out.tell(Event::Resolved { outcome });
        self.tell_stage(doubt.tag.clone(), Stage::Resolved { outcome });
        let current = self.sessions.get(&doubt.agent);
        let (to, epoch) = match current {
            Some(session) => (
                Some(session.record.destination.clone()),
                session.record.version.epoch,
            ),
            None => (doubt.to, self.keeping.epoch()),
        };
        let Some(to) = to else {
            return true;
        };
        let event = ClientEvent::Resolved {
            agent: doubt.agent,
            command: doubt.command,
            id: doubt.identity,
            outcome,
        };
        self.tell(&to, event, doubt.cause, epoch, None);
        true
    }
}
