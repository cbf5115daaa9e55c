//! The downstream: requests have effects, which are written down; probes; subscriptions.

use tandem_engine::Input;
use tandem_engine::command::Call;
use tandem_engine::ids::SubscriptionEpoch;
use tandem_engine::input::Notice;
use tandem_model::{Action, AgentId, Answer, ApiError, CallOutcome, NodeHealth};

use crate::bursts;
use crate::clients::Client;
use crate::extra::Service;
use crate::instance::name_of;
use crate::invariants::i16_sign_outs;
use crate::plan::Trouble;
use crate::world::{Ev, REQUEST_TIMEOUT_MS, World};

/// How long a call lasts, milliseconds.
const SHORTEST_CALL_MS: u64 = 300;
const LONGEST_CALL_MS: u64 = 9_000;

/// How late a call is at most, milliseconds.
const LATEST_MS: u64 = 2_500;

fn calls(call: &Call) -> bool {
    matches!(call.action, Action::MakeCall { .. })
}

/// The slowest answer, milliseconds.
const SLOWEST_MS: u64 = 1_300;

fn lost() -> CallOutcome {
    CallOutcome::Unknown {
        status: None,
        timed_out: false,
        reason: "lost".into(),
    }
}

fn timed_out() -> CallOutcome {
    CallOutcome::Unknown {
        status: None,
        timed_out: true,
        reason: "lost".into(),
    }
}

fn refusal() -> CallOutcome {
    CallOutcome::Refused {
        status: 400,
        error: ApiError {
            kind: "Invalid Input".into(),
            ..ApiError::default()
        },
    }
}

/// A subscription: agent and attempt.
pub type Held = (String, u64);

impl World {
    fn trouble(&self, node: usize, target: usize, service: Service) -> Option<Trouble> {
        self.trouble[node][target][service as usize]
    }

    /// Whether an instance can have subscriptions at a node of the downstream.
    fn notifies(&self, node: usize, target: usize) -> bool {
        let trouble = self.trouble(node, target, Service::Notifications);
        !matches!(trouble, Some(Trouble::Down | Trouble::OutOfService))
    }

    pub fn call(&mut self, node: usize, call: Box<Call>) {
        let boot = self.nodes[node].boot;
        let wait = 1 + self.rng.below(25);
        self.after(wait, Ev::Effect(node, boot, call));
    }

    /// A request is at the downstream, whatever has become of its sender meanwhile.
    pub fn effect(&mut self, node: usize, boot: u64, call: &Call) {
        let (outcome, wait) = match self.trouble(node, call.node, Service::Rest) {
            Some(Trouble::Down) => {
                let (timed_out, reason) = (false, "nothing listens".to_owned());
                (CallOutcome::NotSent { timed_out, reason }, 1)
            }
            Some(Trouble::OutOfService) => {
                let reason = "out of service".to_owned();
                (CallOutcome::OutOfService { reason }, 1)
            }
            Some(Trouble::Vague) if self.rng.one_in(6) => {
                if self.rng.one_in(2) && !self.is_out(call) {
                    self.carry_out_request(node, call);
                }
                if self.rng.one_in(2) {
                    (timed_out(), REQUEST_TIMEOUT_MS)
                } else {
                    (lost(), 1)
                }
            }
            Some(Trouble::Late) if calls(call) && self.other_rng.one_in(3) => {
                let late = REQUEST_TIMEOUT_MS + self.other_rng.below(LATEST_MS);
                self.after(late, Ev::LateCall(node, Box::new(call.clone())));
                (timed_out(), REQUEST_TIMEOUT_MS)
            }
            _ if self.is_out(call) => (refusal(), 1),
            Some(Trouble::Refusing) if self.other_rng.one_in(3) => (refusal(), 1),
            trouble => {
                let answer = self.carry_out_request(node, call);
                let status = 202;
                let slow = trouble == Some(Trouble::Slow);
                let wait = if slow {
                    self.other_rng.below(SLOWEST_MS)
                } else {
                    1
                };
                if wait < REQUEST_TIMEOUT_MS {
                    (CallOutcome::Done { status, answer }, wait)
                } else {
                    (timed_out(), REQUEST_TIMEOUT_MS)
                }
            }
        };
        let wait = wait + self.rng.below(20);
        let call = call.id;
        self.input_after(wait, node, boot, Input::CallDone { call, outcome });
    }

    /// The platform takes nothing but a sign-in from an agent who is signed out.
    fn is_out(&self, call: &Call) -> bool {
        let wants_in = match &call.action {
            Action::MakeCall { .. } => true,
            Action::SetState { state, .. } => *state != "LOGOUT",
            _ => false,
        };
        wants_in && self.plan.extra.states && !self.platform.signed_in(call.agent.as_str())
    }

    pub fn carry_out_request(&mut self, node: usize, call: &Call) -> Answer {
        let who = name_of(node);
        let named = match &call.action {
            Action::MakeCall { to, .. } => bursts::anonymous(to),
            _ => None,
        };
        let id = named.as_deref().unwrap_or(&call.request_id);
        let agent = call.agent.as_str();
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
            Action::SignIn { .. } => {
                self.trace.say(self.now, || format!("{who} signs in {id}"));
                let wrong = i16_sign_outs::signed_in(self, agent, id, who.as_str());
                self.seen.violations.extend(wrong);
                self.seen.change(who.as_str(), id, self.now);
                if !self.platform.signed_in(agent) {
                    self.set_state(&call.agent, "NOT_READY", id);
                }
                Answer::Empty
            }
            Action::SetState { state, .. } => {
                self.trace
                    .say(self.now, || format!("{who} sets {state} {id}"));
                self.seen.change(who.as_str(), id, self.now);
                self.seen.state_set(who.as_str(), id, self.now);
                self.set_state(&call.agent, state, id);
                Answer::Empty
            }
            Action::ReadUser => Answer::User(self.platform.user(agent, self.plan.extra.states)),
            Action::ReadDialogs => Answer::Dialogs(self.platform.dialogs(agent, self.now)),
            _ => Answer::Empty,
        }
    }

    pub fn probe(&mut self, node: usize, target: usize) {
        let reason = || "trouble".to_owned();
        let health = match self.trouble(node, target, Service::Rest) {
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

    pub fn subscribe(
        &mut self,
        node: usize,
        target: usize,
        agent: AgentId,
        subscription: SubscriptionEpoch,
    ) {
        let boot = self.nodes[node].boot;
        let mut wait = 5 + self.rng.below(20);
        if self.trouble(node, target, Service::Notifications) == Some(Trouble::Slow) {
            wait += self.other_rng.below(SLOWEST_MS);
        }
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
        let held = (agent.to_string(), subscription.0);
        let entry = &self.nodes[node];
        let Some(target) = entry.wanted.get(&held).filter(|_| entry.boot == boot) else {
            return;
        };
        let notice = if self.notifies(node, *target) {
            self.nodes[node].subscriptions.insert(held);
            Notice::Up
        } else {
            self.nodes[node].wanted.remove(&held);
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
        // After a sign-out it ends.
        let out = |client: &Client| client.agent == agent.as_str() && client.out_since.is_some();
        if was && !left && !self.clients.iter().any(out) {
            self.seen
                .let_go(name_of(node).as_str(), agent.as_str(), self.now);
        }
    }

    /// The notification service of a node is gone: so are its sessions.
    pub fn lose_subscriptions(&mut self, node: usize, target: usize) {
        let boot = self.nodes[node].boot;
        for held in self.nodes[node].subscriptions.clone() {
            if self.nodes[node].wanted.get(&held) != Some(&target) {
                continue;
            }
            self.nodes[node].subscriptions.remove(&held);
            self.nodes[node].wanted.remove(&held);
            let (agent, number) = held;
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
