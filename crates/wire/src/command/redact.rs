//! Bodies as they may be shown: in the dead-letter queue, where operators read them.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Head, MAX_BODY, Parts, read_body, read_head, text};
use crate::catalogue::Step;
use crate::http_call;
use crate::message::{Cut, RawMessage};
use crate::model::text::hex;

#[derive(Serialize)]
struct Redacted {
    redacted: bool,
    length: usize,
    sha256: String,
}

/// What the message would do, whatever else is wrong with it: properties that cannot be read, or a
/// way that no link can carry, say nothing of its body.
fn understood(raw: &RawMessage, head: &mut Head) -> Option<Parts> {
    if raw.cut.is_some() || raw.body.len() > MAX_BODY {
        return None;
    }
    if let Some(kind) = text(raw.kind.as_ref()) {
        read_head(&kind, head);
    }
    read_body(raw, head).ok()
}

/// Whether no argument can be a credential: none of a password, no header that carries one.
fn is_harmless((spec, _, args): &Parts) -> bool {
    let secret = spec.args.iter().any(|arg| arg.secret);
    let sends = matches!(spec.step, Step::Http);
    !secret && (!sends || http_call::parse(args).is_ok())
}

/// `Command#agent` of a message whose type stands in its body, where it names a command that there
/// is; `None` where the `type` property says it.
#[must_use]
pub fn named_command(raw: &RawMessage) -> Option<String> {
    if raw.cut.is_some() || raw.body.len() > MAX_BODY {
        return None;
    }
    let mut typed = Head::default();
    if let Some(kind) = text(raw.kind.as_ref()) {
        read_head(&kind, &mut typed);
    }
    let mut head = Head::default();
    // What is wrong with its arguments does not matter here.
    let _ = read_body(raw, &mut head);
    let spec = head.spec.filter(|_| typed.spec.is_none())?;
    Some(format!("{}#{}", spec.name, head.id))
}

/// The body as it may go to the dead-letter queue: as it is, where it is a command's that carries
/// no credential; else length and hash of the whole. What cannot be parsed may hold anything.
#[must_use]
pub fn redacted_body(raw: &RawMessage) -> Vec<u8> {
    let parts = understood(raw, &mut Head::default());
    let shown = parts.is_some_and(|parts| is_harmless(&parts));
    if shown {
        return raw.body.to_vec();
    }
    let whole = raw.cut.unwrap_or_else(|| Cut {
        length: raw.body.len(),
        sha256: Sha256::digest(&raw.body).into(),
    });
    let redacted = Redacted {
        redacted: true,
        length: whole.length,
        sha256: hex(&whole.sha256),
    };
    // Cannot fail: the fields are a flag, a number and a text.
    serde_json::to_vec(&redacted).unwrap_or_default()
}
