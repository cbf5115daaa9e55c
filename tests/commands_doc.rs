//! `docs/commands.md` says what the catalogue says, and every command is tested in every form.
//!
//! `TANDEM_WRITE_DOCS=1 cargo test --test commands_doc` writes the file anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

use std::fmt::Write as _;

use tandem::catalogue::{self, CommandSpec, show};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");
const PROTOCOL: &str = concat!(
    include_str!("protocol/main.rs"),
    include_str!("protocol/talk.rs"),
    include_str!("protocol/session.rs"),
    include_str!("protocol/calls.rs"),
    include_str!("protocol/lists.rs"),
    include_str!("protocol/supervisor.rs"),
    include_str!("protocol/outbound.rs"),
);
const HTTP: &str = include_str!("http_downstream.rs");

const HEAD: &str = "\
# Commands

Printed by `tandem commands --markdown` from the table that the program itself reads; `tandem commands --json` prints it for machines.
Names are compared without regard to case. An argument in brackets may be left out. Any command can be answered `RE_LOGIN` (the agent is not
known here), `PLEASE_RETRY`, `DOWN`, `NOT_REACHABLE`, or with a constant of the platform (`CF_…`, `E_CTI_…`). How commands, replies and events
travel: [protocol.md](protocol.md).

`repeat`: `safe` commands may run twice; a second run of a `guarded` one is refused by the platform; an `UNSAFE` one has a second effect, and is
never run again where a first run may have happened.

";

const TESTED: &str = "\
## Tested

By which tests of `tests/protocol` (and `tests/http_downstream.rs`), against brokers and a simulated downstream: there the command is sent
in this form, its reply is looked at, and the event that it causes or the platform's own account of what was done. Beside these, the
property test `wire::command::tests::forms_agree` shows for every command that both forms of arguments are the same command,
`wire::event::tests::reference` compares every event byte by byte with what the original's documents print
(`tests/data/reference.golden`), and `wire::event::tests::golden` with `tests/data/events.golden`.

| command | text arguments | JSON arguments | `#` events | JSON events |
| --- | --- | --- | --- | --- |
";

/// The scenarios of `tests/protocol` with their sources and the names of their two tests.
fn scenarios() -> Vec<(&'static str, &'static str)> {
    let list = PROTOCOL
        .split("both_forms! {")
        .nth(1)
        .and_then(|rest| rest.split("\n}").next())
        .expect("the list of scenarios");
    list.lines()
        .filter_map(|line| line.trim().strip_suffix(';'))
        .map(|line| {
            let (scenario, tests) = line.split_once(": ").expect("name: text, json");
            assert_eq!(tests, format!("{scenario}_text, {scenario}_json"));
            (scenario, source(scenario))
        })
        .collect()
}

/// A function's source, with that of the helpers it calls by name.
fn source(name: &str) -> &'static str {
    let start = PROTOCOL.find(&format!("async fn {name}(")).expect(name);
    let end = PROTOCOL[start..].find("\n}\n").expect("its end");
    &PROTOCOL[start..start + end]
}

fn mentions(source: &str, spec: &CommandSpec) -> bool {
    let names = std::iter::once(&spec.name).chain(spec.aliases);
    names.into_iter().any(|name| {
        source.contains(&format!("\"{name}#")) || source.contains(&format!("\"{name}\""))
    })
}

/// Helpers whose commands count for all scenarios that call them.
const HELPERS: [&str; 3] = ["sign_in", "in_call", "consult_call"];

fn tests_of(spec: &CommandSpec) -> [String; 4] {
    if spec.name == "Call" {
        let name = "http_downstream::calls_are_carried_out_and_answered";
        assert!(HTTP.contains("fn calls_are_carried_out_and_answered()"));
        return [
            "– (its body is JSON)".to_owned(),
            format!("`{name}`"),
            "– (answered by reply)".to_owned(),
            "– (answered by reply)".to_owned(),
        ];
    }
    let all = scenarios();
    let helped = |source: &str| {
        HELPERS.iter().any(|helper| {
            source.contains(&format!("{helper}(")) && mentions(self::source(helper), spec)
        })
    };
    let found = all
        .iter()
        .find(|(_, source)| mentions(source, spec))
        .or_else(|| all.iter().find(|(_, source)| helped(source)));
    let Some((scenario, _)) = found else {
        return Default::default();
    };
    let [text, json] = ["text", "json"].map(|form| format!("`protocol::{scenario}_{form}`"));
    [text.clone(), json.clone(), text, json]
}

fn document() -> String {
    let mut out = HEAD.to_owned() + &show::to_markdown() + TESTED;
    for spec in catalogue::commands() {
        let cells = tests_of(spec);
        for cell in &cells {
            assert!(!cell.is_empty(), "no test sends {}", spec.name);
        }
        let _ = writeln!(out, "| `{}` | {} |", spec.name, cells.join(" | "));
    }
    out
}

#[test]
fn every_command_is_tested_in_every_form_and_the_document_says_so() {
    let wanted = document();
    if std::env::var_os("TANDEM_WRITE_DOCS").is_some() {
        std::fs::write(FILE, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(FILE).unwrap_or_default();
    for (line, (found, wanted)) in found.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(found, wanted, "docs/commands.md, line {}", line + 1);
    }
    assert_eq!(found.lines().count(), wanted.lines().count());
}
