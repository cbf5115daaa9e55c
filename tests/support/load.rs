//! A stream of commands under which something breaks, and the account afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tandem::client::Command;
use tokio::task::JoinHandle;

use super::pair::{Pair, accepted};
use super::{Desk, wait_for};

/// Pause between two commands: 40 a second.
const PAUSE: Duration = Duration::from_millis(25);

/// A running stream: state changes of some agents, one call each of others, spread in time.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    task: JoinHandle<Vec<Sent>>,
}

/// A command that a broker has confirmed.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its id.
    pub id: String,
    /// `MakeCall#1001`.
    pub kind: String,
    /// When the client was asked to send it.
    pub at: Instant,
}

/// How the commands of a stream ended.
#[derive(Debug, Default)]
pub struct Account {
    /// Outcome of each command, with the instance that replied.
    pub outcomes: BTreeMap<String, (String, String, String)>,
    /// When each was sent and answered.
    pub times: Vec<(Instant, Instant)>,
}

impl Load {
    /// Starts: `callers` make one call each, all others change their state again and again.
    pub fn start(desk: Arc<Desk>, callers: Vec<u32>, others: Vec<u32>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        let (stopped, count) = (stop.clone(), sent.clone());
        let task = tokio::spawn(async move {
            let mut log = Vec::new();
            let mut callers = callers.into_iter();
            for round in 0_usize.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let caller = if round % 4 == 0 { callers.next() } else { None };
                let (kind, body) = match caller {
                    Some(agent) => (format!("MakeCall#{agent}"), format!("555{agent}")),
                    None => {
                        let agent = others[round % others.len()];
                        let ready = (round / others.len()).is_multiple_of(2);
                        let verb = if ready { "MakeReady" } else { "MakeNotReady" };
                        (format!("{verb}#{agent}"), String::new())
                    }
                };
                let at = Instant::now();
                let id = desk.send_command(Command::new(kind.clone(), body)).await;
                log.push(Sent { id, kind, at });
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
            log
        });
        Self { stop, sent, task }
    }

    /// Waits until so many more commands are confirmed.
    pub async fn more(&self, count: usize) {
        let goal = self.sent.load(Ordering::Relaxed) + count;
        wait_for("the load goes on", async || {
            (self.sent.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }

    /// Ends the stream and waits for an answer to every command.
    pub async fn finish(self, desk: &Desk) -> Account {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.task.await.expect("the load has not failed");
        let mut account = Account::default();
        for Sent { id, kind, at } in sent {
            let reply = desk.reply(&id).await;
            account
                .times
                .extend(desk.answered_at(&id).map(|answered| (at, answered)));
            let outcome = reply.field("outcome").to_owned();
            let detail = format!("{} by {}", reply.text, reply.field("instance"));
            account.outcomes.insert(id, (kind, outcome, detail));
        }
        account
    }
}

impl Account {
    /// No call ran twice, and each answer is true: accepted means one call, refused means none.
    pub fn no_double_and_no_false_answer(&self, pair: &Pair) {
        for (id, (kind, outcome, detail)) in &self.outcomes {
            if !kind.starts_with("MakeCall") {
                continue;
            }
            let effects = pair.effects_of("MAKE_CALL", id);
            let right = match outcome.as_str() {
                "ACCEPTED" => effects == 1,
                "IN_DOUBT" => effects <= 1,
                _ => effects == 0,
            };
            assert!(right, "{kind} {id}: {effects} calls, answer {detail}");
        }
    }

    /// Every command succeeded.
    pub fn all_succeeded(&self) {
        for (id, (kind, outcome, detail)) in &self.outcomes {
            assert!(accepted(outcome), "{kind} {id}: {detail}");
        }
    }

    /// Every command succeeded, but for calls of which nobody can know.
    pub fn all_succeeded_or_in_doubt(&self) {
        for (id, (kind, outcome, detail)) in &self.outcomes {
            let doubtful = outcome == "IN_DOUBT" && kind.starts_with("MakeCall");
            assert!(accepted(outcome) || doubtful, "{kind} {id}: {detail}");
        }
    }

    /// Every command succeeded or has one of these outcomes.
    pub fn all_succeeded_or(&self, others: &[&str]) {
        for (id, (kind, outcome, detail)) in &self.outcomes {
            let known = others.contains(&outcome.as_str());
            assert!(accepted(outcome) || known, "{kind} {id}: {detail}");
        }
    }

    /// Every reply came from this instance.
    pub fn all_answered_by(&self, instance: &str) {
        let end = format!(" by {instance}");
        for (id, (kind, _, detail)) in &self.outcomes {
            assert!(detail.ends_with(&end), "{kind} {id}: {detail}");
        }
    }

    /// How long after this moment the first command was answered that was sent after it.
    pub fn first_answer(&self, since: Instant) -> Option<Duration> {
        let later = self.times.iter().filter(|(sent, _)| *sent >= since);
        later.map(|(_, answered)| *answered - since).min()
    }

    /// The longest time without an answer to anything, while commands were sent.
    pub fn longest_gap(&self) -> Duration {
        let silence = self.longest_silence();
        silence.map_or(Duration::ZERO, |(from, to)| to - from)
    }

    /// When that was. What is answered late, when nothing was asked any more, is no silence: see
    /// [`Self::longest_wait`].
    pub fn longest_silence(&self) -> Option<(Instant, Instant)> {
        let mut answers: Vec<Instant> = self.times.iter().map(|(_, answered)| *answered).collect();
        answers.sort();
        let last = self.times.iter().map(|(sent, _)| *sent).max()?;
        let until = answers.partition_point(|answer| *answer <= last);
        answers.truncate(until + 1);
        let gaps = answers.windows(2).map(|pair| (pair[0], pair[1]));
        gaps.max_by_key(|(from, to)| *to - *from)
    }

    /// The longest that one command waited for its answer, and when it was sent.
    pub fn longest_wait(&self) -> Option<(Duration, Instant)> {
        let waits = self.times.iter();
        waits
            .map(|(sent, answered)| (*answered - *sent, *sent))
            .max()
    }

    /// How many calls there were of which nobody can know.
    pub fn in_doubt(&self) -> usize {
        let outcomes = self.outcomes.values();
        outcomes
            .filter(|(_, outcome, _)| outcome == "IN_DOUBT")
            .count()
    }

    /// How many commands there were.
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }
}
