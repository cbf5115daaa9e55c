//! The client load: each agent signs in and then works, one command after the other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::tally::{Answer, Tally};
use crate::client::{Client, Command, Inbox, Incoming, Message};

/// First agent id and extension, as the simulator numbers them.
const FIRST_AGENT: u64 = 1001;
const FIRST_EXTENSION: u64 = 7001;
/// The client's address.
pub(super) const DESTINATION: &str = "demo-desk";
/// How long an agent waits for an answer before it goes on: longer than commands live.
const PATIENCE: Duration = Duration::from_secs(35);
/// How long an agent waits for an event of its call.
const EVENT_PATIENCE: Duration = Duration::from_secs(3);
/// Pause before a sign-in is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// Refusals by event that are remembered.
const MAX_REFUSED: usize = 10_000;
/// Shortest and longest pause between two commands of one agent, milliseconds.
const THINK_MS: (u64, u64) = (80, 240);

/// What agents share.
#[derive(Debug)]
pub struct Load {
    client: Client,
    tally: Arc<Tally>,
    /// The call of each agent, from its events.
    calls: Vec<watch::Sender<Option<String>>>,
    events: AtomicU64,
    /// Agents that another client has taken; the load leaves them alone from then on.
    taken: Vec<AtomicBool>,
    /// Ids of commands that the downstream took and then refused by an event, newest last.
    refused: Mutex<VecDeque<String>>,
    /// Agents that had to sign in again.
    signed_in_again: AtomicU64,
    stop: CancellationToken,
    run: String,
}

impl Load {
    /// A load of `agents` agents. Ids of its commands begin with `run`.
    pub fn new(
        client: Client,
        tally: Arc<Tally>,
        agents: usize,
        run: String,
        stop: CancellationToken,
    ) -> Self {
        Self {
            client,
            tally,
            calls: (0..agents).map(|_| watch::channel(None).0).collect(),
            events: AtomicU64::new(0),
            taken: (0..agents).map(|_| AtomicBool::new(false)).collect(),
            refused: Mutex::default(),
            signed_in_again: AtomicU64::new(0),
            stop,
            run,
        }
    }

    /// Events received.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// How often an agent was asked to sign in again.
    pub fn signed_in_again(&self) -> u64 {
        self.signed_in_again.load(Ordering::Relaxed)
    }

    /// Hands on what arrives until the client ends. `say` is told of lost connections.
    pub async fn receive(&self, mut inbox: Inbox, say: impl Fn(&str)) {
        while let Some(news) = inbox.next().await {
            match news {
                Incoming::Reply(reply) => self.reply(&reply),
                Incoming::Event(event) => self.event(&event),
                Incoming::Connected(broker) => say(&format!("the client is on broker {broker}")),
                Incoming::Disconnected { broker, .. } => {
                    say(&format!("the client lost broker {broker}"));
                }
            }
        }
    }

    fn reply(&self, reply: &Message) {
        let Some(id) = &reply.correlation_id else {
            return;
        };
        let answer = Answer {
            outcome: reply.field("outcome").to_owned(),
            code: reply.error_code().to_owned(),
        };
        self.tally.answered(id, answer, reply.received);
    }

    fn event(&self, event: &Message) {
        self.events.fetch_add(1, Ordering::Relaxed);
        let agent = event.field("agentId").parse::<u64>().ok();
        let index = agent.and_then(|id| usize::try_from(id.checked_sub(FIRST_AGENT)?).ok());
        let Some((index, call)) = index.and_then(|index| Some((index, self.calls.get(index)?)))
        else {
            return;
        };
        match event.field("type") {
            "Error" if event.field("errorType") == "SESSION_INVALIDATED" => {
                self.taken[index].store(true, Ordering::Relaxed);
            }
            "Error" => self.note_refused(event.correlation_id.clone()),
            "InboundCall" => note_call(call, event.field("dialogId"), event.field("state")),
            "DialogStatus" => {
                let first = event.json.pointer("/dialogs/0/dialogId");
                call.send_replace(first.and_then(Value::as_str).map(str::to_owned));
            }
            _ => {}
        }
    }

    fn note_refused(&self, id: Option<String>) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.extend(id);
        if refused.len() > MAX_REFUSED {
            refused.pop_front();
        }
    }

    /// Ids of the calls that the downstream must have made: accepted, not refused by an event
    /// later, and of agents whose events came here.
    pub fn calls_to_be_made(&self) -> Vec<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let mut calls = self.tally.accepted_calls();
        calls.retain(|id| !refused.contains(id) && !self.is_taken(agent_of(id)));
        calls
    }

    fn is_taken(&self, index: Option<usize>) -> bool {
        let taken = index.and_then(|index| self.taken.get(index));
        taken.is_some_and(|taken| taken.load(Ordering::Relaxed))
    }

    /// Signs agent `index` in, as often as it takes. False where the load was stopped before.
    pub async fn sign_in(&self, index: usize) -> bool {
        let mut numbers = Numbers::new(index);
        self.sign_in_with(index, &mut numbers).await
    }

    async fn sign_in_with(&self, index: usize, numbers: &mut Numbers) -> bool {
        let agent = FIRST_AGENT + index as u64;
        let extension = FIRST_EXTENSION + index as u64;
        while !self.stop.is_cancelled() {
            let body = format!("{DESTINATION},pw-{agent}");
            let connected = self.command(index, numbers, "Connect", body).await;
            if connected.is_some_and(|answer| answer.is_service()) {
                let body = format!("pw-{agent},{extension}");
                let login = self.command(index, numbers, "Login", body).await;
                if login.is_some_and(|answer| answer.is_service()) {
                    return true;
                }
            }
            self.pause(AGAIN).await;
        }
        false
    }

    /// Works until the load is stopped; the command at hand is finished.
    pub async fn work(&self, index: usize) {
        // Ids of the sign-in are behind it.
        let mut numbers = Numbers::new(index);
        numbers.next = 1000;
        while !self.stop.is_cancelled() && !self.is_taken(Some(index)) {
            let again = match numbers.below(100) {
                0..30 => self.simple(index, &mut numbers, "MakeReady").await,
                30..60 => self.simple(index, &mut numbers, "MakeNotReady").await,
                60..96 => self.simple(index, &mut numbers, "GetState").await,
                _ => self.call(index, &mut numbers).await,
            };
            if again {
                self.signed_in_again.fetch_add(1, Ordering::Relaxed);
                self.sign_in_with(index, &mut numbers).await;
            }
            let (least, most) = THINK_MS;
            let think = least + numbers.below(most - least);
            self.pause(Duration::from_millis(think)).await;
        }
    }

    /// True where the agent has to sign in again.
    async fn simple(&self, index: usize, numbers: &mut Numbers, command: &'static str) -> bool {
        let answer = self.command(index, numbers, command, String::new()).await;
        answer.is_some_and(|answer| answer.code == "RE_LOGIN")
    }

    /// Calls an outside number, waits until it is known, hangs up.
    async fn call(&self, index: usize, numbers: &mut Numbers) -> bool {
        let not_ready = self.simple(index, numbers, "MakeNotReady").await;
        if not_ready {
            return true;
        }
        let number = format!("05550{:04}", numbers.below(10_000));
        let made = self.command(index, numbers, "MakeCall", number).await;
        let Some(made) = made else { return false };
        if made.code == "RE_LOGIN" {
            return true;
        }
        if !made.is_service() && made.outcome != "IN_DOUBT" {
            return false;
        }
        let mut dialog = self.call_of(index, true).await;
        if dialog.is_none() {
            // The event was missed: ask.
            self.simple(index, numbers, "refresh").await;
            dialog = self.call_of(index, true).await;
        }
        let Some(dialog) = dialog else { return false };
        self.pause(Duration::from_millis(300)).await;
        let released = self.command(index, numbers, "ReleaseCall", dialog).await;
        if released.is_some_and(|answer| answer.is_service()) {
            self.call_of(index, false).await;
        }
        false
    }

    /// Waits a while until the agent has a call, or has none.
    async fn call_of(&self, index: usize, wanted: bool) -> Option<String> {
        let mut call = self.calls[index].subscribe();
        let known = call.wait_for(|call| call.is_some() == wanted);
        let known = tokio::time::timeout(EVENT_PATIENCE, known).await;
        known.ok()?.ok()?.clone()
    }

    /// Sends one command and waits for its answer. `None` where none came in time.
    async fn command(
        &self,
        index: usize,
        numbers: &mut Numbers,
        command: &'static str,
        body: String,
    ) -> Option<Answer> {
        let agent = FIRST_AGENT + index as u64;
        numbers.next += 1;
        let id = format!("{}-{agent}-{}", self.run, numbers.next);
        let answer = self.tally.sent(&id, command, Instant::now());
        let message = Command::new(format!("{command}#{agent}"), body).with_id(id);
        let exchange = async {
            self.client.send(message).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(PATIENCE, exchange).await.ok()?
    }

    async fn pause(&self, time: Duration) {
        let _ = tokio::time::timeout(time, self.stop.cancelled()).await;
    }
}

/// Index of the agent in a command's id, `<run>-<agent>-<number>`.
fn agent_of(id: &str) -> Option<usize> {
    let agent: u64 = id.split('-').nth(1)?.parse().ok()?;
    usize::try_from(agent.checked_sub(FIRST_AGENT)?).ok()
}

fn note_call(call: &watch::Sender<Option<String>>, dialog: &str, state: &str) {
    match state {
        "DROP" | "DROPPED" | "FAILED" => {
            call.send_if_modified(|known| {
                let ended = known.as_deref() == Some(dialog);
                if ended {
                    *known = None;
                }
                ended
            });
        }
        _ => {
            call.send_replace(Some(dialog.to_owned()));
        }
    }
}

/// Counts an agent's commands and varies what it does, the same in every run.
#[derive(Debug)]
struct Numbers {
    next: u64,
    state: u64,
}

impl Numbers {
    fn new(index: usize) -> Self {
        Self {
            next: 0,
            state: 0x9e37_79b9_7f4a_7c15 ^ (index as u64 + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9),
        }
    }

    /// Below `bound`, xorshift.
    fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_from_its_events_and_only_its_own_end_ends_it() {
        let (call, seen) = watch::channel(None);
        note_call(&call, "17", "INITIATING");
        note_call(&call, "16", "DROP");
        assert_eq!(seen.borrow().as_deref(), Some("17"));
        note_call(&call, "17", "DROP");
        assert_eq!(*seen.borrow(), None);
    }

    #[test]
    fn an_id_tells_its_agent() {
        assert_eq!(agent_of("demo17-1003-1022"), Some(2));
        assert_eq!(agent_of("demo17-12-1022"), None);
        assert_eq!(agent_of("x"), None);
    }

    #[test]
    fn agents_differ_and_runs_do_not() {
        let draw = |index| {
            let mut numbers = Numbers::new(index);
            (0..8).map(|_| numbers.below(100)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
