//! From what the engine publishes to exchange, key, properties and body.

use std::time::{SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::{Context, lock};
use crate::engine::command::{Outbound, ReplyRoute};
use crate::engine::peer::PeerMessage;
use crate::model::{Cause, Trace};
use crate::wire::command::{named_command, redacted_body};
use crate::wire::control::SealError;
use crate::wire::event::{Format, render};
use crate::wire::message::{RawMessage, epoch_ms};
use crate::wire::reply::Reply;

const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;
/// A peer message older than this says nothing any more.
const PEER_EXPIRATION_MS: &str = "10000";
/// Bound of header `x-detail`, in bytes.
const MAX_DETAIL: usize = 500;
/// Bound of an AMQP short string, in bytes.
const MAX_SHORT: usize = 255;
const JSON: &str = "application/json";

/// A message ready for the library.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) mandatory: bool,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
}

/// What a publication becomes.
#[derive(Debug)]
pub(super) enum Encoded {
    /// Messages that the broker confirms; none where the format has no words for the event.
    Confirmed(Vec<Message>),
    /// For the connection that may be lost.
    Direct(Box<Message>),
}

/// A short string; what is too long is cut, for the library panics otherwise.
pub(super) fn short(text: &str) -> ShortString {
    ShortString::from(cut(text, MAX_SHORT))
}

fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Encodes a publication.
///
/// # Errors
/// Where a peer message cannot be sealed.
pub(super) fn encode(context: &Context, outbound: Outbound) -> Result<Encoded, SealError> {
    Ok(match outbound {
        Outbound::Event {
            to,
            event,
            cause,
            epoch,
            message_id,
        } => {
            let bodies = render(&event, context.config.format);
            let several = bodies.len() > 1;
            let message = |(index, body): (usize, Vec<u8>)| {
                let id = if several {
                    format!("{message_id}.{}", index + 1)
                } else {
                    message_id.clone()
                };
                event_message(context, to.as_str(), &id, &cause, epoch, body)
            };
            Encoded::Confirmed(bodies.into_iter().enumerate().map(message).collect())
        }
        Outbound::Reply {
            route,
            reply,
            cause,
            message_id,
        } => reply_message(context, route, &reply, &cause, &message_id),
        Outbound::DeadLetter {
            raw,
            reason,
            detail,
        } => Encoded::Confirmed(vec![dead_letter(context, &raw, reason, &detail)]),
        Outbound::ParkedReply {
            reply_to,
            reply,
            cause,
        } => {
            let mut message = own(
                context,
                JSON,
                cause.correlation_id.as_deref(),
                reply.to_json(),
            );
            message.key = short(&context.object("dead-letter"));
            message.mandatory = true;
            let mut headers = FieldTable::default();
            put(&mut headers, "x-reason", "unroutable-reply");
            put(&mut headers, "x-original-reply-to", &reply_to);
            put_trace(&mut headers, cause.trace.as_deref());
            message.properties = message
                .properties
                .with_type("Reply".into())
                .with_headers(headers);
            Encoded::Confirmed(vec![message])
        }
        Outbound::Peer { to, mut message } => {
            if let PeerMessage::Heartbeat(heartbeat) = &mut *message {
                heartbeat.control_node = lock(&context.control_node).clone();
            }
            let body = lock(&context.sealer).seal(to.as_ref(), &message)?;
            Encoded::Confirmed(vec![Message {
                exchange: short(&context.object("control")),
                key: short(to.as_ref().map_or("all", |peer| peer.as_str())),
                mandatory: false,
                properties: BasicProperties::default()
                    .with_content_type("application/octet-stream".into())
                    .with_delivery_mode(TRANSIENT)
                    .with_expiration(PEER_EXPIRATION_MS.into())
                    .with_app_id(short(context.config.instance.as_str())),
                body,
            }])
        }
    })
}

/// A persistent message of this instance to the default exchange.
fn own(
    context: &Context,
    content_type: &str,
    correlation_id: Option<&str>,
    body: Vec<u8>,
) -> Message {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut properties = BasicProperties::default()
        .with_content_type(content_type.into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(seconds)
        .with_app_id(short(context.config.instance.as_str()));
    if let Some(id) = correlation_id {
        properties = properties.with_correlation_id(short(id));
    }
    Message {
        exchange: "".into(),
        key: "".into(),
        mandatory: false,
        properties,
        body,
    }
}

fn event_message(
    context: &Context,
    to: &str,
    message_id: &str,
    cause: &Cause,
    epoch: u64,
    body: Vec<u8>,
) -> Message {
    let content_type = match context.config.format {
        Format::Json => JSON,
        Format::Default | Format::Values => "text/plain",
    };
    let mut headers = FieldTable::default();
    let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
    headers.insert("x-epoch".into(), AMQPValue::LongLongInt(epoch));
    put_trace(&mut headers, cause.trace.as_deref());
    let mut message = own(context, content_type, cause.correlation_id.as_deref(), body);
    message.exchange = short(&context.object("events"));
    message.key = short(to);
    message.properties = message
        .properties
        .with_message_id(short(message_id))
        .with_headers(headers);
    message
}

fn reply_message(
    context: &Context,
    route: ReplyRoute,
    reply: &Reply,
    cause: &Cause,
    message_id: &str,
) -> Encoded {
    let mut message = own(
        context,
        JSON,
        cause.correlation_id.as_deref(),
        reply.to_json(),
    );
    if let Some(trace) = &cause.trace {
        let mut headers = FieldTable::default();
        put_trace(&mut headers, Some(trace));
        message.properties = message.properties.with_headers(headers);
    }
    message.properties = message
        .properties
        .with_type("Reply".into())
        .with_message_id(short(message_id));
    match route {
        ReplyRoute::Near(queue) => {
            message.key = short(&queue);
            message.mandatory = true;
        }
        ReplyRoute::Far(key) => {
            message.exchange = short(&context.object("replies"));
            message.key = short(&key);
            message.mandatory = true;
        }
        ReplyRoute::Direct(address) => {
            message.key = short(&address);
            return Encoded::Direct(Box::new(message));
        }
    }
    Encoded::Confirmed(vec![message])
}

/// The body is redacted by the wire module. What would make the message act again is left out of
/// the properties (expiration, reply address) and told in headers instead.
fn dead_letter(context: &Context, raw: &RawMessage, reason: &str, detail: &str) -> Message {
    let body = redacted_body(raw);
    let content_type = match &raw.content_type {
        Some(original) if body[..] == raw.body[..] => short(original),
        _ => short(JSON),
    };
    let mut headers = FieldTable::default();
    put(&mut headers, "x-reason", reason);
    put(&mut headers, "x-detail", cut(detail, MAX_DETAIL));
    if let Some(unreadable) = &raw.unreadable {
        put(&mut headers, "x-evidence", &unreadable.evidence);
    }
    if let Some(kind) = &raw.kind {
        put(&mut headers, "x-original-type", kind);
    }
    if let Some(command) = named_command(raw) {
        put(&mut headers, "x-command", &command);
    }
    if let Some(reply_to) = &raw.reply_to {
        put(&mut headers, "x-original-reply-to", reply_to);
    }
    if let Some(queue) = &raw.queue {
        put(&mut headers, "x-original-queue", queue);
    }
    for (name, number) in [("x-deadline", raw.deadline), ("x-attempt", raw.attempt)] {
        if let Some(number) = number {
            headers.insert(name.into(), AMQPValue::LongLongInt(number));
        }
    }
    put_trace(&mut headers, raw.trace.as_ref());
    let mut message = own(context, JSON, raw.correlation_id.as_deref(), body);
    message.key = short(&context.object("dead-letter"));
    message.mandatory = true;
    let mut properties = message
        .properties
        .with_content_type(content_type)
        .with_headers(headers);
    if let Some(id) = &raw.message_id {
        properties = properties.with_message_id(short(id));
    }
    if let Some(kind) = &raw.kind {
        properties = properties.with_type(short(kind));
    }
    // AMQP counts seconds; clients count what they like, and zero is a time that nobody set.
    if let Some(at) = raw.timestamp.filter(|at| *at > 0) {
        properties = properties.with_timestamp(epoch_ms(at) / 1000);
    }
    message.properties = properties;
    message
}

fn put_trace(headers: &mut FieldTable, trace: Option<&Trace>) {
    if let Some(trace) = trace {
        put(headers, "traceparent", trace.parent());
        if let Some(state) = trace.state() {
            put(headers, "tracestate", state);
        }
    }
}

fn put(headers: &mut FieldTable, name: &str, value: &str) {
    headers.insert(short(name), AMQPValue::LongString(value.as_bytes().into()));
}

#[cfg(test)]
mod tests;
