//! Finds type and arguments in whichever of the forms a message has.

use serde_json::{Map, Value};

use super::{Fault, args};
use crate::catalogue::{Args, CommandSpec};
use crate::wire::message::RawMessage;

/// Deepest nesting of objects and arrays that is read.
const MAX_DEPTH: usize = 32;

/// Where the arguments are.
pub(super) enum Source<'a> {
    /// In the text body beside a `type` property.
    Text(&'a str),
    /// In a JSON body beside a `type` property.
    Object(Map<String, Value>),
    /// In a JSON body that also holds the type.
    Envelope {
        /// `Command#id`.
        kind: String,
        /// `body`: a text or an object.
        body: Value,
    },
}

impl Source<'_> {
    /// The type, where the body holds it.
    pub(super) fn kind(&self) -> Option<&str> {
        match self {
            Self::Envelope { kind, .. } => Some(kind),
            _ => None,
        }
    }

    /// The arguments of a command.
    pub(super) fn args(&self, spec: &CommandSpec) -> Result<Args, Fault> {
        match self {
            Self::Text(text) => args::from_text(spec, text),
            Self::Object(object) => args::from_object(spec, object),
            Self::Envelope { body, .. } => match body {
                Value::Null => args::from_text(spec, ""),
                Value::String(text) => args::from_text(spec, text),
                Value::Object(object) => args::from_object(spec, object),
                _ => Err(Fault::new(
                    "wrong_type",
                    "body must be a text or an object of named arguments",
                )),
            },
        }
    }
}

/// Tells the forms apart.
pub(super) fn open<'a>(raw: &RawMessage, body: &'a str) -> Result<Source<'a>, Fault> {
    let typed = raw
        .kind
        .as_ref()
        .is_some_and(|kind| !kind.trim().is_empty());
    if !typed {
        return envelope(body);
    }
    if !json_typed(raw) {
        return Ok(Source::Text(body));
    }
    if args::is_null(body.trim()) {
        return Ok(Source::Text(""));
    }
    match json(body)? {
        Value::Object(object) => Ok(Source::Object(object)),
        _ => Err(not_an_object()),
    }
}

fn envelope<'a>(body: &str) -> Result<Source<'a>, Fault> {
    if !body.trim_start().starts_with('{') {
        return Err(no_type());
    }
    let Value::Object(mut outer) = json(body)? else {
        return Err(not_an_object());
    };
    let mut object = match outer.remove("data") {
        Some(Value::Object(inner)) if !outer.contains_key("type") => inner,
        _ => outer,
    };
    match object.remove("type") {
        Some(Value::String(kind)) if !kind.trim().is_empty() => Ok(Source::Envelope {
            kind,
            body: object.remove("body").unwrap_or(Value::Null),
        }),
        None | Some(Value::Null | Value::String(_)) => Err(no_type()),
        Some(_) => Err(Fault::new("wrong_type", "type must be a text")),
    }
}

/// Whether `content_type` says JSON; parameters such as a charset do not matter.
fn json_typed(raw: &RawMessage) -> bool {
    raw.content_type.as_deref().is_some_and(|kind| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    })
}

pub(super) fn json(body: &str) -> Result<Value, Fault> {
    if too_deep(body) {
        return Err(Fault::new(
            "json_too_deep",
            "more than 32 levels of objects and arrays",
        ));
    }
    // The parser's own message may quote the body, so only the place is told.
    serde_json::from_str(body).map_err(|error| {
        let place = (error.line(), error.column());
        Fault::new(
            "bad_json",
            format!("not JSON at line {}, column {}", place.0, place.1),
        )
    })
}

/// Counts brackets outside of texts before anything is built from them.
fn too_deep(body: &str) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in body.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn no_type() -> Fault {
    Fault::new("no_type", "the message names no command")
}

fn not_an_object() -> Fault {
    Fault::new("bad_json", "the body is no JSON object")
}
