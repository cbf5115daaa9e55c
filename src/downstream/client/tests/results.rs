//! Every result of a call that must not be made twice, and what it is taken for: one table.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// What the client makes of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Nobody got it: another node may be tried.
    NotSent,
    /// The platform refuses it with this status.
    Refused(u16),
    /// The platform took it.
    Done(u16),
    /// Out of service, not executed: another node may be tried.
    OutOfService,
    /// It may have been executed, whatever status came: never sent again.
    InDoubt(Option<u16>),
}
use Meaning::{Done, InDoubt, NotSent, OutOfService, Refused};

fn meaning(outcome: &CallOutcome) -> Meaning {
    match outcome {
        CallOutcome::NotSent { .. } => NotSent,
        CallOutcome::Refused { status, .. } => Refused(*status),
        CallOutcome::Done { status, .. } => Done(*status),
        CallOutcome::OutOfService { .. } => OutOfService,
        CallOutcome::Unknown { status, .. } => InDoubt(*status),
        other => panic!("no result of a call over the network: {other:?}"),
    }
}

/// Where the request goes.
enum To {
    /// Nobody listens.
    Nobody,
    /// A host without an address.
    NoHost,
    /// A server that speaks no TLS to a client that wants it.
    NoTls,
    /// A server that does this with each request.
    Server(Then),
}

fn answers(status: &str) -> To {
    To::Server(Then::Keep(http(status, "")))
}

fn raw(text: &str) -> To {
    To::Server(Then::Answer(text.as_bytes().to_vec()))
}

fn cases() -> Vec<(&'static str, To, Meaning)> {
    let cut = "\r\nContent-Length: 500\r\n\r\n<ApiErrors>";
    let mut cases = vec![
        ("connection refused", To::Nobody, NotSent),
        ("no such host", To::NoHost, NotSent),
        ("TLS failure", To::NoTls, NotSent),
        (
            "time-out after sending",
            To::Server(Then::Hang),
            InDoubt(None),
        ),
        (
            "reset after sending",
            To::Server(Then::Reset),
            InDoubt(None),
        ),
        ("closed without an answer", raw(""), InDoubt(None)),
        ("cut within the status", raw("HTTP/1.1 20"), InDoubt(None)),
        (
            "cut within the head",
            raw("HTTP/1.1 202 Accepted\r\nCont"),
            InDoubt(None),
        ),
        (
            "no HTTP at all",
            raw("SSH-2.0-OpenSSH_9\r\n"),
            InDoubt(None),
        ),
        // Its status says all that the body of a change could.
        (
            "202 cut within the body",
            raw(&format!("HTTP/1.1 202 OK{cut}")),
            Done(202),
        ),
        (
            "400 cut within the body",
            raw(&format!("HTTP/1.1 400 No{cut}")),
            Refused(400),
        ),
        (
            "503 cut within the body",
            raw(&format!("HTTP/1.1 503 No{cut}")),
            OutOfService,
        ),
        (
            "500 cut within the body",
            raw(&format!("HTTP/1.1 500 No{cut}")),
            InDoubt(Some(500)),
        ),
        ("503", answers("503 Service Unavailable"), OutOfService),
    ];
    for (line, status) in [
        ("200 OK", 200),
        ("202 Accepted", 202),
        ("204 No Content", 204),
    ] {
        cases.push((line, answers(line), Done(status)));
    }
    for (line, status) in [
        ("400 Bad Request", 400),
        ("401 Unauthorized", 401),
        ("403 Forbidden", 403),
        ("404 Not Found", 404),
        ("405 Method Not Allowed", 405),
        ("409 Conflict", 409),
        ("429 Too Many Requests", 429),
        // The feature is not there: nobody executed it.
        ("501 Not Implemented", 501),
    ] {
        cases.push((line, answers(line), Refused(status)));
    }
    // The deployment does not have the feature: nobody did anything.
    let line = "501 Not Implemented";
    cases.push((line, answers(line), Refused(501)));
    for (line, status) in [
        ("301 Moved Permanently", 301),
        ("307 Temporary Redirect", 307),
        ("500 Internal Server Error", 500),
        ("502 Bad Gateway", 502),
        ("504 Gateway Timeout", 504),
        ("505 HTTP Version Not Supported", 505),
    ] {
        cases.push((line, answers(line), InDoubt(Some(status))));
    }
    cases
}

/// A server that answers a TLS greeting in plain text.
async fn no_tls() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/api", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut hello = [0; 16];
        socket.read_exact(&mut hello).await.unwrap();
        let _ = socket.write_all(&http("400 Bad Request", "")).await;
        let _ = socket.shutdown().await;
    });
    url
}

#[tokio::test]
async fn each_result_of_a_call_that_must_not_be_repeated_has_one_meaning() {
    for (name, to, expected) in cases() {
        let (limit, mut server, url) = match to {
            To::Nobody => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let url = format!("http://{}/api", listener.local_addr().unwrap());
                (LONG, None, url)
            }
            To::NoHost => (LONG, None, "http://no-such-host.invalid/api".to_owned()),
            To::NoTls => (LONG, None, no_tls().await),
            To::Server(then) => {
                let limit = if matches!(then, Then::Hang) {
                    SHORT
                } else {
                    LONG
                };
                let server = server(then).await;
                let url = server.url.clone();
                (limit, Some(server), url)
            }
        };
        let outcome = call(&url, limit, &make_call()).await;
        assert_eq!(meaning(&outcome), expected, "{name}: {outcome:?}");
        // Whatever it was, the client has sent it once, over one connection.
        let Some(server) = &mut server else { continue };
        assert_eq!(server.connections.load(Ordering::SeqCst), 1, "{name}");
        let sent = usize::from(expected != NotSent);
        let mut seen = 0;
        while let Ok(request) = server.requests.try_recv() {
            assert!(
                request.starts_with("POST /finesse/api/User/1205/Dialogs"),
                "{request}"
            );
            seen += 1;
        }
        assert_eq!(seen, sent, "{name}");
    }
}

#[tokio::test]
async fn a_node_that_does_not_tell_its_domains_is_its_own() {
    let body = "<SystemInfo><status>IN_SERVICE</status></SystemInfo>";
    let up = server(Then::Answer(http("200 OK", body))).await;
    let health = client(&up.url, LONG).probe(0).await;
    let NodeHealth::InService {
        xmpp_domain,
        pubsub_domain,
        ..
    } = health
    else {
        panic!("{health:?}");
    };
    assert_eq!(xmpp_domain, "127.0.0.1");
    assert_eq!(pubsub_domain, "pubsub.127.0.0.1");
}
