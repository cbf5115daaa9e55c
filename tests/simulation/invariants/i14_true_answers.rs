//! I14: what clients are told is true by the downstream's ledger. `ACCEPTED`: it was done. A
//! refusal for good of a command that is not idempotent: it was not, and is not done later.
//! Likewise what is told later of an answer in doubt (`Resolved`), which is told once at most.

use std::collections::BTreeMap;

use tandem_model::catalogue::{self, Repeat};
use tandem_wire::event::ClientEvent;
use tandem_wire::reply::{Outcome, Reply};

use super::i01_one_effect::Effects;
use crate::bursts::ANONYMOUS;

/// Answers and what was told later, by command id.
#[derive(Debug, Default)]
pub struct Answers {
    told: BTreeMap<String, Vec<(Outcome, String)>>,
    /// With the event's id, which is the same when it is published again.
    resolved: BTreeMap<String, (String, Outcome)>,
    /// Told twice.
    again: Vec<String>,
}

/// Commands that ask the downstream for something: each has an effect when it is done.
fn acts(command: &str) -> bool {
    matches!(
        command,
        "Login" | "Logout" | "MakeCall" | "MakeReady" | "MakeNotReady"
    )
}

/// An outcome that says that nothing was done.
fn refused(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Rejected | Outcome::Failed | Outcome::Expired
    )
}

impl Answers {
    pub fn told(&mut self, id: &str, reply: &Reply, who: &str, at: u64) {
        let repeat = catalogue::find(&reply.command).map(|spec| spec.repeat);
        let once = repeat.is_some_and(|repeat| repeat != Repeat::Safe);
        let unsafe_refusal = refused(reply.outcome) && once;
        let accepted = reply.outcome == Outcome::Accepted && acts(&reply.command);
        // Of commands without an id only calls can be told apart at the platform.
        let nameless = id.starts_with(ANONYMOUS) && reply.command != "MakeCall";
        if reply.retry_after_ms.is_some() || nameless || !(unsafe_refusal || accepted) {
            return;
        }
        let known = self.told.entry(id.to_owned()).or_default();
        if known.iter().all(|(outcome, _)| *outcome != reply.outcome) {
            let code = reply.error.as_ref().map_or("", |error| error.code.as_str());
            known.push((reply.outcome, format!("{code} by {who}@{at}")));
        }
    }

    pub fn event(&mut self, event: &ClientEvent, message: &str) {
        let ClientEvent::Resolved { id, outcome, .. } = event else {
            return;
        };
        let now = (message.to_owned(), *outcome);
        let first = self.resolved.entry(id.clone()).or_insert(now.clone());
        if *first != now {
            let twice = format!("I14: {id} was resolved by {first:?} and by {now:?}");
            self.again.push(twice);
        }
    }

    /// `cut`: the sites were, and a refusal may stand beside what the other side did with the resend;
    /// and both sides may find out what both had in doubt.
    pub fn judge(&self, effects: &Effects, cut: bool) -> Vec<String> {
        let answers = self.told.iter().flat_map(|(id, told)| {
            let told = told.iter();
            told.map(move |(outcome, how)| (id, *outcome, how.as_str()))
        });
        let later = self.resolved.iter();
        let later = later.map(|(id, (_, outcome))| (id, *outcome, "later"));
        let wrong = answers.chain(later).filter_map(|(id, outcome, how)| {
            let count = effects.count(id);
            let lie =
                refused(outcome) && count > 0 && !cut || outcome == Outcome::Accepted && count == 0;
            lie.then(|| format!("I14: {id} was told {outcome} ({how}) and had {count} effects"))
        });
        let again = self.again.iter().filter(|_| !cut);
        again.cloned().chain(wrong).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::AgentId;

    fn reply(command: &str, outcome: Outcome) -> Reply {
        Reply {
            command: command.into(),
            id: "1001".into(),
            outcome,
            status: None,
            instance: "gc-1".into(),
            downstream: None,
            error: None,
            retry_after_ms: None,
            body: None,
        }
    }

    fn resolved(outcome: Outcome) -> ClientEvent {
        ClientEvent::Resolved {
            agent: AgentId::new("1001").unwrap(),
            command: "MakeCall".into(),
            id: "1001:1".into(),
            outcome,
        }
    }

    #[test]
    fn a_lie_is_found_in_either_direction() {
        let mut effects = Effects::default();
        let mut answers = Answers::default();
        answers.told("1001:1", &reply("MakeCall", Outcome::Accepted), "gc-1", 1);
        answers.told("1001:2", &reply("MakeCall", Outcome::Expired), "gc-1", 1);
        assert_eq!(answers.judge(&effects, false).len(), 1);
        effects.effect("gc-1", "1001:2", 1);
        assert_eq!(answers.judge(&effects, false).len(), 2);
        effects.effect("gc-1", "1001:1", 1);
        assert_eq!(answers.judge(&effects, false).len(), 1);
    }

    #[test]
    fn what_is_told_later_is_told_once_and_true() {
        let mut answers = Answers::default();
        let event = resolved(Outcome::Accepted);
        let wrong = |answers: &Answers| answers.judge(&Effects::default(), false).len();
        answers.event(&event, "m1");
        answers.event(&event, "m1");
        assert_eq!(wrong(&answers), 1, "it was not done");
        answers.event(&event, "m2");
        assert_eq!(wrong(&answers), 2);
    }
}
