//! Commands as JSON, from the one table: [`crate::catalogue`].

use serde_json::{Map, Value, json};

use crate::catalogue::{self, Addressee, ArgSpec, CommandSpec, ErrorCode};
use crate::openapi::shape::{field, maybe, object, one_of, or_null, refers, text, word};
use crate::wire::reply::Outcome;

/// What one argument may be.
fn argument(arg: &ArgSpec) -> Value {
    if arg.json {
        return json!({});
    }
    if let Some(word) = arg.only {
        return json!({ "const": word });
    }
    let mut shape = json!({ "type": ["string", "integer", "boolean"] });
    if arg.missing.is_some() {
        // One that is blank is missing.
        shape["pattern"] = "\\S".into();
    }
    if arg.secret {
        shape["format"] = "password".into();
        shape["writeOnly"] = true.into();
    }
    if arg.pairs {
        let scalar = json!({ "type": ["string", "integer", "boolean"] });
        let pairs = json!({ "type": "object", "minProperties": 1, "additionalProperties": scalar });
        shape = json!({ "anyOf": [shape, pairs] });
    }
    shape
}

/// The arguments of a command as an object: its names, and those that the original prints.
fn arguments(spec: &CommandSpec) -> Value {
    let mut properties = Map::new();
    let mut rules = Vec::new();
    for arg in spec.args {
        let names: Vec<&str> = std::iter::once(arg.name)
            .chain(arg.aliases.iter().copied())
            .collect();
        for name in &names {
            let mut shape = argument(arg);
            if *name != arg.name {
                shape["description"] = format!("The same as {}.", arg.name).into();
            } else if let Some(code) = arg.missing {
                shape["description"] = format!("Without it: {code}.").into();
            }
            properties.insert((*name).to_owned(), shape);
        }
        let mut ways: Vec<Value> = names.iter().map(|n| json!({ "required": [n] })).collect();
        if arg.pairs {
            for name in ["name", "value"] {
                let shape = json!({ "type": ["string", "integer", "boolean"], "description": "One pair, beside the other arguments." });
                properties.insert(name.to_owned(), shape);
            }
            ways.push(json!({ "required": ["name", "value"] }));
        }
        match arg.missing {
            Some(_) => rules.push(json!({ "oneOf": ways })),
            // At most one of its names.
            None if ways.len() > 1 => {
                let none = json!({ "not": { "anyOf": ways.clone() } });
                ways.push(none);
                rules.push(json!({ "oneOf": ways }));
            }
            None => {}
        }
    }
    let mut shape = json!({
        "type": "object", "description": about(spec),
        "properties": properties, "additionalProperties": false,
    });
    if !rules.is_empty() {
        shape["allOf"] = rules.into();
    }
    shape
}

/// For people.
pub(crate) fn about(spec: &CommandSpec) -> String {
    let mut about = format!(
        "Sent by: {}. Repeat: {}.",
        spec.who.as_str(),
        spec.repeat.as_str()
    );
    for (title, text) in [
        ("Asks", spec.asks),
        ("Events", spec.events),
        ("Errors", spec.errors),
    ] {
        if !text.is_empty() {
            about += &format!(" {title}: {text}.");
        }
    }
    about
}

/// `Command#agent`: the type of a command, in the spelling of the table.
pub(crate) fn kind(spec: &CommandSpec) -> Value {
    let names: Vec<&str> = std::iter::once(spec.name)
        .chain(spec.aliases.iter().copied())
        .collect();
    // No name has a character that means something to a pattern: a test looks.
    let names = match names.as_slice() {
        [one] => (*one).to_owned(),
        several => format!("({})", several.join("|")),
    };
    let whom = match spec.addressee {
        Addressee::Agent => "agent id",
        Addressee::Destination => "client's destination",
    };
    json!({
        "type": "string", "pattern": format!("^{names}#.+$"),
        "description": format!("{}# and the {whom}; letter case does not count.", spec.name),
    })
}

/// A body that holds the type as well.
fn envelope() -> Value {
    let forms = catalogue::commands().map(|spec| {
        let body = json!({ "anyOf": [
            { "type": ["string", "null"], "description": "The text form: arguments with commas between them." },
            refers(spec.name),
        ] });
        json!({
            "title": spec.name,
            "required": ["type"],
            "properties": { "type": kind(spec), "body": body },
        })
    });
    json!({
        "type": "object",
        "description": "For clients that cannot set the property type: it stands in the body, beside the arguments.",
        "required": ["type"],
        "oneOf": forms.collect::<Vec<_>>(),
    })
}

/// The file `docs/api/commands.schema.json`.
pub(crate) fn schema() -> Value {
    let mut all: Map<String, Value> = catalogue::commands()
        .map(|spec| (spec.name.to_owned(), arguments(spec)))
        .collect();
    all.insert("envelope".to_owned(), envelope());
    let wrapped = object(
        "The original's outer form.",
        [field("data", refers("envelope"), "")],
    );
    all.insert("wrapped".to_owned(), wrapped);
    json!({
        "$schema": super::DIALECT,
        "title": "Commands of tandem in JSON",
        "description": "By the command's name: its arguments as an object, for a message whose property type is Command#id and whose content_type is application/json. The whole schema: a body that holds the type itself. Names of commands and arguments are read without regard to letter case, and in names of arguments blanks, _ and - do not count: these are the spellings of the table.",
        "anyOf": [refers("envelope"), refers("wrapped")],
        "$defs": all,
    })
}

/// The file `docs/api/replies.schema.json`.
pub(crate) fn reply() -> Value {
    let own = ErrorCode::ALL.map(ErrorCode::as_str).join(", ");
    let code = format!(
        "One of {own}, EXPIRED, IN_DOUBT, HTTP_3xx, HTTP_4xx, HTTP_5xx, or a constant of the platform."
    );
    let mut error = object(
        "",
        [
            field("code", text(), ""),
            field("message", text(), "For a person; without secrets."),
        ],
    );
    error["properties"]["code"]["description"] = code.into();
    let status = json!({ "type": ["integer", "null"], "minimum": 100, "maximum": 999 });
    let retry = json!({ "type": "integer", "minimum": 0 });
    let mut shape = object(
        "The one terminal answer to a command.",
        [
            field("type", word("Reply"), ""),
            field(
                "command",
                text(),
                "Its name in the spelling of the table, or as the client wrote an unknown one.",
            ),
            field("id", text(), "The text behind #: agent or destination."),
            field(
                "outcome",
                one_of(Outcome::ALL.map(Outcome::as_str)),
                "How it ended.",
            ),
            field(
                "status",
                status,
                "HTTP status of the downstream, where there was one.",
            ),
            field("instance", text(), "Instance that answers."),
            field(
                "downstream",
                or_null(text()),
                "Host of the downstream that was asked.",
            ),
            field("error", or_null(error), "Why it was not done."),
            maybe(
                "retryAfterMs",
                retry,
                "When to try again, on overload: the id may be sent again.",
            ),
            maybe("body", json!({}), "Answer of a generic HTTP downstream."),
        ],
    );
    shape["$schema"] = super::DIALECT.into();
    shape["title"] = "Replies of tandem".into();
    shape
}
