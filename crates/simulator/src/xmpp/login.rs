//! From the first byte to a bound session: TLS, SASL PLAIN, resource binding.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::super::agent::Agent;
use super::super::world::World;
use super::super::xml::Elem;
use super::escaped;
use super::framer::{Frame, Framer, StreamError};

/// Connections a node serves at once; more are closed at once.
const MAX_CONNECTIONS: usize = 20_000;
/// Time a client has from connecting to a bound session.
const LOGIN_TIME: Duration = Duration::from_secs(30);

/// The notification service of one node.
#[derive(Clone)]
pub struct Service {
    /// Shared state.
    pub world: Arc<World>,
    /// Node 1 or 2.
    pub node: usize,
    /// TLS, direct or by STARTTLS as configured.
    pub tls: Option<TlsAcceptor>,
}

/// How a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// The client closed, or the connection broke.
    Gone,
    /// To be told to the client.
    Error(&'static str),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

impl From<StreamError> for End {
    fn from(error: StreamError) -> Self {
        Self::Error(error.0)
    }
}

/// A connection with its cutter.
pub(super) struct Conn<S> {
    io: S,
    framer: Framer,
    /// When the client last sent anything, white space included.
    pub(super) heard: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Conn<S> {
    fn new(io: S) -> Self {
        Self {
            io,
            framer: Framer::default(),
            heard: Instant::now(),
        }
    }

    pub(super) async fn next(&mut self) -> Result<Frame, End> {
        loop {
            if let Some(frame) = self.framer.next()? {
                return Ok(frame);
            }
            self.framer.buffer.reserve(512);
            if self.io.read_buf(&mut self.framer.buffer).await? == 0 {
                return Err(End::Gone);
            }
            self.heard = Instant::now();
        }
    }

    pub(super) async fn write(&mut self, text: &str) -> Result<(), End> {
        self.io.write_all(text.as_bytes()).await?;
        self.io.flush().await?;
        Ok(())
    }

    /// Tells the client why and closes.
    pub(super) async fn close(mut self, end: End) {
        let footer = match end {
            End::Gone => "</stream:stream>".to_owned(),
            End::Error(condition) => format!(
                "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
                 </stream:error></stream:stream>"
            ),
        };
        // A peer that reads no more must not hold the task.
        let last_words = async {
            if self.write(&footer).await.is_ok() {
                let _ = self.io.shutdown().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), last_words).await;
    }

    async fn header(&mut self, domain: &str, id: u64, features: &str) -> Result<(), End> {
        self.write(&format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams' from='{domain}' id='{id:x}' \
             version='1.0' xml:lang='en'><stream:features>{features}</stream:features>"
        ))
        .await
    }
}

enum Step {
    StartTls,
    User(Arc<Agent>),
}

const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>";
const PLAIN: &str = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
                     <mechanism>PLAIN</mechanism></mechanisms>";
const BIND: &str = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
                    <session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>";

impl Service {
    /// Accepts connections until dropped; `open` ends them.
    pub async fn accept(self, listener: TcpListener, open: CancellationToken) {
        let count = Arc::new(AtomicUsize::new(0));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, most likely: give connections time to close.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            if count.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
                count.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let (service, open, count) = (self.clone(), open.clone(), count.clone());
            tokio::spawn(async move {
                service.serve(stream, open).await;
                count.fetch_sub(1, Ordering::AcqRel);
            });
        }
    }

    async fn serve(&self, stream: TcpStream, open: CancellationToken) {
        let _ = stream.set_nodelay(true);
        let direct = self.world.config.tls.as_ref().is_some_and(|tls| tls.direct);
        match &self.tls {
            Some(tls) if direct => {
                let accept = tokio::time::timeout(LOGIN_TIME, tls.accept(stream));
                let accepted = tokio::select! {
                    () = open.cancelled() => return,
                    accepted = accept => accepted,
                };
                if let Ok(Ok(stream)) = accepted {
                    self.converse(stream, false, open).await;
                }
            }
            starttls => self.converse(stream, starttls.is_some(), open).await,
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        io: S,
        starttls: bool,
        open: CancellationToken,
    ) {
        let mut conn = Conn::new(io);
        let login = tokio::time::timeout(LOGIN_TIME, self.login(&mut conn, starttls));
        let step = tokio::select! {
            () = open.cancelled() => Err(End::Error("system-shutdown")),
            step = login => step.unwrap_or(Err(End::Error("connection-timeout"))),
        };
        match step {
            Ok(Step::User(agent)) => self.session(conn, agent, open).await,
            Ok(Step::StartTls) => {
                if let Some(tls) = &self.tls
                    && let Ok(Ok(stream)) =
                        tokio::time::timeout(LOGIN_TIME, tls.accept(conn.io)).await
                {
                    // Boxed because the conversation starts over inside itself.
                    let again: std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> =
                        Box::pin(self.secured(stream, open));
                    again.await;
                }
            }
            Err(end) => conn.close(end).await,
        }
    }

    async fn secured<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        io: S,
        open: CancellationToken,
    ) {
        let mut conn = Conn::new(io);
        let login = tokio::time::timeout(LOGIN_TIME, self.login(&mut conn, false));
        match login.await.unwrap_or(Err(End::Error("connection-timeout"))) {
            Ok(Step::User(agent)) => self.session(conn, agent, open).await,
            Ok(Step::StartTls) => conn.close(End::Error("policy-violation")).await,
            Err(end) => conn.close(end).await,
        }
    }

    async fn login<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        conn: &mut Conn<S>,
        starttls: bool,
    ) -> Result<Step, End> {
        let domain = &self.world.config.nodes[self.node - 1].domain;
        let mut tries = 0;
        loop {
            match conn.next().await? {
                Frame::Open => {
                    let features = if starttls { STARTTLS } else { PLAIN };
                    conn.header(domain, self.world.fresh_serial(), features)
                        .await?;
                }
                Frame::Stanza(elem) if elem.name == "starttls" && starttls => {
                    conn.write("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
                        .await?;
                    return Ok(Step::StartTls);
                }
                Frame::Stanza(elem) if elem.name == "auth" && !starttls => {
                    if let Some(agent) = self.authenticate(&elem) {
                        conn.write("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
                            .await?;
                        conn.framer.restart();
                        let Frame::Open = conn.next().await? else {
                            return Err(End::Error("bad-format"));
                        };
                        conn.header(domain, self.world.fresh_serial(), BIND).await?;
                        return Ok(Step::User(agent));
                    }
                    conn.write(
                        "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>",
                    )
                    .await?;
                    tries += 1;
                    if tries >= 3 {
                        return Err(End::Error("policy-violation"));
                    }
                }
                Frame::Stanza(_) => return Err(End::Error("not-authorized")),
                Frame::Close => return Err(End::Gone),
            }
        }
    }

    fn authenticate(&self, auth: &Elem) -> Option<Arc<Agent>> {
        if auth.attr("mechanism") != Some("PLAIN") {
            return None;
        }
        let data = base64::engine::general_purpose::STANDARD
            .decode(auth.text.trim())
            .ok()?;
        let mut fields = data.split(|byte| *byte == 0).skip(1);
        let user = std::str::from_utf8(fields.next()?).ok()?;
        let password = fields.next()?;
        let world = &self.world;
        let agent = world
            .agent(user)
            .or_else(|| world.agent(&super::jid_unescape(user)))?;
        let right = agent.spec.password.as_bytes() == password;
        world.admit(agent, right).then(|| agent.clone())
    }

    /// Waits for the bind request; returns its id and the resource wanted.
    pub(super) async fn bind<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        conn: &mut Conn<S>,
    ) -> Result<(String, String), End> {
        loop {
            let elem = match conn.next().await? {
                Frame::Stanza(elem) => elem,
                Frame::Open => return Err(End::Error("bad-format")),
                Frame::Close => return Err(End::Gone),
            };
            let id = elem.attr("id").unwrap_or_default().to_owned();
            let Some(bind) = elem.child("bind").filter(|_| elem.name == "iq") else {
                if elem.name == "iq" {
                    let id = escaped(&id);
                    conn.write(&format!(
                        "<iq type='error' id='{id}'><error type='cancel'><not-allowed \
                         xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
                    ))
                    .await?;
                }
                continue;
            };
            let wanted = bind
                .child("resource")
                .map(|resource| resource.text.trim().to_owned())
                .filter(|resource| !resource.is_empty() && resource.len() <= 255);
            let resource = wanted.unwrap_or_else(|| format!("sim-{:x}", self.world.fresh_serial()));
            return Ok((id, resource));
        }
    }
}
