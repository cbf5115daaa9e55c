//! The life of a command, step by step: for the log line of its end, and for whoever asks later
//! what happened to it. The engine tells the steps and forgets them; a shell keeps the latest.

use std::sync::Arc;

use crate::model::{CallOutcome, InstanceId, Trace};
use crate::wire::command::{ClientCommand, Malformed};
use crate::wire::message::RawMessage;
use crate::wire::reply::Outcome;

use crate::api::command::LifeCommand;
use crate::api::ids::JobId;
use crate::jobs::ledger;
use crate::peer::{PeerMessage, TraceRow};
use crate::{Engine, Event, limits};

/// By what a command is known. It holds no arguments and so no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tag {
    /// Catalogue name, or what the client wrote, cut.
    pub command: String,
    /// Agent, or client destination.
    pub addressee: String,
    /// The client's `message_id`, or what stands for it.
    pub command_id: Option<String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// The trace that it belongs to.
    pub trace: Option<Arc<Trace>>,
}

impl Tag {
    pub(crate) fn of(
        raw: &RawMessage,
        command: Option<&ClientCommand>,
        malformed: Option<&Malformed>,
    ) -> Self {
        let (name, addressee) = match (command, malformed) {
            (Some(command), _) => (command.spec.name.to_owned(), command.addressee.as_str()),
            (None, Some(malformed)) => (
                malformed.command.clone().unwrap_or_default(),
                malformed.id.as_str(),
            ),
            (None, None) => (String::new(), ""),
        };
        let identity = command.and_then(|command| command.identity.clone());
        Self {
            command: name,
            addressee: addressee.to_owned(),
            command_id: identity.or_else(|| raw.message_id.clone()),
            correlation_id: raw.correlation_id.clone(),
            trace: command.map_or_else(
                || raw.trace.clone().map(Arc::new),
                |command| command.trace.clone(),
            ),
        }
    }

    /// Whether it is known by this id: its own, that of its correlation, or that of its trace.
    #[must_use]
    pub fn is_known_by(&self, id: &str) -> bool {
        let own = [&self.command_id, &self.correlation_id];
        own.iter().any(|known| known.as_deref() == Some(id)) || self.trace_id() == Some(id)
    }

    /// Id of the trace that it belongs to: 32 hexadecimal figures.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.trace.as_ref().map(|trace| trace.id())
    }

    /// Whether anybody can ask for it.
    #[must_use]
    pub fn has_id(&self) -> bool {
        self.command_id.is_some() || self.correlation_id.is_some() || self.trace.is_some()
    }
}

/// One step in the life of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It was consumed.
    Received {
        /// Label of the broker.
        broker: String,
        /// Group whose queue it came through; `expired` is the queue of what the broker expired.
        queue: String,
        /// The broker had delivered it before.
        redelivered: bool,
        /// Another broker passed it on.
        relayed: bool,
    },
    /// A peer that holds its delivery handed it over.
    HandedOver {
        /// Who.
        by: InstanceId,
    },
    /// It waits for its owner to be known.
    Held,
    /// Its owner got it.
    Forwarded {
        /// Who.
        to: InstanceId,
    },
    /// Its owner did not run it.
    GivenBack {
        /// Who.
        by: InstanceId,
    },
    /// Its owner has answered it.
    AnsweredBy {
        /// Who.
        by: InstanceId,
    },
    /// The same command was there already.
    Duplicate {
        /// `running`, `finished`, `other_body`.
        kind: &'static str,
    },
    /// It may have run before: that is looked into.
    Doubted,
    /// That a call may be made is written into the journal, here and at the members.
    Intended {
        /// A known member is lost, and is not asked.
        alone: bool,
    },
    /// A downstream request leaves.
    Calling {
        /// Host.
        node: String,
        /// Its request id.
        request_id: String,
    },
    /// It ended.
    Called {
        /// Host.
        node: String,
        /// HTTP status, where there was an answer.
        status: Option<u16>,
        /// What it meant: `done`, `refused`, `not sent`, `unknown` and the like.
        what: &'static str,
        /// From leaving to its end, milliseconds.
        millis: u64,
    },
    /// It has its outcome.
    Finished {
        /// Which.
        outcome: Outcome,
        /// `error.code`.
        code: Option<String>,
        /// From its delivery on, milliseconds.
        millis: u64,
    },
    /// Its reply left.
    Replied {
        /// For which queue.
        to: String,
    },
    /// It was put into the dead letters.
    DeadLettered {
        /// Bounded label.
        reason: &'static str,
    },
    /// All is confirmed, and its delivery is acknowledged.
    Acknowledged,
    /// All is confirmed, and the peer that holds its delivery knows.
    ToldHolder {
        /// Who.
        to: InstanceId,
    },
    /// The link it came over is gone: its delivery comes again.
    DeliveryLost,
    /// It was given back to its queue.
    Requeued,
    /// In doubt before, its outcome is known.
    Resolved {
        /// Which.
        outcome: Outcome,
    },
}

impl Stage {
    /// A bounded word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Received { .. } => "received",
            Self::HandedOver { .. } => "handed-over",
            Self::Held => "held",
            Self::Forwarded { .. } => "forwarded",
            Self::GivenBack { .. } => "given-back",
            Self::AnsweredBy { .. } => "answered-by-owner",
            Self::Duplicate { .. } => "duplicate",
            Self::Doubted => "doubted",
            Self::Intended { .. } => "intent",
            Self::Calling { .. } => "calling",
            Self::Called { .. } => "called",
            Self::Finished { .. } => "finished",
            Self::Replied { .. } => "reply",
            Self::DeadLettered { .. } => "dead-lettered",
            Self::Acknowledged => "acknowledged",
            Self::ToldHolder { .. } => "told-holder",
            Self::DeliveryLost => "delivery-lost",
            Self::Requeued => "requeued",
            Self::Resolved { .. } => "resolved",
        }
    }

    /// The rest, for people; without secrets.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Received {
                broker,
                queue,
                redelivered,
                relayed,
            } => {
                let again = if *redelivered { ", redelivered" } else { "" };
                let far = if *relayed { ", over federation" } else { "" };
                format!("broker {broker}, queue of {queue}{again}{far}")
            }
            Self::HandedOver { by } => format!("by {by}, which holds the delivery"),
            Self::Held => "until it is known whose agent it is".to_owned(),
            Self::Forwarded { to } => format!("to its owner {to}"),
            Self::GivenBack { by } => format!("{by} did not run it"),
            Self::AnsweredBy { by } => by.to_string(),
            Self::Duplicate { kind } => (*kind).to_owned(),
            Self::Doubted => "it may have run before".to_owned(),
            Self::Intended { alone: true } => "journal, without a member that is lost".to_owned(),
            Self::Intended { alone: false } => "journal".to_owned(),
            Self::Calling { node, request_id } => format!("{node}, request id {request_id}"),
            Self::Called {
                node,
                status,
                what,
                millis,
            } => {
                let status = status.map(|status| format!(" {status}"));
                let status = status.unwrap_or_default();
                format!("{node}: {what}{status}, {millis} ms")
            }
            Self::Finished {
                outcome,
                code,
                millis,
            } => {
                // Where the code only repeats the outcome it says nothing.
                let code = code.as_deref().filter(|code| *code != outcome.as_str());
                let code = code.map(|code| format!(" {code}")).unwrap_or_default();
                format!("{outcome}{code}, {millis} ms")
            }
            Self::Replied { to } => format!("to {to}"),
            Self::DeadLettered { reason } => (*reason).to_owned(),
            Self::Acknowledged | Self::Requeued => String::new(),
            Self::ToldHolder { to } => to.to_string(),
            Self::DeliveryLost => "its link is gone, it comes again".to_owned(),
            Self::Resolved { outcome } => outcome.to_string(),
        }
    }

    pub(crate) fn called(node: String, outcome: &CallOutcome, millis: u64) -> Self {
        let (status, what) = match outcome {
            CallOutcome::Done { status, .. } => (Some(*status), "done"),
            CallOutcome::Refused { status, .. } => (Some(*status), "refused"),
            CallOutcome::NotSent { .. } => (None, "not sent"),
            CallOutcome::NoRoom(_) => (None, "no room on this machine"),
            CallOutcome::Withheld => (None, "withheld"),
            CallOutcome::OutOfService { .. } => (None, "out of service"),
            CallOutcome::Unknown { status, .. } => (*status, "no answer that tells"),
            CallOutcome::Unsettled { status, .. } => (Some(*status), "no answer that tells"),
        };
        Self::Called {
            node,
            status,
            what,
            millis,
        }
    }
}

/// A stage, by its word and detail, as it is told to whoever asks.
#[must_use]
pub fn row(at: u64, instance: &str, tag: &Tag, (word, detail): (&str, &str)) -> TraceRow {
    TraceRow {
        at: Some(at),
        instance: instance.to_owned(),
        command: tag.command.clone(),
        addressee: tag.addressee.clone(),
        command_id: tag.command_id.clone(),
        correlation_id: tag.correlation_id.clone(),
        trace_id: tag.trace_id().map(str::to_owned),
        stage: word.to_owned(),
        detail: detail.to_owned(),
    }
}

impl Engine {
    /// Tells a step of a job's command.
    pub(crate) fn stage(&mut self, id: JobId, stage: Stage) {
        if let Some(job) = self.jobs.get(id) {
            self.tell_stage(job.tag.clone(), stage);
        }
    }

    /// Tells a step of a command.
    pub(crate) fn tell_stage(&mut self, tag: Arc<Tag>, stage: Stage) {
        if tag.has_id() {
            self.out.tell(Event::Stage { tag, stage });
        }
    }

    /// Somebody wants to know what happened to a command: all members are asked.
    pub(crate) fn on_trace_wanted(&mut self, number: u64, id: &str) {
        let members: Vec<InstanceId> = self.members.present().map(|(id, _)| id.clone()).collect();
        for member in &members {
            let message = PeerMessage::TraceAsk {
                number,
                id: id.to_owned(),
            };
            self.say(Some(member), message);
        }
        let journal = self.journaled_rows(id);
        self.out.push(LifeCommand::TellTrace {
            to: None,
            number,
            id: id.to_owned(),
            journal,
        });
        self.out.push(LifeCommand::TraceAsked { number, members });
    }

    /// A member wants to know it.
    pub(crate) fn on_trace_ask(&mut self, from: &InstanceId, number: u64, id: String) {
        if id.len() > limits::TRACE_ID {
            return;
        }
        let journal = self.journaled_rows(&id);
        self.out.push(LifeCommand::TellTrace {
            to: Some(from.clone()),
            number,
            id,
            journal,
        });
    }

    /// What the journal holds of a command. It keeps digests only: of each record it is looked
    /// whether the id makes them.
    fn journaled_rows(&self, id: &str) -> Vec<TraceRow> {
        let row = |at, instance: &InstanceId, command: &str, addressee: &str| TraceRow {
            at,
            instance: instance.to_string(),
            command: command.to_owned(),
            addressee: addressee.to_owned(),
            command_id: Some(id.to_owned()),
            correlation_id: None,
            trace_id: None,
            stage: String::new(),
            detail: String::new(),
        };
        let mut rows = Vec::new();
        for (key, entry) in self.book.iter() {
            if let Some(intent) = &entry.intent
                && ledger::digest(intent.agent.as_str(), &intent.command, id) == *key
            {
                rows.push(TraceRow {
                    stage: "journal-intent".to_owned(),
                    detail: format!(
                        "in the journal of {}: {} may make the call{}",
                        self.cfg.instance,
                        intent.by,
                        if intent.alone { ", alone" } else { "" }
                    ),
                    ..row(
                        Some(intent.at),
                        &intent.by,
                        &intent.command,
                        intent.agent.as_str(),
                    )
                });
            }
            if let Some(outcome) = &entry.outcome
                && ledger::digest(&outcome.reply.id, &outcome.reply.command, id) == *key
            {
                let reply = &outcome.reply;
                let by = InstanceId::new(&reply.instance);
                let by = by.unwrap_or_else(|_| self.cfg.instance.clone());
                let code = reply.error.as_ref().map(|error| error.code.as_str());
                let code = code.filter(|code| *code != reply.outcome.as_str());
                let code = code.map(|code| format!(" {code}"));
                rows.push(TraceRow {
                    stage: "journal-outcome".to_owned(),
                    detail: format!(
                        "in the journal of {}: {}{}",
                        self.cfg.instance,
                        reply.outcome,
                        code.unwrap_or_default()
                    ),
                    ..row(None, &by, &reply.command, &reply.id)
                });
            }
        }
        rows.truncate(limits::TRACE_ROWS);
        rows
    }
}
