//! A queue that exists already with other properties than it would be made with: what they are,
//! and whether it serves all the same.
//!
//! AMQP does not tell a queue's properties. But a refused declaration names the first that differs:
//! it is made to agree in that and tried again, until the broker accepts it, and then everything is
//! known, or until something is found that does not serve.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Connection, ErrorKind};
use serde_json::Value;
use tokio::time::Instant;

use super::DESTINATIONS;
use crate::broker::guard;

/// Most declarations of one queue: there are fewer properties.
const MAX_TRIES: usize = 24;
/// Queues that are known to be of another kind and to serve; at the bound all are looked at again.
const MAX_KNOWN: usize = 4 * DESTINATIONS;
/// So long that is believed: somebody may put a third one in its place.
const BELIEVED: Duration = Duration::from_secs(600);

const TYPE: &str = "x-queue-type";

/// A property in which a queue is not as it would be made; `None`: it is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    name: String,
    ours: Option<String>,
    theirs: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        let (theirs, ours) = (shown(&self.theirs), shown(&self.ours));
        write!(f, "{} is {theirs}, ours is {ours}", self.name)
    }
}

impl Difference {
    /// Why a queue with this property does not serve; `None` where it does.
    pub(crate) fn unfit(&self) -> Option<&'static str> {
        match (self.name.as_str(), self.theirs.as_deref()) {
            ("durable", Some("false")) => Some("a restart of the broker loses it"),
            ("auto_delete", Some("true")) => Some("it goes, with what waits, with its consumer"),
            ("exclusive", Some("true")) => Some("it goes with somebody's connection"),
            (TYPE, Some("classic" | "quorum")) => None,
            (TYPE, _) => Some("what was posted stays in it"),
            ("x-single-active-consumer", Some("true")) => None,
            ("x-single-active-consumer", _) => Some("two instances could post from it at once"),
            ("x-overflow", Some(what)) if what.starts_with("reject-publish") => {
                Some("once it is full it refuses events, where the oldest should go")
            }
            _ => None,
        }
    }
}

/// Differences in words, for one line.
pub(crate) fn listed(differences: &[Difference]) -> String {
    let each = differences.iter().map(ToString::to_string);
    each.collect::<Vec<_>>().join("; ")
}

/// Queues of another kind that serve, by broker and name.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<Mutex<HashMap<(String, ShortString), Instant>>>);

impl Known {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, ShortString), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has(&self, broker: &str, queue: &ShortString) -> bool {
        let known = self.lock();
        let since = known.get(&(broker.to_owned(), queue.clone()));
        since.is_some_and(|since| since.elapsed() < BELIEVED)
    }

    pub(super) fn note(&self, broker: &str, queue: &ShortString) {
        let mut known = self.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert((broker.to_owned(), queue.clone()), Instant::now());
    }

    pub(super) fn forget(&self, broker: &str, queue: &ShortString) {
        self.lock().remove(&(broker.to_owned(), queue.clone()));
    }
}

/// The broker's words where it refuses a declaration because of a queue's properties (406).
pub(super) fn refusal(error: &lapin::Error) -> Option<&str> {
    match error.kind() {
        ErrorKind::ProtocolError(said) if said.get_id() == 406 => Some(said.get_message().as_str()),
        _ => None,
    }
}

/// In what a queue that exists differs from one with these arguments, where it serves all the same.
///
/// # Errors
/// It does not serve, or that cannot be found out: in words that say what to do.
pub(super) async fn examine(
    connection: &Connection,
    queue: &ShortString,
    mut arguments: FieldTable,
) -> Result<Vec<Difference>, String> {
    let mut found = Vec::new();
    for _ in 0..MAX_TRIES {
        let (options, asked) = (QueueDeclareOptions::durable(), arguments.clone());
        let declared = async {
            let channel = connection.create_channel().await?;
            channel.queue_declare(queue.clone(), options, asked).await?;
            // A refusal has closed it.
            channel.close(200, "OK".into()).await
        };
        let Err(error) = declared.await else {
            return Ok(found);
        };
        guard::note(&error);
        let words = refusal(&error).map(str::to_owned);
        let words = words.ok_or_else(|| error.to_string())?;
        let odd = || format!("queue {queue} exists with other properties");
        let Some(learnt) = agree(&mut arguments, &words) else {
            return Err(format!("{} ({words}): {CURE}", odd()));
        };
        let Some(difference) = learnt else {
            continue;
        };
        if let Some(why) = difference.unfit() {
            let odd = odd();
            return Err(format!(
                "{odd} and does not serve, {why} ({difference}): {CURE}"
            ));
        }
        found.push(difference);
    }
    Err(format!(
        "queue {queue} exists with too many other properties: {CURE}"
    ))
}

/// What is to be done about a queue that does not serve.
pub(crate) const CURE: &str = "delete it and it is made anew, without what waits in it";

/// Makes a declaration agree with what a refusal says: `None` where it cannot be read, `Some(None)`
/// where an argument was taken out that queues of this type do not have.
fn agree(arguments: &mut FieldTable, words: &str) -> Option<Option<Difference>> {
    if let Some((_, rest)) = words.split_once("invalid arg '") {
        let (name, _) = rest.split_once('\'')?;
        return remove(arguments, name).map(|_| None);
    }
    let (_, rest) = words.split_once("inequivalent arg '")?;
    let (name, rest) = rest.split_once('\'')?;
    // The queue's name stands between, and may hold any of these words.
    let (_, current) = rest.rsplit_once(" but current is ")?;
    let ours = remove(arguments, name);
    let theirs = value(current.trim(), ours.as_ref())?;
    let (mut shown, mut said) = (ours.as_ref().map(text), theirs.as_ref().map(text));
    match name {
        // No arguments: what is declared is durable always, and nothing else.
        "durable" => (shown, said) = (Some("true".to_owned()), said.or_else(|| bare(current))),
        "auto_delete" | "exclusive" => {
            (shown, said) = (Some("false".to_owned()), said.or_else(|| bare(current)));
        }
        // An argument of the one type only.
        TYPE => {
            remove(arguments, "x-delivery-limit");
        }
        _ => {}
    }
    if name.starts_with("x-")
        && let Some(theirs) = theirs
    {
        arguments.insert(ShortString::from(name), theirs);
    }
    Some(Some(Difference {
        name: name.to_owned(),
        ours: shown,
        theirs: said,
    }))
}

fn remove(arguments: &mut FieldTable, name: &str) -> Option<AMQPValue> {
    let mut all: BTreeMap<ShortString, AMQPValue> = arguments.inner().clone();
    let removed = all.remove(name);
    *arguments = all.into();
    removed
}

fn bare(quoted: &str) -> Option<String> {
    let inner = quoted.strip_prefix('\'')?.strip_suffix('\'')?;
    Some(inner.to_owned())
}

/// As a refusal shows it: `none`, `'X'` where ours has a value too, else
/// `the value 'X' of type 'T'`. `Some(None)`: it is not set.
fn value(shown: &str, ours: Option<&AMQPValue>) -> Option<Option<AMQPValue>> {
    if shown == "none" {
        return Some(None);
    }
    let (inner, kind) = match shown.strip_prefix("the value ") {
        Some(rest) => {
            let (inner, kind) = rest.rsplit_once(" of type ")?;
            (bare(inner)?, bare(kind)?)
        }
        None => {
            let kind = match ours {
                Some(AMQPValue::Boolean(_)) => "bool",
                Some(AMQPValue::LongInt(_) | AMQPValue::LongLongInt(_)) => "long",
                _ => "longstr",
            };
            (bare(shown)?, kind.to_owned())
        }
    };
    let value = match kind.as_str() {
        "bool" => AMQPValue::Boolean(inner.parse().ok()?),
        "longstr" => AMQPValue::LongString(inner.into_bytes().into()),
        // Numbers of every width are equal to a broker.
        _ => AMQPValue::LongLongInt(inner.parse().ok()?),
    };
    Some(Some(value))
}

fn text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::Boolean(yes) => yes.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        other => format!("{other:?}"),
    }
}

/// In what a queue as the management API lists it differs from one with these arguments.
pub(super) fn compared(arguments: &FieldTable, live: &Value) -> Vec<Difference> {
    let none = serde_json::Map::new();
    let theirs = live["arguments"].as_object().unwrap_or(&none);
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let ours = |name: &str| arguments.inner().get(name).map(text);
    let kind = live["type"].as_str().unwrap_or("classic").to_owned();
    let fixed = [
        ("durable", "true"),
        ("auto_delete", "false"),
        ("exclusive", "false"),
    ];
    let fixed = fixed.into_iter().map(|(name, ours)| Difference {
        name: name.to_owned(),
        ours: Some(ours.to_owned()),
        theirs: live.get(name).map(shown).or_else(|| Some(ours.to_owned())),
    });
    let kinds = Difference {
        name: TYPE.to_owned(),
        ours: ours(TYPE).or_else(|| Some("classic".to_owned())),
        theirs: Some(kind),
    };
    let same_kind = kinds.ours == kinds.theirs;
    let names = arguments.inner().keys().map(ToString::to_string);
    let names: BTreeSet<String> = names.chain(theirs.keys().cloned()).collect();
    let of_kind = |name: &String| name != TYPE && (same_kind || name != "x-delivery-limit");
    let others = names.into_iter().filter(of_kind).map(|name| Difference {
        ours: ours(&name),
        theirs: theirs.get(&name).map(shown),
        name,
    });
    let all = fixed.chain([kinds]).chain(others);
    all.filter(|one| one.ours != one.theirs).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ours() -> FieldTable {
        let mut table = FieldTable::default();
        table.insert("x-expires".into(), AMQPValue::LongInt(21_600_000));
        table.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        let kind = AMQPValue::LongString("quorum".into());
        table.insert(TYPE.into(), kind);
        table.insert("x-delivery-limit".into(), AMQPValue::LongInt(1_000_000));
        table
    }

    fn told(name: &str, received: &str, current: &str) -> String {
        format!(
            "PRECONDITION_FAILED - inequivalent arg '{name}' for queue 't.callback.a' but current is \
             b' in vhost '/': received {received} but current is {current}"
        )
    }

    #[test]
    fn a_refusal_teaches_what_there_is_and_what_does_not_serve_is_known_by_it() {
        for (name, received, current, wanted, serves) in [
            (
                "x-expires",
                "'21600000'",
                "'60000'",
                "x-expires is 60000, ours is 21600000",
                true,
            ),
            (
                "x-message-ttl",
                "none",
                "the value '5000' of type 'signedint'",
                "x-message-ttl is 5000, ours is not set",
                true,
            ),
            (
                "x-expires",
                "the value '21600000' of type 'signedint'",
                "none",
                "x-expires is not set, ours is 21600000",
                true,
            ),
            (
                TYPE,
                "'quorum'",
                "'classic'",
                "x-queue-type is classic, ours is quorum",
                true,
            ),
            (
                TYPE,
                "'quorum'",
                "'stream'",
                "x-queue-type is stream, ours is quorum",
                false,
            ),
            (
                "x-single-active-consumer",
                "the value 'true' of type 'bool'",
                "none",
                "x-single-active-consumer is not set, ours is true",
                false,
            ),
            (
                "x-overflow",
                "none",
                "the value 'reject-publish' of type 'longstr'",
                "x-overflow is reject-publish, ours is not set",
                false,
            ),
            (
                "durable",
                "'true'",
                "'false'",
                "durable is false, ours is true",
                false,
            ),
            (
                "auto_delete",
                "'false'",
                "'true'",
                "auto_delete is true, ours is false",
                false,
            ),
        ] {
            let mut table = ours();
            let learnt = agree(&mut table, &told(name, received, current));
            let difference = learnt.unwrap().unwrap();
            assert_eq!(difference.to_string(), wanted);
            assert_eq!(difference.unfit().is_none(), serves, "{wanted}");
        }
        let mut table = ours();
        assert_eq!(
            agree(&mut table, "PRECONDITION_FAILED - something else"),
            None
        );
        agree(&mut table, &told(TYPE, "'quorum'", "'classic'")).unwrap();
        assert!(!table.contains_key("x-delivery-limit"));
        let invalid = "PRECONDITION_FAILED - invalid arg 'x-expires' for queue 'q' in vhost '/'";
        assert_eq!(agree(&mut table, invalid), Some(None));
        assert!(!table.contains_key("x-expires"));
    }

    #[test]
    fn the_management_api_shows_the_same_differences() {
        let same = json!({"type": "quorum", "durable": true, "auto_delete": false, "exclusive": false,
            "arguments": {"x-queue-type": "quorum", "x-expires": 21_600_000,
                "x-single-active-consumer": true, "x-delivery-limit": 1_000_000}});
        assert_eq!(compared(&ours(), &same), []);
        let other = json!({"type": "classic", "durable": true, "auto_delete": false,
            "arguments": {"x-expires": 60_000, "x-single-active-consumer": true, "x-max-length": 5}});
        assert_eq!(
            listed(&compared(&ours(), &other)),
            "x-queue-type is classic, ours is quorum; x-expires is 60000, ours is 21600000; \
             x-max-length is 5, ours is not set"
        );
        let unfit = json!({"type": "classic", "durable": false, "arguments": {}});
        let unfit = compared(&ours(), &unfit);
        assert_eq!(unfit.iter().filter_map(Difference::unfit).count(), 2);
    }

    #[test]
    fn what_serves_is_believed_for_a_while() {
        let (known, queue) = (Known::default(), ShortString::from("q"));
        known.note("b-1", &queue);
        assert!(known.has("b-1", &queue) && !known.has("b-2", &queue));
        known.forget("b-1", &queue);
        assert!(!known.has("b-1", &queue));
    }
}
