//! A picture of an instance, for tests.

use crate::engine::View;
use crate::engine::peer::Role;
use crate::engine::view::{
    BrokerView, DownstreamView, GroupView, PeerGroupView, PeerView, SessionsView,
};

fn broker(url: &str, state: &str, attached: bool) -> BrokerView {
    BrokerView {
        url: url.to_owned(),
        state: state.to_owned(),
        attached,
        preferred: attached,
        ..BrokerView::default()
    }
}

fn node(host: &str, state: &str, current: bool, reason: Option<&str>) -> DownstreamView {
    DownstreamView {
        url: format!("https://{host}:8445/finesse/api"),
        host: host.to_owned(),
        state: state.to_owned(),
        current,
        reason: reason.map(str::to_owned),
    }
}

/// A healthy leader with one peer; one broker and one downstream of two are down.
pub(crate) fn view() -> View {
    View {
        instance: "gc-1".to_owned(),
        site: "site-1".to_owned(),
        cluster: "tandem".to_owned(),
        mode: "active-passive".to_owned(),
        version: "0.1.0".to_owned(),
        started: 1_700_000_000_000,
        page: "http://127.0.0.1:9601".to_owned(),
        groups: vec![GroupView {
            name: "agents".to_owned(),
            role: Role::Leader,
            queue: "Connector1".to_owned(),
            priority: Some(127),
            tag: Some("gc-1.agents.leader.1".to_owned()),
            broker: Some("127.0.0.1:5672".to_owned()),
            consuming: true,
            term: 3,
            leader: Some("gc-1".to_owned()),
            reason: String::new(),
            choice: None,
        }],
        brokers: vec![
            broker("127.0.0.1:5672", "connected", true),
            broker("127.0.0.1:5673", "down", false),
        ],
        downstreams: vec![
            node("finesse-1", "up", true, None),
            node("finesse-2", "down", false, Some("connection refused")),
        ],
        peers: vec![PeerView {
            instance: "gc-2".to_owned(),
            site: "site-2".to_owned(),
            state: "alive".to_owned(),
            last_seen_ms: 120,
            owned: 0,
            broker: "127.0.0.1:5673".to_owned(),
            version: "0.1.0".to_owned(),
            started: 1_700_000_000_000,
            groups: vec![PeerGroupView {
                name: "agents".to_owned(),
                role: Role::Follower,
                priority: 100,
            }],
            rtt_ms: Some(3),
            standing: Default::default(),
        }],
        sessions: SessionsView {
            total: 10,
            owned: 7,
            subscribed: 6,
        },
        inflight: 4,
        outbox: 0,
        in_service: true,
        attached: true,
        drain: None,
        finished: 0,
        warnings: Vec::new(),
    }
}
