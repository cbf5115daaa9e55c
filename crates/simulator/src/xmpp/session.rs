//! A bound session: events out, the client's stanzas in.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::agent::Agent;
use super::super::lock;
use super::super::world::{TeamWatch, World, finesse_presence};
use super::super::xml::Elem;
use super::framer::Frame;
use super::login::{Conn, End, Service};
use super::{Outgoing, Session, escaped, jid_escape};

/// A silent client is asked for a sign of life after this, and cut off after twice as long.
const PING_AFTER: Duration = Duration::from_secs(60);
/// Bytes written in one go.
const BATCH: usize = 32 * 1024;

/// Takes the session off the agent's list, however the connection ends.
struct Registered {
    world: Arc<World>,
    agent: Arc<Agent>,
    serial: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut sessions = lock(&self.agent.sessions);
        sessions.retain(|session| session.serial != self.serial);
        self.agent
            .session_count
            .store(sessions.len(), Ordering::Release);
        let last = sessions.is_empty();
        drop(sessions);
        if last {
            self.world.sessions_gone(&self.agent);
        }
    }
}

/// What the stanza handler needs to know of its session.
struct Me<'a> {
    service: &'a Service,
    agent: &'a Arc<Agent>,
    serial: u64,
    domain: &'a str,
    jid: String,
}

impl Service {
    pub(super) async fn session<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        mut conn: Conn<S>,
        agent: Arc<Agent>,
        open: CancellationToken,
    ) {
        let bound = tokio::select! {
            () = open.cancelled() => Err(End::Error("system-shutdown")),
            bound = tokio::time::timeout(Duration::from_secs(30), self.bind(&mut conn)) => {
                bound.unwrap_or(Err(End::Error("connection-timeout")))
            }
        };
        let (id, resource) = match bound {
            Ok(bound) => bound,
            Err(end) => return conn.close(end).await,
        };
        let (queue, mut events) = mpsc::channel(self.world.config.session_queue.max(1));
        let why = Arc::new(OnceLock::new());
        let end = open.child_token();
        let serial = self.world.fresh_serial();
        let session = Session {
            node: self.node,
            resource,
            available: false,
            serial,
            queue,
            end: end.clone(),
            why: why.clone(),
        };
        let domain = self.world.config.nodes[self.node - 1].domain.as_str();
        let me = Me {
            service: self,
            agent: &agent,
            serial,
            domain,
            jid: session.jid(&agent.id, domain),
        };
        let _registered = self.register(&agent, session);
        let hello = format!(
            "<iq type='result' id='{}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <jid>{}</jid></bind></iq>",
            escaped(&id),
            me.jid
        );
        let ended = tokio::select! {
            () = end.cancelled() => End::Error("system-shutdown"),
            ended = me.run(&mut conn, &hello, &mut events) => ended,
        };
        let ended = why.get().map_or(ended, |why| End::Error(why));
        conn.close(ended).await;
    }

    fn register(&self, agent: &Arc<Agent>, session: Session) -> Registered {
        let registered = Registered {
            world: self.world.clone(),
            agent: agent.clone(),
            serial: session.serial,
        };
        let mut sessions = lock(&agent.sessions);
        // The newer login with a resource wins; the older one must not come back by itself.
        sessions.retain(|old| {
            let same = old.node == session.node && old.resource == session.resource;
            if same {
                old.close("conflict");
            }
            !same
        });
        sessions.push(session);
        agent.session_count.store(sessions.len(), Ordering::Release);
        agent.session_epoch.fetch_add(1, Ordering::AcqRel);
        registered
    }
}

impl Me<'_> {
    async fn run<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        conn: &mut Conn<S>,
        hello: &str,
        events: &mut mpsc::Receiver<Outgoing>,
    ) -> End {
        if let Err(end) = conn.write(hello).await {
            return end;
        }
        let mut pinged: Option<Instant> = None;
        loop {
            let heard = conn.heard;
            pinged = pinged.filter(|at| *at >= heard);
            let patience = if pinged.is_some() {
                2 * PING_AFTER
            } else {
                PING_AFTER
            };
            let step = tokio::select! {
                frame = conn.next() => match frame {
                    Ok(Frame::Stanza(elem)) => {
                        let reply = self.stanza(&elem);
                        if reply.is_empty() { Ok(()) } else { conn.write(&reply).await }
                    }
                    Ok(Frame::Close) => Err(End::Gone),
                    Ok(Frame::Open) => Err(End::Error("bad-format")),
                    Err(end) => Err(end),
                },
                event = events.recv() => match event {
                    Some(event) => write_events(conn, event, events).await,
                    None => Err(End::Gone),
                },
                // White-space keep-alives end no wait above, so look again before acting.
                () = tokio::time::sleep_until(heard + patience) => {
                    if conn.heard > heard {
                        Ok(())
                    } else if pinged.is_some() {
                        Err(End::Error("connection-timeout"))
                    } else {
                        pinged = Some(Instant::now());
                        conn.write(&self.ping()).await
                    }
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn ping(&self) -> String {
        format!(
            "<iq type='get' id='ping-{:x}' from='{}' to='{}'><ping xmlns='urn:xmpp:ping'/></iq>",
            self.serial, self.domain, self.jid
        )
    }

    fn stanza(&self, elem: &Elem) -> String {
        match elem.name.as_str() {
            "iq" => self.iq(elem),
            "presence" => self.presence(elem),
            _ => String::new(),
        }
    }

    fn iq(&self, elem: &Elem) -> String {
        let kind = elem.attr("type").unwrap_or_default();
        if !matches!(kind, "get" | "set") {
            return String::new();
        }
        let Some(child) = elem.children.first() else {
            return self.failed(elem, "modify", "bad-request");
        };
        match (child.name.as_str(), child.attr("xmlns").unwrap_or_default()) {
            ("ping" | "session", _) => self.result(elem, ""),
            ("query", "jabber:iq:roster") => self.result(
                elem,
                &format!(
                    "<query xmlns='jabber:iq:roster'><item jid='finesse@{}' name='finesse' \
                     subscription='both'/></query>",
                    self.domain
                ),
            ),
            ("pubsub", _) => self.pubsub(elem, child),
            _ => self.failed(elem, "cancel", "service-unavailable"),
        }
    }

    fn pubsub(&self, iq: &Elem, pubsub: &Elem) -> String {
        let Some(request) = pubsub.children.first() else {
            return self.failed(iq, "modify", "bad-request");
        };
        let node = request.attr("node").unwrap_or_default();
        let team = node
            .strip_prefix("/finesse/api/Team/")
            .and_then(|rest| rest.strip_suffix("/Users"))
            .and_then(|id| id.parse::<u32>().ok());
        let jid = request.attr("jid").unwrap_or_default();
        let (bare, resource) = jid.split_once('/').unwrap_or((jid, ""));
        let own = format!("{}@{}", jid_escape(&self.agent.id), self.domain);
        if request.name == "subscriptions" {
            return self.result(
                iq,
                "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscriptions/></pubsub>",
            );
        }
        if !bare.eq_ignore_ascii_case(&own) {
            return self.failed(iq, "modify", "bad-request");
        }
        let Some(team) = team else {
            return self.failed(iq, "cancel", "item-not-found");
        };
        let watch = TeamWatch {
            node: self.service.node,
            team,
            agent: self.agent.id.clone(),
            resource: resource.to_owned(),
        };
        let world = &self.service.world;
        match request.name.as_str() {
            "subscribe" if !self.agent.spec.supervisor || self.agent.spec.team != team => {
                self.failed(iq, "auth", "forbidden")
            }
            "subscribe" if world.watch_team(watch.clone()) => {
                let (node, jid) = (escaped(node), escaped(jid));
                self.result(
                    iq,
                    &format!(
                        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscription \
                         node='{node}' jid='{jid}' subscription='subscribed'/></pubsub>"
                    ),
                )
            }
            "subscribe" => self.failed(iq, "wait", "resource-constraint"),
            "unsubscribe" if world.unwatch_team(&watch) => self.result(iq, ""),
            "unsubscribe" => self.failed(iq, "cancel", "unexpected-request"),
            _ => self.failed(iq, "cancel", "feature-not-implemented"),
        }
    }

    fn presence(&self, elem: &Elem) -> String {
        let available = match elem.attr("type") {
            None => elem
                .child("priority")
                .and_then(|priority| priority.text.trim().parse::<i16>().ok())
                .is_none_or(|priority| priority >= 0),
            Some("unavailable") => false,
            Some("subscribe") => {
                let jid = &self.jid;
                let domain = self.domain;
                return format!(
                    "<presence from='finesse@{domain}' to='{jid}' type='subscribed'/>{}",
                    finesse_presence(domain, jid, self.finesse_is_up())
                );
            }
            Some(_) => return String::new(),
        };
        let mut first = false;
        let mut sessions = lock(&self.agent.sessions);
        if let Some(own) = sessions.iter_mut().find(|s| s.serial == self.serial) {
            first = available && !own.available;
            own.available = available;
        }
        drop(sessions);
        if first {
            finesse_presence(self.domain, &self.jid, self.finesse_is_up())
        } else {
            String::new()
        }
    }

    fn finesse_is_up(&self) -> bool {
        let faults = self.service.world.node_faults(self.service.node);
        faults.application_is_up()
    }

    fn result(&self, iq: &Elem, content: &str) -> String {
        self.answer(iq, "result", content)
    }

    fn failed(&self, iq: &Elem, kind: &str, condition: &str) -> String {
        let content = format!(
            "<error type='{kind}'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
        );
        self.answer(iq, "error", &content)
    }

    fn answer(&self, iq: &Elem, kind: &str, content: &str) -> String {
        let id = escaped(iq.attr("id").unwrap_or_default());
        let from = iq
            .attr("to")
            .map(|to| format!(" from='{}'", escaped(to)))
            .unwrap_or_default();
        format!(
            "<iq type='{kind}' id='{id}'{from} to='{}'>{content}</iq>",
            self.jid
        )
    }
}

async fn write_events<S: AsyncRead + AsyncWrite + Unpin + Send>(
    conn: &mut Conn<S>,
    first: Outgoing,
    events: &mut mpsc::Receiver<Outgoing>,
) -> Result<(), End> {
    if let Some(due) = first.due {
        tokio::time::sleep_until(due).await;
    }
    let mut batch = first.text;
    while batch.len() < BATCH {
        match events.try_recv() {
            // The delay is the same for all, so a later event is due later: wait in order.
            Ok(event) if event.due.is_some() => {
                conn.write(&batch).await?;
                if let Some(due) = event.due {
                    tokio::time::sleep_until(due).await;
                }
                batch = event.text;
            }
            Ok(event) => batch.push_str(&event.text),
            Err(_) => break,
        }
    }
    conn.write(&batch).await
}
