//! The life of one session.

use std::time::Duration;

use futures::SinkExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_xmpp::xmlstream::XmppStreamElement;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::{FullJid, Jid};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::minidom::rxml::xml_ncname;
use xmpp_parsers::ns;
use xmpp_parsers::ping::Ping;
use xmpp_parsers::presence::{Presence, Type as PresenceType};
use xmpp_parsers::roster::Roster;
use xmpp_parsers::stanza::Stanza;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use crate::model::{Update, UpdateBody};

use super::login::{self, Bound, End, Xmpp};
use super::stanza::Incoming;
use super::{Happening, Order, Sink, Spec, event};

/// Unanswered pings that end a session.
const MAX_UNANSWERED: u32 = 2;
/// How long a sign-in waits for the answer to its first ping. A service that answers none is
/// taken as it is; its silence is then no sign of a lost session.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// Time for a polite goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// A shorter ping interval would only be a mistake.
const MIN_PING_INTERVAL: Duration = Duration::from_millis(10);
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
    spec: Spec,
    epoch: u64,
    sink: Sink,
    closed: CancellationToken,
    mut orders: mpsc::Receiver<Order>,
) {
    let report = Report {
        spec: &spec,
        epoch,
        sink: &sink,
        closed: &closed,
    };
    // Boxed: the login's state is large and short-lived, the session's small and long-lived.
    let login = Box::pin(timeout(spec.connect_timeout, establish(&spec)));
    let outcome = tokio::select! {
        () = closed.cancelled() => return,
        outcome = login => outcome.unwrap_or_else(|_| {
            Err(End::Broken("login timed out".to_owned()))
        }),
    };
    let terminal = match outcome {
        Ok(bound) => {
            let mut session = Session::new(bound, report);
            match session.serve(&mut orders).await {
                Stop::Closed => return session.goodbye().await,
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
    let _ = report.tell(terminal).await;
}

/// A session that receives notifications.
struct Established {
    bound: Bound,
    /// Notifications that came with the sign-in.
    early: Vec<Update>,
    /// Presences that came with it.
    presences: Vec<Presence>,
    /// Whether the service has answered a ping.
    answers: bool,
}

/// Addresses of the platform's application that are told apart.
const MAX_RESOURCES: usize = 8;
/// Presences kept from a sign-in; only that of the platform's own user is of interest.
const MAX_PRESENCES: usize = 16;

/// Login, then all that makes the service send notifications, and proof that it has read it.
async fn establish(spec: &Spec) -> Result<Established, End> {
    let mut bound = login::login(spec).await?;
    let stream = &mut bound.stream;
    if bound.wants_session {
        let session = Element::bare("session", "urn:ietf:params:xml:ns:xmpp-session");
        stream
            .feed(&Iq::Set {
                from: None,
                to: None,
                id: "session".to_owned(),
                payload: session,
            })
            .await?;
    }
    // The roster lets the presence of the platform's own user arrive.
    let roster = Roster {
        ver: None,
        items: Vec::new(),
    };
    stream.feed(&Iq::from_get("roster", roster)).await?;
    stream.feed(&Presence::available().with_priority(0)).await?;
    // Stanzas are processed in order: an answer of any kind proves that the presence has been.
    stream.send(&ping(FIRST_PING_ID, &spec.domain)).await?;
    let (mut early, mut presences) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + FIRST_ANSWER;
    loop {
        let Ok(incoming) = timeout_at(deadline, login::next(stream)).await else {
            return Ok(Established {
                bound,
                early,
                presences,
                answers: false,
            });
        };
        match incoming? {
            Incoming::Element(XmppStreamElement::Stanza(Stanza::Iq(
                Iq::Result { id, .. } | Iq::Error { id, .. },
            ))) if id == FIRST_PING_ID => {
                return Ok(Established {
                    bound,
                    early,
                    presences,
                    answers: true,
                });
            }
            Incoming::Element(XmppStreamElement::Stanza(Stanza::Iq(iq))) => {
                if let Some(reply) = answer(iq) {
                    stream.send(&reply).await?;
                }
            }
            Incoming::Message(message) => {
                early.extend(event::updates(&message).into_iter().flatten());
                // Notifications prove the same, and holding them back has an end here.
                if !early.is_empty() {
                    return Ok(Established {
                        bound,
                        early,
                        presences,
                        answers: false,
                    });
                }
            }
            Incoming::Element(XmppStreamElement::Stanza(Stanza::Presence(presence)))
                if presences.len() < MAX_PRESENCES =>
            {
                presences.push(presence);
            }
            _ => {}
        }
    }
}

/// Reports to the engine on behalf of one session.
#[derive(Clone, Copy)]
struct Report<'a> {
    spec: &'a Spec,
    epoch: u64,
    sink: &'a Sink,
    closed: &'a CancellationToken,
}

impl Report<'_> {
    async fn tell(&self, happening: Happening) -> Result<(), Stop> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Stop::Closed),
            permit = self.sink.reserve() => match permit {
                Ok(permit) => {
                    permit.send((self.spec.agent.clone(), self.epoch, happening));
                    Ok(())
                }
                Err(_) => Err(Stop::Closed),
            },
        }
    }
}

struct Session<'a> {
    stream: Xmpp,
    jid: FullJid,
    early: Vec<Update>,
    presences: Vec<Presence>,
    report: Report<'a>,
    /// Whether the service answers pings at all.
    answers: bool,
    unanswered: u32,
    watched: u64,
    /// Addresses by which the platform's application is there.
    application: Vec<String>,
    /// It is not there by any.
    application_gone: bool,
    /// Its presence was seen, or asked for.
    watches_application: bool,
}

impl<'a> Session<'a> {
    fn new(established: Established, report: Report<'a>) -> Self {
        let Established {
            bound,
            early,
            presences,
            answers,
        } = established;
        Self {
            stream: bound.stream,
            jid: bound.jid,
            early,
            presences,
            answers,
            report,
            unanswered: 0,
            watched: 0,
            application: Vec::new(),
            application_gone: false,
            watches_application: false,
        }
    }

    async fn serve(&mut self, orders: &mut mpsc::Receiver<Order>) -> Stop {
        match self.pump(orders).await {
            Ok(never) => match never {},
            Err(stop) => stop,
        }
    }

    async fn pump(
        &mut self,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Result<std::convert::Infallible, Stop> {
        self.report.tell(Happening::Up).await?;
        for update in std::mem::take(&mut self.early) {
            self.report.tell(Happening::Update(update)).await?;
        }
        for presence in std::mem::take(&mut self.presences) {
            self.presence(&presence).await?;
        }
        let closed = self.report.closed;
        let every = self.report.spec.ping_interval.max(MIN_PING_INTERVAL);
        let mut clock = interval_at(Instant::now() + every, every);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // In this order: what has arrived is read before the peer is called silent.
            tokio::select! {
                biased;
                () = closed.cancelled() => return Err(Stop::Closed),
                Some(order) = orders.recv() => self.watch(&order).await?,
                incoming = login::next(&mut self.stream) => {
                    self.unanswered = 0;
                    self.handle(incoming?).await?;
                }
                _ = clock.tick() => self.ping().await?,
            }
        }
    }

    async fn handle(&mut self, incoming: Incoming) -> Result<(), Stop> {
        match incoming {
            Incoming::Message(message) => {
                for update in event::updates(&message) {
                    match update {
                        Ok(update) => self.report.tell(Happening::Update(update)).await?,
                        Err(error) => {
                            tracing::warn!(agent = %self.report.spec.agent, %error, "unreadable notification");
                        }
                    }
                }
            }
            Incoming::Element(XmppStreamElement::Stanza(Stanza::Iq(iq))) => {
                self.answers |= matches!(&iq, Iq::Result { id, .. } | Iq::Error { id, .. }
                    if id == PING_ID || id == FIRST_PING_ID);
                if let Some(reply) = answer(iq) {
                    self.send(reply).await?;
                }
            }
            Incoming::Element(XmppStreamElement::Stanza(Stanza::Presence(presence))) => {
                self.presence(&presence).await?;
            }
            Incoming::Element(_) => {}
            Incoming::Invalid(_) => {
                tracing::debug!(agent = %self.report.spec.agent, "malformed stanza ignored");
            }
        }
        Ok(())
    }

    /// The platform's application is itself a user of the service, whose presence tells whether it
    /// is there.
    async fn presence(&mut self, presence: &Presence) -> Result<(), Stop> {
        let from_application = presence.from.as_ref().is_some_and(|from| {
            from.node().is_some_and(|node| node.as_str() == "finesse")
                && from
                    .domain()
                    .as_str()
                    .eq_ignore_ascii_case(&self.report.spec.domain)
        });
        let Some(from) = presence.from.as_ref().filter(|_| from_application) else {
            return Ok(());
        };
        let from = from.to_string();
        let here = &mut self.application;
        match presence.type_ {
            // A service may say this of a user that it does not know, without a resource then:
            // whoever was never there has not gone.
            PresenceType::Unavailable if here.is_empty() && !from.contains('/') => return Ok(()),
            PresenceType::Unavailable if !from.contains('/') => here.clear(),
            PresenceType::Unavailable => here.retain(|known| *known != from),
            PresenceType::None if here.contains(&from) || here.len() >= MAX_RESOURCES => {}
            PresenceType::None => here.push(from),
            _ => return Ok(()),
        }
        self.watches_application = true;
        let gone = here.is_empty();
        if std::mem::replace(&mut self.application_gone, gone) == gone {
            return Ok(());
        }
        let body = UpdateBody::Application { available: !gone };
        let update = Update {
            request_id: None,
            item_id: None,
            body,
        };
        self.report.tell(Happening::Update(update)).await
    }

    async fn ping(&mut self) -> Result<(), Stop> {
        if self.answers && self.unanswered >= MAX_UNANSWERED {
            let reason = format!("{MAX_UNANSWERED} pings without an answer");
            return Err(End::Broken(reason).into());
        }
        self.unanswered = self.unanswered.saturating_add(1);
        // Its presence comes by the roster; where it did not by now, it is asked for, once.
        if !std::mem::replace(&mut self.watches_application, true)
            && let Ok(application) = Jid::new(&format!("finesse@{}", self.report.spec.domain))
        {
            let wish = Presence::subscribe().with_to(application);
            self.send(wish).await?;
        }
        let stanza = ping(PING_ID, &self.report.spec.domain);
        self.send(stanza).await
    }

    /// Left-overs of dead sessions pile up in the service unless they are removed first.
    async fn watch(&mut self, order: &Order) -> Result<(), Stop> {
        let Ok(service) = Jid::new(&order.pubsub_domain) else {
            tracing::warn!(domain = %order.pubsub_domain, "not a pubsub domain");
            return Ok(());
        };
        for verb in ["unsubscribe", "subscribe"] {
            self.watched += 1;
            let request = Element::builder(verb, ns::PUBSUB)
                .attr(
                    xml_ncname!("node").to_owned(),
                    format!("/finesse/api/Team/{}/Users", order.team),
                )
                .attr(xml_ncname!("jid").to_owned(), self.jid.to_string())
                .build();
            let iq = Iq::Set {
                from: None,
                to: Some(service.clone()),
                id: format!("watch-{}", self.watched),
                payload: Element::builder("pubsub", ns::PUBSUB)
                    .append(request)
                    .build(),
            };
            self.send(iq).await?;
        }
        Ok(())
    }

    async fn send(&mut self, stanza: impl Into<Stanza>) -> Result<(), Stop> {
        let stanza = stanza.into();
        let patience = self.report.spec.ping_interval.max(GOODBYE);
        let closed = self.report.closed;
        tokio::select! {
            biased;
            () = closed.cancelled() => Err(Stop::Closed),
            sent = timeout(patience, self.stream.send(&stanza)) => match sent {
                Ok(sent) => Ok(sent.map_err(End::from)?),
                Err(_) => Err(End::Broken("service does not read".to_owned()).into()),
            },
        }
    }

    /// Presence unavailable, end of stream, and a moment for the peer to read both.
    async fn goodbye(mut self) {
        let _ = timeout(GOODBYE, async {
            self.stream.send(&Presence::unavailable()).await?;
            self.stream.shutdown().await?;
            while login::next(&mut self.stream).await.is_ok() {}
            Ok::<_, std::io::Error>(())
        })
        .await;
    }
}

fn ping(id: &str, domain: &str) -> Iq {
    let iq = Iq::from_get(id, Ping);
    match Jid::new(domain) {
        Ok(service) => iq.with_to(service),
        // Without an address it goes to the account, which the service answers for as well.
        Err(_) => iq,
    }
}

/// The reply that a request demands (RFC 6120 section 8.2.3).
fn answer(iq: Iq) -> Option<Iq> {
    let (from, id, granted) = match iq {
        Iq::Get {
            from, id, payload, ..
        } => (from, id, payload.is("ping", ns::PING)),
        Iq::Set {
            from, id, payload, ..
        } => (from, id, payload.is("query", ns::ROSTER)),
        Iq::Result { .. } | Iq::Error { .. } => return None,
    };
    let reply = if granted {
        Iq::Result {
            from: None,
            to: from,
            id,
            payload: None,
        }
    } else {
        let error = StanzaError::new(
            ErrorType::Cancel,
            DefinedCondition::ServiceUnavailable,
            "en",
            "not supported",
        );
        Iq::Error {
            from: None,
            to: from,
            id,
            error,
            payload: None,
        }
    };
    Some(reply)
}
