//! Commands, replies and events: what the schemas say against what the program reads and writes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tandem::catalogue::{self, ArgSpec, CommandSpec};
use tandem::contracts::Contract;
use tandem::model::Json;
use tandem::wire::command::{Defaults, parse};
use tandem::wire::message::RawMessage;
use tandem::wire::reply::{Outcome, Reply, ReplyError};

use crate::schema::Judge;

const EVENTS: &str = include_str!("../data/events.golden");
const REFERENCE: &str = include_str!("../data/reference.golden");

/// The JSON events of both golden files. The original's own text prints `QueueStats` without the
/// array that it is told in.
fn golden() -> Vec<Value> {
    let read = |body: &str| -> Value { serde_json::from_str(body).expect(body) };
    let own = EVENTS
        .lines()
        .filter_map(|line| line.split_once(" json ").map(|(_, body)| body))
        .filter(|body| *body != "(none)");
    let original = REFERENCE.lines().filter(|line| line.starts_with('{'));
    let original = original.map(|body| match read(body) {
        event if event["type"] == "QueueStats" => json!([event]),
        event => event,
    });
    own.map(read).chain(original).collect()
}

#[test]
fn every_golden_event_fits_its_schema_and_every_member_is_said_by_one() {
    let document = Contract::Events.document();
    let judge = Judge::strict(&document);
    let mut said: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let events = golden();
    assert!(events.len() > 50);
    for event in &events {
        let inner = event.get(0).unwrap_or(event);
        let name = inner["type"].as_str().expect("a type");
        judge.must_fit(&format!("/$defs/{name}"), event);
        assert!(
            Judge::lenient(&document)
                .problems(&document, event)
                .is_empty(),
            "{event}"
        );
        let members = inner.as_object().unwrap().keys().cloned();
        said.entry(name.to_owned()).or_default().extend(members);
    }
    for (name, shape) in document["$defs"].as_object().unwrap() {
        let shape = shape.get("items").unwrap_or(shape);
        if shape["properties"]["type"]["const"] != name.as_str() {
            continue;
        }
        let members = shape["properties"].as_object().unwrap().keys().cloned();
        let said = said.get(name).cloned().unwrap_or_default();
        assert_eq!(
            members.collect::<BTreeSet<_>>(),
            said,
            "{name}: schema and golden file"
        );
    }
}

#[test]
fn what_is_no_event_fits_no_schema() {
    let document = Contract::Events.document();
    for wrong in [
        json!({}),
        json!({"type": "System", "status": "MAYBE"}),
        json!({"type": "Nothing", "agentId": "1001"}),
        json!({"type": "DialogState", "dialogId": 900, "state": "HELD", "agentId": "1001"}),
    ] {
        assert!(
            !Judge::lenient(&document)
                .problems(&document, &wrong)
                .is_empty(),
            "{wrong}"
        );
    }
}

#[test]
fn every_reply_fits_its_schema() {
    let document = Contract::Replies.document();
    let judge = Judge::strict(&document);
    let mut said = BTreeSet::new();
    for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
        let failed = index % 2 == 1;
        let reply = Reply {
            command: "MakeCall".into(),
            id: "1001".into(),
            outcome,
            status: failed.then_some(401),
            instance: "gc-1".into(),
            downstream: failed.then(|| "finesse-1.example".into()),
            error: failed.then(|| ReplyError {
                code: "PLEASE_RETRY".into(),
                message: "busy".into(),
            }),
            retry_after_ms: failed.then_some(250),
            body: Json::read("[1.10]", 1).filter(|_| failed),
        };
        let value: Value = serde_json::from_slice(&reply.to_json()).unwrap();
        judge.must_fit("", &value);
        said.extend(value.as_object().unwrap().keys().cloned());
    }
    let named = document["properties"].as_object().unwrap().keys().cloned();
    assert_eq!(named.collect::<BTreeSet<_>>(), said);
}

fn sample(arg: &ArgSpec) -> Value {
    match arg.name {
        _ if arg.pairs => json!({ "callVariable1": "gold", "callVariable2": 7 }),
        "method" => "GET".into(),
        "path" => "/v1/items".into(),
        "headers" | "query" => json!({ "x-a": "b" }),
        "idempotent" => true.into(),
        _ => arg.only.unwrap_or("17").into(),
    }
}

/// Whether the program reads this as that command.
fn is_read(spec: &CommandSpec, arguments: &Map<String, Value>) -> Result<(), String> {
    let raw = RawMessage {
        kind: Some(format!("{}#1001", spec.name)),
        body: Bytes::from(json!(arguments).to_string()),
        content_type: Some("application/json".to_owned()),
        message_id: Some("c-1".to_owned()),
        ..RawMessage::default()
    };
    match parse(&raw, &Defaults::default(), 1) {
        Ok(read) => {
            assert_eq!(read.spec.name, spec.name);
            Ok(())
        }
        Err(malformed) => Err(format!("{}: {}", malformed.reason, malformed.detail)),
    }
}

/// Schema and reader say the same of these arguments.
fn agree(document: &Value, spec: &CommandSpec, arguments: &Map<String, Value>, good: bool) {
    let shape = &document["$defs"][spec.name];
    let problems = Judge::lenient(document).problems(shape, &json!(arguments));
    let read = is_read(spec, arguments);
    assert_eq!(
        problems.is_empty(),
        good,
        "{}: {arguments:?}: {problems:?}",
        spec.name
    );
    assert_eq!(read.is_ok(), good, "{}: {arguments:?}: {read:?}", spec.name);
}

#[test]
fn what_the_schema_of_a_command_takes_is_read_and_what_it_refuses_is_not() {
    let document = Contract::Commands.document();
    for spec in catalogue::commands() {
        // Hello and Beat pass over whatever stands in their bodies.
        if spec.args.is_empty() {
            agree(&document, spec, &Map::new(), true);
            continue;
        }
        let all: Map<String, Value> = spec
            .args
            .iter()
            .map(|arg| (arg.name.to_owned(), sample(arg)))
            .collect();
        agree(&document, spec, &all, true);
        let mut more = all.clone();
        more.insert("nonsense".to_owned(), "x".into());
        agree(&document, spec, &more, false);
        for arg in spec.args {
            let mut without = all.clone();
            without.remove(arg.name);
            agree(&document, spec, &without, arg.missing.is_none());
            for alias in arg.aliases {
                let mut other = without.clone();
                other.insert((*alias).to_owned(), sample(arg));
                agree(&document, spec, &other, true);
                other.insert(arg.name.to_owned(), sample(arg));
                agree(&document, spec, &other, false);
            }
            if arg.missing.is_some() && !arg.json {
                let mut blank = all.clone();
                blank.insert(arg.name.to_owned(), " ".into());
                agree(&document, spec, &blank, false);
            }
            if !arg.json {
                let mut list = all.clone();
                list.insert(arg.name.to_owned(), json!(["17"]));
                agree(&document, spec, &list, false);
            }
        }
    }
}

#[test]
fn a_pair_of_name_and_value_is_a_call_variable() {
    let document = Contract::Commands.document();
    let spec = catalogue::find("update_call_variable").unwrap();
    let object = |value: Value| value.as_object().unwrap().clone();
    let pair = json!({ "dialogId": "7", "name": "callVariable3", "value": "x" });
    agree(&document, spec, &object(pair), true);
    let half = json!({ "dialogId": "7", "name": "callVariable3" });
    agree(&document, spec, &object(half), false);
}
