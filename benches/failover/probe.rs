//! A client that sends a command every 20 ms and notes when each is answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tandem::client::{Client, ClientOptions, Command, Incoming};
use tokio::task::JoinHandle;

use crate::Result;

/// Pause between two commands.
const PAUSE: Duration = Duration::from_millis(20);
/// Longer than anything measured.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Notes {
    /// When the sending of each began, in order.
    sent: Vec<(String, Instant)>,
    /// When it was answered, and whether well.
    answered: HashMap<String, (Instant, bool)>,
}

/// The client. Dropping it ends it.
pub struct Probe {
    notes: Arc<Mutex<Notes>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Probe {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Probe {
    /// Asks for the states of `agents` in turn.
    pub async fn start(uris: Vec<String>, queue: &str, agents: Vec<u64>) -> Result<Self> {
        let mut options = ClientOptions::new("probe");
        options.queue = queue.to_owned();
        options.first_limit = LIMIT;
        let (client, mut inbox) = Client::connect(uris, options).await?;
        let notes: Arc<Mutex<Notes>> = Arc::default();
        let (to, from) = (notes.clone(), notes.clone());
        let reader = tokio::spawn(async move {
            while let Some(incoming) = inbox.next().await {
                if let Incoming::Reply(reply) = incoming
                    && let Some(id) = reply.correlation_id.clone()
                {
                    let well = reply.field("outcome") == "OK";
                    let entry = (reply.received, well);
                    lock(&to).answered.entry(id).or_insert(entry);
                }
            }
        });
        let sender = tokio::spawn(async move {
            for n in 0_u64.. {
                let agent = agents[n as usize % agents.len()];
                let id = format!("probe-{n}");
                lock(&from).sent.push((id.clone(), Instant::now()));
                let command = Command::new(format!("GetState#{agent}"), "").with_id(id);
                if client.send(command).await.is_err() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Ok(Self {
            notes,
            tasks: [reader, sender],
        })
    }

    /// From `since` to the first answer to a command that was sent after it.
    pub async fn first_answer(&self, since: Instant) -> Result<Duration> {
        self.wait(|notes| {
            let later = notes.sent.iter().filter(|(_, at)| *at >= since);
            let answers = later.filter_map(|(id, _)| notes.answered.get(id));
            answers.map(|(at, _)| *at - since).min()
        })
        .await
    }

    /// From `since` to the last answer to the commands sent in the time `within` after it.
    pub async fn all_answers(&self, since: Instant, within: Duration) -> Result<Duration> {
        self.wait(|notes| {
            let asked = notes
                .sent
                .iter()
                .filter(|(_, at)| *at >= since && *at < since + within);
            let answers: Option<Vec<Instant>> = asked
                .map(|(id, _)| notes.answered.get(id).map(|(at, _)| *at))
                .collect();
            // Only once something later was sent is the list of these complete.
            let complete = notes
                .sent
                .last()
                .is_some_and(|(_, at)| *at >= since + within);
            let last = answers.filter(|_| complete)?.into_iter().max();
            last.map(|at| at - since)
        })
        .await
    }

    /// The longest time from sending to answer of the commands sent after `since`, all of which
    /// are to end well.
    pub async fn worst(&self, since: Instant, within: Duration) -> Result<Duration> {
        self.all_answers(since, within).await?;
        let notes = lock(&self.notes);
        let mut worst = Duration::ZERO;
        for (id, sent) in notes.sent.iter().filter(|(_, at)| *at >= since) {
            if let Some((at, well)) = notes.answered.get(id) {
                if !well {
                    return Err("a command failed".into());
                }
                worst = worst.max(*at - *sent);
            }
        }
        Ok(worst)
    }

    async fn wait<T>(&self, look: impl Fn(&Notes) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(seen) = look(&lock(&self.notes)) {
                return Ok(seen);
            }
            if Instant::now() > deadline {
                return Err(format!("no answers within {LIMIT:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
