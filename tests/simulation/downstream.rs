//! The downstream: requests have effects, which are written down; probes; subscriptions.

use tandem_engine::Input;
use tandem_engine::command::Call;
use tandem_engine::ids::SubscriptionEpoch;
use tandem_engine::input::Notice;
use tandem_model::{Action, AgentId, Answer, CallOutcome, NodeHealth, User};

use crate::instance::name_of;
use crate::plan::Trouble;
use crate::world::{Ev, REQUEST_TIMEOUT_MS, World};

/// How long a call lasts, milliseconds.
const SHORTEST_CALL_MS: u64 = 300;
const LONGEST_CALL_MS: u64 = 9_000;

/// A subscription: agent and attempt.
pub type Held = (String, u64);

impl World {
    fn trouble(&self, node: usize) -> Option<Trouble> {
        self.trouble[node]
    }

    /// Whether an instance can have subscriptions.
    fn notifies(&self, node: usize) -> bool {
        matches!(self.trouble(node), None | Some(Trouble::Vague))
    }

    pub fn call(&mut self, node: usize, call: Box<Call>) {
        let boot = self.nodes[node].boot;
        let wait = 1 + self.rng.below(25);
        self.after(wait, Ev::Effect(node, boot, call));
    }

    /// A request is at the downstream, whatever has become of its sender meanwhile.
    pub fn effect(&mut self, node: usize, boot: u64, call: &Call) {
        let (outcome, wait) = match self.trouble(node) {
            Some(Trouble::Down) => {
                let (timed_out, reason) = (false, "nothing listens".to_owned());
                (CallOutcome::NotSent { timed_out, reason }, 1)
            }
            Some(Trouble::OutOfService) => {
                let reason = "out of service".to_owned();
                (CallOutcome::OutOfService { reason }, 1)
            }
            Some(Trouble::Vague) if self.rng.one_in(6) => {
                if self.rng.one_in(2) {
                    self.carry_out_request(node, call);
                }
                let timed_out = self.rng.one_in(2);
                let outcome = CallOutcome::Unknown {
                    status: None,
                    timed_out,
                    reason: "lost".into(),
                };
                (outcome, if timed_out { REQUEST_TIMEOUT_MS } else { 1 })
            }
            _ => {
                let answer = self.carry_out_request(node, call);
                let status = 202;
                (CallOutcome::Done { status, answer }, 1)
            }
        };
        let wait = wait + self.rng.below(20);
        let call = call.id;
        self.input_after(wait, node, boot, Input::CallDone { call, outcome });
    }

    fn carry_out_request(&mut self, node: usize, call: &Call) -> Answer {
        let who = name_of(node);
        let (agent, id) = (call.agent.as_str(), call.request_id.as_str());
        match &call.action {
            Action::MakeCall { from, to } => {
                self.trace.say(self.now, || format!("{who} EFFECT {id}"));
                self.seen.effect(who.as_str(), id, self.now);
                if self.plan.extra.calls {
                    let millis = self.other_rng.between(SHORTEST_CALL_MS, LONGEST_CALL_MS);
                    self.platform.call(agent, from, to, self.now, millis);
                }
                Answer::Empty
            }
            Action::SignIn { .. } | Action::SetState { .. } => {
                self.seen.change(who.as_str(), id, self.now);
                Answer::Empty
            }
            Action::ReadUser => Answer::User(Box::new(User {
                login_id: call.agent.to_string(),
                state: "NOT_READY".into(),
                extension: call.agent.to_string(),
                ..User::default()
            })),
            Action::ReadDialogs => Answer::Dialogs(self.platform.dialogs(agent, self.now)),
            _ => Answer::Empty,
        }
    }

    pub fn probe(&mut self, node: usize, target: usize) {
        let reason = || "trouble".to_owned();
        let health = match self.trouble(node) {
            Some(Trouble::Down) => NodeHealth::Unreachable { reason: reason() },
            Some(Trouble::OutOfService) => NodeHealth::OutOfService { reason: reason() },
            _ => NodeHealth::InService {
                xmpp_domain: "d".into(),
                pubsub_domain: "p".into(),
                deployment: "UCCE".into(),
            },
        };
        let boot = self.nodes[node].boot;
        let node_index = target;
        self.input_after(
            3,
            node,
            boot,
            Input::Probed {
                node: node_index,
                health,
            },
        );
    }

    // ---- subscriptions ------------------------------------------------------------------------

    pub fn subscribe(&mut self, node: usize, agent: AgentId, subscription: SubscriptionEpoch) {
        let boot = self.nodes[node].boot;
        let wait = 5 + self.rng.below(20);
        self.after(wait, Ev::Subscribed(node, boot, agent, subscription));
    }

    /// The service's word on a subscription.
    pub fn subscribed(
        &mut self,
        node: usize,
        boot: u64,
        agent: AgentId,
        subscription: SubscriptionEpoch,
    ) {
        let entry = &mut self.nodes[node];
        if entry.boot != boot || !entry.wanted.contains(&(agent.to_string(), subscription.0)) {
            return;
        }
        let notice = if self.notifies(node) {
            let held = (agent.to_string(), subscription.0);
            self.nodes[node].subscriptions.insert(held);
            Notice::Up
        } else {
            self.nodes[node]
                .wanted
                .remove(&(agent.to_string(), subscription.0));
            let reason = "unreachable".to_owned();
            Notice::Unreachable { reason }
        };
        let input = Input::Notice {
            agent,
            subscription,
            notice,
        };
        self.input(node, boot, input);
    }

    pub fn unsubscribe(&mut self, node: usize, agent: &AgentId, subscription: SubscriptionEpoch) {
        let held = (agent.to_string(), subscription.0);
        self.nodes[node].wanted.remove(&held);
        let was = self.nodes[node].subscriptions.remove(&held);
        let left = self.holders(agent.as_str()).next().is_some();
        if was && !left {
            self.seen
                .let_go(name_of(node).as_str(), agent.as_str(), self.now);
        }
    }

    /// The notification service is gone: so are its sessions.
    pub fn lose_subscriptions(&mut self, node: usize) {
        let boot = self.nodes[node].boot;
        for (agent, number) in std::mem::take(&mut self.nodes[node].subscriptions) {
            self.nodes[node].wanted.remove(&(agent.clone(), number));
            let Ok(agent) = AgentId::new(&agent) else {
                continue;
            };
            let wait = 1 + self.rng.below(200);
            let input = Input::Notice {
                agent,
                subscription: SubscriptionEpoch(number),
                notice: Notice::Lost {
                    reason: "gone".into(),
                    conflict: false,
                },
            };
            self.input_after(wait, node, boot, input);
        }
    }

    /// Instances that hold a subscription for an agent, one entry a subscription.
    pub fn holders<'a>(&'a self, agent: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.nodes
            .iter()
            .enumerate()
            .flat_map(move |(node, entry)| {
                let held = entry.subscriptions.iter();
                held.filter(move |(name, _)| name == agent)
                    .map(move |_| node)
            })
    }
}
