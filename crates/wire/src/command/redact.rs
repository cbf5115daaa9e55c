//! Bodies as they may be shown: in the dead-letter queue, where operators read them.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Head, read};
use crate::message::{Cut, RawMessage};
use crate::model::text::hex;

#[derive(Serialize)]
struct Redacted {
    redacted: bool,
    length: usize,
    sha256: String,
}

/// The body as it may go to the dead-letter queue: as it is, where it is a command's that carries
/// no credential; else length and hash of the whole. What cannot be parsed may hold anything.
#[must_use]
pub fn redacted_body(raw: &RawMessage) -> Vec<u8> {
    let shown = raw.cut.is_none()
        && read(raw, &mut Head::default())
            .is_ok_and(|(spec, _, _)| !spec.args.iter().any(|arg| arg.secret));
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
