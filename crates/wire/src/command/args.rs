//! Arguments of a command: comma-separated text, or named values.

use std::borrow::Cow;

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
    let joined;
    let object = match spec.args.iter().find(|arg| arg.pairs) {
        Some(arg) => {
            joined = with_pairs_as_text(arg, object)?;
            &joined
        }
        None => object,
    };
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
            Some(value) if arg.json => push(&mut args, arg, &value.to_string())?,
            Some(value) => push(&mut args, arg, &scalar(arg.name, value)?)?,
        }
    }
    Ok(args)
}

/// A value as the text form has it.
fn scalar<'a>(name: &str, value: &'a Value) -> Result<Cow<'a, str>, Fault> {
    match value {
        Value::String(text) => Ok(text.into()),
        // A fraction or an exponent would not survive the way back to text.
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            Ok(number.to_string().into())
        }
        Value::Bool(word) => Ok(word.to_string().into()),
        _ => Err(Fault::new(
            "wrong_type",
            format!("argument {name} must be a text, a whole number, true or false"),
        )),
    }
}

/// The older form's arguments.
const NAME: ArgSpec = ArgSpec::optional("name");
const VALUE: ArgSpec = ArgSpec::optional("value");

/// The object with its names and values as the text `name=value|name=value…`, or for a single
/// pair `name,value`, in which the value may have any character.
fn with_pairs_as_text(
    arg: &ArgSpec,
    object: &Map<String, Value>,
) -> Result<Map<String, Value>, Fault> {
    let mut object = object.clone();
    if let Some((_, value)) = object.iter_mut().find(|(key, _)| arg.is_named(key)) {
        if let Value::Object(pairs) = value {
            *value = Value::String(pairs_as_text(arg, pairs)?);
        }
        return Ok(object);
    }
    let mut take = |part: &ArgSpec| {
        let key = object.keys().find(|key| part.is_named(key)).cloned();
        key.and_then(|key| object.remove(&key))
    };
    // What is left of them (a pair beside the other form, a name twice) is surplus.
    match (take(&NAME), take(&VALUE)) {
        (None, None) => {}
        (Some(name), Some(value)) if !name.is_null() => {
            let name = scalar("name", &name)?.into_owned();
            let pairs = Map::from_iter([(name, value)]);
            object.insert(arg.name.to_owned(), pairs_as_text(arg, &pairs)?.into());
        }
        _ => return Err(incomplete(arg, "a call variable needs a name and a value")),
    }
    Ok(object)
}

fn pairs_as_text(arg: &ArgSpec, pairs: &Map<String, Value>) -> Result<String, Fault> {
    let mut texts = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        if name.trim().is_empty() || value.is_null() {
            return Err(incomplete(arg, "a call variable needs a name and a value"));
        }
        let value = scalar("value", value)?;
        // What separates pairs would be read as another pair.
        if name.contains([',', '=', '|']) || (pairs.len() > 1 && value.contains('|')) {
            return Err(Fault {
                reason: "bad_character",
                ..incomplete(arg, "a separator is in a name or value")
            });
        }
        texts.push((name, value));
    }
    Ok(match &texts[..] {
        [(name, value)] => format!("{name},{value}"),
        texts => {
            let pairs = texts.iter().map(|(name, value)| format!("{name}={value}"));
            pairs.collect::<Vec<_>>().join("|")
        }
    })
}

fn incomplete(arg: &ArgSpec, detail: &str) -> Fault {
    Fault {
        reason: "missing_argument",
        code: arg.missing.unwrap_or(ErrorCode::PleaseRetry),
        detail: detail.to_owned(),
    }
}

/// The word that some clients send for an empty body.
fn is_null(body: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::find;

    fn variables(object: &str) -> Result<Args, Fault> {
        let object = serde_json::from_str(object).unwrap();
        from_object(find("update_call_variable").unwrap(), &object)
    }

    #[test]
    fn call_variables_come_as_a_text_as_one_pair_or_as_an_object() {
        let spec = find("update_call_variable").unwrap();
        for (object, text) in [
            (
                r#"{"dialogId":7,"variables":"callVariable1=a|callVariable2=b"}"#,
                "7,callVariable1=a|callVariable2=b",
            ),
            (
                r#"{"dialog":"7","name":"callVariable3","value":"a=b|c, d"}"#,
                "7,callVariable3,a=b|c, d",
            ),
            (
                r#"{"dialog":"7","Name":"callVariable3","value":5}"#,
                "7,callVariable3,5",
            ),
            (
                r#"{"dialog":"7","variables":{"callVariable1":"a,b","callVariable2":true}}"#,
                "7,callVariable1=a,b|callVariable2=true",
            ),
            (
                r#"{"dialog":"7","callVariables":{"callVariable1":"a|b"}}"#,
                "7,callVariable1,a|b",
            ),
        ] {
            let read = variables(object).unwrap_or_else(|fault| panic!("{object} {fault:?}"));
            assert_eq!(read, from_text(spec, text).unwrap(), "{object}");
        }
        // An empty value takes a variable's value away.
        let emptied = variables(r#"{"dialog":"7","name":"callVariable3","value":""}"#).unwrap();
        assert_eq!(emptied.get("variables"), Some("callVariable3,"));
    }

    #[test]
    fn call_variables_that_are_not_whole_are_refused() {
        let invalid = ("missing_argument", ErrorCode::InvalidCallData);
        let surplus = ("surplus_arguments", ErrorCode::PleaseRetry);
        let separator = ("bad_character", ErrorCode::InvalidCallData);
        let kind = ("wrong_type", ErrorCode::PleaseRetry);
        for (object, want) in [
            (r#"{"dialog":"7"}"#, invalid),
            (r#"{"dialog":"7","name":"callVariable3"}"#, invalid),
            (r#"{"dialog":"7","value":"x"}"#, invalid),
            (r#"{"dialog":"7","name":null,"value":"x"}"#, invalid),
            (r#"{"dialog":"7","name":" ","value":"x"}"#, invalid),
            (r#"{"dialog":"7","name":"a=b","value":"x"}"#, separator),
            (r#"{"dialog":"7","variables":{}}"#, invalid),
            (r#"{"dialog":"7","variables":{"a":null}}"#, invalid),
            (
                r#"{"dialog":"7","variables":{"a":"1|b=2","c":"3"}}"#,
                separator,
            ),
            (r#"{"dialog":"7","variables":{"a":[1]}}"#, kind),
            (r#"{"dialog":"7","variables":["a=1"]}"#, kind),
            (r#"{"dialog":"7","name":{},"value":"x"}"#, kind),
            (
                r#"{"dialog":"7","variables":"a=1","name":"b","value":"2"}"#,
                surplus,
            ),
            (
                r#"{"dialog":"7","name":"a","NAME":"b","value":"2"}"#,
                surplus,
            ),
        ] {
            let fault = variables(object).unwrap_err();
            assert_eq!((fault.reason, fault.code), want, "{object} {fault:?}");
        }
    }
}
