//! The life of one session.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::model::{AgentId, Update, UpdateBody};

use super::application::{self, Application, is_application};
use super::login::{self, Bound, End, Xmpp};
use super::message::Notification;
use super::names::{PING, PUBSUB, ROSTER, SESSION, STANZA_ERRORS};
use super::orders::{Order, Orders};
use super::stanza::{Incoming, Iq, IqKind, Payload, Presence};
use super::text::escaped;
use super::{Happening, Sink, Spec};

/// Unanswered pings that end a session.
const MAX_UNANSWERED: u32 = 2;
/// How long a sign-in waits for the answer to its first ping. A service that answers none is
/// taken as it is; its silence is then no sign of a lost session.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// Time for a polite goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// A shorter ping interval would only be a mistake.
const MIN_PING_INTERVAL: Duration = Duration::from_millis(10);
/// Presences kept from a sign-in; only those of the platform's own user are.
const MAX_PRESENCES: usize = 16;
/// Longest domain (RFC 7622 section 3.2).
const MAX_DOMAIN: usize = 1_023;
const PING_ID: &str = "ping";
const FIRST_PING_ID: &str = "ping-first";

/// Why the loop of a session ended.
enum Stop {
    /// Its owner closed it, or nobody listens any more.
    Closed,
    /// The service or the network.
    Ended(End),
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::Ended(end)
    }
}

/// Runs a session to its end.
pub(super) async fn run(
    spec: &Spec,
    epoch: u64,
    sink: &Sink,
    closed: &CancellationToken,
    orders: &Orders,
) {
    let report = Report {
        spec,
        epoch,
        sink,
        closed,
    };
    // Boxed: the login's state is large and short-lived, the session's small and long-lived.
    let login = Box::pin(timeout(spec.connect_timeout, establish(spec)));
    let outcome = tokio::select! {
        () = closed.cancelled() => return,
        outcome = login => outcome.unwrap_or_else(|_| {
            Err(End::Broken("login timed out".to_owned()))
        }),
    };
    let terminal = match outcome {
        Ok(established) => {
            #[cfg(feature = "failpoints")]
            crate::failpoints::fail("panic-session");
            let mut session = Box::new(Session::new(*established, report));
            match session.serve(orders).await {
                Stop::Closed => return Box::pin(session.goodbye()).await,
                Stop::Ended(end) => Happening::Lost {
                    conflict: end.conflict(),
                    reason: end.reason(),
                },
            }
        }
        Err(End::Refused(reason)) => Happening::Refused { reason },
        Err(End::NoRoom(shortage)) => Happening::NoRoom(shortage),
        Err(end) if end.conflict() => Happening::Lost {
            conflict: true,
            reason: end.reason(),
        },
        Err(end) => Happening::Unreachable {
            reason: end.reason(),
        },
    };
    // Where this fails, nobody waits for it.
    if let Ok(permit) = report.permit().await {
        permit.tell(terminal);
    }
}

/// A session that receives notifications.
struct Established {
    bound: Bound,
    early: Early,
    /// Whether the service has answered a ping.
    answers: bool,
}

/// What came with the sign-in.
#[derive(Default)]
struct Early {
    updates: Vec<Notification>,
    /// Of the platform's application.
    presences: Vec<Presence>,
}

/// Login, then all that makes the service send notifications, and proof that it has read it.
async fn establish(spec: &Spec) -> Result<Box<Established>, End> {
    let mut bound = login::login(spec).await?;
    bound
        .stream
        .send(&introduction(spec, bound.wants_session))
        .await?;
    let mut early = Early::default();
    let deadline = Instant::now() + FIRST_ANSWER;
    let answers = loop {
        let Ok(incoming) = timeout_at(deadline, bound.stream.next()).await else {
            break false;
        };
        match incoming? {
            Incoming::Iq(iq) if iq.answers(FIRST_PING_ID) => break true,
            Incoming::Iq(iq) => {
                if let Some(reply) = answer(&iq) {
                    bound.stream.send(&reply).await?;
                }
            }
            Incoming::Message(updates) => {
                early.updates = updates;
                // Notifications prove the same, and holding them back has an end here.
                if !early.updates.is_empty() {
                    break false;
                }
            }
            Incoming::Presence(presence)
                if early.presences.len() < MAX_PRESENCES
                    && is_application(&presence.from, &spec.domain) =>
            {
                early.presences.push(presence);
            }
            _ => {}
        }
    };
    Ok(Box::new(Established {
        bound,
        early,
        answers,
    }))
}

/// What follows the bind, in one piece.
fn introduction(spec: &Spec, wants_session: bool) -> String {
    let session = match wants_session {
        true => format!("<iq type='set' id='session'><session xmlns='{SESSION}'/></iq>"),
        false => String::new(),
    };
    // The roster lets the presence of the platform's own user arrive. Stanzas are processed in
    // order: an answer of any kind to the ping proves that the presence has been.
    format!(
        "{session}<iq type='get' id='roster'><query xmlns='{ROSTER}'/></iq>\
         <presence><priority>0</priority></presence>{}",
        ping(FIRST_PING_ID, &spec.domain)
    )
}

fn ping(id: &str, domain: &str) -> String {
    format!(
        "<iq type='get' id='{id}' to='{}'><ping xmlns='{PING}'/></iq>",
        escaped(domain)
    )
}

impl Iq {
    /// Whether this is the answer, of any kind, to the request with this id.
    fn answers(&self, id: &str) -> bool {
        matches!(self.kind, IqKind::Result | IqKind::Error) && self.id == id
    }
}

/// Whether this may be the address of a service.
fn is_domain(text: &str) -> bool {
    let outside = |c: char| c.is_whitespace() || c.is_control() || "\"&'/:<>@".contains(c);
    (1..=MAX_DOMAIN).contains(&text.len()) && !text.contains(outside)
}

/// The reply that a request demands (RFC 6120 section 8.2.3).
fn answer(iq: &Iq) -> Option<String> {
    let granted = match iq.kind {
        IqKind::Get => iq.payload == Payload::Ping,
        IqKind::Set => iq.payload == Payload::Roster,
        IqKind::Result | IqKind::Error => return None,
    };
    let id = escaped(&iq.id);
    let to = match &iq.from {
        Some(from) => format!(" to='{}'", escaped(from)),
        None => String::new(),
    };
    Some(if granted {
        format!("<iq type='result' id='{id}'{to}></iq>")
    } else {
        format!(
            "<iq type='error' id='{id}'{to}><error type='cancel'>\
             <service-unavailable xmlns='{STANZA_ERRORS}'/></error></iq>"
        )
    })
}

/// Reports to the engine on behalf of one session.
#[derive(Clone, Copy)]
struct Report<'a> {
    spec: &'a Spec,
    epoch: u64,
    sink: &'a Sink,
    closed: &'a CancellationToken,
}

impl<'a> Report<'a> {
    /// Room for one happening.
    async fn permit(self) -> Result<Permit<'a>, Stop> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Stop::Closed),
            permit = self.sink.reserve() => match permit {
                Ok(permit) => Ok(Permit { report: self, permit }),
                Err(_) => Err(Stop::Closed),
            },
        }
    }
}

/// Room for one happening.
struct Permit<'a> {
    report: Report<'a>,
    permit: mpsc::Permit<'a, (AgentId, u64, Happening)>,
}

impl Permit<'_> {
    fn tell(self, happening: Happening) {
        let Report { spec, epoch, .. } = self.report;
        self.permit.send((spec.agent.clone(), epoch, happening));
    }
}

/// What a stanza, an order or the clock asks for.
enum Task {
    Nothing,
    /// Tell the engine.
    Tell(Vec<Update>),
    /// Tell the service.
    Send(String),
}

struct Session<'a> {
    stream: Xmpp,
    jid: String,
    early: Early,
    report: Report<'a>,
    /// Whether the service answers pings at all.
    answers: bool,
    unanswered: u32,
    watched: u64,
    application: Application,
    /// The application's presence was asked for.
    asked: bool,
}

impl<'a> Session<'a> {
    fn new(established: Established, report: Report<'a>) -> Self {
        let Established {
            bound,
            early,
            answers,
        } = established;
        Self {
            stream: bound.stream,
            jid: bound.jid,
            early,
            answers,
            report,
            unanswered: 0,
            watched: 0,
            application: Application::default(),
            asked: false,
        }
    }

    async fn serve(&mut self, orders: &Orders) -> Stop {
        match self.pump(orders).await {
            Ok(never) => match never {},
            Err(stop) => stop,
        }
    }

    async fn pump(&mut self, orders: &Orders) -> Result<Infallible, Stop> {
        self.report.permit().await?.tell(Happening::Up);
        let updates = self.early();
        self.tell(updates).await?;
        let closed = self.report.closed;
        let every = self.report.spec.ping_interval.max(MIN_PING_INTERVAL);
        let mut clock = interval_at(Instant::now() + every, every);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // In this order: what has arrived is read before the peer is called silent.
            let task = tokio::select! {
                biased;
                () = closed.cancelled() => return Err(Stop::Closed),
                order = orders.next() => self.watch(&order),
                incoming = self.stream.next() => {
                    self.unanswered = 0;
                    self.handle(incoming?)
                }
                _ = clock.tick() => self.ping()?,
            };
            match task {
                Task::Nothing => {}
                Task::Tell(updates) => self.tell(updates).await?,
                Task::Send(stanzas) => self.send(&stanzas).await?,
            }
        }
    }

    /// What has come with the sign-in.
    fn early(&mut self) -> Vec<Update> {
        let Early { updates, presences } = std::mem::take(&mut self.early);
        let mut updates = self.readable(updates);
        for presence in presences {
            updates.extend(self.presence(presence));
        }
        updates
    }

    fn handle(&mut self, incoming: Incoming) -> Task {
        match incoming {
            Incoming::Message(updates) => Task::Tell(self.readable(updates)),
            Incoming::Iq(iq) => {
                self.answers |= iq.answers(PING_ID) || iq.answers(FIRST_PING_ID);
                answer(&iq).map_or(Task::Nothing, Task::Send)
            }
            Incoming::Presence(presence) => {
                let update = self.presence(presence);
                update.map_or(Task::Nothing, |update| Task::Tell(vec![update]))
            }
            _ => {
                tracing::debug!(agent = %self.report.spec.agent, "malformed or unknown stanza ignored");
                Task::Nothing
            }
        }
    }

    fn readable(&self, updates: Vec<Notification>) -> Vec<Update> {
        let readable = |update: Notification| {
            update
                .inspect_err(|error| {
                    crate::telemetry::notification_unreadable();
                    tracing::warn!(agent = %self.report.spec.agent, %error, "unreadable notification");
                })
                .ok()
        };
        updates.into_iter().filter_map(readable).collect()
    }

    fn presence(&mut self, presence: Presence) -> Option<Update> {
        if !is_application(&presence.from, &self.report.spec.domain) {
            return None;
        }
        let available = self.application.take(presence)?;
        Some(Update {
            request_id: None,
            item_id: None,
            body: UpdateBody::Application { available },
        })
    }

    fn ping(&mut self) -> Result<Task, End> {
        if self.answers && self.unanswered >= MAX_UNANSWERED {
            let reason = format!("{MAX_UNANSWERED} pings without an answer");
            return Err(End::Broken(reason));
        }
        self.unanswered = self.unanswered.saturating_add(1);
        let domain = &self.report.spec.domain;
        let mut stanzas = String::new();
        // Its presence comes by the roster; where it did not by now, it is asked for, once.
        if !self.application.seen && !std::mem::replace(&mut self.asked, true) {
            let to = escaped(&application::address(domain));
            stanzas = format!("<presence type='subscribe' to='{to}'/>");
        }
        stanzas.push_str(&ping(PING_ID, domain));
        Ok(Task::Send(stanzas))
    }

    /// Left-overs of dead sessions pile up in the service unless they are removed first.
    fn watch(&mut self, order: &Order) -> Task {
        if !is_domain(&order.pubsub_domain) {
            tracing::warn!(domain = %order.pubsub_domain, "not a pubsub domain");
            return Task::Nothing;
        }
        let (service, team) = (escaped(&order.pubsub_domain), escaped(&order.team));
        let jid = escaped(&self.jid);
        let mut stanzas = String::new();
        for verb in ["unsubscribe", "subscribe"] {
            self.watched += 1;
            stanzas += &format!(
                "<iq type='set' id='watch-{}' to='{service}'><pubsub xmlns='{PUBSUB}'>\
                 <{verb} node='/finesse/api/Team/{team}/Users' jid='{jid}'/></pubsub></iq>",
                self.watched
            );
        }
        Task::Send(stanzas)
    }

    async fn tell(&self, updates: Vec<Update>) -> Result<(), Stop> {
        for update in updates {
            let permit = self.report.permit().await?;
            permit.tell(Happening::Update(update));
        }
        Ok(())
    }

    async fn send(&mut self, stanzas: &str) -> Result<(), Stop> {
        let patience = self.report.spec.ping_interval.max(GOODBYE);
        let closed = self.report.closed;
        tokio::select! {
            biased;
            () = closed.cancelled() => Err(Stop::Closed),
            sent = timeout(patience, self.stream.send(stanzas)) => match sent {
                Ok(sent) => Ok(sent?),
                Err(_) => Err(End::Broken("service does not read".to_owned()).into()),
            },
        }
    }

    /// Presence unavailable, end of stream, and a moment for the peer to read both.
    async fn goodbye(&mut self) {
        let _ = timeout(GOODBYE, async {
            self.stream.send("<presence type='unavailable'/>").await?;
            self.stream.close().await?;
            while self.stream.next().await.is_ok() {}
            Ok::<_, End>(())
        })
        .await;
    }
}
