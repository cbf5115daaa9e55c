//! OpenAPI of the HTTP entrance.

use serde_json::{Map, Value, json};

use super::request::{IGNORED, REGISTERED};
use crate::openapi::shape::{field, integer, maybe, object, one_of, refers, text};
use crate::openapi::{Asks, Operation, document as openapi};

/// Longest id in a header: `rest::request` takes no longer one.
const ID: u64 = 255;

fn header(name: &str, shape: &Value, about: &str) -> Value {
    json!({ "name": name, "in": "header", "schema": shape, "description": about })
}

fn command() -> Operation {
    let id = json!({ "type": "string", "pattern": "^[!-~]+$", "maxLength": ID });
    let taken = object(
        "A broker has confirmed that the command is on the queue.",
        [
            field("id", text(), "The command's id."),
            maybe(
                "callback",
                one_of([REGISTERED, IGNORED]),
                "Where the command named one: whether events are posted there.",
            ),
        ],
    );
    let about = "By it the entrance's 503 is told from doubt.";
    let unavailable = object(
        "Not confirmed.",
        [
            field("error", text(), "Why, for a person."),
            maybe("id", text(), "The command's id."),
            maybe("taken", one_of(["no", "unknown"]), about),
        ],
    );
    Operation::new(
        "post",
        "/gc/command",
        "putCommand",
        "Puts a command on the command queue",
    )
    .asks(Asks::MaybeToken)
    .parameter(header(
        "Idempotency-Key",
        &id,
        "The command's id (message_id); without it one is made.",
    ))
    .parameter(header(
        "X-Correlation-Id",
        &id,
        "Stands on every event that the command causes.",
    ))
    .parameter(header(
        "X-Attempt",
        &integer(),
        "A resend of the same id says 2 or more.",
    ))
    .parameter(header(
        "X-Deadline",
        &integer(),
        "Milliseconds since the epoch: not started later.",
    ))
    .parameter(header("traceparent", &text(), "W3C Trace Context."))
    .parameter(header("tracestate", &text(), "W3C Trace Context."))
    .body(true, refers("Wrapped"))
    .json(202, taken, "Taken.")
    .refuses(400, "It cannot be read; the body is never quoted.")
    .refuses(403, "The request comes from a web page.")
    .refuses(408, "The body did not arrive in time.")
    .refuses(413, "The body is larger than 64 KiB.")
    .json(503, unavailable, "No broker took it, or none confirmed it.")
}

fn schemas() -> Map<String, Value> {
    let body = json!({ "type": ["string", "object", "number", "boolean", "null"], "description": "Arguments: a text with commas between them, or an object (commands.schema.json)." });
    let kind = json!({ "type": "string", "pattern": "^[^#]+#.+$" });
    let envelope = object(
        "A command as the original's REST form has it; commands.schema.json says which there are.",
        [
            field("type", kind, "Command#agent, or Command#destination."),
            maybe("body", body, ""),
            maybe("sessionUrl", text(), "Not used."),
            maybe(
                "callbackFqdn",
                text(),
                "With Hello and Connect: host, or scheme and host, to which events are posted.",
            ),
            maybe(
                "callbackEndpoint",
                text(),
                "With Hello and Connect: path, or the whole URL, to which events are posted.",
            ),
        ],
    );
    let wrapped = object("", [field("data", refers("Envelope"), "")]);
    Map::from_iter([
        ("Envelope".to_owned(), envelope),
        ("Wrapped".to_owned(), wrapped),
    ])
}

/// The document, served at `/openapi.json` of the entrance.
pub(crate) fn document() -> Value {
    let own = Operation::new("get", "/openapi.json", "getOpenApi", "This document").json(
        200,
        json!({ "type": "object" }),
        "OpenAPI 3.1.",
    );
    let about = "Commands over HTTP: docs/http-entrance.md. Every refusal is JSON.";
    openapi("tandem HTTP entrance", about, [&command(), &own], schemas())
}
