//! The simulated downstream of a pair: how it is started, made to fail, and asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tandem::lab::ReservedPort;
use tandem::simulator::faults::Fault;
use tandem::simulator::ledger::Entry;
use tandem::simulator::{self, AgentSpec, Running};

use super::{Pair, PairOptions, SUPERVISOR, extension};
use crate::support::LIMIT;

impl Pair {
    /// Notification sessions of an agent.
    pub fn sessions(&self, agent: u32) -> usize {
        let world = self.simulator.world();
        let agent = world.agent(&agent.to_string()).expect("a known agent");
        let sessions = agent.sessions.lock().expect("no panic in the simulator");
        sessions.len()
    }

    /// Node that an agent's notifications come from; `None` without a subscription.
    pub fn subscribed_at(&self, agent: u32) -> Option<usize> {
        let world = self.simulator.world();
        let agent = world.agent(&agent.to_string()).expect("a known agent");
        let sessions = agent.sessions.lock().expect("no panic in the simulator");
        sessions.first().map(|session| session.node)
    }

    /// Makes a node (1 or 2) of the downstream fail.
    pub fn fault(&self, node: usize, fault: Fault) {
        let faults = self.simulator.world().node_faults(node);
        faults.add(fault).expect("a fault that makes sense");
    }

    /// A node that is gone, its notifications too.
    pub fn node_down(&self, node: usize) {
        let refuse = Fault {
            refuse: true,
            ..Fault::default()
        };
        let xmpp_down = Fault {
            xmpp_down: true,
            ..Fault::default()
        };
        self.fault(node, refuse);
        self.fault(node, xmpp_down);
    }

    /// Makes both nodes fail.
    pub fn fault_everywhere(&self, fault: &Fault) {
        for node in [1, 2] {
            self.fault(node, fault.clone());
        }
    }

    /// Ends all faults.
    pub fn heal(&self) {
        for faults in self.simulator.faults() {
            faults.clear(None);
        }
    }

    /// State of an agent at the downstream.
    pub fn state(&self, agent: u32) -> &'static str {
        let world = self.simulator.world();
        let agent = world.agent(&agent.to_string()).expect("a known agent");
        let state = agent.state.lock().expect("no panic in the simulator");
        state.state.name()
    }

    /// Effects on an agent, in order.
    pub fn effects(&self, agent: u32) -> Vec<Entry> {
        self.simulator.ledger().entries(Some(&agent.to_string()), 0)
    }

    /// How many effects of a kind a command had.
    pub fn effects_of(&self, kind: &str, id: &str) -> usize {
        let all = self.simulator.ledger().entries(None, 0);
        all.iter()
            .filter(|entry| entry.kind == kind && &*entry.request_id == id)
            .count()
    }
}

fn supervisor() -> AgentSpec {
    AgentSpec {
        id: SUPERVISOR.to_string(),
        password: format!("pw-{SUPERVISOR}"),
        extension: extension(SUPERVISOR).to_string(),
        first_name: "Sue".to_owned(),
        last_name: "Pervisor".to_owned(),
        team: 1,
        supervisor: true,
    }
}

/// An instance has one `notify.port` for both nodes, so they differ by address.
pub(super) async fn start_simulator(options: &PairOptions) -> (Running, ReservedPort) {
    let mut config = simulator::Config::loopback(2, options.agents);
    config.agents.explicit = vec![supervisor()];
    config.deployment = options.deployment;
    config.answer_delay = Duration::from_millis(100);
    config.forced_logout_after = Duration::ZERO;
    (options.simulator)(&mut config);
    let port = ReservedPort::take().expect("a port");
    for (at, node) in config.nodes.iter_mut().enumerate() {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + at as u8));
        node.xmpp = SocketAddr::new(ip, port.number());
        node.rest = SocketAddr::new(ip, 0);
    }
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        match simulator::start(config.clone()).await {
            Ok(running) => return (running, port),
            Err(error) if tokio::time::Instant::now() >= deadline => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
