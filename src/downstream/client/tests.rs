//! The client against tiny servers that misbehave in every way we classify.

mod headers;
mod held;
mod results;
mod server;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tandem_test_kit::certs::{Kind, Maker};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::lease::Lease;
use crate::model::{Answer, DialogVerb};
use crate::net::{KeyNames, TlsFiles};
use server::{Then, http, secure, serve, server};

fn client(url: &str, timeout: Duration) -> FinesseClient {
    FinesseClient::new(&config(url, timeout)).unwrap()
}

/// With room for so many requests at a time.
fn limited(url: &str, requests: usize, timeout: Duration) -> FinesseClient {
    let config = Config {
        requests,
        ..config(url, timeout)
    };
    FinesseClient::new(&config).unwrap()
}

fn config(url: &str, timeout: Duration) -> Config {
    Config {
        nodes: vec![NodeConfig {
            base_url: url.to_owned(),
        }],
        request_timeout: timeout,
        tls: TlsClient::default(),
        requests: 64,
        admin: None,
        platform: true,
    }
}

/// A pass that no pause of a test's machine makes void.
fn pass() -> Pass {
    Lease::start(Duration::from_secs(3_600)).unwrap().pass()
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

async fn call(url: &str, timeout: Duration, action: &Action) -> CallOutcome {
    let agent = AgentId::new("1205").unwrap();
    client(url, timeout)
        .call(0, &agent, &Secret::new("pa:ss"), "q-7", action, &pass())
        .await
}

fn make_call() -> Action {
    Action::MakeCall {
        from: "5205".to_owned(),
        to: "0301234567".to_owned(),
    }
}

async fn outcome(then: Then, action: &Action) -> CallOutcome {
    let server = server(then).await;
    call(&server.url, LONG, action).await
}

fn status_of_unknown(outcome: &CallOutcome) -> Option<u16> {
    match outcome {
        CallOutcome::Unknown {
            status,
            timed_out: false,
            ..
        } => *status,
        other => panic!("expected unknown without timeout: {other:?}"),
    }
}

#[tokio::test]
async fn a_change_carries_credentials_request_id_and_body() {
    let mut server = server(Then::Answer(http("202 Accepted", ""))).await;
    let outcome = call(&server.url, LONG, &make_call()).await;
    assert_eq!(
        outcome,
        CallOutcome::Done {
            status: 202,
            answer: Answer::Empty
        }
    );
    let request = server.requests.recv().await.unwrap();
    let (line, rest) = request.split_once("\r\n").unwrap();
    assert_eq!(line, "POST /finesse/api/User/1205/Dialogs HTTP/1.1");
    // base64 of 1205:pa:ss
    assert!(rest.contains("authorization: Basic MTIwNTpwYTpzcw==\r\n"));
    assert!(rest.contains("requestid: q-7\r\n"));
    assert!(rest.contains("content-type: application/xml\r\n"));
    assert!(rest.ends_with("<toAddress>0301234567</toAddress></Dialog>"));
}

#[tokio::test]
async fn a_read_is_parsed_and_has_no_request_id() {
    let body = "<User><loginId>1205</loginId><state>READY</state></User>";
    let mut server = server(Then::Answer(http("200 OK", body))).await;
    let outcome = call(&server.url, LONG, &Action::ReadUser).await;
    assert!(matches!(
        outcome,
        CallOutcome::Done { status: 200, answer: Answer::User(user) } if user.state == "READY"
    ));
    assert!(!server.requests.recv().await.unwrap().contains("requestid"));
}

/// A second request finds no place: it is not sent, and the node has nothing to do with it.
#[tokio::test]
async fn a_request_without_a_place_is_not_sent_and_says_nothing_about_the_node() {
    let mut server = server(Then::Hang).await;
    let client = Arc::new(limited(&server.url, 1, LONG));
    let ask = |client: Arc<FinesseClient>| async move {
        let agent = AgentId::new("1001").unwrap();
        let password = Secret::new("pw");
        client
            .call(0, &agent, &password, "id", &make_call(), &pass())
            .await
    };
    let first = tokio::spawn(ask(Arc::clone(&client)));
    server.requests.recv().await.unwrap();
    let second = ask(Arc::clone(&client)).await;
    assert!(matches!(second, CallOutcome::NoRoom(_)), "{second:?}");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    // The place of one that is given up is free again.
    first.abort();
    let _ = first.await;
    let third = tokio::spawn(ask(client));
    server.requests.recv().await.unwrap();
    third.abort();
}

#[tokio::test]
async fn nobody_listening_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for action in [make_call(), Action::ReadUser] {
        let outcome = call(&url, LONG, &action).await;
        assert!(
            matches!(
                &outcome,
                CallOutcome::NotSent {
                    timed_out: false,
                    ..
                }
            ),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn an_unknown_host_is_not_sent() {
    let outcome = call("http://no-such-host.invalid/api", LONG, &make_call()).await;
    assert!(
        matches!(outcome, CallOutcome::NotSent { .. }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_tls_failure_is_not_sent() {
    let server = server(Then::Reset).await;
    // The peer never answers the client hello: still within the connect.
    let url = server.url.replace("http://", "https://");
    let task = tokio::spawn(async move { call(&url, SHORT, &make_call()).await });
    let outcome = task.await.unwrap();
    assert!(
        matches!(outcome, CallOutcome::NotSent { .. }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_reset_after_sending_is_unknown() {
    assert_eq!(
        status_of_unknown(&outcome(Then::Reset, &make_call()).await),
        None
    );
}

#[tokio::test]
async fn a_close_without_answer_is_unknown() {
    let outcome = outcome(Then::Answer(Vec::new()), &make_call()).await;
    assert_eq!(status_of_unknown(&outcome), None);
}

#[tokio::test]
async fn a_hanging_server_is_unknown_and_timed_out() {
    let server = server(Then::Hang).await;
    for action in [make_call(), Action::ReadUser] {
        let outcome = call(&server.url, SHORT, &action).await;
        assert!(
            matches!(
                outcome,
                CallOutcome::Unknown {
                    status: None,
                    timed_out: true,
                    ..
                }
            ),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_truncated_answer_to_a_read_is_unknown() {
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n<User><state>".to_vec();
    let outcome = outcome(Then::Answer(cut), &Action::ReadUser).await;
    assert_eq!(status_of_unknown(&outcome), Some(200));
}

#[tokio::test]
async fn an_unreadable_answer_counts_only_for_reads() {
    let junk = http("200 OK", "<!DOCTYPE html><html>");
    let read = outcome(Then::Answer(junk.clone()), &Action::ReadUser).await;
    assert_eq!(status_of_unknown(&read), Some(200));
    let change = outcome(Then::Answer(junk), &make_call()).await;
    assert!(
        matches!(change, CallOutcome::Done { status: 200, .. }),
        "{change:?}"
    );
}

#[tokio::test]
async fn an_oversized_answer_is_unknown() {
    let body = format!("<User>{}</User>", "<x></x>".repeat(1 << 17));
    let announced = http("200 OK", &body);
    let streamed = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}").into_bytes();
    for bytes in [announced, streamed] {
        let outcome = outcome(Then::Answer(bytes), &Action::ReadUser).await;
        assert_eq!(status_of_unknown(&outcome), Some(200));
        let CallOutcome::Unknown { reason, .. } = outcome else {
            unreachable!("checked above")
        };
        assert!(reason.contains("more than 262144 bytes"), "{reason}");
    }
}

#[tokio::test]
async fn garbage_instead_of_http_is_unknown() {
    let outcome = outcome(
        Then::Answer(b"\x00\xffnonsense\r\n\r\n".to_vec()),
        &make_call(),
    )
    .await;
    assert_eq!(status_of_unknown(&outcome), None);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut target = server(Then::Answer(http("202 Accepted", ""))).await;
    let redirect = format!(
        "HTTP/1.1 301 Moved\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
        target.url
    );
    let outcome = outcome(Then::Answer(redirect.into_bytes()), &make_call()).await;
    assert_eq!(status_of_unknown(&outcome), Some(301));
    assert!(matches!(outcome, CallOutcome::Unknown { reason, .. } if reason.contains("base URL")));
    assert!(target.requests.try_recv().is_err());
}

/// Of a generic downstream: it is as the client has it, and no redirect.
#[tokio::test]
async fn not_modified_is_an_answer() {
    let server = server(Then::Answer(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec())).await;
    let request = HttpRequest {
        method: "GET",
        path: "/items".into(),
        query: Vec::new(),
        headers: vec![("if-none-match".into(), "\"7\"".into())],
        body: String::new(),
        idempotent: true,
    };
    let outcome = call(&server.url, LONG, &Action::Http(Box::new(request))).await;
    assert!(
        matches!(outcome, CallOutcome::Done { status: 304, .. }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn service_unavailable_is_out_of_service() {
    let body = "<ApiErrors><ApiError><ErrorType>Service Unavailable</ErrorType>\
        <ErrorMessage>SERVER_OUT_OF_SERVICE</ErrorMessage></ApiError></ApiErrors>";
    for body in [body, "<html>proxy</html>"] {
        let outcome = outcome(Then::Answer(http("503 x", body)), &make_call()).await;
        let CallOutcome::OutOfService { reason } = outcome else {
            panic!("{outcome:?}");
        };
        assert!(reason.starts_with("HTTP 503"), "{reason}");
    }
}

#[tokio::test]
async fn other_server_errors_are_unknown() {
    for status in [500, 502, 504] {
        let answer = http(&format!("{status} x"), "");
        let outcome = outcome(Then::Answer(answer), &make_call()).await;
        assert_eq!(status_of_unknown(&outcome), Some(status));
    }
}

#[tokio::test]
async fn a_feature_that_the_deployment_lacks_is_refused() {
    let body = "<ApiErrors><ApiError><ErrorType>Not Implemented</ErrorType></ApiError></ApiErrors>";
    let drop = Action::OnDialog {
        dialog: "77".to_owned(),
        verb: DialogVerb::DropParticipant,
        target: "5206".to_owned(),
    };
    let told = outcome(Then::Answer(http("501 x", body)), &drop).await;
    assert!(
        matches!(&told, CallOutcome::Refused { status: 501, error } if error.kind == "Not Implemented"),
        "{told:?}"
    );
}

#[tokio::test]
async fn refusals_carry_the_platforms_words_where_it_has_any() {
    let body =
        "<ApiErrors><ApiError><ErrorType>Invalid Destination</ErrorType></ApiError></ApiErrors>";
    let told = outcome(Then::Answer(http("400 Bad", body)), &make_call()).await;
    assert!(
        matches!(&told, CallOutcome::Refused { status: 400, error } if error.kind == "Invalid Destination"),
        "{told:?}"
    );
    let cut = b"HTTP/1.1 401 No\r\nContent-Length: 99\r\n\r\n<ApiErr".to_vec();
    let untold = outcome(Then::Answer(cut), &Action::ReadUser).await;
    assert_eq!(
        untold,
        CallOutcome::Refused {
            status: 401,
            error: ApiError::default()
        }
    );
}

#[tokio::test]
async fn only_repeatable_requests_reuse_a_connection() {
    let server = server(Then::Keep(http("202 Accepted", ""))).await;
    let client = client(&server.url, LONG);
    let agent = AgentId::new("1205").unwrap();
    let secret = Secret::new("x");
    let ready = Action::SetState {
        state: "READY",
        reason: None,
    };
    for _ in 0..3 {
        client.call(0, &agent, &secret, "a", &ready, &pass()).await;
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    for _ in 0..3 {
        client
            .call(0, &agent, &secret, "b", &make_call(), &pass())
            .await;
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_illegal_call_id_is_refused_here() {
    let mut server = server(Then::Answer(http("202 Accepted", ""))).await;
    let action = Action::OnDialog {
        dialog: "..".to_owned(),
        verb: DialogVerb::Answer,
        target: "5205".to_owned(),
    };
    let outcome = call(&server.url, LONG, &action).await;
    assert!(
        matches!(outcome, CallOutcome::Refused { status: 400, .. }),
        "{outcome:?}"
    );
    assert!(server.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_node_that_does_not_exist_is_not_sent() {
    let client = client("http://127.0.0.1:9/api", SHORT);
    let agent = AgentId::new("1205").unwrap();
    let outcome = client
        .call(
            5,
            &agent,
            &Secret::new("x"),
            "q",
            &Action::ReadUser,
            &pass(),
        )
        .await;
    assert!(matches!(outcome, CallOutcome::NotSent { .. }));
}

#[tokio::test]
async fn probes_tell_in_service_out_of_service_and_unreachable() {
    let info = |status: &str| {
        format!(
            "<SystemInfo><status>{status}</status><xmppDomain>d.example</xmppDomain></SystemInfo>"
        )
    };
    let mut up = server(Then::Answer(http("200 OK", &info("IN_SERVICE")))).await;
    let health = client(&up.url, LONG).probe(0).await;
    assert!(
        matches!(&health, NodeHealth::InService { xmpp_domain, .. } if xmpp_domain == "d.example"),
        "{health:?}"
    );
    assert!(!up.requests.recv().await.unwrap().contains("authorization"));

    for answer in [http("200 OK", &info("OUT_OF_SERVICE")), http("503 x", "")] {
        let out = server(Then::Answer(answer)).await;
        let health = client(&out.url, LONG).probe(0).await;
        assert!(
            matches!(health, NodeHealth::OutOfService { .. }),
            "{health:?}"
        );
    }
    for answer in [http("404 x", ""), http("200 OK", "<html/>"), Vec::new()] {
        let broken = server(Then::Answer(answer)).await;
        let health = client(&broken.url, LONG).probe(0).await;
        assert!(
            matches!(health, NodeHealth::Unreachable { .. }),
            "{health:?}"
        );
    }
}

#[test]
fn base_urls_are_checked() {
    let build = |url: &str| {
        FinesseClient::new(&Config {
            nodes: vec![NodeConfig {
                base_url: url.to_owned(),
            }],
            request_timeout: LONG,
            tls: TlsClient::default(),
            requests: 64,
            admin: None,
            platform: true,
        })
    };
    assert!(build("https://node.example:8445/finesse/api/").is_ok());
    for url in [
        "node.example",
        "ftp://node.example/x",
        "http://u:p@node.example/",
        "http://n.example/?a=1",
    ] {
        assert!(
            matches!(build(url), Err(DownstreamError::BaseUrl { .. })),
            "{url}"
        );
    }
}

#[test]
fn a_bad_base_url_does_not_show_its_password() {
    let error = checked_base_url("http://u:hunter2@node.example/").unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn what_was_decided_before_a_pause_is_not_sent() {
    let server = server(Then::Keep(http("202 Accepted", ""))).await;
    let client = client(&server.url, LONG);
    let agent = AgentId::new("1205").unwrap();
    let lease = Lease::start(Duration::from_secs(3_600)).unwrap();
    let pass = lease.pass();
    lease.hold(Duration::from_secs(7_200));
    let secret = Secret::new("x");
    let outcome = client
        .call(0, &agent, &secret, "a", &make_call(), &pass)
        .await;
    assert_eq!(outcome, CallOutcome::Withheld);
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_whose_first_address_is_silent_delays_its_first_connection_only() {
    use tandem_test_kit::hole::BlackHole;
    let hole = BlackHole::open("127.0.0.1").await;
    let listener = TcpListener::bind(("127.0.0.2", hole.port())).await.unwrap();
    let (seen, _requests) = mpsc::channel(64);
    let task = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = Then::Answer(http("503 Out", ""));
            tokio::spawn(serve(socket, answer, seen.clone()));
        }
    });
    let found = ["127.0.0.1", "127.0.0.2"].map(|ip| ip.parse().unwrap());
    let taught = Addresses::taught([("two.test".to_owned(), found.to_vec())].into());
    // Half of two thirds of it are for the first address.
    let limit = Duration::from_secs(9);
    let config = config(&format!("http://two.test:{}", hole.port()), limit);
    let client = FinesseClient::resolving(&config, taught).unwrap();
    for patience in [limit, limit / 3] {
        let begun = std::time::Instant::now();
        let health = client.probe(0).await;
        assert!(
            matches!(health, NodeHealth::OutOfService { .. }),
            "{health:?}"
        );
        assert!(begun.elapsed() < patience, "{:?}", begun.elapsed());
    }
    task.abort();
}

#[tokio::test]
async fn a_node_that_demands_a_certificate_gets_it_and_the_very_one_of_a_node_is_trusted() {
    let maker = Maker::new();
    let authority = Kind {
        authority: true,
        expired: false,
    };
    let authority = maker.make(&["localhost"], authority, None);
    let own = maker.make(&["tandem"], Kind::default(), Some(&authority));
    let health = async |files: TlsFiles| {
        // As a small installation has it: the server's certificate is its own authority's.
        let url = secure(&authority, &authority).await;
        let config = Config {
            nodes: vec![NodeConfig { base_url: url }],
            request_timeout: LONG,
            tls: TlsClient::new(files, KeyNames::DOWNSTREAM),
            requests: 8,
            admin: None,
            platform: true,
        };
        FinesseClient::new(&config).unwrap().probe(0).await
    };
    let reason = |health| match health {
        NodeHealth::Unreachable { reason } => reason,
        other => panic!("{other:?}"),
    };
    let trusting = TlsFiles {
        ca_file: Some(authority.certificate.clone()),
        ..TlsFiles::default()
    };
    let said = reason(health(TlsFiles::default()).await);
    assert!(said.contains("into downstream.ca-file"), "{said}");
    let said = reason(health(trusting.clone()).await);
    assert!(said.contains("downstream.certificate-file"), "{said}");
    let files = TlsFiles {
        certificate_file: Some(own.certificate.clone()),
        private_key_file: Some(own.key.clone()),
        ..trusting
    };
    let served = health(files).await;
    assert!(
        matches!(served, NodeHealth::OutOfService { .. }),
        "{served:?}"
    );
}
