//! Arguments of a command: comma-separated text, or named values.

use serde_json::{Map, Value};

use super::Fault;
use crate::catalogue::{ArgSpec, Args, CommandSpec, ErrorCode};

/// Reads the text form (connector reference, section 1.1).
pub(super) fn from_text(spec: &CommandSpec, body: &str) -> Result<Args, Fault> {
    // Arguments that may be any JSON have no text form: the text is the object.
    if spec.args.iter().any(|arg| arg.json) {
        return match super::envelope::json(body)? {
            Value::Object(object) => from_object(spec, &object),
            _ => Err(Fault::new("bad_json", "the body is no JSON object")),
        };
    }
    let mut args = Args::default();
    let mut rest = Some(without_surplus_commas(spec, body.trim())).filter(|body| !is_null(body));
    for (index, arg) in spec.args.iter().enumerate() {
        let part = match rest.take() {
            Some(text) if arg.rest => {
                let (part, more) = leave(text, behind(&spec.args[index + 1..], text));
                rest = more;
                part
            }
            Some(text) => match text.split_once(',') {
                Some((part, more)) => {
                    rest = Some(more);
                    part
                }
                None => text,
            },
            None => "",
        };
        push(&mut args, arg, literal(part))?;
    }
    match rest {
        // A comma behind the last argument gives no further one.
        Some(more) if !more.trim().is_empty() => Err(surplus()),
        _ => Ok(args),
    }
}

/// A comma behind the last argument gives no further one, also where another argument takes those
/// that are too many.
fn without_surplus_commas<'a>(spec: &CommandSpec, mut body: &'a str) -> &'a str {
    let takes_commas = spec.args.iter().rposition(|arg| arg.rest);
    if takes_commas.is_none_or(|at| at + 1 == spec.args.len()) {
        return body;
    }
    while body.matches(',').count() >= spec.args.len()
        && let Some(shorter) = body.strip_suffix(',')
    {
        body = shorter.trim_end();
    }
    body
}

/// How many arguments follow one that takes what these leave of a text.
fn behind(following: &[ArgSpec], text: &str) -> usize {
    let last = text.rsplit_once(',').map_or("", |(_, last)| literal(last));
    let absent = following
        .last()
        .and_then(|arg| arg.only)
        .is_some_and(|word| !last.is_empty() && !last.eq_ignore_ascii_case(word));
    following.len() - usize::from(absent)
}

/// Splits off as many arguments from the end as follow one that may have commas itself.
fn leave(text: &str, behind: usize) -> (&str, Option<&str>) {
    let mut at = text.len();
    for _ in 0..behind {
        match text[..at].rfind(',') {
            Some(comma) => at = comma,
            None => break,
        }
    }
    match text.get(at + 1..) {
        Some(more) if at < text.len() => (&text[..at], Some(more)),
        _ => (text, None),
    }
}

/// Reads the object form. Values are taken as they are: no blanks or brackets are stripped.
pub(super) fn from_object(spec: &CommandSpec, object: &Map<String, Value>) -> Result<Args, Fault> {
    let known = |name: &str| spec.args.iter().any(|arg| arg.is_named(name));
    if object.keys().any(|name| !known(name)) {
        return Err(surplus());
    }
    let mut args = Args::default();
    for arg in spec.args {
        let mut given = object.iter().filter(|(name, _)| arg.is_named(name));
        let value = given.next().map(|(_, value)| value);
        if given.next().is_some() {
            return Err(surplus());
        }
        match value {
            None | Some(Value::Null) => push(&mut args, arg, "")?,
            Some(value @ Value::String(_)) if arg.json => {
                push(&mut args, arg, &value.to_string())?;
            }
            Some(Value::String(text)) => push(&mut args, arg, text)?,
            // A fraction or an exponent would not survive the way back to text.
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => {
                push(&mut args, arg, &number.to_string())?;
            }
            Some(value) if arg.json => push(&mut args, arg, &value.to_string())?,
            Some(Value::Bool(word)) => push(&mut args, arg, &word.to_string())?,
            Some(_) => {
                return Err(Fault::new(
                    "wrong_type",
                    format!(
                        "argument {} must be a text, a whole number, true or false",
                        arg.name
                    ),
                ));
            }
        }
    }
    Ok(args)
}

/// The word that some clients send for an empty body.
pub(super) fn is_null(body: &str) -> bool {
    body.is_empty() || body.eq_ignore_ascii_case("null")
}

fn push(args: &mut Args, arg: &ArgSpec, value: &str) -> Result<(), Fault> {
    if !value.chars().all(in_xml) {
        return Err(Fault::new(
            "bad_character",
            format!("argument {} has a control character", arg.name),
        ));
    }
    match (value.trim().is_empty(), arg.missing) {
        (false, _) => {
            args.push(arg.name, value);
            Ok(())
        }
        (true, None) => Ok(()),
        (true, Some(code)) => Err(Fault {
            reason: "missing_argument",
            code,
            detail: format!("argument {} is missing", arg.name),
        }),
    }
}

/// Whether XML 1.0 can carry a character: the downstream's requests are XML.
fn in_xml(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        _ => c >= ' ',
    }
}

/// Without outer blanks and one pair of `<` `>`, which clients copy from the documentation.
fn literal(part: &str) -> &str {
    let part = part.trim();
    part.strip_prefix('<')
        .and_then(|part| part.strip_suffix('>'))
        .map_or(part, str::trim)
}

fn surplus() -> Fault {
    Fault {
        reason: "surplus_arguments",
        code: ErrorCode::PleaseRetry,
        detail: "more or other arguments than the command has".to_owned(),
    }
}
