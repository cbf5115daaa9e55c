//! A client and everything it has received.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tandem::client::{Client, ClientOptions, Command, Incoming, Message};
use tokio::task::JoinHandle;

use super::{LIMIT, until, wait_for};

/// Id of a command that was sent.
pub type SentCommand = String;

/// A client whose inbox is read all the time.
#[derive(Debug)]
pub struct Desk {
    /// Its address.
    pub destination: String,
    /// The client.
    pub client: Client,
    /// By the id of their command.
    replies: Arc<Mutex<HashMap<String, Vec<Message>>>>,
    /// When the first of them came.
    arrivals: Arc<Mutex<HashMap<String, Instant>>>,
    events: Arc<Mutex<Vec<Message>>>,
    reader: JoinHandle<()>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Desk {
    /// Connects to the first broker of the list that serves.
    pub async fn open(uris: Vec<String>, cluster: &str, queue: &str, destination: &str) -> Self {
        let mut options = ClientOptions::new(destination);
        options.cluster = cluster.to_owned();
        options.queue = queue.to_owned();
        options.first_limit = LIMIT;
        options.resend_after = Duration::from_secs(2);
        // A starved machine is no lost broker: a client that leaves leaves its replies behind.
        options.heartbeat = Duration::from_secs(8);
        let (client, mut inbox) = Client::connect(uris, options).await.expect("a client");
        let replies: Arc<Mutex<HashMap<String, Vec<Message>>>> = Arc::default();
        let events: Arc<Mutex<Vec<Message>>> = Arc::default();
        let (to_replies, to_events) = (replies.clone(), events.clone());
        let arrivals: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
        let to_arrivals = arrivals.clone();
        let name = destination.to_owned();
        let reader = tokio::spawn(async move {
            while let Some(incoming) = inbox.next().await {
                match incoming {
                    Incoming::Reply(message) => {
                        let id = message.correlation_id.clone().unwrap_or_default();
                        let now = Instant::now();
                        to_arrivals.lock().unwrap().entry(id.clone()).or_insert(now);
                        to_replies
                            .lock()
                            .unwrap()
                            .entry(id)
                            .or_default()
                            .push(message);
                    }
                    Incoming::Event(message) => to_events.lock().unwrap().push(message),
                    Incoming::Disconnected { broker, reason } => {
                        eprintln!("{name} has lost {broker}: {reason}");
                    }
                    Incoming::Connected(_) => {}
                }
            }
        });
        Self {
            destination: destination.to_owned(),
            client,
            replies,
            arrivals,
            events,
            reader,
        }
    }

    /// Sends a command with text arguments that asks for a reply; gives back its id.
    pub async fn send(&self, kind: impl Into<String>, body: impl Into<String>) -> SentCommand {
        self.send_command(Command::new(kind, body)).await
    }

    /// Sends a command.
    pub async fn send_command(&self, command: Command) -> SentCommand {
        let sent = tokio::time::timeout(LIMIT, self.client.send(command)).await;
        sent.expect("a broker takes it").expect("an open client")
    }

    /// Says Hello until it is answered, as clients do. Events that are published at the other broker
    /// reach a new destination only once federation has taken its binding there.
    pub async fn greet(&self) {
        let hello = format!("Hello#{}", self.destination);
        until("an answer to Hello", async || {
            self.send(hello.as_str(), "").await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let told = self.events();
            told.iter().any(|event| event.field("type") == "System")
        })
        .await;
    }

    /// The first reply to a command.
    pub async fn reply(&self, id: &str) -> Message {
        wait_for(&format!("a reply to {id}"), async || {
            self.replies_to(id).into_iter().next()
        })
        .await
    }

    /// Sends and waits for the reply.
    pub async fn ask(&self, kind: impl Into<String>, body: impl Into<String>) -> Message {
        let id = self.send(kind, body).await;
        self.reply(&id).await
    }

    /// Sends, waits for the reply and checks the outcome.
    pub async fn expect(&self, kind: &str, body: &str, outcome: &str) -> Message {
        let reply = self.ask(kind, body).await;
        assert_eq!(reply.field("outcome"), outcome, "{kind}: {}", reply.text);
        reply
    }

    /// A command now is served by this instance.
    pub async fn served_by(&self, agent: u32, instance: &str) {
        let reply = self.expect(&format!("GetState#{agent}"), "", "OK").await;
        assert_eq!(reply.field("instance"), instance, "{}", reply.text);
    }

    /// Replies to a command so far.
    pub fn replies_to(&self, id: &str) -> Vec<Message> {
        let replies = self.replies.lock().unwrap();
        replies.get(id).cloned().unwrap_or_default()
    }

    /// When the first reply to a command came.
    pub fn answered_at(&self, id: &str) -> Option<Instant> {
        self.arrivals.lock().unwrap().get(id).copied()
    }

    /// Commands that were answered so far.
    pub fn answered(&self) -> usize {
        self.replies.lock().unwrap().len()
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Message> {
        self.events.lock().unwrap().clone()
    }

    /// Forgets the events so far.
    pub fn clear_events(&self) {
        self.events.lock().unwrap().clear();
    }

    /// The first event that fits, also one that came before.
    pub async fn event(&self, what: &str, fits: impl Fn(&Message) -> bool) -> Message {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = {
                let events = self.events.lock().unwrap();
                events.iter().find(|event| fits(event)).cloned()
            };
            if let Some(found) = found {
                return found;
            }
            if Instant::now() >= deadline {
                let texts: Vec<String> = self.events().into_iter().map(|m| m.text).collect();
                panic!("{what}: not within {LIMIT:?}; events: {texts:#?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
