//! Requests that are held back after a pause of the process.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A change without a body, of any HTTP service: nothing of it leaves after a pause while the
/// connection was made.
#[tokio::test]
async fn a_change_without_a_body_is_held_back_too() {
    let lease = Lease::start(Duration::from_secs(3_600)).unwrap();
    let maker = Maker::new();
    let authority = Kind {
        authority: true,
        expired: false,
    };
    let authority = maker.make(&["localhost"], authority, None);
    let files = TlsFiles {
        ca_file: Some(authority.certificate.clone()),
        ..TlsFiles::default()
    };
    let request = HttpRequest {
        method: "POST",
        path: "/calls/7/answer".into(),
        query: Vec::new(),
        headers: Vec::new(),
        body: String::new(),
        idempotent: false,
    };
    for paused in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = FinesseClient::new(&Config {
            nodes: vec![NodeConfig {
                base_url: format!("https://localhost:{port}"),
            }],
            request_timeout: LONG,
            tls: TlsClient::new(files.clone(), KeyNames::DOWNSTREAM),
            requests: 8,
            admin: None,
            platform: false,
        });
        let client = client.unwrap();
        let (agent, secret, pass) = (AgentId::new("a").unwrap(), Secret::new("x"), lease.pass());
        let action = Action::Http(Box::new(request.clone()));
        let call = client.call(0, &agent, &secret, "a", &action, &pass);
        let serve = async {
            let (tcp, _) = listener.accept().await.unwrap();
            if paused {
                lease.hold(Duration::from_secs(7_200));
            }
            let mut tls = authority.server(None).accept(tcp).await.unwrap();
            let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
            while !bytes.ends_with(b"0\r\n\r\n") {
                match tls.read(&mut chunk).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => bytes.extend_from_slice(&chunk[..n]),
                }
            }
            let _ = tls.write_all(&http("204 No Content", "")).await;
            let _ = tls.shutdown().await;
            String::from_utf8(bytes).unwrap()
        };
        let (outcome, seen) = tokio::join!(call, serve);
        if paused {
            assert_eq!(outcome, CallOutcome::Withheld);
            assert_eq!(seen, "");
        } else {
            assert!(
                matches!(outcome, CallOutcome::Done { status: 204, .. }),
                "{outcome:?}"
            );
            assert!(seen.starts_with("POST /calls/7/answer HTTP/1.1"), "{seen}");
        }
    }
}

/// One that waited for its place is looked at again.
#[tokio::test]
async fn a_pause_while_a_place_was_waited_for_withholds_the_request() {
    let mut server = server(Then::Hang).await;
    let client = limited(&server.url, 1, LONG);
    let lease = Lease::start(Duration::from_secs(3_600)).unwrap();
    let (agent, secret, pass) = (AgentId::new("1").unwrap(), Secret::new("x"), lease.pass());
    let place = client.place().await.unwrap();
    let action = make_call();
    let call = client.call(0, &agent, &secret, "a", &action, &pass);
    let pause = async {
        lease.hold(Duration::from_secs(7_200));
        drop(place);
    };
    // The call comes first, and waits.
    let (outcome, ()) = tokio::join!(biased; call, pause);
    assert_eq!(outcome, CallOutcome::Withheld);
    assert!(server.requests.try_recv().is_err());
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}
