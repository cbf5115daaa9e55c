//! A real Prometheus in front of a real pair under load, over a failover: no query of a dashboard
//! or an annotation is empty that should not be. Without Prometheus this says so and does nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::load::Load;
use support::prometheus::{Server, expressions, find};
use support::{PairOptions, run, until};

/// What has no series where nothing went wrong, or is scraped from the brokers.
const MAY_BE_EMPTY: [&str; 8] = [
    // Nobody here has its events posted.
    "tandem_callback_",
    "tandem_callbacks_total",
    // Its own scrape job, of brokers with a plugin.
    "rabbitmq_detailed_",
    // Come with the first one of their reason.
    "tandem_dead_lettered_total",
    "tandem_stale_total",
    "tandem_consumers_lost_total",
    "tandem_broker_failovers_total",
    "status_class=~\"5xx|error\"",
];
/// Load before the failover and after it; `TANDEM_PROMETHEUS_SECONDS` makes it longer.
const SECONDS: u64 = 20;

fn length() -> Duration {
    let given = std::env::var("TANDEM_PROMETHEUS_SECONDS").ok();
    let given = given.and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(SECONDS))
}

#[test]
fn no_query_is_empty_under_load_and_over_a_failover() {
    let Some(program) = find("prometheus") else {
        eprintln!("NOT RUN: no prometheus here; `scripts/setup --all` installs it");
        return;
    };
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default()).await;
        let desk = Arc::new(pair.desk("desk", 0).await);
        let agents: Vec<u32> = (1001..1011).collect();
        pair.sign_in(&desk, &agents).await;
        let targets = [(pair.gc1.admin(), "site-1"), (pair.gc2.admin(), "site-2")];
        let server = Server::start(&program, &targets);
        let load = Load::start(desk.clone(), agents[..4].to_vec(), agents[4..].to_vec());
        // As long as they are, not until something is so.
        tokio::time::sleep(length()).await;
        pair.gc1.kill();
        pair.gc2.leads().await;
        pair.gc1.start();
        pair.gc1.becomes("leader").await;
        tokio::time::sleep(length()).await;
        let mut empty = expressions();
        let all = empty.len();
        empty.retain(|expr| MAY_BE_EMPTY.iter().all(|known| !expr.contains(known)));
        let checked = empty.len();
        assert!(checked > 30, "{checked} of {all}");
        until("every query has an answer", async || {
            let mut still = Vec::new();
            for expr in &empty {
                // At any time of the run: what marks a moment is over soon.
                let ever = format!("count_over_time(({expr})[20m:5s])");
                if server.query(&ever).await.is_empty() {
                    still.push(expr.clone());
                }
            }
            println!(
                "{} of {checked} queries without a series: {still:#?}",
                still.len()
            );
            empty = still;
            empty.is_empty()
        })
        .await;
        load.finish(&desk).await.all_succeeded_or_in_doubt();
    });
}
