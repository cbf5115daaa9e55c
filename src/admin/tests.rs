//! The routes, through a real listener.

use reqwest::Method;
use serde_json::Value;

use super::*;
use crate::admin::testing::Fixture;
use crate::engine::peer::Role;
use crate::testing::view;

#[tokio::test]
async fn health_follows_the_view() {
    let it = Fixture::start("127.0.0.1:0", None).await;
    assert_eq!(it.get("/livez").await, (200, "alive\n".to_owned()));
    assert_eq!(it.get("/readyz").await.0, 200);
    assert_eq!(it.get("/leader").await.0, 200);
    assert_eq!(it.get("/leader?group=agents").await.0, 200);
    assert_eq!(it.get("/leader?group=nope").await.0, 503);
    assert_eq!(it.get("/follower").await.0, 503);

    it.change(|view| view.groups[0].role = Role::Follower);
    assert_eq!(it.get("/readyz").await.0, 200);
    assert_eq!(it.get("/leader").await.0, 503);
    assert_eq!(it.get("/follower").await.0, 200);

    it.change(|view| view.in_service = false);
    let (status, line) = it.get("/readyz").await;
    assert_eq!((status, line.lines().count()), (503, 1));
    assert!(line.contains("downstream"), "{line}");
    assert_eq!(it.get("/livez").await.0, 200);
}

#[tokio::test]
async fn without_an_engine_it_is_not_alive() {
    let it = Fixture::start("127.0.0.1:0", None).await;
    it.engine.abort();
    while !it.engine.is_finished() {
        tokio::task::yield_now().await;
    }
    assert_eq!(it.get("/livez").await.0, 503);
    assert_eq!(it.get("/readyz").await.0, 503);
    assert_eq!(it.get("/api/v1/sessions").await.0, 503);
}

#[tokio::test]
async fn the_api_shows_what_the_engine_shows() {
    let it = Fixture::start("127.0.0.1:0", None).await;
    it.history
        .record(&crate::engine::Event::Service { available: true });
    let json = async |path: &str| -> Value {
        let (status, text) = it.get(path).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    };
    let status = json("/api/v1/status").await;
    assert_eq!(
        serde_json::from_value::<View>(status.clone()).unwrap(),
        view()
    );
    assert_eq!(status["groups"][0]["role"], "leader");
    assert_eq!(status["peers"][0]["lastSeenMs"], 120);
    let groups = json("/api/v1/groups").await;
    assert_eq!(groups[0]["queue"], "Connector1");
    assert_eq!(groups[0]["leader"], "gc-1");
    assert_eq!(groups[0]["members"][1]["role"], "follower");
    let members = json("/api/v1/members").await;
    assert_eq!(
        (&members[0]["self"], &members[1]["instance"]),
        (&true.into(), &"gc-2".into())
    );
    assert_eq!(json("/api/v1/sessions").await[0]["agent"], "1001");
    assert_eq!(json("/api/v1/history").await[0]["to"], "in service");
    let metrics = it.call(Method::GET, "/metrics", &[]).await;
    assert!(
        metrics.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    assert!(metrics.text().await.unwrap().contains("tandem_build_info"));
}

#[tokio::test]
async fn a_page_of_sessions_says_how_many_fit_and_bad_questions_are_refused() {
    let it = Fixture::start("127.0.0.1:0", None).await;
    let path = "/api/v1/sessions?q=1001&owner=gc-1&offset=0&limit=50";
    let page = it.call(Method::GET, path, &[]).await;
    assert_eq!(page.headers()["x-total-count"], "1");
    let long = format!("/api/v1/sessions?q={}", "x".repeat(200));
    for bad in [long.as_str(), "/api/v1/sessions?limit=many"] {
        assert_eq!(it.get(bad).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn the_stream_follows_the_view_and_streams_are_counted() {
    let it = Fixture::start("127.0.0.1:0", None).await;
    let mut first = it.call(Method::GET, "/api/v1/events", &[]).await;
    assert_eq!(first.headers()["content-type"], "text/event-stream");
    let mut next = async || -> Value {
        let chunk = first.chunk().await.unwrap().unwrap();
        let text = String::from_utf8(chunk.to_vec()).unwrap();
        serde_json::from_str(text.trim().strip_prefix("data: ").unwrap()).unwrap()
    };
    let seen = next().await;
    assert_eq!(seen["status"]["instance"], "gc-1");
    assert_eq!(seen["needsToken"], false);
    it.change(|view| view.inflight = 77);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while next().await["status"]["inflight"] != 77 {
        assert!(std::time::Instant::now() < deadline);
    }
    let mut open = Vec::new();
    for _ in 1..live::STREAMS {
        let stream = it.call(Method::GET, "/api/v1/events", &[]).await;
        assert_eq!(stream.status().as_u16(), 200);
        open.push(stream);
    }
    assert_eq!(it.get("/api/v1/events").await.0, 503);
    // What closes makes room.
    open.clear();
    while it.call(Method::GET, "/api/v1/events", &[]).await.status() != 200 {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn verbs_say_the_new_state_or_why_not() {
    let it = Fixture::start("127.0.0.1:0", None).await;
    let (status, body) = it.post("/api/v1/groups/agents/stop", &[]).await;
    assert_eq!((status, &body["state"]), (202, &"disabled".into()));
    let (status, body) = it.post("/api/v1/groups/agents/start", &[]).await;
    assert_eq!(
        (status, &body["error"]),
        (409, &"group agents is not stopped".into())
    );
    let (status, body) = it.post("/api/v1/drain", &[]).await;
    assert_eq!((status, &body["state"]), (202, &"draining".into()));
    let (status, body) = it.post("/api/v1/failover/agents/stop", &[]).await;
    assert_eq!((status, &body["state"]), (202, &"disabled".into()));
    let (status, body) = it.post("/api/v1/failover/agents/start", &[]).await;
    assert_eq!((status, &body["error"]), (409, &"it leads already".into()));
    let (status, body) = it.post("/api/v1/switchover?to=gc-2", &[]).await;
    assert_eq!((status, &body["state"]), (202, &"draining".into()));
    let (status, body) = it.post("/api/v1/switchover?to=gc-9", &[]).await;
    assert_eq!(status, 409, "{body}");
    let (status, body) = it.post("/api/v1/members/gc-3/forget", &[]).await;
    assert_eq!((status, &body["state"]), (202, &"forgotten".into()));
    let (status, body) = it.post("/api/v1/members/gc-2/forget", &[]).await;
    assert_eq!((status, &body["error"]), (409, &"gc-2 is there".into()));
    for (sent, wanted) in [
        (r#"{"to":"gc-2"}"#, 202),
        (r#"{"to":""}"#, 400),
        ("to", 400),
    ] {
        let url = format!("{}/api/v1/switchover", it.base);
        let answer = it.client.post(url).body(sent).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), wanted, "{sent}");
    }
    for path in ["/api/v1/groups/nope/stop", "/api/v1/failover/nope/start"] {
        let (status, body) = it.post(path, &[]).await;
        assert_eq!(status, 404, "{body}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_get_json_errors() {
    let it = Fixture::start("127.0.0.1:0", None).await;
    for (method, path, wanted) in [
        (Method::GET, "/nope", 404),
        (Method::POST, "/api/v1/switchover", 400),
        (Method::GET, "/api/v1/switchover", 405),
        (Method::GET, "/api/v1/drain", 405),
        (Method::DELETE, "/api/v1/status", 405),
        (Method::POST, "/livez", 405),
    ] {
        let response = it.call(method.clone(), path, &[]).await;
        assert_eq!(response.status().as_u16(), wanted, "{method} {path}");
        let body: Value = response.json().await.unwrap();
        assert!(body["error"].is_string(), "{method} {path}: {body}");
    }
    let big = it
        .client
        .post(format!("{}/api/v1/drain", it.base))
        .body(vec![b'x'; 64 * 1024])
        .send()
        .await
        .unwrap();
    assert_eq!(big.status().as_u16(), 413);
}

#[tokio::test]
async fn other_sites_and_rebound_names_are_refused() {
    let it = Fixture::start("127.0.0.1:0", None).await;
    let evil = [("host", "evil.example")];
    let (status, _) = it
        .post("/api/v1/drain", &[("origin", "http://evil.example")])
        .await;
    assert_eq!(status, 403);
    assert_eq!(it.post("/api/v1/drain", &evil).await.0, 403);
    for path in ["/api/v1/status", "/api/v1/sessions", "/metrics", "/"] {
        let response = it.call(Method::GET, path, &evil).await;
        assert_eq!(response.status().as_u16(), 403, "{path}");
    }
    // Load balancers probe under any name.
    let probe = it.call(Method::GET, "/livez", &evil).await;
    assert_eq!(probe.status().as_u16(), 200);
}

#[tokio::test]
async fn off_loopback_agents_and_changes_want_the_token() {
    let good = [("authorization", "Bearer s3cret")];
    let bad = [("authorization", "Bearer other")];
    let it = Fixture::start("0.0.0.0:0", Some("s3cret")).await;
    for path in [
        "/livez",
        "/readyz",
        "/leader",
        "/metrics",
        "/",
        "/status.js",
        "/pair.js",
        "/glossary.json",
    ] {
        assert_eq!(it.get(path).await.0, 200, "{path}");
    }
    for path in ["/api/v1/status", "/api/v1/events", "/api/v1/history"] {
        assert_eq!(it.get(path).await.0, 401, "{path}");
    }
    assert_eq!(it.get("/api/v1/sessions").await.0, 401);
    assert_eq!(it.post("/api/v1/drain", &bad).await.0, 401);
    assert_eq!(it.post("/api/v1/drain", &good).await.0, 202);
    let sessions = it.call(Method::GET, "/api/v1/sessions", &good).await;
    assert_eq!(sessions.status().as_u16(), 200);
    let refused = it.call(Method::POST, "/api/v1/drain", &[]).await;
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");

    let none = Fixture::start("0.0.0.0:0", None).await;
    let (status, body) = none.post("/api/v1/drain", &good).await;
    assert_eq!(status, 401);
    assert!(
        body["error"].as_str().unwrap().contains("admin.token-file"),
        "{body}"
    );
}

#[tokio::test]
async fn every_answer_has_the_headers_that_keep_browsers_in_bounds() {
    let it = Fixture::start("0.0.0.0:0", Some("s3cret")).await;
    for path in ["/", "/livez", "/metrics", "/api/v1/status", "/nope"] {
        let answer = it.call(Method::GET, path, &[]).await;
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("x-frame-options"), "DENY", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
        let policy = header("content-security-policy");
        assert!(
            policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert_eq!(
            policy.contains("script-src"),
            path == "/",
            "{path}: {policy}"
        );
    }
}

#[tokio::test]
async fn wrong_tokens_are_answered_429_with_the_time_to_wait() {
    let it = Fixture::start("0.0.0.0:0", Some("s3cret")).await;
    let bad = [("authorization", "Bearer other")];
    for _ in 0..throttle::WRONG {
        assert_eq!(it.post("/api/v1/drain", &bad).await.0, 401);
    }
    let good = [("authorization", "Bearer s3cret")];
    let answer = it.call(Method::POST, "/api/v1/drain", &good).await;
    assert_eq!(answer.status().as_u16(), 429);
    let wait: u64 = answer.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(it.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let it = Fixture::start("127.0.0.1:0", None).await;
    let page = it.call(Method::GET, "/", &[]).await;
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let html = page.text().await.unwrap();
    for (path, kind) in [
        ("/status.js", "text/javascript"),
        ("/pair.js", "text/javascript"),
        ("/status.css", "text/css"),
    ] {
        assert!(html.contains(path), "{path}");
        let response = it.call(Method::GET, path, &[]).await;
        assert_eq!(response.status().as_u16(), 200);
        assert!(
            response.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with(kind)
        );
    }
    assert!(!html.contains("http://") && !html.contains("https://"));
}

#[tokio::test]
async fn a_taken_port_is_said_in_words() {
    let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = first.local_addr().unwrap();
    let error = bind(addr).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(
        error
            .to_string()
            .starts_with(&format!("port in use: {addr}")),
        "{error}"
    );
}

#[tokio::test]
async fn it_ends_when_it_is_told_even_with_open_connections() {
    let mut it = Fixture::start("127.0.0.1:0", None).await;
    assert_eq!(it.get("/livez").await.0, 200);
    let addr = it.base.trim_start_matches("http://").to_owned();
    let _half_open = tokio::net::TcpStream::connect(&addr).await.unwrap();
    it.stop.take().unwrap().send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), it.server).await;
    assert!(ended.unwrap().unwrap().is_ok());
}
