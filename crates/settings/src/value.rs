//! One value's text to its type: the checks that need nothing but the value itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::AllowRule;
use super::schema::Kind;
use super::url::{BrokerAddress, HttpAddress};
use tandem_model::Secret;
use tandem_net::address::{bare, host_problem};

/// A value that has passed its kind's check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `Bool`.
    Bool(bool),
    /// `Int`.
    Int(u64),
    /// `Duration`, `WholeSeconds`.
    Duration(Duration),
    /// Every kind that is text.
    Text(String),
    /// `Secret`.
    Secret(Secret),
    /// `BrokerUrl`.
    Broker(BrokerAddress),
    /// `HttpUrl`.
    Http(HttpAddress),
    /// `HttpUrls`, at least one.
    HttpList(Vec<HttpAddress>),
    /// `Listen`.
    Listen(SocketAddr),
    /// `Queues`.
    Queues(Vec<String>),
    /// `Allow`.
    Allow(AllowRule),
}

/// Checks `text` against `kind`. The error says what is wrong; what is allowed says the kind.
pub fn parse(kind: Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Bool => match text.to_ascii_lowercase().as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err("neither true nor false".into()),
        },
        Kind::Int(min, max) => {
            let number = whole_number(text)?;
            if (min..=max).contains(&number) {
                Ok(Value::Int(number))
            } else {
                Err("out of range".into())
            }
        }
        Kind::Duration(min, max) => duration(text, min, max).map(Value::Duration),
        Kind::WholeSeconds(min, max) => match duration(text, min, max)? {
            whole if whole.subsec_nanos() == 0 => Ok(Value::Duration(whole)),
            _ => Err("not whole seconds".into()),
        },
        Kind::OneOf(words) => one_of(words, text),
        Kind::Id => check(is_id(text), text, "not a valid id"),
        Kind::ClusterName => {
            let good = (1..=64).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
            check(good, text, "not a valid name")
        }
        Kind::Label => {
            let good =
                (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control);
            check(good, text, "not a valid label")
        }
        Kind::Text | Kind::Path => check(
            !text.chars().any(char::is_control),
            text,
            "it has control characters",
        ),
        Kind::FarPath if text.chars().any(char::is_control) => {
            Err("it has control characters".into())
        }
        Kind::FarPath => check(is_absolute(text), text, "not an absolute path"),
        Kind::Secret(least) if text.len() < least => Err(format!(
            "it has {} bytes, at least {least} are needed",
            text.len()
        )),
        Kind::Secret(_) => Ok(Value::Secret(Secret::new(text))),
        Kind::BrokerUrl => BrokerAddress::parse(text).map(Value::Broker),
        Kind::HttpUrl => HttpAddress::parse(text).map(Value::Http),
        Kind::HttpUrls => HttpAddress::parse_list(text).map(Value::HttpList),
        Kind::Host => match host_problem(text) {
            Some(problem) => Err(problem.into()),
            None => check(
                is_host(text),
                text,
                "not a host name or address (no scheme, port or path)",
            ),
        },
        Kind::Listen => listen(text),
        Kind::Queue => queue(text).map(Value::Text),
        Kind::Queues => queues(text),
        Kind::Allow => allow_rule(text).map(Value::Allow),
        Kind::ReasonId => match whole_number(text)? {
            id if id <= i32::MAX as u64 => Ok(Value::Text(id.to_string())),
            _ => Err("out of range".into()),
        },
        Kind::LogLevel => log_level(text),
    }
}

fn check(good: bool, text: &str, message: &str) -> Result<Value, String> {
    if good {
        Ok(Value::Text(text.to_owned()))
    } else {
        Err(message.to_owned())
    }
}

/// On a machine of whatever system: `/etc/ca.pem`, `C:\ca.pem`.
fn is_absolute(path: &str) -> bool {
    let drive = |bytes: &[u8]| matches!(bytes, [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
    path.starts_with('/') || drive(path.as_bytes())
}

fn whole_number(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("not a whole number".into());
    }
    text.parse().map_err(|_| "out of range".into())
}

fn one_of(words: &[&'static str], text: &str) -> Result<Value, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(word) = words.iter().find(|word| **word == lower) {
        return Ok(Value::Text((*word).to_owned()));
    }
    // The original lists XML beside JSON and DEFAULT but describes it nowhere.
    let why = if lower == "xml" && words.contains(&"json") && words.contains(&"default") {
        "XML events are not supported"
    } else {
        "not one of the possible words"
    };
    Err(why.into())
}

fn duration(text: &str, min: u64, max: u64) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number = whole_number(number).map_err(|_| "not a duration".to_owned())?;
    let factor = match unit.trim_start() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err("a duration needs a unit".into()),
        _ => return Err("not a unit of time".into()),
    };
    match number.checked_mul(factor) {
        Some(ms) if (min..=max).contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => Err("out of range".into()),
    }
}

/// Milliseconds as a property file has them, with the largest unit that needs no fraction.
pub fn duration_text(ms: u64) -> String {
    match ms {
        0 => "0ms".into(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

/// `[a-z0-9-]{1,32}`.
pub fn is_id(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A host name (underscores as container networks have them included) or an IP address.
pub fn is_host(text: &str) -> bool {
    if bare(text).parse::<IpAddr>().is_ok() {
        return true;
    }
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text.split('.').all(|part| !part.starts_with('-'))
        && !text.starts_with('.')
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let host = bare(host).to_ascii_lowercase();
    let host = host.trim_end_matches('.');
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

fn listen(text: &str) -> Result<Value, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric
        .parse()
        .map(Value::Listen)
        .map_err(|_| "not an address with a port".into())
}

fn queue(text: &str) -> Result<String, String> {
    let good = (1..=255).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c == ',');
    if !good {
        return Err("not a queue's name".into());
    }
    if text.starts_with("amq.") {
        return Err("names that begin with amq. belong to the broker".into());
    }
    Ok(text.to_owned())
}

fn queues(text: &str) -> Result<Value, String> {
    let names: Vec<String> = text
        .split(',')
        .map(|part| queue(part.trim()))
        .collect::<Result<_, _>>()?;
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    if sorted.len() < names.len() {
        return Err("a queue is named twice".into());
    }
    Ok(Value::Queues(names))
}

fn allow_rule(text: &str) -> Result<AllowRule, String> {
    let (method, path) = text
        .split_once(char::is_whitespace)
        .ok_or("not a method and a path")?;
    let path = path.trim();
    let method = match method.to_ascii_uppercase().as_str() {
        "GET" => http::Method::GET,
        "HEAD" => http::Method::HEAD,
        "PUT" => http::Method::PUT,
        "DELETE" => http::Method::DELETE,
        "POST" => http::Method::POST,
        "PATCH" => http::Method::PATCH,
        _ => return Err("not a method that commands may use".into()),
    };
    let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '%' | '?' | '#' | '\\');
    let dots = path.split('/').any(|part| part == "." || part == "..");
    if !path.starts_with('/') || path.contains("//") || dots || path.contains(odd) {
        return Err("not a normal path".into());
    }
    Ok(AllowRule {
        method,
        path_prefix: path.to_owned(),
    })
}

fn log_level(text: &str) -> Result<Value, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |level: &str| LEVELS.contains(&level);
    let lower = text.to_ascii_lowercase();
    if is_level(&lower) {
        return Ok(Value::Text(lower));
    }
    let target = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-'))
    };
    let good = text.split(',').all(|part| match part.split_once('=') {
        Some((name, level)) => target(name) && is_level(level),
        None => is_level(part),
    });
    check(good, text, "not a log level")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::{Default_, SCHEMA};

    #[test]
    fn durations_need_a_unit_and_stay_in_bounds() {
        let parse = |text| duration(text, 100, 7_200_000);
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("10 s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse("500"), Err("a duration needs a unit".into()));
        for bad in [
            "",
            "ms",
            "-1s",
            "1.5s",
            "1d",
            "99ms",
            "3h",
            "18446744073709551615h",
            "99999999999999999999s",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(super::parse(Kind::WholeSeconds(1000, 60_000), "1500ms").is_err());
    }

    #[test]
    fn hosts_and_loopback() {
        for good in [
            "localhost",
            "a.b-c.example",
            "10.0.0.1",
            "::1",
            "[::1]",
            "rabbit_1",
        ] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "a:1", "http://a", "a/b", "a b", "-a", ".a", "[::1", "ä"] {
            assert!(!is_host(bad), "{bad}");
        }
        for local in [
            "localhost",
            "LOCALHOST.",
            "x.localhost",
            "127.9.9.9",
            "[::1]",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_loopback(local), "{local}");
        }
        for far in ["localhost.example", "10.0.0.1", "127.example", "::2"] {
            assert!(!is_loopback(far), "{far}");
        }
    }

    #[test]
    fn allow_rules_are_methods_with_normal_paths() {
        let rule = allow_rule("get /api/v1").unwrap();
        assert_eq!(
            (rule.method, rule.path_prefix.as_str()),
            (http::Method::GET, "/api/v1")
        );
        for bad in [
            "GET",
            "TRACE /a",
            "GET a",
            "GET /a/../b",
            "GET /a//b",
            "GET /%2e",
            "GET /a?b",
            "GET /a b",
        ] {
            assert!(allow_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_levels_ids_and_listeners() {
        assert_eq!(
            one_of(&["json", "default"], "DEFAULT"),
            Ok(Value::Text("default".into()))
        );
        assert!(
            one_of(&["json", "default"], "XML")
                .unwrap_err()
                .contains("XML")
        );
        assert!(log_level("info,tandem::broker=debug").is_ok() && log_level("loud").is_err());
        assert!(is_id("gc-1") && !is_id("GC-1") && !is_id("") && !is_id(&"a".repeat(33)));
        assert_eq!(listen("localhost:1"), listen("127.0.0.1:1"));
        assert!(listen("9601").is_err() && listen("[::1]:9601").is_ok());
        assert!(queues("a, b").is_ok() && queues("a,a").is_err() && queues("a,").is_err());
        assert!(queue("amq.x").is_err());
    }

    #[test]
    fn every_default_of_the_table_passes_its_own_check() {
        for key in SCHEMA {
            if let Default_::Is(text) = key.default {
                assert!(parse(key.kind, text).is_ok(), "{} = {text}", key.name);
            }
        }
    }

    #[test]
    fn duration_text_is_read_back() {
        for ms in [0, 500, 1500, 3000, 120_000, 3_600_000] {
            assert_eq!(
                duration(&duration_text(ms), 0, u64::MAX),
                Ok(Duration::from_millis(ms))
            );
        }
    }

    proptest! {
        #[test]
        fn no_value_of_any_kind_makes_it_panic(text in "\\PC{0,60}|[a-z0-9:/@%.\\[\\]?# ,=-]{0,60}") {
            for key in SCHEMA {
                if let Ok(Value::Duration(d)) = parse(key.kind, &text) {
                    prop_assert!(d <= Duration::from_secs(24 * 3600));
                }
            }
        }
    }
}
