//! One command in work, and how far it is. The state is private to this file: what happens to a
//! job is told to [`Job::step`], which alone knows what may follow what.
//!
//! ```text
//!  delivery ─▶ Arrived ─▶ Queued ─▶ Doubting ─▶ Intending ─▶ Running ─▶ Sharing ──▶ Concluding ─▶ Settling
//!                │ ▲        ▲          may have    durable     calls     Recording    told        confirmed:
//!                ▼ │        │ ours     run         first       under     known to all             acknowledged
//!        Duplicate ┘      Held ⇄ Forwarded                     way,      first
//!        same id in work  another's agent                      Connecting
//!
//!  from                   to
//!  Arrived, Duplicate     Duplicate · Held · Queued · Doubting (its deadline is over)
//!  Held                   Forwarded (the owner lives) · Queued (ours now) · Doubting
//!  Forwarded              Forwarded (handed over again) · Held (came back)
//!  Queued                 Doubting · Connecting · Intending · Running · Held (another's now)
//!  Doubting               Connecting · Intending · Running (nobody has started it)
//!  Intending              Running (all that it waits for has come) · Intending (in another epoch)
//!                         · Doubting (another maker comes first, or the proof is gone) · Held
//!  Running                Intending (the call was held back) · Held
//!  with an outcome        Sharing (of Queued, Doubting, Running, Connecting)
//!                         Recording (of any state before, and of Concluding)
//!  Sharing, Recording     Concluding: whoever was to know knows; no longer than one input
//!  all is said            Settling, of any state: also where the owner has answered, or an answer
//!                         is told again
//! ```
//!
//! A step that is not drawn here is a mistake of this program: the job stays what it is.

use std::sync::Arc;

use crate::api::ids::{BootId, CallId, DeliveryId, JobId};
use crate::jobs::intent::{Intending, Recording};
use crate::jobs::ledger;
use crate::jobs::life::Tag;
use crate::jobs::sharing::Sharing;
use crate::jobs::work::Work;
use crate::model::InstanceId;
use crate::wire::command::ClientCommand;
use crate::wire::message::RawMessage;
use crate::wire::reply::Reply;

/// Where a job came from, and so who is told that it is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An own delivery, to be acknowledged.
    Delivery(DeliveryId),
    /// A peer's delivery that it holds.
    Forwarded { peer: InstanceId, id: u64 },
    /// A delivery whose link is gone: there is nobody to tell.
    Orphan,
}

/// How far a job is.
#[derive(Debug)]
pub(crate) enum State {
    /// Nothing is decided yet.
    Arrived,
    /// Another instance may own the agent; decided when there is evidence.
    Held { since: u64 },
    /// Handed to the owner.
    Forwarded {
        to: InstanceId,
        /// The owner's start: another one knows nothing of it.
        boot: BootId,
        sent_at: u64,
    },
    /// Waits for its turn.
    Queued,
    /// Waits for another job of the same id.
    Duplicate,
    /// May have been started before: waits for what others know, or for the platform's word.
    Doubting {
        since: u64,
        /// The question to the platform.
        asking: Option<CallId>,
    },
    /// Its intent is on its way to the disk and the members.
    Intending(Box<Intending>),
    /// Downstream requests are under way.
    Running(Box<Work>),
    /// Waits for the service's word on a Connect.
    Connecting,
    /// Its agent's session is on its way to the disk and the members.
    Sharing(Box<Sharing>),
    /// Its outcome is on its way to the disk and the members.
    Recording(Box<Recording>),
    /// Whoever was to know its outcome, or its session, knows: the outcome is about to be told.
    Concluding,
    /// Has its outcome; publications are being confirmed.
    Settling,
}

/// What has become known of a job.
#[derive(Debug)]
pub(crate) enum Evidence {
    /// A command of the same id is in work here.
    SameIdInWork,
    /// Another instance owns its agent, or may.
    NotOurs { since: u64 },
    /// The owner lives, and is handed it.
    HandedOver {
        to: InstanceId,
        boot: BootId,
        at: u64,
    },
    /// Whom it was handed to is gone, or has started anew, or does not own the agent.
    CameBack { since: u64 },
    /// Its agent is ours: it waits for its turn.
    Ours,
    /// It may have been started before, or that nobody has is not proven any more.
    MayHaveRun { since: u64 },
    /// It is the turn of a Connect: the service is asked.
    CredentialsAsked,
    /// It is its turn, and its requests need no intent.
    Planned(Box<Work>),
    /// It is its turn, and its intent was made.
    Intended(Box<Intending>),
    /// Its intent was made anew, in another epoch.
    IntendedAnew { epoch: u64, at: u64 },
    /// All that the intent waits for has come.
    IntentHolds,
    /// Its call was held back, and meets all conditions anew.
    HeldBack {
        key: ledger::Key,
        epoch: u64,
        at: u64,
    },
    /// It has an outcome; others are to know its agent's session first.
    SessionMoved(Box<Sharing>),
    /// It has an outcome, which is to be durable first.
    OutcomeMade(Box<Recording>),
    /// Whoever was to know knows.
    Known,
    /// All is said.
    Said,
}

/// What a step brought to light beside the new state.
#[derive(Debug)]
pub(crate) enum Transition {
    /// Nothing.
    Moved,
    /// What was shared.
    Shared(Box<Sharing>),
    /// What was recorded.
    Recorded(Box<Recording>),
}

/// A step that cannot be: a mistake of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) state: &'static str,
    pub(crate) evidence: &'static str,
}

/// One command in work.
#[derive(Debug)]
pub(crate) struct Job {
    pub origin: Origin,
    pub raw: Arc<RawMessage>,
    /// By what it is known.
    pub tag: Arc<Tag>,
    /// Id of its last downstream request, where one was made.
    pub request_id: Option<String>,
    /// `None`: could not be understood.
    pub command: Option<Arc<ClientCommand>>,
    pub key: Option<(ledger::Key, [u8; 8])>,
    /// It may have been delivered before, here or elsewhere.
    pub seen: bool,
    /// The broker has expired it: it is not started, whatever its own deadline says.
    pub expired: bool,
    /// It is proven that nobody has started it.
    pub proven: bool,
    /// What another instance told meanwhile, which carried it out, too.
    pub told: Option<Arc<Reply>>,
    /// Broker that the delivery came from; a forwarded command counts as consumed here.
    pub home: Option<usize>,
    pub received: u64,
    pub started: Option<u64>,
    /// It only reads, and was carried out before.
    pub again: bool,
    state: State,
    pub unconfirmed: u32,
    /// An event of its own went to the address that it asks an answer to.
    pub asker_told: bool,
    /// Jobs of the same id that wait for this one's outcome.
    pub waiters: Vec<JobId>,
}

impl Job {
    /// A message that has just come, at monotonic milliseconds `received`.
    pub(crate) fn arrived(
        origin: Origin,
        raw: Arc<RawMessage>,
        tag: Arc<Tag>,
        command: Option<Arc<ClientCommand>>,
        home: Option<usize>,
        received: u64,
    ) -> Self {
        Self {
            key: command.as_deref().and_then(ledger::key_of),
            seen: command.as_ref().is_some_and(|command| command.maybe_seen),
            origin,
            raw,
            tag,
            request_id: None,
            command,
            expired: false,
            proven: false,
            told: None,
            home,
            received,
            started: None,
            again: false,
            state: State::Arrived,
            unconfirmed: 0,
            asker_told: false,
            waiters: Vec::new(),
        }
    }

    /// Takes what has become known, and with it the next state; see the drawing above. What
    /// cannot follow changes nothing.
    pub(super) fn step(&mut self, evidence: Evidence) -> Result<Transition, Refused> {
        use Evidence as E;
        use State as S;
        if !self.may(&evidence) {
            return Err(Refused {
                state: self.state.word(),
                evidence: evidence.word(),
            });
        }
        // Any state will do for the moment in between.
        let before = std::mem::replace(&mut self.state, S::Settling);
        let mut transition = Transition::Moved;
        self.state = match (evidence, before) {
            (E::SameIdInWork, _) => S::Duplicate,
            (E::NotOurs { since } | E::CameBack { since }, _) => S::Held { since },
            (E::HandedOver { to, boot, at }, _) => S::Forwarded {
                to,
                boot,
                sent_at: at,
            },
            (E::Ours, _) => S::Queued,
            (E::MayHaveRun { since }, _) => S::Doubting {
                since,
                asking: None,
            },
            (E::CredentialsAsked, _) => S::Connecting,
            (E::Planned(work), _) => S::Running(work),
            (E::Intended(own), _) => S::Intending(own),
            (E::IntendedAnew { epoch, at }, S::Intending(own)) => {
                S::Intending(Box::new(Intending::new(own.work, own.key, epoch, at)))
            }
            (E::IntentHolds, S::Intending(own)) => S::Running(own.work),
            (E::HeldBack { key, epoch, at }, S::Running(work)) => {
                let mut own = Intending::new(work, key, epoch, at);
                own.durable = true;
                S::Intending(Box::new(own))
            }
            (E::SessionMoved(own), _) => S::Sharing(own),
            (E::OutcomeMade(own), _) => S::Recording(own),
            (E::Known, S::Sharing(own)) => {
                transition = Transition::Shared(own);
                S::Concluding
            }
            (E::Known, S::Recording(own)) => {
                transition = Transition::Recorded(own);
                S::Concluding
            }
            (E::Said, _) => S::Settling,
            // Not allowed, so not here.
            (E::IntendedAnew { .. } | E::IntentHolds | E::HeldBack { .. } | E::Known, same) => same,
        };
        Ok(transition)
    }

    /// Whether this may become known of a job that is so far: the arrows of the drawing.
    fn may(&self, evidence: &Evidence) -> bool {
        use Evidence as E;
        use State as S;
        let new = matches!(self.state, S::Arrived | S::Duplicate);
        let turn = matches!(self.state, S::Queued | S::Doubting { .. });
        match evidence {
            E::SameIdInWork => new,
            E::NotOurs { .. } => {
                new || matches!(
                    self.state,
                    S::Queued | S::Doubting { .. } | S::Intending(_) | S::Running(_)
                )
            }
            E::HandedOver { .. } => matches!(self.state, S::Held { .. } | S::Forwarded { .. }),
            E::CameBack { .. } => matches!(self.state, S::Forwarded { .. }),
            E::Ours => new || matches!(self.state, S::Held { .. }),
            E::MayHaveRun { .. } => {
                new || matches!(self.state, S::Held { .. } | S::Queued | S::Intending(_))
            }
            E::CredentialsAsked | E::Planned(_) | E::Intended(_) => turn,
            E::IntendedAnew { .. } | E::IntentHolds => matches!(self.state, S::Intending(_)),
            E::HeldBack { .. } => matches!(self.state, S::Running(_)),
            E::SessionMoved(_) => turn || matches!(self.state, S::Running(_) | S::Connecting),
            E::OutcomeMade(_) => !matches!(
                self.state,
                S::Forwarded { .. } | S::Sharing(_) | S::Recording(_) | S::Settling
            ),
            E::Known => matches!(self.state, S::Sharing(_) | S::Recording(_)),
            E::Said => !matches!(self.state, S::Settling),
        }
    }

    // ---- how far it is ------------------------------------------------------------------------

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Whether it waits for evidence, for acknowledgements or for the disk.
    pub(crate) fn waits_for_word(&self) -> bool {
        matches!(
            self.state,
            State::Doubting { .. } | State::Intending(_) | State::Sharing(_) | State::Recording(_)
        )
    }

    /// Whether its outcome is another instance's to find.
    pub(crate) fn waits_elsewhere(&self) -> bool {
        matches!(
            self.state,
            State::Arrived | State::Held { .. } | State::Forwarded { .. }
        )
    }

    /// Whether it was begun here.
    pub(crate) fn begun(&self) -> bool {
        match self.state {
            State::Arrived
            | State::Held { .. }
            | State::Forwarded { .. }
            | State::Queued
            | State::Doubting { .. }
            | State::Intending(_) => false,
            // A refusal: it was never begun.
            State::Recording(_) => self.started.is_some(),
            _ => true,
        }
    }

    /// Whether it waits for its turn or its owner.
    pub(crate) fn waits_unstarted(&self) -> bool {
        matches!(
            self.state,
            State::Arrived | State::Queued | State::Held { .. }
        )
    }

    /// Everything is said and confirmed.
    pub(crate) fn is_settled(&self) -> bool {
        self.unconfirmed == 0 && matches!(self.state, State::Settling)
    }

    /// The call that asks the platform whether it ran.
    pub(crate) fn asking(&self) -> Option<CallId> {
        match self.state {
            State::Doubting { asking, .. } => asking,
            _ => None,
        }
    }

    /// The platform is asked whether it ran.
    pub(crate) fn ask(&mut self, call: CallId) {
        if let State::Doubting { asking, .. } = &mut self.state {
            *asking = Some(call);
        }
    }

    pub(crate) fn work_mut(&mut self) -> Option<&mut Work> {
        match &mut self.state {
            State::Running(work) => Some(work),
            _ => None,
        }
    }

    pub(crate) fn intending_mut(&mut self) -> Option<&mut Intending> {
        match &mut self.state {
            State::Intending(own) => Some(own),
            _ => None,
        }
    }

    pub(crate) fn sharing_mut(&mut self) -> Option<&mut Sharing> {
        match &mut self.state {
            State::Sharing(own) => Some(own),
            _ => None,
        }
    }

    pub(crate) fn recording_mut(&mut self) -> Option<&mut Recording> {
        match &mut self.state {
            State::Recording(own) => Some(own),
            _ => None,
        }
    }
}

impl State {
    /// Its name, for the log.
    fn word(&self) -> &'static str {
        match self {
            Self::Arrived => "arrived",
            Self::Held { .. } => "held",
            Self::Forwarded { .. } => "forwarded",
            Self::Queued => "queued",
            Self::Duplicate => "duplicate",
            Self::Doubting { .. } => "doubting",
            Self::Intending(_) => "intending",
            Self::Running(_) => "running",
            Self::Connecting => "connecting",
            Self::Sharing(_) => "sharing",
            Self::Recording(_) => "recording",
            Self::Concluding => "concluding",
            Self::Settling => "settling",
        }
    }
}

impl Evidence {
    /// Its name, for the log.
    fn word(&self) -> &'static str {
        match self {
            Self::SameIdInWork => "same id in work",
            Self::NotOurs { .. } => "not ours",
            Self::HandedOver { .. } => "handed over",
            Self::CameBack { .. } => "came back",
            Self::Ours => "ours",
            Self::MayHaveRun { .. } => "may have run",
            Self::CredentialsAsked => "credentials asked",
            Self::Planned(_) => "planned",
            Self::Intended(_) => "intended",
            Self::IntendedAnew { .. } => "intended anew",
            Self::IntentHolds => "intent holds",
            Self::HeldBack { .. } => "held back",
            Self::SessionMoved(_) => "session moved",
            Self::OutcomeMade(_) => "outcome made",
            Self::Known => "known",
            Self::Said => "said",
        }
    }
}

#[cfg(test)]
mod tests;
