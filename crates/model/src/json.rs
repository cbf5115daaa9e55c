//! JSON as its writer wrote it: numbers keep their digits, objects the order of their names.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON value as text; serialised as that text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Json(String);

impl Json {
    /// Reads a value that nests no deeper than `depth`; `None` where the text is none, or holds
    /// what common readers refuse: half a surrogate pair, a number that no double can come near.
    #[must_use]
    pub fn read(text: &str, depth: usize) -> Option<Self> {
        let text = text.trim();
        let sound = !nests_deeper(text, depth) && serde_json::from_str::<Value>(text).is_ok();
        sound.then(|| Self(text.to_owned()))
    }

    /// No value.
    #[must_use]
    pub fn null() -> Self {
        Value::Null.into()
    }

    /// The value's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self(value.to_string())
    }
}

/// Whether objects and arrays nest deeper than this. It counts brackets outside of texts, before
/// anything is built from them.
#[must_use]
pub fn nests_deeper(text: &str, most: usize) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Names and values of an object in their order, each value as it was written. A name may stand
/// twice; readers agree that the last one counts. `None` where the text is no object.
#[must_use]
pub fn members(text: &str) -> Option<Vec<(String, &str)>> {
    serde_json::from_str(text)
        .ok()
        .map(|Members(members)| members)
}

/// The value that counts under a name.
#[must_use]
pub fn member<'a>(members: &[(String, &'a str)], is_it: impl Fn(&str) -> bool) -> Option<&'a str> {
    let mut members = members.iter().rev();
    members.find_map(|(name, value)| is_it(name).then_some(*value))
}

/// Values of an array, each as it was written. `None` where the text is no array.
#[must_use]
pub fn elements(text: &str) -> Option<Vec<&str>> {
    let elements = serde_json::from_str::<Vec<&RawValue>>(text).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

/// One text for all ways to write a value that differ in blanks, escapes and the order of names
/// only. Numbers stay as they are written. Of what nests no deeper than was looked at before.
#[must_use]
pub fn canonical(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    write_canonical(text.trim(), &mut out);
    out
}

fn write_canonical(text: &str, out: &mut String) {
    if let Some(mut members) = members(text) {
        // Stable: of equal names the last stays last, and it is the one that counts.
        members.sort_by(|one, other| one.0.cmp(&other.0));
        out.push('{');
        let mut first = true;
        for (at, (name, value)) in members.iter().enumerate() {
            if members.get(at + 1).is_some_and(|(next, _)| next == name) {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            out.push_str(&Value::from(name.as_str()).to_string());
            out.push(':');
            write_canonical(value, out);
        }
        out.push('}');
    } else if let Some(elements) = elements(text) {
        out.push('[');
        for (at, value) in elements.into_iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            write_canonical(value, out);
        }
        out.push(']');
    } else if let Ok(quoted) = serde_json::from_str::<String>(text) {
        out.push_str(&Value::from(quoted).to_string());
    } else {
        out.push_str(text);
    }
}

struct Members<'a>(Vec<(String, &'a str)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
            members.push((name, value.get()));
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_as_it_was_written() {
        let text = r#"{"z":12345678901234567890123,"a":1.10,"e":1e2, "n":[ ]}"#;
        let json = Json::read(&format!(" {text}\n"), 2).unwrap();
        assert_eq!(json.as_str(), text);
        assert_eq!(Json::read(text, 1), None);
        assert_eq!(Json::read(r#""[[[""#, 0), Some(Json(r#""[[[""#.into())));
        for refused in ["", "{", "1 2", r#""\ud800""#, "1e999", "\u{feff}1"] {
            assert_eq!(Json::read(refused, 9), None, "{refused}");
        }
        assert_eq!(Json::null().as_str(), "null");
    }

    #[test]
    fn members_and_elements_keep_order_and_text() {
        let found = members(r#"{"b": 1.0 , "a":{"x":[1]},"\u0062":2}"#).unwrap();
        let pair = |name: &str, value| (name.to_owned(), value);
        assert_eq!(
            found,
            [pair("b", "1.0"), pair("a", r#"{"x":[1]}"#), pair("b", "2")]
        );
        assert_eq!(member(&found, |name| name == "b"), Some("2"));
        assert_eq!(elements("[1.0, \"x\" ]").unwrap(), ["1.0", "\"x\""]);
        assert!(members("[1]").is_none() && elements("{}").is_none());
    }

    #[test]
    fn the_canonical_text_tells_values_apart_and_writings_alike() {
        let one = canonical(r#"{"b":[1.10, "\u0041"], "a":{"y":1,"x":2}}"#);
        let same = canonical(r#" {"a":{"x":2,"y":0,"y":1},"b":[1.10,"A"]} "#);
        assert_eq!(one, same);
        for other in [
            r#"{"b":[1.1,"A"],"a":{"y":1,"x":2}}"#,
            r#"{"b":["A",1.10],"a":{"y":1,"x":2}}"#,
            r#"{"b":[1.10,"A"],"a":{"y":1}}"#,
        ] {
            assert_ne!(one, canonical(other));
        }
        let big = |last: char| canonical(&format!("12345678901234567890{last}"));
        assert_ne!(big('1'), big('2'));
    }

    #[test]
    fn the_canonical_text_is_that_of_a_value_where_numbers_are_usual() {
        let text = r#" {"b":[1, {"y":null,"x":"\u00e9"}],"a":{},"c":[]}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(canonical(text), value.to_string());
    }
}
