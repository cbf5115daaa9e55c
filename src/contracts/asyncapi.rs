//! The AsyncAPI 3 document: queues, exchange and messages, with the schemas of the files beside it.

use serde_json::{Map, Value, json};

use super::commands;
use super::events::EVENTS;
use crate::catalogue;
use crate::openapi::shape::{field, maybe, object, text};

/// Where the schemas stand, as the document sees them.
const COMMANDS: &str = "./commands.schema.json#/$defs/";
const EVENT_SCHEMAS: &str = "./events.schema.json#/$defs/";
const REPLIES: &str = "./replies.schema.json";

const JSON: &str = "application/json";

fn bindings(message_type: &str) -> Value {
    json!({ "amqp": { "messageType": message_type, "bindingVersion": "0.3.0" } })
}

fn correlation() -> Value {
    json!({
        "location": "$message.header#/correlation_id",
        "description": "AMQP property correlation_id: echoed on everything that the command causes.",
    })
}

/// Properties and headers of a command; AMQP has both, AsyncAPI one word for them.
fn command_headers() -> Value {
    object(
        "AMQP properties type, message_id, correlation_id, reply_to, content_type, and the headers x-… and traceparent, tracestate.",
        [
            field("type", text(), "Command#agent, or Command#destination."),
            field(
                "message_id",
                text(),
                "The command's identity: a repeat is answered, not run.",
            ),
            maybe("correlation_id", text(), ""),
            maybe("reply_to", text(), "Queue for the reply."),
            maybe(
                "content_type",
                text(),
                "application/json where the body is an object of named arguments.",
            ),
            maybe(
                "x-deadline",
                json!({ "type": "integer" }),
                "Milliseconds since the epoch: not started later.",
            ),
            maybe(
                "x-attempt",
                json!({ "type": "integer", "minimum": 1 }),
                "A client's own resend of the same id says 2 or more.",
            ),
            maybe("traceparent", text(), "W3C Trace Context."),
            maybe("tracestate", text(), "W3C Trace Context."),
        ],
    )
}

fn event_headers() -> Value {
    object(
        "AMQP properties message_id, correlation_id, app_id, and headers.",
        [
            field(
                "message_id",
                text(),
                "One an event: it can come once more under the same id.",
            ),
            field("app_id", text(), "The instance."),
            maybe("correlation_id", text(), "Of the command that caused it."),
            maybe(
                "x-epoch",
                json!({ "type": "integer" }),
                "The owner's fencing epoch for the agent: drop what carries a lower one than you have seen.",
            ),
            maybe("traceparent", text(), "Of the command that caused it."),
            maybe("tracestate", text(), "Of the command that caused it."),
        ],
    )
}

fn reply_headers() -> Value {
    object(
        "AMQP properties and headers.",
        [
            field(
                "correlation_id",
                text(),
                "Of the command, else its message_id.",
            ),
            maybe("traceparent", text(), "Of the command."),
            maybe("tracestate", text(), "Of the command."),
        ],
    )
}

fn command_messages() -> Map<String, Value> {
    let message = |spec: &catalogue::CommandSpec| {
        let mut headers = command_headers();
        headers["properties"]["type"] = commands::kind(spec);
        json!({
            "name": spec.name, "title": spec.name, "description": commands::about(spec),
            "contentType": JSON, "headers": headers,
            "payload": { "$ref": format!("{COMMANDS}{}", spec.name) },
            "correlationId": correlation(), "bindings": bindings(spec.name),
        })
    };
    catalogue::commands()
        .map(|spec| (spec.name.to_owned(), message(spec)))
        .collect()
}

fn event_messages() -> Map<String, Value> {
    let message = |name: &str, about: &str| {
        json!({
            "name": name, "title": name, "description": about,
            "contentType": JSON, "headers": event_headers(),
            "payload": { "$ref": format!("{EVENT_SCHEMAS}{name}") },
            "correlationId": correlation(),
        })
    };
    EVENTS
        .iter()
        .map(|spec| (spec.name.to_owned(), message(spec.name, spec.about)))
        .collect()
}

fn channels() -> Value {
    let queue = json!({ "amqp": {
        "is": "queue", "bindingVersion": "0.3.0",
        "queue": { "name": "Connector1", "durable": true, "exclusive": false, "autoDelete": false, "vhost": "/" },
    } });
    let exchange = json!({ "amqp": {
        "is": "routingKey", "bindingVersion": "0.3.0",
        "exchange": { "name": "tandem.events", "type": "topic", "durable": true, "autoDelete": false, "vhost": "/" },
    } });
    let reply = json!({
        "name": "Reply", "title": "Reply", "description": "The one terminal answer to a command.",
        "contentType": JSON, "headers": reply_headers(), "payload": { "$ref": REPLIES },
        "correlationId": correlation(), "bindings": bindings("Reply"),
    });
    json!({
        "commands": {
            "address": "Connector1", "title": "Command queue",
            "description": "The queue of command.queue (and of group.NAME.queues), through the default exchange. All of its messages have a text form too: docs/protocol.md.",
            "messages": command_messages(), "bindings": queue,
        },
        "events": {
            "address": "{destination}", "title": "Events",
            "description": "Routing keys of the exchange CLUSTER.events. With message.format=default the same events have the original's # form.",
            "parameters": { "destination": { "description": "The client's destination, as Connect or Hello gave it; AgentStates for the periodic State events of all agents." } },
            "messages": event_messages(), "bindings": exchange,
        },
        "replies": {
            "address": null, "title": "Replies",
            "description": "The queue that the command's reply_to names, through the default exchange. A reply that finds no queue is put into CLUSTER.dead-letter.",
            "messages": { "Reply": reply },
        },
    })
}

/// The file `docs/api/asyncapi.json`. Without the version: it changes with the protocol only.
pub(crate) fn document() -> Value {
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:tandem:connector",
        "defaultContentType": JSON,
        "info": {
            "title": "tandem", "version": crate::openapi::PROTOCOL,
            "description": "What clients say to tandem over AMQP 0-9-1 and hear from it. The rules around these messages (repeats, deadlines, order, what IN_DOUBT asks of a client) are in docs/protocol.md.",
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
            "tags": [{ "name": "amqp" }, { "name": "contact-centre" }],
        },
        "channels": channels(),
        "operations": {
            "takeCommand": {
                "action": "receive", "title": "Take a command",
                "summary": "Clients put commands on the command queue.",
                "channel": { "$ref": "#/channels/commands" },
                "bindings": { "amqp": { "ack": true, "bindingVersion": "0.3.0" } },
                "reply": {
                    "address": { "location": "$message.header#/reply_to", "description": "AMQP property reply_to." },
                    "channel": { "$ref": "#/channels/replies" },
                },
            },
            "tellEvent": {
                "action": "send", "title": "Tell an event",
                "summary": "Events go to the client's destination.",
                "channel": { "$ref": "#/channels/events" },
            },
        },
    })
}
