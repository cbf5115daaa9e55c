//! Times as people read them, beside those for machines.

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value};

/// Members that hold milliseconds since the epoch, and the one beside them that says the same in
/// RFC 3339.
const TIMES: [(&str, &str); 2] = [("started", "startedAt"), ("at", "time")];

/// A time in milliseconds since the epoch: RFC 3339 in UTC.
pub(crate) fn iso(millis: u64) -> String {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    match DateTime::from_timestamp_millis(millis) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Millis, true),
        None => "never".to_owned(),
    }
}

/// An answer with a readable time beside each of its times.
#[must_use]
pub fn with_times(mut answer: Value) -> Value {
    add(&mut answer);
    answer
}

/// Puts the readable time beside each time of the answer, at any depth; none beside a time that is
/// not known (0).
pub(super) fn add(answer: &mut Value) {
    match answer {
        Value::Array(items) => items.iter_mut().for_each(add),
        Value::Object(members) => {
            members.values_mut().for_each(add);
            add_to(members);
        }
        _ => {}
    }
}

fn add_to(members: &mut Map<String, Value>) {
    for (name, beside) in TIMES {
        let time = members.get(name).and_then(Value::as_u64);
        if let Some(time) = time.filter(|time| *time > 0) {
            members.insert(beside.to_owned(), iso(time).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_time_is_readable_too_and_no_other_number() {
        let mut answer = json!({"started": 1_700_000_000_123_u64, "at": "noon", "finished": 7,
            "groups": [{"choice": {"at": 1_700_000_000_000_u64}}, {"choice": null}],
            "peers": [{"started": 0}]});
        add(&mut answer);
        assert_eq!(answer["startedAt"], "2023-11-14T22:13:20.123Z");
        let choice = &answer["groups"][0]["choice"];
        assert_eq!(choice["time"], "2023-11-14T22:13:20.000Z");
        assert!(answer.get("time").is_none());
        assert!(answer["peers"][0].get("startedAt").is_none());
    }
}
