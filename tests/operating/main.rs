//! What operators work with, in front of a real pair: `tandem doctor`, the consumer proof, the
//! command line, a real Prometheus.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod breakages;
mod program;

use breakages::{FORGET, by_hand, no_more_by_hand, slow_clock, variant};
use program::{doctor, findings, has, table, tandem, watched};
use serde_json::{Value, json};
use support::pair::{Instance, management};
use support::{PairOptions, run, until, wait_for};

#[test]
fn doctor_finds_a_healthy_pair_healthy_and_a_broken_one_broken() {
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default()).await;
        // Right after the start the brokers' lists may be a moment behind.
        let (code, report) = wait_for("a healthy pair", async || {
            let seen = doctor(&pair.gc1.config).await;
            (seen.0 == Some(0)).then_some(seen)
        })
        .await;
        assert_eq!(code, Some(0), "{report:#}");
        // Federation goes through relays here, whose addresses are in no instance's list.
        let warned = findings(&report, "warning");
        assert!(
            warned
                .iter()
                .any(|found| found.contains("federation upstream")),
            "{warned:?}"
        );
        let good = findings(&report, "good").join("\n");
        for part in [
            "AMQP: connected",
            "its clock agrees",
            "federation links run",
            ".events: a probe took",
            ".replies: a probe took",
            ".control: a probe took",
            "answered by gc-1 after",
            "instance gc-1, group agents: leader: broker",
            "instance gc-2, group agents: follower: broker",
            "in service (",
            "notification service",
        ] {
            assert!(good.contains(part), "{part} in\n{good}");
        }
        // Both directions, and a command through each broker.
        assert_eq!(good.matches("a probe took").count(), 6, "{good}");
        assert_eq!(good.matches("answered by gc-1").count(), 2, "{good}");

        // An operator's hand: a shorter TTL, a link cut, nobody at the admin API.
        let client = management(&pair.management[1]);
        let path = format!("policies/%2f/{}.commands", pair.cluster);
        let mut policy = client.get(&path).await.unwrap().unwrap();
        policy["definition"]["message-ttl"] = json!(1);
        client.put(&path, &policy).await.unwrap();
        shared.network_as_it_is().cut_link().await;
        let (code, report) = wait_for("the cut is noticed", async || {
            let (code, report) = doctor(&pair.gc1.config).await;
            let bad = findings(&report, "bad").join("\n");
            bad.contains("none arrived").then_some((code, report))
        })
        .await;
        assert_eq!(code, Some(1), "{report:#}");
        let bad = findings(&report, "bad").join("\n");
        assert!(
            bad.contains(&format!("policy {}.commands", pair.cluster)),
            "{bad}"
        );
        shared.network_as_it_is().heal_link().await;
        pair.gc1.kill();
        let (code, report) = doctor(&pair.gc1.config).await;
        assert_eq!(code, Some(69), "{report:#}");
        let gone = findings(&report, "unreachable").join("\n");
        assert!(gone.contains("instance gc-1: the admin API at"), "{gone}");
    });
}

#[test]
fn a_federation_under_other_names_is_as_good_and_its_faults_are_found() {
    run(async |shared| {
        let admin = ("downstream.admin-user", "downstream.admin-password");
        let options = PairOptions::default()
            .set(admin.0, "admin")
            .set(admin.1, "admin");
        let pair = shared.pair(options).await;
        by_hand(&pair, 1).await;
        let report = wait_for("the links run under other names", async || {
            let (code, report) = doctor(&pair.gc1.config).await;
            (code == Some(0)).then_some(report)
        })
        .await;
        let good = findings(&report, "good").join("\n");
        assert_eq!(good.matches("4 federation links run").count(), 2, "{good}");
        assert_eq!(
            good.matches("the administrator is accepted").count(),
            2,
            "{good}"
        );
        let warned = findings(&report, "warning");
        let same = format!("policy {}-hand-control", pair.cluster);
        assert!(
            has(&warned, &["does not exist", &same, "do the same"]),
            "{warned:?}"
        );
        // The page and the instances count the links in the same way.
        until("gc-1 sees all links", async || {
            let network = pair.gc1.json("/api/v1/network").await;
            network["brokers"][1]["linksRunning"] == 4
        })
        .await;

        // A slow link is a warning; commands that live too short are not.
        let api = pair.manage(1);
        let path = format!(
            "parameters/federation-upstream/%2f/{}-paris-main",
            pair.cluster
        );
        let mut upstream = api.get(&path).await.unwrap().unwrap();
        upstream["value"]["reconnect-delay"] = json!(60);
        let body = json!({"value": upstream["value"]});
        api.put(&path, &body).await.unwrap();
        let path = format!("policies/%2f/{}-hand-commands", pair.cluster);
        let mut policy = api.get(&path).await.unwrap().unwrap();
        policy["definition"]["message-ttl"] = json!(1);
        policy["definition"]["dead-letter-routing-key"] = json!("nowhere");
        api.put(&path, &policy).await.unwrap();
        let (code, report) = doctor(&pair.gc1.config).await;
        assert_eq!(code, Some(1), "{report:#}");
        let warned = findings(&report, "warning");
        assert!(
            has(&warned, &["reconnect-delay is 60, should be 0.5"]),
            "{warned:?}"
        );
        let bad = findings(&report, "bad");
        let parts = [
            "message-ttl is 1, should be 30000",
            "dead-letter-routing-key",
        ];
        assert!(has(&bad, &parts), "{bad:?}");

        // Nobody federates the events any more.
        let path = format!("policies/%2f/{}-hand-events", pair.cluster);
        assert!(api.delete(&path).await.unwrap());
        let report = wait_for("the missing policy is noticed", async || {
            let report = doctor(&pair.gc1.config).await.1;
            let bad = findings(&report, "bad");
            has(&bad, &[".events", "obeys no policy"]).then_some(report)
        })
        .await;
        let bad = findings(&report, "bad");
        assert!(has(&bad, &["link ", ".events", "absent"]), "{bad:?}");
        api.put(
            &path,
            &json!({"pattern": "^none$", "definition": {"max-length": 1}}),
        )
        .await
        .unwrap();
        no_more_by_hand(&pair, 1).await;
        pair.repair(shared).await;
    });
}

#[test]
fn each_breakage_is_named_with_its_cure() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let cluster = pair.cluster.clone();

        // The parameters of an upstream.
        let api = pair.manage(0);
        let all = api.get("parameters/federation-upstream/%2f").await;
        let all = all.unwrap().unwrap();
        let of_ours = format!("{cluster}.main.");
        let mut all = all.as_array().unwrap().iter();
        let upstream = all.find(|one| one["name"].as_str().unwrap().starts_with(&of_ours));
        let upstream = upstream.unwrap();
        let name = upstream["name"].as_str().unwrap();
        let path = format!("parameters/federation-upstream/%2f/{name}");
        let mut changed = json!({"value": upstream["value"]});
        changed["value"]["prefetch-count"] = json!(1);
        changed["value"]["reconnect-delay"] = json!(30);
        api.put(&path, &changed).await.unwrap();
        // And what the instance, its file and the downstream differ in.
        let clock = slow_clock(&pair.management[1]).await;
        let file = variant(
            pair,
            &[
                ("broker.management-url.2", &clock),
                ("consumer.prefetch", "7"),
                ("downstream.url.2", "http://127.0.0.1:1/finesse/api"),
                ("downstream.admin-user", "admin"),
                ("downstream.admin-password", "wrong"),
                ("notify.port", "1"),
            ],
        );
        let (code, report) = doctor(&file).await;
        assert_eq!(code, Some(69), "{report:#}");
        let bad = findings(&report, "bad");
        for parts in [
            ["federation upstream", "prefetch-count, reconnect-delay"],
            ["its clock is", "s apart from this machine's"],
            ["downstream", "the administrator is refused (401)"],
            ["downstream", "notification service"],
        ] {
            assert!(has(&bad, &parts), "{parts:?} in {bad:?}");
        }
        let warned = findings(&report, "warning");
        assert!(
            has(&warned, &["has prefetch 1000, the file says 7"]),
            "{warned:?}"
        );
        let gone = findings(&report, "unreachable");
        assert!(has(&gone, &["downstream http://127.0.0.1:1/"]), "{gone:?}");
        let before = json!({"value": upstream["value"]});
        api.put(&path, &before).await.unwrap();

        // A user who may neither send events nor commands.
        for broker in 0..2 {
            let api = pair.manage(broker);
            let user = json!({"password": "limited", "tags": "policymaker"});
            api.put(&format!("users/{cluster}"), &user).await.unwrap();
            let rights = json!({"configure": ".*", "write": r"^amq\.gen.*$", "read": ".*"});
            let path = format!("permissions/%2f/{cluster}");
            api.put(&path, &rights).await.unwrap();
        }
        let with = |user: &str| {
            let uris = pair.brokers.iter();
            uris.map(|uri| uri.replacen("guest:guest", user, 1))
                .collect::<Vec<_>>()
        };
        let uris = with(&format!("{cluster}:limited"));
        let file = variant(
            pair,
            &[("broker.url.1", &uris[0]), ("broker.url.2", &uris[1])],
        );
        let (code, report) = doctor(&file).await;
        assert_eq!(code, Some(1), "{report:#}");
        let bad = findings(&report, "bad");
        for part in [".events: ", ".replies: ", ".control: ", "command by way of"] {
            assert_eq!(
                bad.iter().filter(|one| one.contains(part)).count(),
                2,
                "{part} {bad:?}"
            );
        }
        let uris = with("guest:wrong");
        let file = variant(
            pair,
            &[("broker.url.1", &uris[0]), ("broker.url.2", &uris[1])],
        );
        let (code, report) = doctor(&file).await;
        assert_eq!(code, Some(69), "{report:#}");
        let gone = findings(&report, "unreachable");
        assert!(has(&gone, &["broker", "AMQP:"]), "{gone:?}");
        assert!(has(&gone, &["refuses the user (401)"]), "{gone:?}");
        // Said once.
        let bad = findings(&report, "bad");
        assert!(!has(&bad, &["command by way of"]), "{bad:?}");

        // A consumer that its broker has forgotten, before the instance notices it.
        let forget = FORGET.replace("QUEUE", &pair.queue);
        let config = pair.gc1.config.clone();
        let mut tags = Vec::new();
        for _ in 0..10 {
            let status = shared
                .standing(PairOptions::default())
                .await
                .gc2
                .status()
                .await;
            let tag = status["groups"][0]["tag"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let said = shared
                .broker(0)
                .evaluate(&forget.replace("TAG", &tag))
                .await;
            assert!(said.unwrap().contains("ok"));
            let report = doctor(&config).await.1;
            tags.push(tag.clone());
            if has(
                &findings(&report, "bad"),
                &["believes to consume", "does not list it"],
            ) {
                return;
            }
        }
        panic!("the forgotten consumers were not noticed: {tags:?}");
    });
}

#[test]
fn a_consumer_that_its_broker_has_forgotten_is_registered_anew() {
    run(async |shared| {
        let pair = shared.pair(PairOptions::default()).await;
        let tag = async |instance: &Instance| {
            let status = instance.status().await;
            status["groups"][0]["tag"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        until("the proof has been made", async || {
            let text = pair.gc1.get("/metrics").await.unwrap_or_default();
            text.contains("tandem_consumer_proofs_total{group=\"agents\",result=\"listed\"}")
        })
        .await;
        let before = tag(&pair.gc1).await;
        let forget = FORGET.replace("QUEUE", &pair.queue).replace("TAG", &before);
        let said = shared.broker(0).evaluate(&forget).await.unwrap();
        assert!(said.contains("ok"), "{said}");
        let desk = pair.desk("desk", 0).await;
        until("it is registered anew", async || {
            tag(&pair.gc1).await != before
        })
        .await;
        until("the broker lists the new one", async || {
            let tags = pair.consumers(0).await;
            !tags.contains(&before) && tags.contains(&tag(&pair.gc1).await)
        })
        .await;
        desk.expect("Hello#desk", "", "OK").await;
        let metrics = pair.gc1.get("/metrics").await.unwrap();
        assert!(
            metrics.contains("tandem_consumer_proofs_total{group=\"agents\",result=\"missing\"}"),
            "{metrics}"
        );
        let history = pair.gc1.get("/api/v1/history").await.unwrap();
        assert!(history.contains("does not list it"), "{history}");
    });
}

#[test]
fn the_command_line_shows_the_pair_and_its_history() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("cli-desk", 0).await;
        pair.sign_in(&desk, &[1033]).await;
        let url = format!("http://{}", pair.gc1.admin());
        for (args, part) in [
            (vec!["status"], "gc-2"),
            (vec!["sessions"], "1033"),
            (vec!["history"], "leader"),
            (vec!["history", "--json", "--last", "1"], "\"kind\""),
            (vec!["history", "--lines", "--last", "1"], "\"kind\":\""),
            (vec!["status", "--json"], "\"standing\""),
        ] {
            let output = tandem(&[args.clone(), vec!["--url", &url]].concat()).await;
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{args:?}");
            assert!(text.contains(part), "{args:?}: {text}");
            assert!(
                !text.contains('\u{1b}'),
                "colours without a terminal: {args:?}"
            );
        }
        for shell in ["bash", "zsh", "fish"] {
            let output = tandem(&["completions", shell]).await;
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                text.contains("switchover") || text.contains("doctor"),
                "{shell}"
            );
        }
    });
}

#[test]
fn a_live_drill_hands_over_and_leaves_the_broker_and_loses_nothing() {
    run(async |shared| {
        let pair = shared.pair(PairOptions::default()).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001, 1002]).await;
        let (url, config) = (format!("http://{}", pair.gc1.admin()), &pair.gc1.config);
        let config = config.display().to_string();
        let words = [
            "drill", "--live", "--json", "--url", &url, "--config", &config,
        ];
        let output = tandem(&words).await;
        let report = table(&output);
        assert!(output.status.success(), "{report:#}");
        let drills = report["drills"].as_array().unwrap();
        assert_eq!(drills.len(), 3, "{report:#}");
        for (row, name) in drills.iter().zip([
            "switchover to gc-2",
            "switchover to gc-1",
            "spare broker, to ",
        ]) {
            assert!(row["drill"].as_str().unwrap().starts_with(name), "{row}");
            for none in ["lost", "doubled", "inDoubt"] {
                assert_eq!(row[none], 0, "{row}");
            }
            assert!(
                row["commands"].as_u64().unwrap() > 10 && row["worstMs"].is_u64(),
                "{row}"
            );
        }
        let second = pair.brokers[1].rsplit('@').next().unwrap();
        let second = second.split('/').next().unwrap();
        let moved = drills[2]["drill"].as_str().unwrap();
        assert!(moved.ends_with(&format!("to {second}")), "{moved}");
        pair.attaches(&pair.gc1, 0).await;
        desk.expect("MakeReady#1001", "", "ACCEPTED").await;
        pair.one_subscription_each(&[1001, 1002]).await;
    });
}

#[test]
fn a_drill_starts_a_pair_of_its_own_and_prints_what_it_measured() {
    run(async |_| {
        let output = tandem(&["drill", "--json", "switchover"]).await;
        let report = table(&output);
        assert!(output.status.success(), "{report:#}");
        let row = &report["drills"][0];
        assert_eq!(row["drill"], "switchover", "{report:#}");
        for none in ["lost", "doubled", "inDoubt"] {
            assert_eq!(row[none], 0, "{row}");
        }
        assert!(
            row["commands"].as_u64().unwrap() > 100 && row["firstNewMs"].is_u64(),
            "{row}"
        );
    });
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason_and_an_exit_code() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let url = format!("http://{}", pair.gc1.admin());
        let nobody = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().to_string()
        };
        let broker = pair.management[0].clone();
        for (words, at, code, reason) in [
            (
                &["group", "stop", "nothere"][..],
                &url,
                1,
                "there is no such group",
            ),
            (&["group", "start", "agents"], &url, 1, "agents"),
            (&["switchover", "--to", "gc-9"], &url, 1, "gc-9"),
            (
                &["switchover", "--to", "gc-1"],
                &url,
                1,
                "gc-1 leads already",
            ),
            (
                &["failover", "start", "nothere"],
                &url,
                1,
                "there is no such group",
            ),
            (&["status"], &nobody, 69, "cannot be reached"),
            (&["sessions"], &nobody, 69, "cannot be reached"),
            (&["drain"], &nobody, 69, "cannot be reached"),
            (&["drill", "--live"], &nobody, 69, "cannot be reached"),
            (&["status"], &broker, 69, "is not tandem"),
            (&["history", "--last", "x"], &url, 64, "invalid value"),
        ] {
            let output = tandem(&[words, &["--url", at]].concat()).await;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
            assert!(said.contains(reason), "{words:?}: {said}");
        }
        // Cut to what the terminal is said to have, uncut for a pipe.
        for (columns, most) in [(Some("60"), 60), (None, usize::MAX)] {
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tandem"));
            command
                .args(["status", "--url", &url])
                .env_remove("COLUMNS");
            if let Some(columns) = columns {
                command.env("COLUMNS", columns);
            }
            let text = String::from_utf8(command.output().await.unwrap().stdout).unwrap();
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest <= most, "{text}");
            assert_eq!(text.contains('…'), columns.is_some(), "{text}");
        }
        let watched = watched(&["sessions", "--watch", "--json", "--url", &url]).await;
        assert!(watched.iter().all(Value::is_array), "{watched:?}");
        let watched = self::watched(&["status", "--watch", "--json", "--url", &url]).await;
        assert!(
            watched.iter().all(|one| one["instance"] == "gc-1"),
            "{watched:?}"
        );
    });
}

/// The real program scrapes both instances and answers every query of the dashboards.
#[test]
fn a_real_prometheus_has_what_dashboards_and_alerts_ask_for() {
    let Some(program) = support::prometheus::find("prometheus") else {
        eprintln!("NOT RUN: no prometheus here; `scripts/setup --all` installs it");
        return;
    };
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("p-desk", 0).await;
        pair.sign_in(&desk, &[1031, 1032]).await;
        desk.expect("MakeReady#1031", "", "ACCEPTED").await;
        let targets = [(pair.gc1.admin(), "site-1"), (pair.gc2.admin(), "site-2")];
        let server = support::prometheus::Server::start(&program, &targets);
        until("both instances are scraped twice", async || {
            let up = server
                .query("sum(count_over_time(up{job=\"tandem\"}[5m]))")
                .await;
            let up = up.first().and_then(|(_, value)| value.parse::<f64>().ok());
            up.is_some_and(|up| up >= 6.0)
        })
        .await;
        for (what, must) in [
            ("tandem_role{group=\"agents\",role=\"leader\"} == 1", 1),
            ("tandem_peer_up == 1", 2),
            ("sum(tandem_commands_total) > 0", 1),
            ("tandem_in_service == 1", 2),
        ] {
            assert_eq!(server.query(what).await.len(), must, "{what}");
        }
        // Prometheus itself understands every expression.
        for expr in support::prometheus::expressions() {
            server.query(&expr).await;
        }
        // Nothing rings on a healthy pair, whatever has been loaded.
        let rules = server.get("/api/v1/rules").await;
        let groups = rules["data"]["groups"].as_array().unwrap();
        assert!(!groups.is_empty(), "{rules}");
        for rule in groups
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap())
        {
            assert_ne!(rule["health"], "err", "{rule}");
            assert_ne!(rule["state"], "firing", "{rule}");
        }
    });
}
