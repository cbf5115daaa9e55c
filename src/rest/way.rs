//! The way to one broker for commands: one connection, opened in the background at need, and left
//! alone for a while where it is of no use, so that those who come meanwhile go on to the next
//! broker at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connection::{Broker, Dial};
use crate::broker::cut::CutConnection;
use crate::broker::guard;
use crate::net::address::MAX_LISTED;
use crate::net::dial::NODE_DELAY;

/// Channels kept open; each carries one publication at a time, so that a message that comes back
/// is known to be its own.
const CHANNELS: usize = 16;
/// Bound of opening a channel.
const CHANNEL: Duration = Duration::from_secs(5);
/// How long those wait for a connection who did not begin it themselves, or begin it after another
/// one was lost; counted from its beginning.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause after a failure; twice as long after each further one.
const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest one before the broker is dialled again: a broker that is back is used so soon.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// The longest one of a broker that takes connections and confirms nothing: each attempt keeps a
/// command waiting.
const LONGEST_DOUBT: Duration = Duration::from_secs(30);
/// Bound of an orderly end.
const CLOSING: Duration = Duration::from_millis(500);

/// A broker.
pub(super) struct Way {
    pub(super) broker: Broker,
    dial: Dial,
    state: Mutex<State>,
    /// Told with every attempt that ended.
    dialled: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    line: Option<Arc<Line>>,
    /// Who opens a connection, one at most, and since when.
    dialling: Option<(Instant, JoinHandle<()>)>,
    /// Why it is passed by; until it has proved itself.
    failed: Option<Failed>,
    /// Somebody tries whether it confirms again.
    on_trial: bool,
    /// There was a connection before.
    known: bool,
}

/// A connection, and channels of it that nobody uses.
struct Line {
    connection: CutConnection,
    free: Mutex<Vec<Channel>>,
    /// The broker has answered a command on it.
    proved: AtomicBool,
}

#[derive(Debug, Clone)]
struct Failed {
    why: String,
    /// It took a connection, and gave nothing: that there is another one proves nothing.
    in_doubt: bool,
    pause: Duration,
    until: Instant,
}

impl Failed {
    fn after(before: Option<&Self>, why: String, in_doubt: bool, now: Instant) -> Self {
        let in_doubt = in_doubt || before.is_some_and(|before| before.in_doubt);
        let longest = match in_doubt {
            true => LONGEST_DOUBT,
            false => LONGEST_REST,
        };
        let pause = before.map_or(FIRST_REST, |before| (before.pause * 2).min(longest));
        Self {
            why,
            in_doubt,
            pause,
            until: now + pause,
        }
    }
}

/// What there is for somebody who comes.
enum Found {
    Line { line: Arc<Line>, trial: bool },
    Nothing { why: String },
    Opening { begun_here: bool, begun: Instant },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn new(connection: CutConnection) -> Self {
        Self {
            connection,
            free: Mutex::default(),
            proved: AtomicBool::new(false),
        }
    }

    /// A channel that nobody uses.
    fn kept(&self) -> Option<Channel> {
        let mut free = lock(&self.free);
        while let Some(channel) = free.pop() {
            if channel.status().connected() {
                return Some(channel);
            }
        }
        None
    }
}

impl State {
    fn fails(&mut self, why: &str, in_doubt: bool) {
        let (before, now) = (self.failed.as_ref(), Instant::now());
        self.failed = Some(Failed::after(before, why.to_owned(), in_doubt, now));
    }

    fn is_current(&self, line: &Arc<Line>) -> bool {
        let current = self.line.as_ref();
        current.is_some_and(|current| Arc::ptr_eq(current, line))
    }

    /// The connection that stands, where it may be used now.
    fn usable(&mut self, line: Arc<Line>) -> Found {
        if line.connection.status().blocked() {
            // It is kept: the broker takes nothing on another one either.
            let why = "the broker takes nothing now (memory or disk alarm)".to_owned();
            return Found::Nothing { why };
        }
        let trial = match &self.failed {
            None => false,
            Some(failed) if self.on_trial || Instant::now() < failed.until => {
                let why = failed.why.clone();
                return Found::Nothing { why };
            }
            Some(_) => true,
        };
        self.on_trial = trial;
        Found::Line { line, trial }
    }
}

impl Way {
    pub(super) fn new(broker: Broker, dial: Dial) -> Arc<Self> {
        Arc::new(Self {
            broker,
            dial,
            state: Mutex::default(),
            dialled: watch::Sender::default(),
        })
    }

    /// A channel with confirms that nobody else uses.
    ///
    /// # Errors
    /// Why there is none now. Only the first one who comes, and for a moment those who come when a
    /// connection was just lost, wait for a connection.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, String> {
        let mut dialled = self.dialled.subscribe();
        let (line, trial) = match self.find() {
            Found::Line { line, trial } => (line, trial),
            Found::Nothing { why } => return Err(why),
            Found::Opening { begun_here, begun } => {
                let until = match begun_here {
                    true => begun + self.longest_attempt(),
                    false => begun + PATIENCE,
                };
                let _ = tokio::time::timeout_at(until, dialled.changed()).await;
                match self.find() {
                    Found::Line { line, trial } => (line, trial),
                    Found::Nothing { why } => return Err(why),
                    Found::Opening { .. } => return Err("not connected yet".to_owned()),
                }
            }
        };
        let trial = Trial {
            way: Arc::clone(self),
            is_one: trial,
        };
        let channel = match line.kept() {
            Some(channel) => channel,
            None => self.channel(&line).await?,
        };
        Ok(Lease {
            line,
            channel,
            trial,
        })
    }

    async fn channel(self: &Arc<Self>, line: &Arc<Line>) -> Result<Channel, String> {
        let opened = async {
            let channel = line.connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            Ok::<_, lapin::Error>(channel)
        };
        let why = match tokio::time::timeout(CHANNEL, opened).await {
            Ok(Ok(channel)) => return Ok(channel),
            Ok(Err(error)) => {
                guard::note(&error);
                error.to_string()
            }
            Err(_) => "no channel in time".to_owned(),
        };
        self.gave_nothing(line, &why);
        Err(why)
    }

    fn longest_attempt(&self) -> Duration {
        let nodes = u32::try_from(MAX_LISTED).unwrap_or(u32::MAX);
        self.dial.timeout + NODE_DELAY * nodes
    }

    fn find(self: &Arc<Self>) -> Found {
        let mut state = lock(&self.state);
        match state.line.take() {
            Some(line) if line.connection.status().connected() => {
                state.line = Some(Arc::clone(&line));
                return state.usable(line);
            }
            // Else everybody who comes would open one more.
            Some(line) if !line.proved.load(Ordering::Relaxed) => {
                state.fails("the connection was lost before it was of use", true);
            }
            _ => {}
        }
        let began = self.begin(&mut state);
        if let Some(failed) = &state.failed {
            let why = failed.why.clone();
            return Found::Nothing { why };
        }
        Found::Opening {
            begun_here: began && !state.known,
            begun: state
                .dialling
                .as_ref()
                .map_or_else(Instant::now, |(begun, _)| *begun),
        }
    }

    /// Has a connection opened, unless that is under way. Whether it was begun.
    fn begin(self: &Arc<Self>, state: &mut State) -> bool {
        let dialling = state.dialling.as_ref();
        let begins = dialling.is_none_or(|(_, task)| task.is_finished());
        if begins {
            let task = tokio::spawn(dial(Arc::downgrade(self)));
            state.dialling = Some((Instant::now(), task));
        }
        begins
    }

    /// The outcome of an attempt to open a connection.
    fn take(&self, opened: Result<CutConnection, String>) {
        let mut state = lock(&self.state);
        match opened {
            Ok(connection) => {
                state.line = Some(Arc::new(Line::new(connection)));
                state.dialling = None;
                state.known = true;
                state.failed = state.failed.take().filter(|failed| failed.in_doubt);
            }
            Err(why) => state.fails(&why, false),
        }
    }

    /// It gave nothing on this connection: no more is asked of that one, nor of another one for a
    /// while.
    fn gave_nothing(self: &Arc<Self>, line: &Arc<Line>, why: &str) {
        let mut state = lock(&self.state);
        // One of a broker in an alarm is kept until that ends: on another one somebody would wait again.
        let blocked = line.connection.status().blocked();
        // What others wait for on an older connection says nothing of the one that stands.
        if state.is_current(line) && !blocked {
            state.line = None;
            state.fails(why, true);
            self.begin(&mut state);
        }
    }

    /// An orderly end of what stands, in bounded time.
    pub(super) async fn close(&self) {
        let line = lock(&self.state).line.take();
        if let Some(line) = line
            && line.connection.status().connected()
            && !line.connection.status().blocked()
        {
            let close = line.connection.close(200, "OK".into());
            let _ = tokio::time::timeout(CLOSING, close).await;
        }
    }

    #[cfg(test)]
    pub(super) fn has_failed(&self) -> bool {
        lock(&self.state).failed.is_some()
    }
}

/// Opens a connection, after the pause that is due, and again and again until there is one, or
/// nobody is left who could use it.
async fn dial(way: Weak<Way>) {
    while let Some(way) = pause(&way).await {
        let opened = way.broker.open(&way.dial, "rest").await;
        let done = opened.is_ok();
        way.take(opened);
        way.dialled.send_replace(());
        if done {
            return;
        }
    }
}

/// After the pause that is due; `None` where nobody is left.
async fn pause(way: &Weak<Way>) -> Option<Arc<Way>> {
    let until = {
        let way = way.upgrade()?;
        let state = lock(&way.state);
        state.failed.as_ref().map(|failed| failed.until)
    };
    if let Some(until) = until {
        tokio::time::sleep_until(until).await;
    }
    way.upgrade()
}

/// A channel that somebody uses, and its connection.
pub(super) struct Lease {
    line: Arc<Line>,
    channel: Channel,
    trial: Trial,
}

impl Lease {
    pub(super) fn connection(&self) -> &CutConnection {
        &self.line.connection
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The broker has answered on it: it is there for the next one, with its connection.
    pub(super) fn answered(self) {
        self.line.proved.store(true, Ordering::Relaxed);
        let mut state = lock(&self.trial.way.state);
        if state.is_current(&self.line) {
            state.failed = None;
        }
        drop(state);
        let mut free = lock(&self.line.free);
        // Beyond it the channel is closed, as with an older connection, which goes as a whole.
        if free.len() < CHANNELS {
            free.push(self.channel);
        }
    }

    /// Nothing came in time: it may hang.
    pub(super) fn gave_nothing(self, why: &str) {
        self.trial.way.gave_nothing(&self.line, why);
    }
}

/// The end of a trial, whatever its outcome.
struct Trial {
    way: Arc<Way>,
    is_one: bool,
}

impl Drop for Trial {
    fn drop(&mut self) {
        if self.is_one {
            lock(&self.way.state).on_trial = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake_broker::{FakeBroker, Manner};
    use super::*;
    use crate::net::TlsClient;
    use crate::renewed::Renewed;

    fn to(broker: &FakeBroker) -> Arc<Way> {
        let all = Renewed::new(vec![(broker.address(), "b-1".to_owned())]);
        let mut brokers = Broker::all(&all, Duration::from_secs(2)).ok().unwrap();
        let dial = Dial {
            identity: crate::broker::Identity::default(),
            timeout: Duration::from_secs(10),
            tls: TlsClient::default(),
        };
        Way::new(brokers.remove(0), dial)
    }

    #[tokio::test]
    async fn a_channel_of_an_older_connection_is_not_kept_among_those_of_a_new_one() {
        let broker = FakeBroker::start(Manner::Confirms).await;
        let way = to(&broker);
        let old = way.lease().await.unwrap();
        let hung = way.lease().await.unwrap();
        hung.gave_nothing("no confirm in time");
        let begun = Instant::now();
        let new = loop {
            match way.lease().await {
                Ok(new) => break new,
                Err(why) => assert!(begun.elapsed() < Duration::from_secs(30), "{why}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(!Arc::ptr_eq(&old.line, &new.line));
        let line = Arc::clone(&new.line);
        // Others must not wait on what is not proved.
        assert!(way.lease().await.is_err());
        old.answered();
        assert!(lock(&line.free).is_empty());
        assert!(way.has_failed(), "an older connection proves nothing");
        new.answered();
        assert_eq!(lock(&line.free).len(), 1);
        assert!(!way.has_failed());
        assert!(Arc::ptr_eq(&way.lease().await.unwrap().line, &line));
        assert_eq!(broker.seen().connections, 2);
    }

    #[test]
    fn the_pause_grows_and_is_longer_where_connections_are_given_and_no_confirms() {
        let now = Instant::now();
        let pauses = |in_doubt: bool| {
            let mut failed = None;
            let mut next = || {
                let next = Failed::after(failed.as_ref(), "gone".to_owned(), in_doubt, now);
                failed.insert(next).pause.as_secs()
            };
            (0..7).map(|_| next()).collect::<Vec<_>>()
        };
        assert_eq!(pauses(false), [1, 2, 4, 5, 5, 5, 5]);
        assert_eq!(pauses(true), [1, 2, 4, 8, 16, 30, 30]);
    }
}
