//! The HTTP entrance's answers against its document.

#[path = "schema.rs"]
#[allow(dead_code, reason = "each file of tests judges in its own way")]
mod schema;

use serde_json::Value;

/// Panics where the document that the entrance serves does not have such an answer to a command.
pub fn must_fit(status: u16, body: &Value) {
    let document = include_str!("../../docs/api/entrance.openapi.json");
    let document: Value = serde_json::from_str(document).unwrap();
    let answers = &document["paths"]["/gc/command"]["post"]["responses"];
    let shape = &answers[status.to_string()]["content"]["application/json"]["schema"];
    assert!(shape.is_object(), "{status} is not in the document: {body}");
    let problems = schema::Judge::strict(&document).problems(shape, body);
    assert!(problems.is_empty(), "{status}: {problems:#?}\n{body:#}");
}
