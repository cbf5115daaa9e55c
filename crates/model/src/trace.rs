//! W3C Trace Context, as a command carries it and all that it causes (`traceparent`,
//! `tracestate`). It is passed on as it came: no spans are made here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Length of a `traceparent` of version 00, bytes.
const PARENT: usize = 55;
/// Longest `traceparent` of a later version that is looked at, bytes.
const MAX_PARENT: usize = 128;
/// Longest `tracestate` that is passed on, bytes; what the specification asks for at least.
const MAX_STATE: usize = 512;
/// Most members of a `tracestate`.
const MAX_MEMBERS: usize = 32;

/// The trace that a command belongs to. Only well-formed ones exist.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Headers", try_from = "Headers")]
pub struct Trace {
    parent: String,
    state: Option<String>,
}

/// As it is serialised.
#[derive(Serialize, Deserialize)]
struct Headers {
    parent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<String>,
}

impl From<Trace> for Headers {
    fn from(Trace { parent, state }: Trace) -> Self {
        Self { parent, state }
    }
}

impl TryFrom<Headers> for Trace {
    type Error = &'static str;

    fn try_from(headers: Headers) -> Result<Self, Self::Error> {
        Self::read(&headers.parent, headers.state.as_deref()).ok_or("no traceparent")
    }
}

impl Trace {
    /// Reads both headers; `None` where the first is malformed. A malformed `tracestate` is left
    /// out. Of a later version only so much is passed on as version 00 knows.
    #[must_use]
    pub fn read(parent: &str, state: Option<&str>) -> Option<Self> {
        let parent = parent.trim();
        if parent.len() > MAX_PARENT || !is_parent(parent.as_bytes()) {
            return None;
        }
        // All ASCII: it was looked at.
        let parent = match parent.get(..2)? {
            "00" => parent.to_owned(),
            _ => format!("00{}", parent.get(2..PARENT)?),
        };
        let state = state.map(str::trim).filter(|state| is_state(state));
        let state = state.map(str::to_owned);
        Some(Self { parent, state })
    }

    /// A new trace whose id comes from these bytes: the same bytes, the same trace.
    #[must_use]
    pub fn from_seed(seed: &[u8; 24]) -> Self {
        let hex = |bytes: &[u8]| -> String {
            // Ids of zeros only are no ids.
            let all_zero = bytes.iter().all(|byte| *byte == 0);
            let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            if all_zero {
                text.replace_range(text.len() - 1.., "1");
            }
            text
        };
        Self {
            parent: format!("00-{}-{}-01", hex(&seed[..16]), hex(&seed[16..])),
            state: None,
        }
    }

    /// Header `traceparent`.
    #[must_use]
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// Header `tracestate`, where there is one.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The trace id: 32 hexadecimal figures.
    #[must_use]
    pub fn id(&self) -> &str {
        self.parent.get(3..35).unwrap_or_default()
    }
}

/// `version "-" trace-id "-" parent-id "-" flags`, in lower-case figures.
fn is_parent(text: &[u8]) -> bool {
    let figures = |part: &[u8]| {
        part.iter()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
    };
    let id = |part: &[u8]| figures(part) && part.iter().any(|byte| *byte != b'0');
    let Some((head, rest)) = text.split_at_checked(PARENT) else {
        return false;
    };
    let dashes = head[2] == b'-' && head[35] == b'-' && head[52] == b'-';
    let version = &head[..2];
    let longer = match version {
        b"00" => rest.is_empty(),
        _ => rest.is_empty() || (rest[0] == b'-' && rest.is_ascii()),
    };
    dashes
        && longer
        && figures(version)
        && version != b"ff"
        && id(&head[3..35])
        && id(&head[36..52])
        && figures(&head[53..])
}

/// `key=value` members with commas between them.
fn is_state(text: &str) -> bool {
    let members = text.split(',').map(str::trim);
    let member = |member: &str| {
        let Some((key, value)) = member.split_once('=') else {
            return member.is_empty();
        };
        let in_key = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/@".contains(&b);
        let in_value = |b: u8| (b' '..=b'~').contains(&b) && b != b'=';
        !key.is_empty() && key.bytes().all(in_key) && value.bytes().all(in_value)
    };
    !text.is_empty()
        && text.len() <= MAX_STATE
        && members.clone().count() <= MAX_MEMBERS
        && members.clone().all(member)
        && members.clone().any(|member| !member.is_empty())
}

/// What everything that a command causes carries with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cause {
    /// The command's correlation id.
    pub correlation_id: Option<String>,
    /// The command's trace.
    pub trace: Option<Arc<Trace>>,
}

impl Cause {
    /// This one, or where it says nothing the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (&self.correlation_id, &self.trace) {
            (None, None) => other,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_well_formed_one_is_passed_on_as_it_came() {
        let trace = Trace::read(PARENT, Some("vendor=x y,t@sys=1")).unwrap();
        assert_eq!(trace.parent(), PARENT);
        assert_eq!(trace.state(), Some("vendor=x y,t@sys=1"));
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let text = serde_json::to_string(&trace).unwrap();
        assert_eq!(serde_json::from_str::<Trace>(&text).unwrap(), trace);
    }

    #[test]
    fn malformed_ones_are_none() {
        let zero = "0".repeat(32);
        for bad in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-x"),
            &PARENT.to_uppercase(),
            &PARENT.replacen("00-", "ff-", 1),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zero),
            &PARENT.replace("00f067aa0ba902b7", "0000000000000000"),
            &PARENT.replace('-', "_"),
            &PARENT.replace("01", "0g"),
            &format!("01{}-{}", &PARENT[2..], "a".repeat(200)),
            &"é".repeat(30),
        ] {
            assert_eq!(Trace::read(bad, None), None, "{bad}");
        }
        let text = r#"{"parent":"no\r\nsuch: header"}"#;
        assert!(serde_json::from_str::<Trace>(text).is_err());
    }

    #[test]
    fn of_a_later_version_as_much_is_passed_on_as_this_one_knows() {
        let later = format!("01{}-more", &PARENT[2..]);
        assert_eq!(Trace::read(&later, None).unwrap().parent(), PARENT);
    }

    #[test]
    fn a_malformed_state_is_left_out() {
        let many = vec!["a=1"; 33].join(",");
        let long = format!("a={}", "x".repeat(512));
        for bad in ["", " ", "novalue", "A=1", "a=\r\nb: c", "a=é", &many, &long] {
            let trace = Trace::read(PARENT, Some(bad)).unwrap();
            assert_eq!(trace.state(), None, "{bad}");
        }
    }

    #[test]
    fn the_same_seed_is_the_same_trace_and_always_well_formed() {
        for seed in [[0; 24], [0xab; 24]] {
            let trace = Trace::from_seed(&seed);
            assert_eq!(trace, Trace::from_seed(&seed));
            assert!(Trace::read(trace.parent(), None).is_some(), "{trace:?}");
        }
    }
}
