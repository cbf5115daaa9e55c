//! Events that are posted to a client: in order, each once, whatever its server does, and whichever
//! instance is killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../contracts/entrance.rs"]
mod document;
mod entrance;

use std::collections::BTreeSet;
use std::time::Duration;

use entrance::{
    BACK, SIGN_KEY, all_at, all_posted, changes, curl, deliver, heard, hello, hello_of, ports,
    posted_to, posting, rows, sign_in,
};
use serde_json::{Value, json};
use support::callback::{Answer, CallbackServer};
use support::certs::{Kind, Maker};
use support::receiver::Receiver;
use support::{run, until};

#[test]
fn events_are_posted_in_order_and_a_wrong_server_gets_each_of_them_once() {
    run(async |shared| {
        let ports = ports(1);
        let server = CallbackServer::start(None).await;
        let elsewhere = CallbackServer::start(None).await;
        let pair = shared.pair(posting(&ports, &server)).await;
        let desk = pair.desk("crm", 0).await;
        hello(&ports[0], "h-1", &server).await;
        desk.clear_events();
        sign_in(&ports, &pair, &[1001]).await;
        assert_eq!(all_posted(&server, &desk).await, Vec::<String>::new());
        let requests = server.requests();
        let hello = requests
            .iter()
            .find(|one| one.header("x-correlation-id") == "h-1");
        let hello = hello.unwrap();
        assert_eq!(hello.line, "POST /event/crm HTTP/1.1");
        assert_eq!(hello.header("authorization"), format!("Bearer {BACK}"));
        assert_eq!(hello.header("content-type"), "application/json");
        assert_eq!(hello.header("x-destination"), "crm");
        let body: Value = serde_json::from_str(&hello.body).unwrap();
        assert_eq!(body["type"], "System", "{body}");

        // In every way in which it can be wrong events wait, and come in order when it is right.
        for (name, answer) in [
            ("error", Answer::Status(500)),
            ("away", Answer::Status(404)),
            ("busy", Answer::Status(429)),
            ("reset", Answer::Reset),
            ("silent", Answer::Never),
            (
                "redirect",
                Answer::Redirect(format!("{}/event", elsewhere.url())),
            ),
        ] {
            server.answer(answer);
            changes(&ports, &pair, name, 4).await;
            until("its failure is told", async || {
                let rows = rows(&pair).await;
                rows.iter()
                    .any(|row| row["state"] == "failing" && row["lastError"].is_string())
            })
            .await;
            let failing = async |count: &str| {
                let metrics = pair.gc1.get("/metrics").await.unwrap();
                let mut lines = metrics.lines();
                let of = "tandem_callback_failing_destinations{";
                lines.any(|line| line.starts_with(of) && line.ends_with(count))
            };
            until("an alert could tell it", async || failing(" 1").await).await;
            server.answer(Answer::Status(200));
            assert_eq!(
                all_posted(&server, &desk).await,
                Vec::<String>::new(),
                "{name}"
            );
        }
        assert!(elsewhere.requests().is_empty(), "a redirect was followed");
        let slow = Answer::Slowly(Duration::from_millis(100));
        server.answer(slow);
        changes(&ports, &pair, "slow", 4).await;
        assert_eq!(all_posted(&server, &desk).await, Vec::<String>::new());

        // Nobody listens, and then a server at the same place.
        let (address, mut taken) = (server.address, server.taken());
        drop(server);
        changes(&ports, &pair, "down", 4).await;
        let server = CallbackServer::start(Some(address)).await;
        until("the last event came", async || {
            let last = heard(&desk).last().cloned();
            server.taken().last().cloned() == last
        })
        .await;
        taken.extend(server.taken());
        let order: Vec<String> = heard(&desk);
        let posted: Vec<String> = taken.into_iter().filter(|id| order.contains(id)).collect();
        assert_eq!(posted, order, "in order, each once");
        until("the status says so", async || {
            let rows = rows(&pair).await;
            let posting = |row: &Value| row["state"] == "posting" && row["waiting"] == 0;
            rows.iter()
                .any(|row| row["destination"] == "crm" && posting(row))
        })
        .await;
        let metrics = pair.gc1.get("/metrics").await.unwrap();
        assert!(
            metrics.contains("tandem_callbacks_total{outcome=\"posted\"}"),
            "{metrics}"
        );
    });
}

#[test]
fn what_may_not_be_called_is_refused_and_what_is_too_old_is_dropped_and_counted() {
    run(async |shared| {
        let ports = ports(1);
        let server = CallbackServer::start(None).await;
        let options = posting(&ports, &server).set("rest.callback.max-age", "10s");
        let pair = shared.pair(options).await;
        for (host, endpoint) in [
            (
                format!("http://127.0.0.1:{}", pair.gc1.admin().port()),
                "/api/v1/drain",
            ),
            (server.url(), "/elsewhere"),
            (server.url(), "/event/../elsewhere"),
            ("http://169.254.169.254".to_owned(), "/latest"),
        ] {
            let body = json!({"data": {"type": "Hello#crm", "body": "null",
                "callbackFqdn": host, "callbackEndpoint": endpoint}});
            let (status, told) = curl(&ports[0], "no", 1, &body).await.unwrap();
            assert_eq!(status, 400, "{host} {told}");
            let words = told["error"].as_str().unwrap();
            assert!(words.contains("rest.callback.allow"), "{words}");
        }
        assert!(server.requests().is_empty());

        hello(&ports[0], "h-1", &server).await;
        sign_in(&ports, &pair, &[1001]).await;
        // What the client will never take is not tried twice.
        server.answer(Answer::Status(422));
        let before = server.requests().len();
        changes(&ports, &pair, "refused", 1).await;
        until("it is dropped", async || {
            rows(&pair)
                .await
                .iter()
                .any(|row| row["dropped"].as_u64() > Some(0))
        })
        .await;
        let refused = server.requests().split_off(before);
        let ids: BTreeSet<&str> = refused.iter().map(|request| request.id()).collect();
        assert_eq!(ids.len(), refused.len(), "{refused:?}");

        server.answer(Answer::Status(503));
        let dropped = rows(&pair).await[0]["dropped"].as_u64().unwrap();
        deliver(&ports, "old", "MakeNotReady#1001", "").await;
        until("it is too old", async || {
            rows(&pair)
                .await
                .iter()
                .any(|row| row["dropped"].as_u64() > Some(dropped))
        })
        .await;
        server.answer(Answer::Status(200));
        hello(&ports[0], "h-2", &server).await;
    });
}

#[test]
fn a_callback_of_https_is_trusted_by_its_own_authority_and_not_without() {
    run(async |shared| {
        let maker = Maker::new();
        let authority = Kind {
            authority: true,
            ..Kind::default()
        };
        let authority = maker.make(&["private"], authority, None);
        let made = maker.make(&["127.0.0.1"], Kind::default(), Some(&authority));
        let server = CallbackServer::secure(made.server(None)).await;
        let ports = ports(2);
        let place = format!("https://{}", server.address);
        let options = posting(&ports, &server)
            .set("rest.callback.allow.2", &place)
            .set_own(
                0,
                "rest.callback.ca-file",
                &authority.certificate.display().to_string(),
            );
        let mut pair = shared.pair(options).await;
        // The one without the authority first.
        pair.gc1.kill();
        let desk = pair.desk("crm", 0).await;
        let body = json!({"data": {"type": "Hello#crm", "body": "null", "sessionUrl": "s",
            "callbackFqdn": server.address.to_string(), "callbackEndpoint": "/event"}});
        // The list has this host without encryption as well, for other paths: https comes first.
        let (status, told) = curl(&ports[1], "h-1", 1, &body).await.unwrap();
        assert_eq!((status, &told["callback"]), (202, &json!("registered")));
        until("its failure is told", async || {
            let status = pair.gc2.status().await;
            let rows = status["callbacks"].as_array().cloned().unwrap_or_default();
            rows.iter()
                .any(|row| row["state"] == "failing" && row["to"] == place)
        })
        .await;
        assert!(server.requests().is_empty());
        pair.gc1.start();
        pair.gc1.attached().await;
        pair.gc2.kill();
        assert_eq!(all_posted(&server, &desk).await, Vec::<String>::new());
        assert!(!server.requests().is_empty());
    });
}

#[test]
fn after_the_loss_of_a_broker_hello_brings_events_again_and_the_old_one_lets_go() {
    run(async |shared| {
        let ports = ports(2);
        let server = CallbackServer::start(None).await;
        let pair = shared.pair(posting(&ports, &server)).await;
        pair.gc1.leads().await;
        hello(&ports[0], "h-1", &server).await;
        sign_in(&ports, &pair, &[1001]).await;
        shared.broker(0).kill();
        until("an entrance takes it again", async || {
            let body = json!({"data": {"type": "Hello#crm", "body": "", "sessionUrl": "s",
                "callbackFqdn": server.url(), "callbackEndpoint": "/event/moved"}});
            let taken = curl(&ports[0], "h-2", 1, &body).await;
            taken.is_some_and(|(status, _)| status == 202)
        })
        .await;
        // The old one posts nothing any more.
        let before = server.taken();
        let moved = || {
            let requests = server.requests();
            requests.iter().any(|one| one.line.contains("/event/moved"))
        };
        until("the answer is posted to the new place", async || moved()).await;
        let desk = pair.desk("crm", 1).await;
        desk.clear_events();
        // What is younger than the move by more than clocks may differ is certainly not the old
        // broker's to post.
        let begun = std::time::Instant::now();
        for round in 0.. {
            changes(&ports[1..], &pair, &format!("moved-{round}"), 2).await;
            if begun.elapsed() > Duration::from_secs(4) {
                break;
            }
        }
        // What was made about the time of the loss may come from both.
        let doubled = all_posted(&server, &desk).await;
        assert!(doubled.iter().all(|id| before.contains(id)), "{doubled:?}");
        let early = server.taken();
        changes(&ports[1..], &pair, "alone", 4).await;
        let doubled = all_posted(&server, &desk).await;
        assert!(doubled.iter().all(|id| before.contains(id)), "{doubled:?}");

        shared.broker(0).start_again().await.expect("broker 1");
        pair.attaches(&pair.gc1, 0).await;
        let second = pair.brokers[1].clone();
        until("one broker posts them, and it is the second", async || {
            all_at(&pair, &second).await
        })
        .await;
        changes(&ports, &pair, "back", 4).await;
        let doubled = all_posted(&server, &desk).await;
        assert!(doubled.iter().all(|id| early.contains(id)), "{doubled:?}");
    });
}

#[test]
fn after_the_loss_of_a_broker_events_go_on_without_another_hello() {
    run(async |shared| {
        let ports = ports(2);
        let server = CallbackServer::start(None).await;
        let pair = shared.pair(posting(&ports, &server)).await;
        pair.gc1.leads().await;
        hello(&ports[0], "h-1", &server).await;
        sign_in(&ports, &pair, &[1001]).await;
        let (home, second) = (pair.brokers[0].clone(), pair.brokers[1].clone());
        until("the first posts", async || all_at(&pair, &home).await).await;
        // The other broker has heard of it, and collects.
        let queue = format!("queues/%2F/{}.callback.crm", pair.cluster);
        until("it stands by", async || {
            let there = pair
                .manage(1)
                .get(&queue)
                .await
                .unwrap()
                .unwrap_or_default();
            there["consumers"].as_u64() == Some(1)
        })
        .await;
        let desk = pair.desk("crm", 1).await;
        changes(&ports, &pair, "before", 2).await;
        assert_eq!(all_posted(&server, &desk).await, Vec::<String>::new());
        let early = server.taken();
        shared.broker(0).kill();
        // Among them those of the time when nobody knew yet that it is lost.
        changes(&ports, &pair, "lost", 4).await;
        let doubled = all_posted(&server, &desk).await;
        assert!(doubled.iter().all(|id| early.contains(id)), "{doubled:?}");
        until("the second posts", async || all_at(&pair, &second).await).await;
        let early = server.taken();
        shared.broker(0).start_again().await.expect("broker 1");
        pair.attaches(&pair.gc1, 0).await;
        until("it stays there", async || all_at(&pair, &second).await).await;
        changes(&ports, &pair, "back", 4).await;
        let doubled = all_posted(&server, &desk).await;
        assert!(doubled.iter().all(|id| early.contains(id)), "{doubled:?}");
    });
}

#[test]
fn a_kill_of_either_instance_loses_no_command_and_no_event() {
    run(async |shared| {
        let ports = ports(2);
        let server = CallbackServer::start(None).await;
        let mut pair = shared.pair(posting(&ports, &server)).await;
        pair.gc1.leads().await;
        let desk = pair.desk("crm", 0).await;
        hello(&ports[0], "h-1", &server).await;
        desk.clear_events();
        let agents: Vec<u32> = (1001..1011).collect();
        sign_in(&ports, &pair, &agents).await;
        // Whichever of the two posts: it is killed in one of the rounds.
        for round in 0..2 {
            server.answer(Answer::Slowly(Duration::from_millis(20)));
            let calls = agents.iter().skip(round * 5).take(5).map(|agent| {
                let (id, kind) = (format!("call-{agent}"), format!("MakeCall#{agent}"));
                let ports = &ports;
                async move { deliver(ports, &id, &kind, "5550142").await }
            });
            let kill = async {
                tokio::time::sleep(Duration::from_millis(30)).await;
                pair.instance(round).kill();
            };
            tokio::join!(futures::future::join_all(calls), kill);
            for agent in agents.iter().skip(round * 5).take(5) {
                let id = format!("call-{agent}");
                let told = || {
                    let requests = server.requests();
                    requests.iter().any(|request| {
                        request.header("x-correlation-id") == id
                            && request.body.contains("\"Error\"")
                    })
                };
                until("each command is done, or its client was told", async || {
                    pair.effects_of("MAKE_CALL", &id) > 0 || told()
                })
                .await;
                assert!(pair.effects_of("MAKE_CALL", &id) <= 1, "{id} twice");
            }
            let doubled = all_posted(&server, &desk).await;
            // One event is on its way when the process ends: the client knows it by its id.
            assert!(doubled.len() <= round + 1, "{doubled:?}");
            pair.instance(round).start();
            pair.instance(round)
                .becomes(["leader", "follower"][round])
                .await;
        }
    });
}

#[cfg(feature = "failpoints")]
#[test]
fn a_place_that_was_named_while_the_clock_was_ahead_can_be_changed() {
    run(async |shared| {
        let ports = ports(1);
        let (server, other) = (
            CallbackServer::start(None).await,
            CallbackServer::start(None).await,
        );
        let options = posting(&ports, &server)
            .instances(0)
            .set("rest.callback.allow.2", &format!("{}/event", other.url()));
        let mut pair = shared.pair(options).await;
        let clock = pair.gc1.config.with_file_name("clock");
        std::fs::write(&clock, "20000").unwrap();
        let clock_file = clock.display().to_string();
        pair.gc1.start_with(&[("TANDEM_CLOCK_FILE", &clock_file)]);
        pair.gc1.attached().await;
        support::wait_for("the entrance", async || {
            let taken = hello_of(&ports[0], "early", &server).await?;
            (taken.0 == 202).then_some(())
        })
        .await;
        hello(&ports[0], "h-1", &server).await;
        std::fs::write(&clock, "0").unwrap();
        hello(&ports[0], "h-2", &other).await;
        hello(&ports[0], "h-3", &server).await;
        let log = pair.gc1.log_text();
        assert!(log.contains("the clock was ahead"), "{log}");
    });
}

#[test]
fn a_queue_of_other_properties_is_used_where_it_serves_and_named_where_it_does_not() {
    run(async |shared| {
        let ports = ports(1);
        let server = CallbackServer::start(None).await;
        let mut pair = shared.pair(posting(&ports, &server)).await;
        let api = pair.manage(0);
        let path = |name: &str| format!("queues/%2F/{}.callback{name}", pair.cluster);
        let odd = |alone: bool| {
            json!({"durable": true, "auto_delete": false, "arguments":
                {"x-single-active-consumer": alone, "x-expires": 3_600_000,
                    "x-message-ttl": 600_000, "x-max-length": 500}})
        };
        // The registry of another kind, too: while nobody consumes it.
        pair.gc1.kill();
        api.delete(&path("s")).await.unwrap();
        api.put(&path("s"), &odd(true)).await.unwrap();
        api.put(&path(".odd"), &odd(true)).await.unwrap();
        // At both: else the other one takes what the first cannot keep.
        for broker in [0, 1] {
            let api = pair.manage(broker);
            api.put(&path(".bad"), &odd(false)).await.unwrap();
        }
        pair.gc1.start();
        pair.gc1.attached().await;
        let taken = support::wait_for("the entrance", async || {
            let (status, told) = hello_of(&ports[0], "odd", &server).await?;
            (status == 202).then_some(told)
        });
        assert_eq!(taken.await["callback"], "registered");
        posted_to(&server, "odd").await;
        let log = pair.gc1.log_text();
        assert!(log.contains("used as it is"), "{log}");
        assert!(
            log.contains("x-expires is 3600000, ours is 21600000"),
            "{log}"
        );
        let kept = api.get(&path(".odd")).await.unwrap().unwrap();
        assert_eq!(kept["arguments"]["x-max-length"], 500);

        let (status, told) = hello_of(&ports[0], "bad", &server).await.unwrap();
        assert_eq!((status, &told["taken"]), (503, &json!("no")), "{told}");
        let words = told["error"].as_str().unwrap();
        assert!(
            words.contains("x-single-active-consumer is false"),
            "{words}"
        );
        assert!(
            words.contains(".callback.bad") && words.contains("delete it"),
            "{words}"
        );

        let config = pair.gc1.config.display().to_string();
        let (code, said) =
            support::pair::tandem(vec!["doctor".into(), "--config".into(), config]).await;
        assert_ne!(code, 0, "{said}");
        assert!(
            said.contains(".callback.bad exists with other properties"),
            "{said}"
        );
        assert!(
            said.contains(".callback.odd exists with other properties"),
            "{said}"
        );

        // As the answer advises.
        for broker in [0, 1] {
            pair.manage(broker).delete(&path(".bad")).await.unwrap();
        }
        let (status, told) = hello_of(&ports[0], "bad", &server).await.unwrap();
        assert_eq!(status, 202, "{told}");
        posted_to(&server, "bad").await;
        api.delete(&path(".odd")).await.unwrap();
        until("it is made anew as it should be", async || {
            let queue = api.get(&path(".odd")).await.unwrap().unwrap_or_default();
            queue["arguments"]["x-max-length"] == 10_000
        })
        .await;
    });
}

/// The whole answer to a request of that length, after which the connection is closed.
async fn unread(url: &str, length: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(20), read).await;
    read.expect("it is closed").unwrap();
    answer
}

#[test]
fn a_receiver_in_python_believes_what_is_signed_with_its_key_and_nothing_else() {
    run(async |shared| {
        let ports = ports(1);
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, key: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("{key}\n")).unwrap();
            path
        };
        let own = file("own", SIGN_KEY);
        let right = Receiver::start(&own).await;
        let other = Receiver::start(&file("other", &"x".repeat(64))).await;
        let server = CallbackServer::start(None).await;
        let options = posting(&ports, &server)
            .set("rest.callback.sign-key-file", &own.display().to_string())
            .set("rest.callback.allow.2", &right.url)
            .set("rest.callback.allow.3", &other.url);
        let mut pair = shared.pair(options).await;
        let hello = async |id: &str, url: &str| {
            let body = json!({"data": {"type": "Hello#crm", "body": "null", "sessionUrl": "s",
                "callbackFqdn": url, "callbackEndpoint": "/event"}});
            let (status, told) = curl(&ports[0], id, 1, &body).await.unwrap();
            assert_eq!(status, 202, "{told}");
        };
        hello("h-1", &right.url).await;
        until("it is believed", async || right.said("taken ") > 0).await;
        assert_eq!(right.said("refused"), 0, "{:?}", right.lines);
        // Not by one with another key, until it has the right one: nothing is lost meanwhile.
        hello("h-2", &other.url).await;
        until("it is not believed", async || {
            other.said("refused its signature is wrong") > 1
        })
        .await;
        assert_eq!(other.said("taken"), 0);
        hello("h-3", &right.url).await;
        until("the event that waited is posted", async || {
            right.said("taken ") > 2
        })
        .await;
        let unsigned = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = unsigned.post(&right.url).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 401);
        for length in ["-1", "x", "\u{b2}", "99999999999999999999"] {
            let answer = unread(&right.url, length).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{length}: {answer}");
        }
        // The other one's key, taken over at SIGHUP.
        std::fs::write(&own, "x".repeat(64)).unwrap();
        pair.gc1.process.as_mut().unwrap().hang_up();
        hello("h-4", &other.url).await;
        until("it is believed with its key", async || {
            other.said("taken ") > 0
        })
        .await;
        drop((right.process, other.process));
    });
}
