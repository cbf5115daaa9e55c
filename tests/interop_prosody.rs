//! A notification service that nobody here wrote: Prosody, with pubsub nodes named as the platform
//! names them. Plain, with STARTTLS and with TLS from the first byte.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use support::pair::{SUPERVISOR, is_state};
use support::{LIMIT, Pair, PairOptions, Shared, run, until};
use tandem::lab::ReservedPort;
use tandem::model::{AgentId, Secret};
use tandem::net::{KeyNames, TlsClient, TlsFiles};
use tandem::notify::{Happening, Spec, Tls, subscribe};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How the connector's sessions are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protection {
    None,
    StartTls,
    Direct,
}

/// A Prosody of this test's own, in the foreground; dropping it kills it.
struct Prosody {
    folder: TempDir,
    plain: ReservedPort,
    direct: ReservedPort,
    has_direct: bool,
    domain: String,
    child: Option<Child>,
}

impl Drop for Prosody {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A host or user as a file name, as Prosody's storage spells it.
fn file_name(text: &str) -> String {
    let spell = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_string(),
        c => format!("%{:02x}", u32::from(c)),
    };
    text.chars().map(spell).collect()
}

impl Prosody {
    fn new(domain: &str, protection: Protection, users: &[&str]) -> Self {
        Self::with(domain, protection, users, "")
    }

    /// With further settings of the server.
    fn with(domain: &str, protection: Protection, users: &[&str], settings: &str) -> Self {
        let prosody = Self {
            folder: tempfile::tempdir().unwrap(),
            plain: ReservedPort::take().unwrap(),
            direct: ReservedPort::take().unwrap(),
            has_direct: !matches!(protection, Protection::None),
            domain: domain.to_owned(),
            child: None,
        };
        let folder = prosody.folder.path();
        let accounts = folder.join("data").join(file_name(domain)).join("accounts");
        std::fs::create_dir_all(&accounts).unwrap();
        for user in users {
            let account = format!("return {{ [\"password\"] = \"pw-{user}\"; }};\n");
            std::fs::write(accounts.join(format!("{}.dat", file_name(user))), account).unwrap();
        }
        let config = prosody.config(protection, settings);
        std::fs::write(folder.join("prosody.cfg.lua"), config).unwrap();
        prosody
    }

    fn config(&self, protection: Protection, settings: &str) -> String {
        let folder = self.folder.path().display();
        let testdata = concat!(env!("CARGO_MANIFEST_DIR"), "/src/notify/testdata");
        let certificate = format!(
            "{{ key = \"{testdata}/localhost.key\", certificate = \"{testdata}/localhost.pem\" }}"
        );
        let tls = match protection {
            Protection::None => String::new(),
            _ => format!("ssl = {certificate}\nc2s_direct_tls_ssl = {certificate}\n"),
        };
        let (tls_module, direct) = match protection {
            Protection::None => ("", String::new()),
            _ => ("\"tls\", ", self.direct.number().to_string()),
        };
        format!(
            "run_as_root = true\ndaemonize = false\npidfile = \"{folder}/prosody.pid\"\n\
             data_path = \"{folder}/data\"\ncertificates = \"{folder}\"\n\
             log = {{ {{ levels = {{ min = \"info\" }}, to = \"file\", filename = \"{folder}/prosody.log\" }} }}\n\
             interfaces = {{ \"127.0.0.1\" }}\nc2s_ports = {{ {plain} }}\n\
             c2s_direct_tls_ports = {{ {direct} }}\n\
             modules_enabled = {{ {tls_module}\"roster\", \"saslauth\", \"ping\" }}\n\
             modules_disabled = {{ \"s2s\", \"offline\" }}\n\
             authentication = \"internal_plain\"\nstorage = \"internal\"\n\
             allow_unencrypted_plain_auth = true\nc2s_require_encryption = false\n{tls}{settings}\n\
             VirtualHost \"{domain}\"\nComponent \"pubsub.{domain}\" \"pubsub\"\n\
             admins = {{ \"admin@{domain}\" }}\nautocreate_on_publish = true\n\
             autocreate_on_subscribe = true\n",
            plain = self.plain.number(),
            domain = self.domain,
        )
    }

    async fn start(&mut self) {
        let config = self.folder.path().join("prosody.cfg.lua");
        let child = Command::new("prosody")
            .arg("-F")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Prosody (Debian: prosody); run scripts/setup");
        self.child = Some(child);
        // It opens them one after another.
        let direct = self.has_direct.then_some(self.direct.number());
        for port in std::iter::once(self.plain.number()).chain(direct) {
            until("Prosody listens", async || {
                TcpStream::connect(("127.0.0.1", port)).await.is_ok()
            })
            .await;
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("prosody.log")).unwrap_or_default()
    }
}

/// The service's administrator, by hand: it stands for the platform, which subscribes its agents
/// and publishes.
struct Admin {
    socket: TcpStream,
    domain: String,
    seen: String,
    requests: u32,
}

impl Admin {
    async fn open(prosody: &Prosody) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", prosody.plain.number()))
            .await
            .unwrap();
        let mut admin = Self {
            socket,
            domain: prosody.domain.clone(),
            seen: String::new(),
            requests: 0,
        };
        admin.greet().await;
        let login = STANDARD.encode("\0admin\0pw-admin");
        admin
            .say(&format!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{login}</auth>"
            ))
            .await;
        admin.until("<success").await;
        admin.until(">").await;
        admin.greet().await;
        admin
            .say("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>platform</resource></bind></iq>")
            .await;
        admin.until("</iq>").await;
        admin
    }

    async fn greet(&mut self) {
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>",
            self.domain
        );
        self.say(&header).await;
        self.until("</stream:features>").await;
    }

    async fn say(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads on until this has come; gives back everything up to it.
    async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(end) {
                let rest = self.seen.split_off(at + end.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let mut chunk = [0; 4096];
            let read = timeout(LIMIT, self.socket.read(&mut chunk)).await;
            let n = read
                .unwrap_or_else(|_| panic!("no {end}: {}", self.seen))
                .unwrap();
            assert_ne!(n, 0, "closed before {end}: {}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
    }

    async fn pubsub(&mut self, request: &str) {
        self.requests += 1;
        let id = format!("admin-{}", self.requests);
        self.say(&format!(
            "<iq type='set' id='{id}' to='pubsub.{}'><pubsub xmlns='http://jabber.org/protocol/pubsub'>{request}</pubsub></iq>",
            self.domain
        ))
        .await;
        let answer = self.until("</iq>").await;
        assert!(
            answer.contains(&id) && answer.contains("'result'"),
            "{request}: {answer}"
        );
    }

    /// What the platform does for every agent that becomes present.
    async fn subscribe_agent(&mut self, agent: u32) {
        for node in ["", "/Dialogs"] {
            let request = format!(
                "<subscribe node='/finesse/api/User/{agent}{node}' jid='{agent}@{}'/>",
                self.domain
            );
            self.pubsub(&request).await;
        }
    }

    async fn publish(&mut self, node: &str, update: &str) {
        let payload = update
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let request = format!(
            "<publish node='{node}'><item><notification xmlns='http://jabber.org/protocol/pubsub'>\
             {payload}</notification></item></publish>"
        );
        self.pubsub(&request).await;
    }
}

fn user_update(agent: u32, state: &str) -> String {
    format!(
        "<Update><data><user><loginId>{agent}</loginId><state>{state}</state>\
         <extension>15001</extension><uri>/finesse/api/User/{agent}</uri></user></data>\
         <event>PUT</event><requestId></requestId><source>/finesse/api/User/{agent}</source></Update>"
    )
}

async fn start(shared: &mut Shared, protection: Protection) -> (Pair, Prosody) {
    // The simulator's first node, whose notification service is played by Prosody.
    let domain = tandem::simulator::Config::loopback(1, 1).nodes[0]
        .domain
        .clone();
    let agent = SUPERVISOR.to_string();
    let mut prosody = Prosody::new(&domain, protection, &["admin", &agent]);
    prosody.start().await;
    let (port, direct) = match protection {
        Protection::Direct => (prosody.direct.number(), "true"),
        _ => (prosody.plain.number(), "false"),
    };
    let certificate = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/notify/testdata/localhost.pem"
    );
    let options = PairOptions::default()
        .instances(1)
        .set("notify.port", &port.to_string())
        .set("notify.tls", direct)
        .set("notify.ca-file", certificate);
    assert!(Path::new(certificate).exists());
    (shared.pair(options).await, prosody)
}

async fn sessions_follow_a_foreign_service(shared: &mut Shared, protection: Protection) {
    let (pair, mut prosody) = start(shared, protection).await;
    let desk = pair.desk("desk-prosody", 0).await;
    let agent = SUPERVISOR;
    for (kind, body) in [
        ("Connect", format!("desk-prosody,pw-{agent}")),
        ("Login", format!("pw-{agent},{}", agent + 6000)),
    ] {
        let id = desk.send(format!("{kind}#{agent}"), body).await;
        let reply = desk.reply(&id).await;
        assert!(reply.error_code().is_empty(), "{kind}: {}", reply.text);
    }
    // What is published during a sign-in only makes the agent be read.
    desk.event("the end of the sign-in", |m| {
        m.field("type") == "DialogStatus"
    })
    .await;
    let mut admin = Admin::open(&prosody).await;
    admin.subscribe_agent(agent).await;
    let own = format!("/finesse/api/User/{agent}");
    admin.publish(&own, &user_update(agent, "TALKING")).await;
    desk.event("the published state", |m| is_state(m, agent, "TALKING"))
        .await;
    let call = "<Update><data><dialogs><Dialog><id>30219045</id><fromAddress>0612</fromAddress>\
        <mediaType>Voice</mediaType><state>ALERTING</state><mediaProperties><callType>ACD_IN</callType></mediaProperties>\
        <participants><Participant><mediaAddress>15001</mediaAddress><mediaAddressType>AGENT_DEVICE</mediaAddressType>\
        <state>ALERTING</state></Participant></participants></Dialog></dialogs></data><event>POST</event></Update>";
    admin.publish(&format!("{own}/Dialogs"), call).await;
    desk.event("the published call", |m| {
        m.field("type") == "NewInboundCall" && m.field("dialogId") == "30219045"
    })
    .await;
    // A node that the session subscribes to by itself.
    let id = desk.send(format!("getteamusers#{agent}"), "1,true").await;
    assert_eq!(desk.reply(&id).await.field("outcome"), "OK");
    let member = user_update(1002, "WORK");
    let told = |m: &tandem::client::Message| m.field("teamAgentId") == "1002";
    until("a watched member's state", async || {
        admin.publish("/finesse/api/Team/1/Users", &member).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        desk.events().iter().any(told)
    })
    .await;
    assert_eq!(
        prosody.log().contains("Stream encrypted"),
        protection != Protection::None,
        "{}",
        prosody.log()
    );

    prosody.kill();
    until("the loss is noticed", async || {
        pair.gc1.owned().await == (1, 0)
    })
    .await;
    prosody.start().await;
    until("subscribed again", async || {
        pair.gc1.owned().await == (1, 1)
    })
    .await;
    let mut admin = Admin::open(&prosody).await;
    admin.subscribe_agent(agent).await;
    desk.clear_events();
    admin.publish(&own, &user_update(agent, "WORK_READY")).await;
    desk.event("a state after the restart", |m| {
        is_state(m, agent, "WORK_READY")
    })
    .await;
    // And what it had subscribed to itself.
    until("the team is watched again", async || {
        admin.publish("/finesse/api/Team/1/Users", &member).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        desk.events().iter().any(told)
    })
    .await;
}

#[test]
fn prosody_without_tls() {
    run(async |shared| sessions_follow_a_foreign_service(shared, Protection::None).await);
}

#[test]
fn prosody_with_starttls() {
    run(async |shared| sessions_follow_a_foreign_service(shared, Protection::StartTls).await);
}

#[test]
fn prosody_with_tls_from_the_first_byte() {
    run(async |shared| sessions_follow_a_foreign_service(shared, Protection::Direct).await);
}

/// What becomes of one sign-in.
async fn sign_in(prosody: &Prosody, password: &str, tls: Tls) -> Happening {
    let (sink, mut happenings) = mpsc::channel(8);
    let spec = Spec {
        agent: AgentId::new("1001").unwrap(),
        password: Secret::new(password),
        // By its address: with TLS from the first byte Prosody knows no other names than its hosts.
        host: "127.0.0.1".to_owned(),
        port: match tls {
            Tls::Direct(_) => prosody.direct.number(),
            Tls::StartTlsIfOffered(_) => prosody.plain.number(),
        },
        domain: prosody.domain.clone(),
        tls,
        resource: "tandem-a".to_owned(),
        connect_timeout: LIMIT,
        ping_interval: LIMIT,
    };
    let _subscription = subscribe(spec, 1, sink);
    let first = timeout(LIMIT, happenings.recv()).await.unwrap();
    first.unwrap().2
}

/// Settings that trust the certificate of these tests, or only those of the system.
fn tls(trust: bool) -> TlsClient {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/notify/testdata/localhost.pem"
    );
    let files = TlsFiles {
        ca_file: trust.then(|| file.into()),
        ..TlsFiles::default()
    };
    TlsClient::new(files, KeyNames::NOTIFY)
}

#[tokio::test]
async fn every_sasl_mechanism_signs_in_and_refuses_a_wrong_password() {
    const ALL: [&str; 3] = ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"];
    for mechanism in ALL {
        let disabled = ALL.map(|other| {
            let other = if other == mechanism { "-" } else { other };
            format!("\"{other}\"")
        });
        let settings = format!("disable_sasl_mechanisms = {{ {} }}", disabled.join(", "));
        for protection in [Protection::None, Protection::Direct] {
            let mut prosody = Prosody::with("d.example", protection, &["1001"], &settings);
            prosody.start().await;
            let tls = || match protection {
                Protection::Direct => Tls::Direct(tls(true)),
                _ => Tls::StartTlsIfOffered(tls(true)),
            };
            let right = sign_in(&prosody, "pw-1001", tls()).await;
            assert_eq!(right, Happening::Up, "{mechanism} {protection:?}");
            let reason = "not-authorized".to_owned();
            let wrong = sign_in(&prosody, "pw-1002", tls()).await;
            assert_eq!(
                wrong,
                Happening::Refused { reason },
                "{mechanism} {protection:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_untrusted_certificate_and_a_demand_for_encryption_are_told_at_once() {
    let unreachable = |happening: Happening, part: &str| {
        assert!(
            matches!(&happening, Happening::Unreachable { reason } if reason.contains(part)),
            "{part}: {happening:?}"
        );
    };
    let mut prosody = Prosody::new("d.example", Protection::Direct, &["1001"]);
    prosody.start().await;
    let direct = sign_in(&prosody, "pw-1001", Tls::Direct(tls(false))).await;
    unreachable(direct, "TLS failed");
    let starttls = Tls::StartTlsIfOffered(tls(false));
    unreachable(sign_in(&prosody, "pw-1001", starttls).await, "TLS failed");
    let demand = "c2s_require_encryption = true\nallow_unencrypted_plain_auth = false";
    let mut prosody = Prosody::with("d.example", Protection::None, &["1001"], demand);
    prosody.start().await;
    let plain = Tls::StartTlsIfOffered(tls(true));
    let told = sign_in(&prosody, "pw-1001", plain).await;
    unreachable(told, "stream error");
}
