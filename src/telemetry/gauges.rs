//! Gauges from the engine's picture of itself.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use metrics::{counter, gauge};

use super::names;
use crate::engine::View;
use crate::engine::peer::Role;
use crate::network::Network;

/// Sets every gauge. To be called whenever the view is published.
pub fn gauges(view: &View) {
    gauge!(names::INFLIGHT_COMMANDS).set(count(view.inflight));
    gauge!(names::OUTBOX).set(count(view.outbox));
    gauge!(names::IN_SERVICE).set(bit(view.in_service));
    let foreign = view.sessions.total.saturating_sub(view.sessions.owned);
    gauge!(names::SESSIONS, "ownership" => "owned").set(count(view.sessions.owned));
    gauge!(names::SESSIONS, "ownership" => "foreign").set(count(foreign));
    gauge!(names::SESSIONS_SUBSCRIBED).set(count(view.sessions.subscribed));
    for group in &view.groups {
        for role in Role::ALL {
            gauge!(names::ROLE, "group" => group.name.clone(), "role" => role.as_str())
                .set(bit(group.role == role));
        }
    }
    for broker in &view.brokers {
        let connected = ["connected", "blocked", "unfit"].contains(&broker.state.as_str());
        gauge!(names::BROKER_CONNECTED, "broker" => broker.url.clone()).set(bit(connected));
        gauge!(names::BROKER_ATTACHED, "broker" => broker.url.clone()).set(bit(broker.attached));
        gauge!(names::BROKER_BLOCKED, "broker" => broker.url.clone())
            .set(bit(broker.state == "blocked"));
        gauge!(names::BROKER_GARBLED, "broker" => broker.url.clone())
            .set(f64::from(broker.garbled));
    }
    for node in &view.downstreams {
        gauge!(names::DOWNSTREAM_UP, "downstream" => node.host.clone())
            .set(bit(node.state == "up"));
    }
    peers(view);
}

/// Who had a gauge when they were set last: names of members, which are few.
static PEERS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Members' gauges. Who is no member any more has no value: an alert on it ends. Whose messages are
/// not authentic may call itself anything, so it has none at all.
fn peers(view: &View) {
    let members = view.peers.iter().filter(|peer| peer.state != "auth-failed");
    let mut now = BTreeSet::new();
    for peer in members {
        gauge!(names::PEER_UP, "peer" => peer.instance.clone()).set(bit(peer.state == "alive"));
        gauge!(names::PEER_LEFT, "peer" => peer.instance.clone()).set(bit(peer.state == "left"));
        now.insert(peer.instance.clone());
    }
    let mut before = PEERS.lock().unwrap_or_else(PoisonError::into_inner);
    for gone in before.difference(&now) {
        gauge!(names::PEER_UP, "peer" => gone.clone()).set(f64::NAN);
        gauge!(names::PEER_LEFT, "peer" => gone.clone()).set(f64::NAN);
    }
    *before = now;
}

/// Sets what the brokers' management said of the federation links. One that cannot be asked says
/// nothing, which is no number.
pub fn network(network: &Network) {
    for proof in &network.brokers {
        let down = proof.links_planned.saturating_sub(proof.links_running);
        for (state, number) in [("running", proof.links_running), ("down", down)] {
            let number = match proof.problem {
                None => count(number as u64),
                Some(_) => f64::NAN,
            };
            gauge!(names::FEDERATION_LINKS, "broker" => proof.broker.clone(), "state" => state)
                .set(number);
        }
    }
}

/// What is told of the callbacks of one broker.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CallbackGauges {
    /// Destinations whose events are posted from here.
    pub destinations: u64,
    /// Those of them whose events are not taken now.
    pub failing: u64,
    /// Events that wait.
    pub waiting: u64,
    /// Age of the oldest event that is being posted, seconds.
    pub oldest: f64,
}

/// Sets how the callbacks of a broker go.
pub fn callbacks(broker: &str, all: CallbackGauges) {
    let broker = broker.to_owned();
    gauge!(names::CALLBACK_DESTINATIONS, "broker" => broker.clone()).set(count(all.destinations));
    gauge!(names::CALLBACK_FAILING, "broker" => broker.clone()).set(count(all.failing));
    gauge!(names::CALLBACK_WAITING, "broker" => broker.clone()).set(count(all.waiting));
    gauge!(names::CALLBACK_OLDEST, "broker" => broker).set(all.oldest);
}

/// Counts one comparison of a consumer with its broker's list.
pub fn consumer_proof(group: &str, result: &'static str) {
    counter!(names::CONSUMER_PROOFS, "group" => group.to_owned(), "result" => result).increment(1);
}

/// Sets how many descriptors are open, where that is known, and how many may be.
pub fn descriptors(open: Option<u64>, limit: u64) {
    if let Some(open) = open {
        gauge!(names::DESCRIPTORS, "state" => "open").set(count(open));
    }
    gauge!(names::DESCRIPTORS, "state" => "limit").set(count(limit));
}

/// 1 or 0.
pub(super) fn bit(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

/// Counts fit a float exactly up to 2^53.
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Telemetry;
    use crate::testing::view;

    #[test]
    fn who_is_no_member_any_more_has_no_value_and_who_may_call_itself_anything_no_gauge() {
        let (telemetry, recorder) = Telemetry::local();
        let mut seen = view();
        let mut stranger = seen.peers[0].clone();
        stranger.instance = "anybody".into();
        stranger.state = "auth-failed".into();
        seen.peers[0].instance = "gc-gone".into();
        seen.peers.push(stranger);
        metrics::with_local_recorder(&recorder, || {
            super::peers(&seen);
            seen.peers.clear();
            super::peers(&seen);
        });
        let text = telemetry.render();
        let line = |line: &str| text.lines().any(|l| l == line);
        assert!(line("tandem_peer_up{peer=\"gc-gone\"} NaN"), "{text}");
        assert!(line("tandem_peer_left{peer=\"gc-gone\"} NaN"), "{text}");
        assert!(!text.contains("anybody"), "{text}");
    }

    #[test]
    fn the_view_becomes_gauges() {
        let (telemetry, recorder) = Telemetry::local();
        metrics::with_local_recorder(&recorder, || super::gauges(&view()));
        let text = telemetry.render();
        for line in [
            "tandem_role{group=\"agents\",role=\"leader\"} 1",
            "tandem_role{group=\"agents\",role=\"follower\"} 0",
            "tandem_role{group=\"agents\",role=\"leader-single-node\"} 0",
            "tandem_broker_connected{broker=\"127.0.0.1:5672\"} 1",
            "tandem_broker_connected{broker=\"127.0.0.1:5673\"} 0",
            "tandem_broker_attached{broker=\"127.0.0.1:5672\"} 1",
            "tandem_downstream_up{downstream=\"finesse-1\"} 1",
            "tandem_peer_up{peer=\"gc-2\"} 1",
            "tandem_sessions{ownership=\"owned\"} 7",
            "tandem_sessions{ownership=\"foreign\"} 3",
            "tandem_inflight_commands 4",
            "tandem_in_service 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
