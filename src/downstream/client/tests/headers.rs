//! Headers that a command sets itself.

use super::*;

/// What a command says of the answer that it wants stands alone; that it may come compressed is not
/// passed on, for nobody here could read it.
#[tokio::test]
async fn a_command_says_what_it_accepts_and_not_how_it_is_packed() {
    let given = |headers: &[(&str, &str)]| {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        headers.iter().map(own).collect::<Vec<_>>()
    };
    let of = |request: &str, name: &str| -> Vec<String> {
        let lines = request.lines().filter_map(|line| line.split_once(": "));
        let named = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.to_owned()).collect()
    };
    for (headers, accept) in [
        (given(&[]), "*/*"),
        (
            given(&[("Accept", "text/csv"), ("Accept-Encoding", "gzip")]),
            "text/csv",
        ),
        (
            given(&[("accept-encoding", "br"), ("accept", "text/csv")]),
            "text/csv",
        ),
    ] {
        let mut server = server(Then::Answer(http("200 OK", "x"))).await;
        let request = HttpRequest {
            method: "GET",
            path: "/v1/items".to_owned(),
            query: Vec::new(),
            headers,
            body: String::new(),
            idempotent: true,
        };
        call(&server.url, LONG, &Action::Http(Box::new(request))).await;
        let seen = server.requests.recv().await.unwrap();
        assert_eq!(of(&seen, "accept"), [accept], "{seen}");
        assert_eq!(of(&seen, "accept-encoding"), ["identity"], "{seen}");
    }
}

/// Some servers want a length. What must not be repeated can be held back to the last, and so does not
/// say that it is empty before that.
#[tokio::test]
async fn a_change_without_a_body_that_may_be_repeated_has_a_length() {
    for (method, idempotent, length) in [
        ("PUT", true, Some("0")),
        ("POST", true, Some("0")),
        ("PATCH", true, Some("0")),
        ("POST", false, None),
        ("GET", true, None),
    ] {
        let mut server = server(Then::Answer(http("200 OK", "x"))).await;
        let request = HttpRequest {
            method,
            path: "/v1/items".to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            body: String::new(),
            idempotent,
        };
        call(&server.url, LONG, &Action::Http(Box::new(request))).await;
        let seen = server.requests.recv().await.unwrap();
        let lines = seen.lines().filter_map(|line| line.split_once(": "));
        let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        assert_eq!(lengths.next().map(|(_, value)| value), length, "{seen}");
        assert_eq!(lengths.next(), None, "{seen}");
    }
}
