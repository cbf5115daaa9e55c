//! Sessions against a scripted service.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::model::{Update, UpdateBody};
use crate::net::{KeyNames, TlsClient, TlsFiles};

mod application;
mod login;
mod tls;

const PATIENCE: Duration = Duration::from_secs(30);
const HEADER: &str = "<?xml version='1.0'?><stream:stream from='d.example' id='s1' version='1.0' \
    xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const PLAIN: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
    <mechanism>DIGEST-MD5</mechanism><mechanism>PLAIN</mechanism></mechanisms></stream:features>";
const BIND: &str = "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
    <session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></stream:features>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
const BOUND: &str = "<iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
    <jid>1205@d.example/tandem-a</jid></bind></iq>";
const PONG: &str = "<iq type='result' id='ping-first' from='d.example'/>";

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// The service's side of one connection.
struct Peer<'a> {
    io: Box<dyn Io + 'a>,
    seen: String,
}

impl Peer<'_> {
    /// Reads on until `end` has come; returns everything up to and with it.
    async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(end) {
                let rest = self.seen.split_off(at + end.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let mut chunk = [0; 2048];
            let n = timeout(PATIENCE, self.io.read(&mut chunk))
                .await
                .unwrap_or_else(|_| panic!("no {end} in {}", self.seen))
                .unwrap();
            assert_ne!(n, 0, "closed before {end}; seen: {}", self.seen);
            self.seen
                .push_str(std::str::from_utf8(&chunk[..n]).unwrap());
        }
    }

    async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
        self.io.flush().await.unwrap();
    }

    async fn greet(&mut self, features: &str) {
        self.until("version='1.0'>").await;
        self.send(&format!("{HEADER}{features}")).await;
    }

    async fn authenticate(&mut self) -> String {
        self.greet(PLAIN).await;
        let auth = self.until("</auth>").await;
        self.send(SUCCESS).await;
        auth
    }

    /// The whole login; returns what came after bind.
    async fn login(&mut self) -> String {
        self.authenticate().await;
        self.greet(BIND).await;
        self.until("</iq>").await;
        self.send(BOUND).await;
        let rest = self.until("ping-first").await + &self.until("</iq>").await;
        self.send(PONG).await;
        rest
    }
}

/// Takes every certificate.
fn trusting_all() -> TlsClient {
    TlsClient::with(TlsFiles::default(), KeyNames::NOTIFY, false)
}

struct Service {
    listener: TcpListener,
    happenings: mpsc::Receiver<(AgentId, u64, Happening)>,
    sink: Sink,
    spec: Spec,
}

impl Service {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sink, happenings) = mpsc::channel(16);
        let spec = Spec {
            agent: AgentId::new("1205").unwrap(),
            password: Secret::new("p<w"),
            host: "localhost".to_owned(),
            port: listener.local_addr().unwrap().port(),
            domain: "d.example".to_owned(),
            tls: Tls::StartTlsIfOffered(trusting_all()),
            resource: "tandem-a".to_owned(),
            connect_timeout: PATIENCE,
            ping_interval: PATIENCE,
        };
        Self {
            listener,
            happenings,
            sink,
            spec,
        }
    }

    async fn start(&self) -> (Subscription, Peer<'static>) {
        let subscription = subscribe(self.spec.clone(), 7, self.sink.clone());
        (subscription, self.accept().await)
    }

    async fn accept(&self) -> Peer<'static> {
        let socket: TcpStream = timeout(PATIENCE, self.listener.accept())
            .await
            .unwrap()
            .unwrap()
            .0;
        Peer {
            io: Box::new(socket),
            seen: String::new(),
        }
    }

    async fn next(&mut self) -> Happening {
        let (agent, epoch, happening) = timeout(PATIENCE, self.happenings.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!((agent.as_str(), epoch), ("1205", 7));
        happening
    }

    /// The session's task is over and has said nothing more.
    async fn silent(mut self, subscription: Subscription) {
        drop(subscription);
        drop(self.sink);
        let rest = timeout(PATIENCE, self.happenings.recv()).await.unwrap();
        assert_eq!(rest, None);
    }
}

fn note(node: &str, payload: &str) -> String {
    format!(
        "<message from='pubsub.d.example' to='1205@d.example' id='m'>\
         <event xmlns='http://jabber.org/protocol/pubsub#event'><items node='{node}'><item id='i1'>\
         <notification xmlns='http://jabber.org/protocol/pubsub'>{}</notification></item></items></event></message>",
        quick_xml::escape::escape(payload)
    )
}

#[tokio::test]
async fn login_follows_the_platforms_sequence() {
    let mut service = Service::new().await;
    let (subscription, mut peer) = service.start().await;
    let auth = peer.authenticate().await;
    // base64 of \0 1205 \0 p<w
    assert!(auth.contains(">ADEyMDUAcDx3<"), "{auth}");
    assert!(auth.contains("PLAIN"), "{auth}");
    peer.greet(BIND).await;
    let bind = peer.until("</iq>").await;
    assert!(bind.contains(">tandem-a<"), "{bind}");
    peer.send(BOUND).await;
    let rest = peer.until("ping-first").await;
    let order: Vec<_> = ["xmpp-session", "jabber:iq:roster", "<priority>0</priority>"]
        .iter()
        .map(|part| rest.find(part).unwrap_or_else(|| panic!("{part}: {rest}")))
        .collect();
    assert!(order.is_sorted(), "{rest}");
    peer.send(PONG).await;
    assert_eq!(service.next().await, Happening::Up);
    service.silent(subscription).await;
}

#[tokio::test]
async fn notifications_arrive_in_order_after_up() {
    let mut service = Service::new().await;
    let (subscription, mut peer) = service.start().await;
    peer.authenticate().await;
    peer.greet(BIND).await;
    peer.until("</iq>").await;
    peer.send(BOUND).await;
    let state = |state: &str| {
        note(
            "/finesse/api/User/1205",
            &format!(
                "<Update><data><user><state>{state}</state></user></data><event>PUT</event></Update>"
            ),
        )
    };
    // Even one that comes before the service has answered everything.
    peer.send(&(state("NOT_READY") + PONG + &state("READY")))
        .await;
    assert_eq!(service.next().await, Happening::Up);
    for expected in ["NOT_READY", "READY"] {
        let happening = service.next().await;
        assert!(
            matches!(&happening, Happening::Update(Update { body: UpdateBody::User(user), .. }) if user.state == expected),
            "{happening:?}"
        );
    }
    service.silent(subscription).await;
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    for (failure, expected) in [
        ("<not-authorized/>", "not-authorized"),
        ("<account-disabled/>", "account-disabled"),
        ("<some-new-condition/>", "refused without a known condition"),
    ] {
        let mut service = Service::new().await;
        let (subscription, mut peer) = service.start().await;
        peer.greet(PLAIN).await;
        peer.until("</auth>").await;
        peer.send(&format!(
            "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{failure}</failure></stream:stream>"
        ))
        .await;
        let reason = expected.to_owned();
        assert_eq!(service.next().await, Happening::Refused { reason });
        service.silent(subscription).await;
    }
}

#[tokio::test]
async fn a_temporary_failure_is_no_refusal() {
    let mut service = Service::new().await;
    let (_subscription, mut peer) = service.start().await;
    peer.greet(PLAIN).await;
    peer.until("</auth>").await;
    peer.send(
        "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><temporary-auth-failure/></failure>",
    )
    .await;
    let happening = service.next().await;
    assert!(
        matches!(happening, Happening::Unreachable { .. }),
        "{happening:?}"
    );
}

#[tokio::test]
async fn nobody_listening_a_close_and_silence_are_unreachable() {
    let mut gone = Service::new().await;
    gone.listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _subscription = subscribe(gone.spec.clone(), 7, gone.sink.clone());
    let happening = gone.next().await;
    assert!(
        matches!(happening, Happening::Unreachable { .. }),
        "{happening:?}"
    );

    let mut closing = Service::new().await;
    let (_subscription, peer) = closing.start().await;
    drop(peer);
    let happening = closing.next().await;
    assert!(
        matches!(happening, Happening::Unreachable { .. }),
        "{happening:?}"
    );

    let mut mute = Service::new().await;
    mute.spec.connect_timeout = Duration::from_millis(50);
    let (_subscription, _peer) = mute.start().await;
    let reason = "login timed out".to_owned();
    assert_eq!(mute.next().await, Happening::Unreachable { reason });
}

#[tokio::test]
async fn a_conflict_is_told_as_such() {
    let conflict = "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>";
    let mut service = Service::new().await;
    let (subscription, mut peer) = service.start().await;
    peer.login().await;
    assert_eq!(service.next().await, Happening::Up);
    peer.send(conflict).await;
    assert_eq!(
        service.next().await,
        Happening::Lost {
            reason: "stream error conflict".to_owned(),
            conflict: true
        }
    );
    service.silent(subscription).await;

    let mut at_bind = Service::new().await;
    let (_subscription, mut peer) = at_bind.start().await;
    peer.authenticate().await;
    peer.greet(BIND).await;
    peer.until("</iq>").await;
    peer.send("<iq type='error' id='bind'><error type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")
        .await;
    let happening = at_bind.next().await;
    assert!(
        matches!(happening, Happening::Lost { conflict: true, .. }),
        "{happening:?}"
    );
}

#[tokio::test]
async fn a_lost_connection_is_told_once_and_not_opened_again() {
    let mut service = Service::new().await;
    let (subscription, mut peer) = service.start().await;
    peer.login().await;
    assert_eq!(service.next().await, Happening::Up);
    drop(peer);
    let happening = service.next().await;
    assert!(
        matches!(
            happening,
            Happening::Lost {
                conflict: false,
                ..
            }
        ),
        "{happening:?}"
    );
    // The task holds the last sender: when it has ended nothing can connect any more.
    let (unused, _) = mpsc::channel(1);
    service.sink = unused;
    assert_eq!(
        timeout(PATIENCE, service.happenings.recv()).await.unwrap(),
        None
    );
    assert!(
        timeout(Duration::from_millis(20), service.listener.accept())
            .await
            .is_err()
    );
    drop(subscription);
}

#[tokio::test]
async fn pings_are_answered_and_other_requests_declined() {
    let mut service = Service::new().await;
    let (_subscription, mut peer) = service.start().await;
    peer.login().await;
    peer.send(
        "<iq type='get' id='a1' from='d.example'><ping xmlns='urn:xmpp:ping'/></iq>\
         <iq type='get' id='a2' from='d.example'><query xmlns='jabber:iq:version'/></iq>",
    )
    .await;
    let pong = peer.until("</iq>").await;
    assert!(pong.contains("a1") && pong.contains("result"), "{pong}");
    let declined = peer.until("</iq>").await;
    assert!(
        declined.contains("a2") && declined.contains("service-unavailable"),
        "{declined}"
    );
    assert_eq!(service.next().await, Happening::Up);
}

#[tokio::test]
async fn two_unanswered_pings_end_the_session() {
    let mut service = Service::new().await;
    service.spec.ping_interval = Duration::from_millis(50);
    let (subscription, mut peer) = service.start().await;
    peer.login().await;
    assert_eq!(service.next().await, Happening::Up);
    peer.until("urn:xmpp:ping").await;
    assert_eq!(
        service.next().await,
        Happening::Lost {
            reason: "2 pings without an answer".to_owned(),
            conflict: false
        }
    );
    service.silent(subscription).await;
}

#[tokio::test]
async fn an_answered_ping_keeps_the_session() {
    let mut service = Service::new().await;
    service.spec.ping_interval = Duration::from_millis(200);
    let (_subscription, mut peer) = service.start().await;
    peer.login().await;
    assert_eq!(service.next().await, Happening::Up);
    for _ in 0..4 {
        peer.until("urn:xmpp:ping").await;
        peer.send(
            "<iq type='error' id='ping' from='d.example'><error type='cancel'>\
            <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
        )
        .await;
    }
    assert!(service.happenings.try_recv().is_err());
}

#[tokio::test]
async fn a_service_that_answers_no_ping_is_taken_as_it_is() {
    let mut service = Service::new().await;
    service.spec.ping_interval = Duration::from_millis(50);
    let (_subscription, mut peer) = service.start().await;
    peer.authenticate().await;
    peer.greet(BIND).await;
    peer.until("</iq>").await;
    peer.send(BOUND).await;
    assert_eq!(service.next().await, Happening::Up);
    // Far more than two go unanswered, and the session lives.
    for _ in 0..6 {
        peer.until("urn:xmpp:ping").await;
    }
    peer.send(&note(
        "/finesse/api/User/1205",
        "<Update><data><user><state>READY</state></user></data><event>PUT</event></Update>",
    ))
    .await;
    assert!(matches!(service.next().await, Happening::Update(_)));
}

#[tokio::test]
async fn closing_says_goodbye_and_reports_nothing() {
    let mut service = Service::new().await;
    let (subscription, mut peer) = service.start().await;
    peer.login().await;
    assert_eq!(service.next().await, Happening::Up);
    subscription.close();
    subscription.close();
    let goodbye = peer.until("</stream:stream>").await;
    assert!(goodbye.contains("unavailable"), "{goodbye}");
    assert!(!subscription.watch_team("pubsub.d.example", "3"));
    drop(peer);
    service.silent(subscription).await;
}

#[tokio::test]
async fn closing_works_while_nobody_takes_the_happenings() {
    let mut service = Service::new().await;
    let (sink, happenings) = mpsc::channel(1);
    (service.sink, service.happenings) = (sink, happenings);
    let (subscription, mut peer) = service.start().await;
    peer.login().await;
    let team = note("/finesse/api/SystemInfo", "x");
    peer.send(&team.repeat(3)).await;
    while service.sink.capacity() > 0 {
        tokio::task::yield_now().await;
    }
    drop(subscription);
    peer.until("</stream:stream>").await;
}

#[tokio::test]
async fn a_team_is_watched_with_the_full_address() {
    let mut service = Service::new().await;
    let (subscription, mut peer) = service.start().await;
    assert!(subscription.watch_team("pubsub.d.example", "3&"));
    peer.login().await;
    let first = peer.until("</iq>").await;
    let second = peer.until("</iq>").await;
    assert!(first.contains("<unsubscribe"), "{first}");
    assert!(second.contains("<subscribe"), "{second}");
    assert!(
        second.contains("/finesse/api/Team/3&amp;/Users"),
        "{second}"
    );
    assert!(second.contains("1205@d.example/tandem-a"), "{second}");
    assert!(second.contains("to='pubsub.d.example'"), "{second}");
    peer.send(&note(
        "/finesse/api/Team/3/Users",
        "<Update><data><user><loginId>1301</loginId></user></data></Update>",
    ))
    .await;
    assert_eq!(service.next().await, Happening::Up);
    let happening = service.next().await;
    assert!(
        matches!(&happening, Happening::Update(Update { body: UpdateBody::TeamMembers { members, .. }, .. }) if members.len() == 1),
        "{happening:?}"
    );
}

#[tokio::test]
async fn an_agent_id_with_an_at_sign_signs_in_as_it_is() {
    let mut service = Service::new().await;
    service.spec.agent = AgentId::new("a@b").unwrap();
    let (_subscription, mut peer) = service.start().await;
    let auth = peer.authenticate().await;
    // base64 of \0 a@b \0 p<w
    assert!(auth.contains(">AGFAYgBwPHc=<"), "{auth}");
}

#[tokio::test]
async fn endless_nesting_ends_the_session() {
    let mut service = Service::new().await;
    let (_subscription, mut peer) = service.start().await;
    peer.login().await;
    assert_eq!(service.next().await, Happening::Up);
    peer.send(&format!("<message>{}", "<a>".repeat(600))).await;
    let happening = service.next().await;
    assert!(
        matches!(&happening, Happening::Lost { reason, .. } if reason.contains("deeper than allowed")),
        "{happening:?}"
    );
}

#[tokio::test]
async fn malformed_stanzas_are_passed_over_and_garbage_is_not() {
    let mut service = Service::new().await;
    let (_subscription, mut peer) = service.start().await;
    peer.login().await;
    assert_eq!(service.next().await, Happening::Up);
    peer.send("<message type='nonsense'/><iq type='strange'/>")
        .await;
    peer.send(&note("/finesse/api/User/1205", "no xml")).await;
    peer.send(&note("/finesse/api/SystemInfo", "")).await;
    let happening = service.next().await;
    assert!(
        matches!(&happening, Happening::Update(update) if update.body == UpdateBody::SystemInfo),
        "{happening:?}"
    );
    peer.send("<!DOCTYPE x []>").await;
    let happening = service.next().await;
    assert!(matches!(happening, Happening::Lost { .. }), "{happening:?}");
}
