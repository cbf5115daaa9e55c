//! What the platform remembers: calls that were made, and agents' states. Asked for an agent's
//! calls it shows those that are not over, as an instance in doubt wants to know; who is subscribed
//! is told of states.

use std::collections::BTreeMap;

use tandem_engine::Input;
use tandem_engine::ids::SubscriptionEpoch;
use tandem_engine::input::Notice;
use tandem_model::{AgentId, Dialog, Participant, Update, UpdateBody, User};

use crate::world::World;

/// The time of day of the wall clock's zero (`WALL`), seconds.
const ZERO_OF_DAY_S: u64 = 80_000;

/// A call.
#[derive(Debug)]
struct Made {
    number: u64,
    from: String,
    to: String,
    at: u64,
    over: u64,
}

/// The platform behind all downstream nodes.
#[derive(Debug, Default)]
pub struct Platform {
    /// By agent.
    calls: BTreeMap<String, Vec<Made>>,
    count: u64,
    /// By agent; who is not here is signed out.
    states: BTreeMap<String, String>,
    /// When each instance hears of the newest change.
    told_at: BTreeMap<usize, u64>,
}

impl Platform {
    /// A call is made, and lasts.
    pub fn call(&mut self, agent: &str, from: &str, to: &str, at: u64, millis: u64) {
        self.count += 1;
        self.calls.entry(agent.to_owned()).or_default().push(Made {
            number: self.count,
            from: from.to_owned(),
            to: to.to_owned(),
            at,
            over: at + millis,
        });
    }

    /// The calls that an agent has now.
    pub fn dialogs(&self, agent: &str, now: u64) -> Vec<Dialog> {
        let calls = self.calls.get(agent).into_iter().flatten();
        let lasting = calls.filter(|call| call.over > now);
        lasting.map(Made::dialog).collect()
    }

    /// A request sets an agent's state.
    pub fn set_state(&mut self, agent: &str, state: &str) {
        self.states.insert(agent.to_owned(), state.to_owned());
    }

    /// An agent's state.
    pub fn state(&self, agent: &str) -> &str {
        self.states.get(agent).map_or("LOGOUT", String::as_str)
    }

    pub fn signed_in(&self, agent: &str) -> bool {
        self.state(agent) != "LOGOUT"
    }

    /// An agent as the platform shows it.
    pub fn user(&self, agent: &str, states: bool) -> Box<User> {
        let state = if states {
            self.state(agent)
        } else {
            "NOT_READY"
        };
        Box::new(User {
            login_id: agent.to_owned(),
            state: state.to_owned(),
            extension: agent.to_owned(),
            ..User::default()
        })
    }

    /// When an instance hears of a change, at the earliest at `at`: in order.
    fn told_at(&mut self, node: usize, at: u64) -> u64 {
        let last = self.told_at.entry(node).or_default();
        *last = at.max(*last);
        *last
    }
}

impl World {
    /// A request of an agent sets its state: whoever is subscribed is told.
    pub fn set_state(&mut self, agent: &AgentId, state: &str, request: &str) {
        if !self.plan.extra.states {
            return;
        }
        self.platform.set_state(agent.as_str(), state);
        let update = Update {
            request_id: Some(request.to_owned()),
            item_id: None,
            body: UpdateBody::User(self.platform.user(agent.as_str(), true)),
        };
        for node in 0..self.nodes.len() {
            let held = self.nodes[node].subscriptions.clone();
            for (_, number) in held.iter().filter(|(name, _)| name == agent.as_str()) {
                let wait = self.other_rng.below(40);
                let at = self.platform.told_at(node, self.now + wait);
                let input = Input::Notice {
                    agent: agent.clone(),
                    subscription: SubscriptionEpoch(*number),
                    notice: Notice::Update(update.clone()),
                };
                let boot = self.nodes[node].boot;
                self.input_after(at - self.now, node, boot, input);
            }
        }
    }
}

impl Made {
    fn dialog(&self) -> Dialog {
        Dialog {
            id: self.number.to_string(),
            from_address: self.from.clone(),
            to_address: self.to.clone(),
            state: "ACTIVE".into(),
            media_type: "Voice".into(),
            participants: vec![Participant {
                media_address: self.from.clone(),
                state: "ACTIVE".into(),
                start_time: time(self.at),
                ..Participant::default()
            }],
            ..Dialog::default()
        }
    }
}

/// A time as the platform writes it; runs are shorter than the rest of that day.
fn time(now: u64) -> String {
    let (seconds, millis) = (ZERO_OF_DAY_S + now / 1_000, now % 1_000);
    let (hour, minute) = (seconds / 3_600, seconds / 60 % 60);
    format!(
        "2023-11-14T{hour:02}:{minute:02}:{:02}.{millis:03}Z",
        seconds % 60
    )
}
