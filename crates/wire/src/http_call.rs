//! `Call` commands: from named arguments to a request that may be sent.
//!
//! The path is normalised once, and the normalised path is both what the allow-list sees and what
//! is sent: nothing behind this can read it differently.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::catalogue::Args;
use crate::model::{HttpRequest, json};

/// Longest path, in bytes.
const MAX_PATH: usize = 4096;
/// Most headers, and most query parameters.
const MAX_PAIRS: usize = 64;
/// Longest header value or query value, in bytes.
const MAX_VALUE: usize = 8192;

/// Characters that stand for themselves in a path segment (RFC 3986, without `;`, which some
/// servers cut segments at).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// Headers that are the connector's or the connection's own.
const FORBIDDEN: [&str; 15] = [
    "host",
    "authorization",
    "cookie",
    "set-cookie",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "expect",
    "forwarded",
    "via",
    "http2-settings",
];

/// The same by their beginnings.
const FORBIDDEN_PREFIXES: [&str; 3] = ["proxy-", "x-forwarded-", "sec-"];

/// Why a request is not sent. None of the texts holds a value of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCall {
    /// Not one of the six methods.
    #[error("method must be GET, HEAD, PUT, DELETE, POST or PATCH")]
    Method,
    /// The path cannot be normalised to one below the base URL.
    #[error(
        "path must begin with / and stay below the base URL; no query, fragment, encoded slash or double encoding; at most 4,096 bytes once encoded"
    )]
    Path,
    /// A header that a command may not set, or that is none.
    #[error("headers holds one that a command may not set, or that is no header")]
    Header,
    /// Not an object of texts.
    #[error(
        "query and headers must be objects of texts, numbers and truth values (in query also lists of them, and null), at most 64 of at most 8,192 bytes each"
    )]
    Pairs,
    /// `idempotent` is not a truth value.
    #[error("idempotent must be true or false")]
    Idempotent,
}

/// Reads the arguments of a `Call`.
///
/// # Errors
/// Where it is not a request that may be sent at all; whether it is allowed is asked elsewhere.
pub fn parse(args: &Args) -> Result<HttpRequest, BadCall> {
    let method = match args
        .get("method")
        .unwrap_or_default()
        .to_ascii_uppercase()
        .as_str()
    {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "POST" => "POST",
        "PATCH" => "PATCH",
        _ => return Err(BadCall::Method),
    };
    let idempotent = match args.get("idempotent").map(str::trim) {
        None | Some("null" | "false") => !matches!(method, "POST" | "PATCH"),
        Some("true") => true,
        Some(_) => return Err(BadCall::Idempotent),
    };
    let mut headers = pairs(args.get("headers"), header)?;
    for (name, value) in &headers {
        check_header(name, value)?;
    }
    let (body, kind) = body(args.get("body"), &headers);
    let typed = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if let Some(kind) = kind.filter(|_| !typed) {
        headers.push(("content-type".to_owned(), kind.to_owned()));
    }
    Ok(HttpRequest {
        method,
        path: normalise(args.get("path").unwrap_or_default()).ok_or(BadCall::Path)?,
        query: pairs(args.get("query"), parameter)?,
        headers,
        body,
        idempotent,
    })
}

/// A text under another content type than JSON is sent as it is; everything else as the JSON that
/// was written.
fn body(value: Option<&str>, headers: &[(String, String)]) -> (String, Option<&'static str>) {
    let Some(json) = value.map(str::trim).filter(|json| *json != "null") else {
        return (String::new(), None);
    };
    let kind = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .map(|(_, value)| value.to_ascii_lowercase());
    if kind.is_some_and(|kind| !kind.contains("json"))
        && let Ok(text) = serde_json::from_str(json)
    {
        return (text, None);
    }
    (json.to_owned(), Some("application/json"))
}

/// Names and texts of an object, in its order; `read` makes texts of each value.
fn pairs(
    value: Option<&str>,
    read: fn(&str) -> Result<Vec<String>, BadCall>,
) -> Result<Vec<(String, String)>, BadCall> {
    let Some(object) = value.filter(|json| json.trim() != "null") else {
        return Ok(Vec::new());
    };
    let members = json::members(object).ok_or(BadCall::Pairs)?;
    if members.len() > MAX_PAIRS {
        return Err(BadCall::Pairs);
    }
    let mut pairs: Vec<(String, String)> = Vec::with_capacity(members.len());
    for (at, (name, _)) in members.iter().enumerate() {
        if members[..at].iter().any(|(known, _)| known == name) {
            continue;
        }
        let value = json::member(&members, |other| other == name).unwrap_or_default();
        let texts = read(value)?;
        let long = |text: &String| name.len().max(text.len()) > MAX_VALUE;
        if pairs.len() + texts.len() > MAX_PAIRS || texts.iter().any(long) {
            return Err(BadCall::Pairs);
        }
        pairs.extend(texts.into_iter().map(|text| (name.clone(), text)));
    }
    Ok(pairs)
}

fn header(value: &str) -> Result<Vec<String>, BadCall> {
    plain(value).map(|text| vec![text])
}

/// A query parameter: once for each element of a list, and not at all where it is null.
fn parameter(value: &str) -> Result<Vec<String>, BadCall> {
    match json::elements(value) {
        _ if value == "null" => Ok(Vec::new()),
        Some(elements) => elements.into_iter().map(plain).collect(),
        None => header(value),
    }
}

/// A text, number or truth value without the quotes; a number as it was written.
fn plain(value: &str) -> Result<String, BadCall> {
    match value.trim().as_bytes().first() {
        Some(b'"') => serde_json::from_str(value).map_err(|_| BadCall::Pairs),
        Some(b'{' | b'[' | b'n') | None => Err(BadCall::Pairs),
        Some(_) => Ok(value.trim().to_owned()),
    }
}

fn check_header(name: &str, value: &str) -> Result<(), BadCall> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let visible = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b);
    let lower = name.to_ascii_lowercase();
    let own = FORBIDDEN.contains(&lower.as_str())
        || FORBIDDEN_PREFIXES
            .iter()
            .any(|prefix| lower.starts_with(prefix));
    if name.is_empty() || own || !name.bytes().all(token) || !value.bytes().all(visible) {
        return Err(BadCall::Header);
    }
    Ok(())
}

/// The one form of a path: `.` and `..` resolved, empty segments gone, each segment encoded once.
/// `None` where it would leave the base URL, or could be read in two ways: a slash or backslash
/// inside a segment, a percent sign that is still an escape after decoding, `..;`. `None` too where
/// it is, or once encoded becomes, longer than 4,096 bytes.
#[must_use]
pub fn normalise(path: &str) -> Option<String> {
    let odd = |c: char| c.is_control() || matches!(c, '?' | '#' | '\\');
    if !path.starts_with('/') || path.len() > MAX_PATH || path.contains(odd) {
        return None;
    }
    let mut segments: Vec<String> = Vec::new();
    for part in path.split('/') {
        if !escapes_are_whole(part) {
            return None;
        }
        let segment = percent_decode_str(part).decode_utf8().ok()?;
        let hidden = |c: char| c.is_control() || matches!(c, '/' | '\\');
        if segment.contains(hidden) || holds_escape(&segment) {
            return None;
        }
        let bare = segment.split(';').next().unwrap_or_default().trim();
        match (segment.as_ref(), bare) {
            ("" | ".", _) => {}
            ("..", _) => {
                segments.pop()?;
            }
            (_, "." | "..") => return None,
            (segment, _) => segments.push(utf8_percent_encode(segment, SEGMENT).to_string()),
        }
    }
    let mut out = segments
        .iter()
        .fold(String::new(), |out, part| out + "/" + part);
    if out.is_empty() || (path.ends_with('/') && !out.ends_with('/')) {
        out.push('/');
    }
    (out.len() <= MAX_PATH).then_some(out)
}

/// Every `%` begins an escape.
fn escapes_are_whole(part: &str) -> bool {
    let bytes = part.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| {
        let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
        *byte != b'%' || (hex(at + 1) && hex(at + 2))
    })
}

/// Whether there is an escape left: it was encoded twice.
fn holds_escape(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().any(|(at, byte)| {
        let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
        *byte == b'%' && hex(at + 1) && hex(at + 2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HttpPermission;

    #[test]
    fn a_path_has_one_form() {
        for (given, wanted) in [
            ("/v1/items", "/v1/items"),
            ("/v1//items/", "/v1/items/"),
            ("/v1/./x/../items", "/v1/items"),
            ("/v1/%2e%2e/v2", "/v2"),
            ("/v1/%2E/a%20b", "/v1/a%20b"),
            ("/v1/caf\u{e9}", "/v1/caf%C3%A9"),
            ("/a;b=1/c", "/a%3Bb=1/c"),
            ("/100%25", "/100%25"),
            ("/", "/"),
            ("//", "/"),
            ("/a/..", "/"),
        ] {
            assert_eq!(normalise(given).as_deref(), Some(wanted), "{given}");
        }
        for refused in [
            "",
            "v1",
            "/..",
            "/a/../..",
            "/%2e%2e",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/%252e%252e/x",
            "/a%252fb",
            "/..;/x",
            "/..;a=b/x",
            "/%2e%2e;/x",
            "/a?b",
            "/a#b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%00",
            "/a%0d%0ab",
            "/a\n",
            "/%ff",
            "/ ../x/.. ;",
        ] {
            assert_eq!(normalise(refused), None, "{refused}");
        }
    }

    #[test]
    fn a_path_is_bounded_as_it_is_sent() {
        let spaces = |count: usize| format!("/{}", " ".repeat(count));
        let longest = normalise(&spaces(MAX_PATH / 3)).unwrap();
        assert_eq!(longest.len(), MAX_PATH);
        assert_eq!(normalise(&spaces(MAX_PATH / 3 + 1)), None);
        assert_eq!(normalise(&format!("/{}", "a".repeat(MAX_PATH))), None);
    }

    #[test]
    fn the_normal_form_is_stable_and_permissions_go_by_segments() {
        for path in ["/v1/a%20b/", "/x/caf%C3%A9", "/100%25/%3B"] {
            let once = normalise(path).unwrap();
            assert_eq!(normalise(&once).as_deref(), Some(once.as_str()));
        }
        let permission = HttpPermission {
            method: "GET".into(),
            prefix: "/v1/items".into(),
        };
        let covered = |method: &'static str, path: &str| {
            let request = HttpRequest {
                method,
                path: normalise(path).unwrap(),
                query: Vec::new(),
                headers: Vec::new(),
                body: String::new(),
                idempotent: true,
            };
            permission.covers(&request)
        };
        assert!(covered("GET", "/v1/items"));
        assert!(covered("GET", "/v1//items/7"));
        assert!(!covered("GET", "/v1/items2"));
        assert!(!covered("GET", "/v1/items/../secrets"));
        assert!(!covered("GET", "/v1/items/%2e%2e/secrets"));
        assert!(!covered("PUT", "/v1/items"));
    }

    fn call(values: &[(&'static str, &str)]) -> Result<HttpRequest, BadCall> {
        let mut args = Args::default();
        for (name, value) in values {
            args.push(name, *value);
        }
        parse(&args)
    }

    #[test]
    fn methods_count_as_idempotent_by_the_rule_or_by_the_commands_word() {
        for (method, word, wanted) in [
            ("get", None, true),
            ("HEAD", None, true),
            ("PUT", None, true),
            ("DELETE", None, true),
            ("POST", None, false),
            ("PATCH", Some("false"), false),
            ("POST", Some("true"), true),
        ] {
            let mut values = vec![("method", method), ("path", "/x")];
            values.extend(word.map(|word| ("idempotent", word)));
            assert_eq!(call(&values).unwrap().idempotent, wanted, "{method}");
        }
        for method in ["", "TRACE", "CONNECT", "OPTIONS", "GET "] {
            assert_eq!(
                call(&[("method", method), ("path", "/x")]),
                Err(BadCall::Method)
            );
        }
        let odd = call(&[
            ("method", "POST"),
            ("path", "/x"),
            ("idempotent", "\"yes\""),
        ]);
        assert_eq!(odd, Err(BadCall::Idempotent));
    }

    #[test]
    fn headers_of_the_connection_cannot_be_set() {
        let with = |headers: &str| call(&[("method", "GET"), ("path", "/x"), ("headers", headers)]);
        for name in [
            "Host",
            "authorization",
            "COOKIE",
            "Connection",
            "Transfer-Encoding",
            "Content-Length",
            "Proxy-Authorization",
            "X-Forwarded-For",
            "TE",
            "Upgrade",
            "bad name",
            "",
            "x:y",
            "x\u{e9}",
        ] {
            let headers = serde_json::json!({ name: "v" }).to_string();
            assert_eq!(with(&headers), Err(BadCall::Header), "{name}");
        }
        assert_eq!(with(r#"{"x-a":"1\r\nHost: evil"}"#), Err(BadCall::Header));
        assert_eq!(with(r#"{"x-a":["1"]}"#), Err(BadCall::Pairs));
        assert_eq!(with(r#"["x-a"]"#), Err(BadCall::Pairs));
        assert_eq!(
            with(r#"{"X-A":1}"#).unwrap().headers,
            [("X-A".to_owned(), "1".to_owned())]
        );
    }

    #[test]
    fn query_parameters_are_repeated_for_lists_and_left_out_for_null() {
        let with = |query: &str| {
            let request = call(&[("method", "GET"), ("path", "/x"), ("query", query)]);
            request.map(|request| request.query)
        };
        let given = r#"{"z":["a","b"], "n":null,"empty":[ ],"a":[1.10,true],"t":"x"}"#;
        let wanted = [
            ("z", "a"),
            ("z", "b"),
            ("a", "1.10"),
            ("a", "true"),
            ("t", "x"),
        ];
        let wanted = wanted.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(with(given).unwrap(), wanted);
        assert_eq!(with("null"), Ok(Vec::new()));
        for refused in [
            r#"{"a":[null]}"#,
            r#"{"a":[[1]]}"#,
            r#"{"a":{"b":1}}"#,
            "[1]",
        ] {
            assert_eq!(with(refused), Err(BadCall::Pairs), "{refused}");
        }
        let list = |count: usize| format!(r#"{{"b":0,"a":[{}]}}"#, vec!["1"; count].join(","));
        assert_eq!(with(&list(MAX_PAIRS - 1)).unwrap().len(), MAX_PAIRS);
        assert_eq!(with(&list(MAX_PAIRS)), Err(BadCall::Pairs));
        let long = format!(r#"{{"a":["{}"]}}"#, "x".repeat(MAX_VALUE + 1));
        assert_eq!(with(&long), Err(BadCall::Pairs));
        let headers = call(&[
            ("method", "GET"),
            ("path", "/x"),
            ("headers", r#"{"a":null}"#),
        ]);
        assert_eq!(headers, Err(BadCall::Pairs));
    }

    #[test]
    fn bodies_are_json_unless_a_text_says_otherwise() {
        let with = |headers: &str, body: &str| {
            let request = call(&[
                ("method", "POST"),
                ("path", "/x"),
                ("headers", headers),
                ("body", body),
            ]);
            let request = request.unwrap();
            (request.body, request.headers)
        };
        let typed = |kind: &str| vec![("content-type".to_owned(), kind.to_owned())];
        assert_eq!(
            with("null", r#"{"a":[1]}"#),
            (r#"{"a":[1]}"#.to_owned(), typed("application/json"))
        );
        assert_eq!(
            with("null", r#""text""#),
            (r#""text""#.to_owned(), typed("application/json"))
        );
        assert_eq!(
            with(r#"{"content-type":"text/plain"}"#, r#""text""#),
            ("text".to_owned(), typed("text/plain"))
        );
        assert_eq!(with("null", "null"), (String::new(), Vec::new()));
        let digits = r#"{"z":12345678901234567890123,"a":1.10,"e":1e2}"#;
        assert_eq!(with("null", digits).0, digits);
    }
}
