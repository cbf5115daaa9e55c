//! Commands from clients: from a broker message to something the engine can carry out.
//!
//! Three forms are understood (contract, section 4.1): `type` with comma-separated text, `type`
//! with a JSON object of named arguments, and a JSON envelope that carries the type in the body.

mod args;
mod envelope;
mod redact;

pub use redact::{named_command, redacted_body};

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::http_call;
use super::message::RawMessage;
use crate::catalogue::{self, Addressee, Args, CommandSpec, ErrorCode, Repeat, Step};
use crate::model::text::{is_utf16, trimmed, without_mark};
use crate::model::{AgentId, Cause, Destination, IdError, Trace, json};

/// Largest body that is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// How far in the future a deadline may lie, in milliseconds: it bounds how long a command id
/// must be remembered.
pub const MAX_DEADLINE_AHEAD_MS: u64 = 24 * 60 * 60 * 1000;

/// A `timestamp` of whole seconds may have lost so much, which is given back.
const TIMESTAMP_ROUNDING_MS: u64 = 1000;

/// Reason of a message whose properties cannot all be read (label and header `x-reason`).
pub const UNREADABLE: &str = "unreadable_properties";

/// Reason of a command whose `reply_to` is none that may be answered.
pub const REPLY_TO_FORBIDDEN: &str = "reply_to_forbidden";

/// Longest echo of a client's own text in an answer, in characters.
const MAX_ECHO: usize = 200;

/// What of the configuration bears on reading a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// `command.max-age`, milliseconds.
    pub max_age_ms: u64,
    /// `cluster.name`: no reply may go to an object whose name begins with it and a dot.
    pub cluster_name: String,
    /// Command queues of all groups: no reply may go there.
    pub command_queues: Vec<String>,
    /// `trace.generate`: a command without a trace gets one.
    pub generate_traces: bool,
}

/// Whom a command is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Addressed {
    /// An agent; of a generic HTTP command, its key.
    Agent(AgentId),
    /// A client.
    Destination(Destination),
}

impl Addressed {
    /// The text behind `#`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Agent(id) => id.as_str(),
            Self::Destination(id) => id.as_str(),
        }
    }
}

/// Where a reply goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReplyTo {
    /// A queue of this name.
    Queue(String),
    /// `amq.rabbitmq.reply-to.*`: only on the broker where the command was published, and never
    /// on a connection that must live (a forged one closes the publishing connection).
    Direct(String),
}

impl ReplyTo {
    /// The routing key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Queue(name) | Self::Direct(name) => name,
        }
    }
}

/// A command that was understood.
#[derive(Debug, Clone)]
pub struct ClientCommand {
    /// Row of the catalogue.
    pub spec: &'static CommandSpec,
    /// Whom it is for.
    pub addressee: Addressed,
    /// Arguments by name.
    pub args: Args,
    /// Repeat safety; that of a `Call` depends on its method.
    pub repeat: Repeat,
    /// Command id for duplicate detection, where the client gave one.
    pub identity: Option<String>,
    /// SHA-256 over command, addressee and arguments: tells a repeat from another command under
    /// the same id, whichever of the forms each was written in.
    pub body_hash: [u8; 32],
    /// Echoed on all that this command causes.
    pub correlation_id: Option<String>,
    /// The trace that it belongs to: goes with all that it causes.
    pub trace: Option<Arc<Trace>>,
    /// Where the reply goes.
    pub reply_to: Option<ReplyTo>,
    /// Not started after this, milliseconds since the epoch.
    pub deadline_ms: u64,
    /// A connector may have seen it before.
    pub maybe_seen: bool,
    /// It came over a federation link.
    pub relayed: bool,
    /// Index of the group whose queue it came through; set by the engine.
    pub group: usize,
}

impl ClientCommand {
    /// What goes with all that it causes.
    #[must_use]
    pub fn cause(&self) -> Cause {
        Cause {
            correlation_id: self.correlation_id.clone(),
            trace: self.trace.clone(),
        }
    }
}

/// A message that is no command, with all that is known for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// One of a fixed set of words: metric label and header `x-reason`.
    pub reason: &'static str,
    /// For a person; never holds an argument's value.
    pub detail: String,
    /// Addressed agent, where that much was readable.
    pub agent: Option<AgentId>,
    /// Addressed destination, where that much was readable.
    pub destination: Option<Destination>,
    /// Command name: the catalogue's spelling, or the client's text cut to 200 characters.
    pub command: Option<String>,
    /// Text behind `#`, cut to 200 characters; empty where there was none.
    pub id: String,
    /// Where a reply can go; `None` also where the one given is forbidden.
    pub reply_to: Option<ReplyTo>,
    /// Echoed on the answer.
    pub correlation_id: Option<String>,
    /// Goes with the answer.
    pub trace: Option<Arc<Trace>>,
    /// Code for the client.
    pub code: ErrorCode,
    /// Command id, where the client gave one.
    pub identity: Option<String>,
}

impl Malformed {
    /// What goes with its answer.
    #[must_use]
    pub fn cause(&self) -> Cause {
        Cause {
            correlation_id: self.correlation_id.clone(),
            trace: self.trace.clone(),
        }
    }
}

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    reason: &'static str,
    code: ErrorCode,
    detail: String,
}

impl Fault {
    fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            reason,
            code: ErrorCode::PleaseRetry,
            detail: detail.into(),
        }
    }
}

/// As much of a command's head as could be read before a fault.
#[derive(Debug, Default)]
struct Head {
    spec: Option<&'static CommandSpec>,
    command: Option<String>,
    id: String,
    agent: Option<AgentId>,
    destination: Option<Destination>,
    /// What the id should be, where it is not.
    rule: Option<IdError>,
}

/// Reads a command.
///
/// `received_at_ms` is wall-clock time, milliseconds since the epoch; the deadline counts from it
/// where the message says no time of its own.
///
/// # Errors
/// [`Malformed`] where the message cannot be understood or must not be answered as it asks.
pub fn parse(
    raw: &RawMessage,
    defaults: &Defaults,
    received_at_ms: u64,
) -> Result<ClientCommand, Box<Malformed>> {
    let (reply_to, reply_fault) = match reply_to(raw, defaults) {
        Ok(reply_to) => (reply_to, None),
        Err(fault) => (None, Some(fault)),
    };
    let mut head = Head::default();
    let read = read_padded(raw, &mut head).and_then(|parts| reply_fault.map_or(Ok(parts), Err));
    let correlation_id = text(raw.correlation_id.as_ref());
    match read {
        Ok((spec, addressee, args)) => Ok(ClientCommand {
            repeat: repeat(spec, &args),
            body_hash: body_hash(spec, &addressee, &args),
            trace: trace(raw, defaults, (spec, &addressee), received_at_ms),
            spec,
            addressee,
            args,
            identity: identity(raw),
            correlation_id,
            reply_to,
            deadline_ms: deadline_ms(raw, defaults.max_age_ms, received_at_ms),
            maybe_seen: raw.maybe_seen(),
            relayed: raw.relayed,
            group: 0,
        }),
        Err(fault) => Err(Box::new(Malformed {
            reason: fault.reason,
            detail: fault.detail,
            agent: head.agent,
            destination: head.destination,
            command: head.command,
            id: head.id,
            reply_to,
            correlation_id,
            trace: raw.trace.clone().map(Arc::new),
            code: fault.code,
            identity: identity(raw),
        })),
    }
}

fn repeat(spec: &CommandSpec, args: &Args) -> Repeat {
    match spec.step {
        Step::Http if http_call::parse(args).is_ok_and(|call| call.idempotent) => Repeat::Safe,
        _ => spec.repeat,
    }
}

type Parts = (&'static CommandSpec, Addressed, Args);

/// As [`read`], but of what takes no arguments and only asks how the system is, no body is an
/// error: some clients pad it.
fn read_padded(raw: &RawMessage, head: &mut Head) -> Result<Parts, Fault> {
    read(raw, head).or_else(|fault| {
        let asks = head
            .spec
            .is_some_and(|spec| matches!(spec.step, Step::Hello | Step::Beat));
        // Those say something of the message itself.
        if !asks || matches!(fault.reason, UNREADABLE | "oversized" | "federation_loop") {
            return Err(fault);
        }
        let (spec, addressee) = resolve(head)?;
        Ok((spec, addressee, Args::default()))
    })
}

/// Reads command, addressee and arguments; `head` keeps what was readable where it fails.
fn read(raw: &RawMessage, head: &mut Head) -> Result<Parts, Fault> {
    if let Some(kind) = text(raw.kind.as_ref()) {
        read_head(&kind, head);
    }
    if let Some(unreadable) = &raw.unreadable {
        return Err(Fault::new(UNREADABLE, unreadable.detail.clone()));
    }
    if raw.body.len() > MAX_BODY {
        return Err(Fault::new("oversized", "the body is larger than 64 KiB"));
    }
    if raw.looped {
        return Err(Fault::new(
            "federation_loop",
            "two hops of the message's way are the same: no federation link can carry it",
        ));
    }
    read_body(raw, head)
}

/// [`read`] of a message with which nothing is wrong but, perhaps, what its body says; its type
/// property is in the head.
fn read_body(raw: &RawMessage, head: &mut Head) -> Result<Parts, Fault> {
    let source = envelope::open(raw, body_text(&raw.body)?)?;
    if let Some(kind) = source.kind() {
        read_head(kind, head);
    }
    let (spec, addressee) = resolve(head)?;
    let args = source.args(spec)?;
    check_destination(&args)?;
    Ok((spec, addressee, args))
}

/// The body without a byte order mark. Of other encodings only so much is known that the answer
/// can say it; a `charset` of the content type is not looked at.
fn body_text(body: &[u8]) -> Result<&str, Fault> {
    let wrong = |detail: &str| Fault::new("not_utf8", detail);
    if is_utf16(body) {
        return Err(wrong("the body is UTF-16; send it as UTF-8"));
    }
    let text = std::str::from_utf8(body).map_err(|_| wrong("the body is not UTF-8"))?;
    Ok(without_mark(text))
}

/// `Connect` names a destination among its arguments, which must be one.
fn check_destination(args: &Args) -> Result<(), Fault> {
    match args.get("destination") {
        Some(name) if Destination::new(name).is_err() => Err(Fault::new(
            "bad_destination",
            "argument destination is no destination",
        )),
        _ => Ok(()),
    }
}

/// Reads `Command#id`: blanks and byte order marks around both parts and further leading `#` do
/// not count.
fn read_head(kind: &str, head: &mut Head) {
    let (name, id) = kind.split_once('#').unwrap_or((kind, ""));
    let name = trimmed(name);
    let id = trimmed(id.trim_start_matches(|c: char| c == '#' || c.is_whitespace()));
    head.spec = catalogue::find(name);
    head.command = match head.spec {
        Some(spec) => Some(spec.name.to_owned()),
        None => Some(cut(name)).filter(|name| !name.is_empty()),
    };
    head.id = cut(id);
    (head.agent, head.destination, head.rule) = (None, None, None);
    let agent = match head.spec {
        Some(spec) if spec.addressee == Addressee::Destination => {
            match Destination::new(id) {
                Ok(destination) => head.destination = Some(destination),
                Err(rule) => head.rule = Some(rule),
            }
            return;
        }
        Some(spec) if matches!(spec.step, Step::Http) => AgentId::key(id),
        // An unknown command may be for either; an agent is told where it is known at all.
        _ => AgentId::new(id),
    };
    match agent {
        Ok(agent) => head.agent = Some(agent),
        Err(rule) => head.rule = Some(rule),
    }
}

fn resolve(head: &Head) -> Result<(&'static CommandSpec, Addressed), Fault> {
    let spec = match (&head.command, head.spec) {
        (_, Some(spec)) => spec,
        (Some(_), None) => return Err(Fault::new("unknown_command", "no such command")),
        (None, None) => return Err(Fault::new("no_type", "the message names no command")),
    };
    let addressee = match spec.addressee {
        Addressee::Agent => head.agent.clone().map(Addressed::Agent),
        Addressee::Destination => head.destination.clone().map(Addressed::Destination),
    };
    addressee.map(|addressee| (spec, addressee)).ok_or_else(|| {
        let rule = head.rule.as_ref();
        Fault::new("bad_id", rule.map_or_else(String::new, ToString::to_string))
    })
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_ECHO).collect()
}

fn text(value: Option<&String>) -> Option<String> {
    value.filter(|text| !trimmed(text).is_empty()).cloned()
}

/// `message_id`; `correlation_id` only beside `x-attempt`, because clients reuse it.
fn identity(raw: &RawMessage) -> Option<String> {
    text(raw.message_id.as_ref())
        .or_else(|| raw.attempt.and_then(|_| text(raw.correlation_id.as_ref())))
}

/// Deadline rules of the contract, section 4.1, in milliseconds since the epoch. An `expiration`
/// without `timestamp` counts from the receipt, where it is stricter than the default.
fn deadline_ms(raw: &RawMessage, max_age_ms: u64, received_at_ms: u64) -> u64 {
    let deadline = match (raw.deadline, raw.sent_ms(received_at_ms)) {
        (Some(at), _) => u64::try_from(at).unwrap_or(0),
        (None, Some(sent)) => {
            let lost = if raw.in_seconds() {
                TIMESTAMP_ROUNDING_MS
            } else {
                0
            };
            sent.saturating_add(lost)
                .saturating_add(raw.expiration.unwrap_or(max_age_ms))
        }
        (None, None) => {
            let age = raw.expiration.map_or(max_age_ms, |ms| ms.min(max_age_ms));
            received_at_ms.saturating_add(age)
        }
    };
    deadline.min(received_at_ms.saturating_add(MAX_DEADLINE_AHEAD_MS))
}

/// The trace that a command came with, or a new one. It follows from the command's id, so that a
/// copy of it belongs to the same trace, whichever instance receives it.
fn trace(
    raw: &RawMessage,
    defaults: &Defaults,
    (spec, addressee): (&CommandSpec, &Addressed),
    received_at_ms: u64,
) -> Option<Arc<Trace>> {
    if raw.trace.is_some() || !defaults.generate_traces {
        return raw.trace.clone().map(Arc::new);
    }
    let id = identity(raw).unwrap_or_else(|| {
        let correlation = raw.correlation_id.as_deref().unwrap_or_default();
        format!("{received_at_ms} {correlation}")
    });
    let mut hash = Sha256::new();
    for part in ["trace", spec.name, addressee.as_str(), &id] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let mut seed = [0; 24];
    seed.copy_from_slice(&digest[..24]);
    Some(Arc::new(Trace::from_seed(&seed)))
}

fn body_hash(spec: &CommandSpec, addressee: &Addressed, args: &Args) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        // Length first, so that no two lists of texts run together alike.
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    part(spec.name);
    part(addressee.as_str());
    for arg in spec.args {
        match args.get(arg.name) {
            Some(value) if arg.json => part(&json::canonical(value)),
            value => part(value.unwrap_or_default()),
        }
    }
    hash.finalize().into()
}

const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// Checks `reply_to` (contract, section 4.3).
fn reply_to(raw: &RawMessage, defaults: &Defaults) -> Result<Option<ReplyTo>, Fault> {
    let Some(name) = text(raw.reply_to.as_ref()) else {
        return Ok(None);
    };
    let forbidden = |detail: &str| Err(Fault::new(REPLY_TO_FORBIDDEN, detail));
    if name.len() > 255 || name.chars().any(char::is_control) {
        return forbidden("reply_to is no queue name");
    }
    if let Some(rest) = name.strip_prefix(DIRECT_REPLY) {
        let token = rest
            .strip_prefix('.')
            .is_some_and(|token| !token.is_empty());
        return match (token, raw.relayed) {
            (true, false) => Ok(Some(ReplyTo::Direct(name))),
            (true, true) => forbidden("direct reply-to does not work over federation"),
            (false, _) => forbidden("direct reply-to without a token"),
        };
    }
    let own = name
        .strip_prefix(defaults.cluster_name.as_str())
        .is_some_and(|rest| rest.starts_with('.'))
        && !defaults.cluster_name.is_empty();
    if own || defaults.command_queues.contains(&name) {
        return forbidden("reply_to names an object of the connector");
    }
    Ok(Some(ReplyTo::Queue(name)))
}

#[cfg(test)]
mod tests;
