//! The table for people and machines: `tandem commands` and `docs/commands.md`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Addressee, ArgSpec, CommandSpec, FAMILIES};

/// The table as JSON.
#[must_use]
pub fn to_json() -> Value {
    let rows = FAMILIES.iter().flat_map(|family| {
        let row = move |spec: &CommandSpec| {
            json!({
                "family": family.title,
                "name": spec.name,
                "aliases": spec.aliases,
                "addressee": addressee(spec),
                "sentBy": spec.who.as_str(),
                "arguments": spec.args.iter().map(argument).collect::<Vec<_>>(),
                "repeat": spec.repeat.as_str(),
                "asks": spec.asks,
                "events": spec.events,
                "errors": spec.errors,
            })
        };
        family.commands.iter().map(row)
    });
    Value::Array(rows.collect())
}

fn addressee(spec: &CommandSpec) -> &'static str {
    match spec.addressee {
        Addressee::Agent => "agent",
        Addressee::Destination => "destination",
    }
}

fn argument(arg: &ArgSpec) -> Value {
    json!({
        "name": arg.name,
        "aliases": arg.aliases,
        "required": arg.missing.is_some(),
        "missing": arg.missing.map(super::ErrorCode::as_str),
        "secret": arg.secret,
        "pairs": arg.pairs,
    })
}

/// The table in Markdown, a section a family.
#[must_use]
pub fn to_markdown() -> String {
    let mut out = String::new();
    for family in FAMILIES {
        // Writing to a text cannot fail.
        let _ = writeln!(
            out,
            "## {}\n\n| command | arguments | sent by | repeat | asks the downstream | events | errors of its own |\n\
             | --- | --- | --- | --- | --- | --- | --- |",
            family.title
        );
        for spec in family.commands {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} |",
                names(spec),
                arguments(spec),
                spec.who.as_str(),
                spec.repeat.as_str(),
                dash(spec.asks),
                dash(spec.events),
                dash(spec.errors),
            );
        }
        out.push('\n');
    }
    out
}

fn names(spec: &CommandSpec) -> String {
    let mut names = format!("`{}`", spec.name);
    for alias in spec.aliases {
        let _ = write!(names, ", `{alias}`");
    }
    names
}

/// A command's arguments in order; optional ones in brackets.
#[must_use]
pub fn arguments(spec: &CommandSpec) -> String {
    if spec.args.is_empty() {
        return "none".to_owned();
    }
    let one = |arg: &ArgSpec| match arg.missing {
        Some(_) if arg.pairs => format!("`{}` (JSON also: `name`, `value`)", arg.name),
        Some(_) => format!("`{}`", arg.name),
        None => format!("[`{}`]", arg.name),
    };
    spec.args.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}
