//! Direct reply-to, on a connection of its own: a forged or foreign address closes the connection
//! that publishes to it.
//!
//! What the broker has not confirmed by then may be lost, honest replies behind the forged one in
//! particular. Nobody knows which one it was, so each is suspected: each is sent again, alone, and
//! the next one only when the broker has confirmed it. The one that costs its connection alone is
//! given up.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::{AMQPErrorKind, AMQPHardError};
use lapin::{Channel, Confirmation, ErrorKind, Event};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::RPC_LIMIT;
use super::classify::{Class, Problem};
use super::connect::{Conn, rpc, within};
use super::encode::Message;
use super::link::Link;
use crate::engine::ids::PublishId;
use crate::engine::input::PublishOutcome;
use crate::engine::way::Way;

/// Replies waiting; more are answered as failed.
const MAX_WAITING: usize = 1024;
/// Replies that were written and not confirmed; more wait.
const MAX_WRITTEN: usize = 256;
/// Connections that a reply may cost alone where the broker does not say why.
const MAX_STRIKES: u8 = 3;
/// How long an orderly end waits for confirms.
const LAST_CONFIRMS: Duration = Duration::from_secs(1);

/// Where direct replies go.
pub(super) struct Sender(mpsc::Sender<(PublishId, Message)>);

impl Sender {
    /// False where there is no room.
    pub(super) fn send(&self, id: PublishId, message: Message) -> bool {
        self.0.try_send((id, message)).is_ok()
    }
}

/// The task that writes them; ends with the link.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) async fn end(self) {
        let _ = self.0.await;
    }
}

/// Starts the task; it connects when there is something to send.
pub(super) fn start(link: Arc<Link>) -> (Sender, Task) {
    let (sender, waiting) = mpsc::channel(MAX_WAITING);
    (Sender(sender), Task(tokio::spawn(run(link, waiting))))
}

/// The connection while it is open.
struct Open {
    conn: Conn,
    channel: Channel,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
}

type Confirming = Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>;

/// A reply on its way.
struct Written {
    reply: Reply,
    confirming: Confirming,
    until: Instant,
}

/// A reply.
struct Reply {
    id: PublishId,
    message: Message,
    /// Connections that it has cost alone.
    strikes: u8,
}

/// Why a reply got no confirm.
enum Loss {
    /// The broker takes none.
    Refused(Problem),
    /// The broker has closed the connection for something that was on it.
    Blamed(Problem),
    /// The connection is gone.
    Gone(Problem),
    /// The broker says nothing, or cannot be reached.
    Silent(Problem),
}

impl From<lapin::Error> for Loss {
    fn from(error: lapin::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::ProtocolError(said) => Some(said.kind().clone()),
            _ => None,
        };
        // An administrator, or the broker's own end, closes what is as good as ever.
        let forced = AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED);
        let problem = Problem::from(error);
        if problem.class == Class::Protocol && kind.is_some_and(|kind| kind != forced) {
            return Self::Blamed(problem);
        }
        Self::from(problem)
    }
}

impl From<Problem> for Loss {
    fn from(problem: Problem) -> Self {
        match problem.class {
            Class::AccessRefused => Self::Refused(problem),
            Class::Timeout => Self::Silent(problem),
            _ => Self::Gone(problem),
        }
    }
}

async fn run(link: Arc<Link>, waiting: mpsc::Receiver<(PublishId, Message)>) {
    let mut replies = Replies {
        link,
        waiting,
        open: None,
        written: VecDeque::new(),
        suspects: VecDeque::new(),
    };
    let link = Arc::clone(&replies.link);
    while !link.cancel.is_cancelled() {
        let goes_on = match replies.suspects.pop_front() {
            Some(suspect) => replies.alone(suspect).await,
            None => replies.together().await,
        };
        if !goes_on {
            break;
        }
    }
    replies.end().await;
}

/// All of them.
struct Replies {
    link: Arc<Link>,
    waiting: mpsc::Receiver<(PublishId, Message)>,
    open: Option<Open>,
    /// In the order in which they were written.
    written: VecDeque<Written>,
    /// One of them may have cost the connection. Nothing new is taken while there are any.
    suspects: VecDeque<Reply>,
}

impl Replies {
    /// One step while nothing is suspected. False: there is nothing to do any more.
    async fn together(&mut self) -> bool {
        let link = Arc::clone(&self.link);
        let room = self.written.len() < MAX_WRITTEN;
        tokio::select! {
            () = link.cancel.cancelled() => false,
            loss = refusal(&mut self.open) => {
                self.lost(loss).await;
                true
            }
            answer = first(&mut self.written, &link) => {
                match (answer, self.written.pop_front()) {
                    (Ok(outcome), Some(written)) => tell(&self.link, written.reply.id, outcome).await,
                    (Ok(_), None) => {}
                    (Err(loss), written) => {
                        self.suspects.extend(written.map(|written| written.reply));
                        self.lost(loss).await;
                    }
                }
                true
            }
            next = self.waiting.recv(), if room => {
                let Some((id, message)) = next else { return false };
                let reply = Reply { id, message, strikes: 0 };
                match self.write(&reply).await {
                    Some(Ok(confirming)) => self.written.push_back(Written::new(reply, confirming)),
                    // Nothing was on its way: it never left.
                    Some(Err(loss)) if self.written.is_empty() => self.failed(reply.id, &loss).await,
                    Some(Err(loss)) => {
                        self.lost(loss).await;
                        self.suspects.push_back(reply);
                    }
                    None => {
                        self.suspects.push_back(reply);
                        return false;
                    }
                }
                true
            }
        }
    }

    /// Sends one and waits for its confirm. False: the link ends.
    async fn alone(&mut self, suspect: Reply) -> bool {
        let link = Arc::clone(&self.link);
        let confirming = match self.write(&suspect).await {
            Some(Ok(confirming)) => confirming,
            Some(Err(loss)) => {
                self.failed(suspect.id, &loss).await;
                return true;
            }
            None => {
                self.suspects.push_front(suspect);
                return false;
            }
        };
        let mut written = Written::new(suspect, confirming);
        let answer = tokio::select! {
            () = link.cancel.cancelled() => None,
            answer = confirmed(&mut written, &link) => Some(answer),
        };
        match answer {
            Some(Ok(outcome)) => tell(&self.link, written.reply.id, outcome).await,
            Some(Err(loss)) => self.judge(written.reply, loss).await,
            None => self.written.push_front(written),
        }
        true
    }

    /// What costs its connection alone is given up: the next one would fare no better.
    async fn judge(&mut self, mut suspect: Reply, loss: Loss) {
        // The connection's own end says more than that of what was on it.
        let loss = said(&mut self.open).unwrap_or(loss);
        self.open = None;
        let problem = match loss {
            Loss::Blamed(problem) => problem,
            Loss::Gone(problem) => {
                suspect.strikes += 1;
                if suspect.strikes < MAX_STRIKES {
                    return self.suspects.push_front(suspect);
                }
                problem
            }
            loss => return self.failed(suspect.id, &loss).await,
        };
        tracing::debug!(%problem, "the address of a direct reply costs its connection");
        tell(&self.link, suspect.id, PublishOutcome::Untaken).await;
    }

    /// The connection is of no use any more: what is not confirmed is suspected.
    async fn lost(&mut self, loss: Loss) {
        let loss = said(&mut self.open).unwrap_or(loss);
        self.open = None;
        let written = std::mem::take(&mut self.written).into_iter();
        let mut all: Vec<Reply> = self.suspects.drain(..).collect();
        all.extend(written.map(|written| written.reply));
        if let Loss::Refused(problem) = &loss {
            self.link.barred(Way::Replies, problem).await;
            for reply in all {
                tell(&self.link, reply.id, PublishOutcome::Barred).await;
            }
        } else {
            self.suspects.extend(all);
        }
    }

    /// One that is not suspected of anything, and was not taken: the engine tries again later.
    async fn failed(&mut self, id: PublishId, loss: &Loss) {
        self.open = None;
        let outcome = match loss {
            Loss::Refused(problem) => {
                self.link.barred(Way::Replies, problem).await;
                PublishOutcome::Barred
            }
            Loss::Blamed(problem) | Loss::Gone(problem) | Loss::Silent(problem) => {
                tracing::debug!(%problem, "a direct reply was not sent");
                PublishOutcome::Failed
            }
        };
        tell(&self.link, id, outcome).await;
    }

    /// Hands one to the library; connects where there is no connection. `None`: the link ends.
    async fn write(&mut self, reply: &Reply) -> Option<Result<Confirming, Loss>> {
        let link = Arc::clone(&self.link);
        tokio::select! {
            () = link.cancel.cancelled() => None,
            sent = send(&link, &mut self.open, reply.message.clone()) => {
                Some(sent.map_err(Loss::from))
            }
        }
    }

    /// Every one is answered. Where the link is lost the engine is to know at once.
    async fn end(mut self) {
        self.waiting.close();
        let wanted = self.link.is_wanted_down();
        let limit = Instant::now() + LAST_CONFIRMS;
        while let Some(mut written) = self.written.pop_front() {
            let confirmed = match wanted {
                true => timeout_at(limit, &mut written.confirming).await.ok(),
                false => (&mut written.confirming).now_or_never(),
            };
            let outcome = match confirmed {
                Some(Ok(Confirmation::Ack(_))) => PublishOutcome::Confirmed,
                _ => PublishOutcome::Failed,
            };
            tell(&self.link, written.reply.id, outcome).await;
        }
        for reply in std::mem::take(&mut self.suspects) {
            tell(&self.link, reply.id, PublishOutcome::Failed).await;
        }
        while let Some((id, _)) = self.waiting.recv().await {
            tell(&self.link, id, PublishOutcome::Failed).await;
        }
        if let Some(open) = self.open {
            let close = tokio::spawn(async move { open.conn.close().await });
            if wanted {
                let _ = close.await;
            }
        }
    }
}

async fn tell(link: &Link, id: PublishId, outcome: PublishOutcome) {
    link.context.published(id, outcome).await;
}

impl Written {
    fn new(reply: Reply, confirming: Confirming) -> Self {
        Self {
            reply,
            confirming,
            until: Instant::now() + RPC_LIMIT,
        }
    }
}

/// What became of the first of those that are on their way; never where there is none. The broker
/// confirms in the order of publication, as far as anybody waits for it.
async fn first(written: &mut VecDeque<Written>, link: &Link) -> Result<PublishOutcome, Loss> {
    match written.front_mut() {
        Some(first) => confirmed(first, link).await,
        None => std::future::pending().await,
    }
}

/// What the broker says of one, in bounded time.
async fn confirmed(written: &mut Written, link: &Link) -> Result<PublishOutcome, Loss> {
    loop {
        match timeout_at(written.until, &mut written.confirming).await {
            Ok(Ok(Confirmation::Nack(_))) => return Ok(PublishOutcome::Refused),
            Ok(Ok(_)) => return Ok(PublishOutcome::Confirmed),
            Ok(Err(error)) => return Err(error.into()),
            // A blocked broker has not read it yet: that is no answer that is missing.
            Err(_) if link.blocked.load(Ordering::Relaxed) => {
                written.until = Instant::now() + RPC_LIMIT;
            }
            Err(_) => return Err(Problem::timeout("a direct reply").into()),
        }
    }
}

/// What the broker has against what was published; nothing without a connection.
async fn refusal(open: &mut Option<Open>) -> Loss {
    loop {
        match open {
            Some(open) => match open.events.next().await {
                Some(Event::Error(error)) => return error.into(),
                Some(_) => {}
                None => return std::future::pending().await,
            },
            None => return std::future::pending().await,
        }
    }
}

/// What it has said by now.
fn said(open: &mut Option<Open>) -> Option<Loss> {
    let events = &mut open.as_mut()?.events;
    while let Some(Some(event)) = events.next().now_or_never() {
        if let Event::Error(error) = event {
            return Some(error.into());
        }
    }
    None
}

async fn send(
    link: &Link,
    open: &mut Option<Open>,
    message: Message,
) -> Result<Confirming, Problem> {
    let usable = open
        .as_ref()
        .is_some_and(|open| open.conn.alive() && open.channel.status().connected());
    if !usable {
        *open = None;
    }
    let channel = match open {
        Some(open) => open.channel.clone(),
        None => {
            let new = connect(link).await?;
            let channel = new.channel.clone();
            *open = Some(new);
            channel
        }
    };
    let publish = channel.basic_publish(
        message.exchange,
        message.key,
        BasicPublishOptions::default(),
        &message.body,
        message.properties,
    );
    let confirm = timeout(RPC_LIMIT, publish)
        .await
        .map_err(|_| Problem::timeout("publish"))??;
    Ok(Box::pin(confirm))
}

async fn connect(link: &Link) -> Result<Open, Problem> {
    let config = &link.context.config;
    within(config.timeout, async {
        let conn = Conn::open(config, link.node(), "direct-reply").await?;
        let channel = conn.channel().await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        rpc("ask for confirms", select).await?;
        let events = Box::pin(conn.inner.events_listener());
        Ok(Open {
            conn,
            channel,
            events,
        })
    })
    .await
}
