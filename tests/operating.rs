//! What operators work with, in front of a real pair: `tandem doctor`, the consumer proof, the
//! command line, a real Prometheus.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use support::pair::{Instance, management};
use support::{PairOptions, run, until, wait_for};

/// Runs the program.
async fn tandem(args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.args(args).kill_on_drop(true);
    command.output().await.expect("the program runs")
}

async fn doctor(config: &Path) -> (Option<i32>, Value) {
    let config = config.display().to_string();
    let output = tandem(&["doctor", "--json", "--config", &config]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(&text);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (
        output.status.code(),
        report.unwrap_or_else(|_| panic!("{text}{said}")),
    )
}

/// Findings of a verdict, as `part: seen`, each with its cure.
fn findings(report: &Value, verdict: &str) -> Vec<String> {
    let all = report["findings"].as_array().unwrap().iter();
    all.filter(|finding| finding["verdict"] == verdict)
        .inspect(|finding| {
            let mended = verdict == "good" || !finding["cure"].as_str().unwrap().is_empty();
            assert!(mended, "no cure: {finding}");
        })
        .map(|finding| {
            let word = |key: &str| finding[key].as_str().unwrap().to_owned();
            format!("{}: {}", word("part"), word("seen"))
        })
        .collect()
}

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
        assert!(gone.contains("instance gc-1: its admin API at"), "{gone}");
    });
}

/// Takes a consumer from its queue inside the broker, so that neither client nor channel hears of
/// it: what a broker's own fault would look like.
const FORGET: &str = "\
    {ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"QUEUE\">>)), \
    [begin Pid = element(1, C), Tag = element(2, C), \
     gen_server2:call(amqqueue:get_pid(Q), {basic_cancel, Pid, Tag, undefined, <<\"test\">>}, infinity) end \
     || C <- rabbit_amqqueue:consumers(Q), element(2, C) =:= <<\"TAG\">>].";

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
