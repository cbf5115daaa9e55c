//! Finds type and arguments in whichever of the forms a message has.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{Fault, args};
use crate::catalogue::{self, Args, CommandSpec};
use crate::message::RawMessage;
use crate::model::json;
use crate::model::text::{trimmed, without_mark};

/// Deepest nesting of objects and arrays that is read.
const MAX_DEPTH: usize = 32;

/// Where the arguments are.
pub(super) enum Source<'a> {
    /// In the text body beside a `type` property.
    Text(Cow<'a, str>),
    /// In a JSON body beside a `type` property, and the same as it was written.
    Object(Map<String, Value>, &'a str),
    /// In a JSON body that also holds the type.
    Envelope {
        /// `Command#id`.
        kind: String,
        /// `body`: a text, a plain value or an object.
        body: Value,
        /// The same as it was written.
        written: &'a str,
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
            Self::Text(text) => from_text(spec, text),
            Self::Object(object, written) => from_object(spec, object, written),
            Self::Envelope { body, written, .. } => match body {
                Value::Null => from_text(spec, ""),
                Value::String(text) => from_text(spec, text),
                Value::Number(_) | Value::Bool(_) => from_text(spec, written),
                Value::Object(object) => from_object(spec, object, written),
                Value::Array(_) => Err(Fault::new(
                    "wrong_type",
                    "body must be a text or an object of named arguments",
                )),
            },
        }
    }
}

/// A text that is a whole JSON object holds named arguments, whatever the message says of it: no
/// list of arguments looks so, and read as one it would make a password of a bracket.
fn from_text(spec: &CommandSpec, text: &str) -> Result<Args, Fault> {
    let text = without_mark(text);
    let object = Some(text).filter(|text| text.trim_start().starts_with('{'));
    match object.map(json) {
        Some(Ok(Value::Object(object))) => from_object(spec, &object, text),
        _ => args::from_text(spec, text),
    }
}

fn from_object(
    spec: &CommandSpec,
    object: &Map<String, Value>,
    written: &str,
) -> Result<Args, Fault> {
    let mut args = args::from_object(spec, object)?;
    keep_as_written(spec, &mut args, written);
    Ok(args)
}

/// Arguments that may be any JSON are kept as they stand in the object they came in: what was read
/// of it has lost digits of its numbers and the order of its names.
fn keep_as_written(spec: &CommandSpec, args: &mut Args, written: &str) {
    let any_json = || spec.args.iter().filter(|arg| arg.json);
    if any_json().next().is_none() {
        return;
    }
    let members = json::members(written).unwrap_or_default();
    for arg in any_json() {
        if let Some(value) = json::member(&members, |name| arg.is_named(name)) {
            args.replace(arg.name, value);
        }
    }
}

/// Tells the forms apart.
pub(super) fn open<'a>(raw: &RawMessage, body: &'a str) -> Result<Source<'a>, Fault> {
    let typed = raw.kind.as_deref().map(trimmed);
    let Some(kind) = typed.filter(|kind| !kind.is_empty()) else {
        return envelope(body);
    };
    if is_a_librarys(kind)
        && let Ok(source) = envelope(body)
        && source.kind().is_some_and(names_command)
    {
        return Ok(source);
    }
    match body.trim_start().chars().next() {
        Some('{' | '[' | '"') if json_typed(raw) => as_json(body),
        _ => Ok(Source::Text(body.into())),
    }
}

/// Whether it may be a word that a client's library puts there (`TextMessage`), and hides no command.
fn is_a_librarys(kind: &str) -> bool {
    !kind.contains('#') && !names_command(kind)
}

/// Whether `Command#id` begins with a command.
fn names_command(kind: &str) -> bool {
    let (name, _) = kind.split_once('#').unwrap_or((kind, ""));
    catalogue::find(trimmed(name)).is_some()
}

/// A body that calls itself JSON and begins as such: an object, or the text in quotes. What begins
/// otherwise is the text that it is: nothing, a number, a word, or a list of arguments of a client
/// that calls everything JSON.
fn as_json(body: &str) -> Result<Source<'_>, Fault> {
    match json(body)? {
        Value::Object(object) => Ok(Source::Object(object, body)),
        Value::String(text) => Ok(Source::Text(text.into())),
        _ => Err(Fault::new(
            "bad_json",
            "the body is a list, and no object of named arguments",
        )),
    }
}

fn envelope(body: &str) -> Result<Source<'_>, Fault> {
    if !body.trim_start().starts_with('{') {
        return Err(no_type());
    }
    let Value::Object(mut outer) = json(body)? else {
        return Err(not_an_object());
    };
    let (mut object, written) = match outer.remove("data") {
        Some(Value::Object(inner)) if !outer.contains_key("type") => (inner, named("data", body)),
        _ => (outer, body),
    };
    match object.remove("type") {
        Some(Value::String(kind)) if !kind.trim().is_empty() => Ok(Source::Envelope {
            kind,
            body: object.remove("body").unwrap_or(Value::Null),
            written: named("body", written),
        }),
        None | Some(Value::Null | Value::String(_)) => Err(no_type()),
        Some(_) => Err(Fault::new("wrong_type", "type must be a text")),
    }
}

/// A member of an object as it was written; empty where there is none.
fn named<'a>(name: &str, object: &'a str) -> &'a str {
    let members = json::members(object).unwrap_or_default();
    json::member(&members, |known| known == name).unwrap_or_default()
}

/// Whether `content_type` says JSON; parameters such as a charset do not matter.
fn json_typed(raw: &RawMessage) -> bool {
    raw.content_type.as_deref().is_some_and(|kind| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    })
}

pub(super) fn json(body: &str) -> Result<Value, Fault> {
    if json::nests_deeper(body, MAX_DEPTH) {
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

fn no_type() -> Fault {
    Fault::new("no_type", "the message names no command")
}

fn not_an_object() -> Fault {
    Fault::new("bad_json", "the body is no JSON object")
}
