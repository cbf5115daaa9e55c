//! The equal-work loop: the bare loop, and what else a connector's work is.
//!
//! It holds one notification stream an agent, finds the end of each notification by the cheapest
//! means that is correct here (a server escapes `<` in text, so the end tag ends the stanza),
//! publishes an event for it to the events exchange and waits for the broker's confirm. It promises
//! nothing: it parses no notification, and forgets what it sent. What `tandem` costs beyond it is
//! the price of its promises.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ExchangeKind};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::errors::Result;
use crate::stage::DESTINATION;

/// The stanza of a notification ends with it.
const END: &[u8] = b"</message>";
/// Longest notification, bytes.
const LONGEST: usize = 1 << 20;
/// How long one step of a login may take.
const STEP: Duration = Duration::from_secs(20);
/// Its size is that of a State event of tandem's, on average.
const EVENT_BYTES: usize = 330;

/// Whose notifications are read, and where.
pub struct Streams {
    /// `host:port` of the notification service, without TLS.
    pub address: String,
    /// The agents.
    pub agents: Range<u64>,
}

impl Streams {
    /// From the words of a command line: address, first agent, agent after the last.
    pub fn parse(address: &str, first: &str, after: &str) -> Result<Self> {
        Ok(Self {
            address: address.to_owned(),
            agents: first.parse()?..after.parse()?,
        })
    }

    /// Opens all streams; events go out over this connection, on a channel of their own.
    pub async fn open(self, connection: &Connection) -> Result<()> {
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare(
                "tandem.events".into(),
                ExchangeKind::Topic,
                options,
                FieldTable::default(),
            )
            .await?;
        let channel = Arc::new(channel);
        for agent in self.agents {
            let stream = login(&self.address, agent).await?;
            let channel = Arc::clone(&channel);
            tokio::spawn(async move {
                if let Err(error) = read(stream, agent, &channel).await {
                    eprintln!("equal-work loop, notifications of {agent}: {error}");
                }
            });
        }
        Ok(())
    }
}

/// Until presence is sent.
async fn login(address: &str, agent: u64) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let domain = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let header = format!(
        "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    );
    let plain = format!("\0{agent}\0pw-{agent}");
    let plain = base64::engine::general_purpose::STANDARD.encode(plain);
    let auth =
        format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>");
    let bind = "<iq id='b' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                <resource>bench</resource></bind></iq>";
    for (say, wait) in [
        (header.as_str(), "</stream:features>"),
        (auth.as_str(), "<success"),
        (header.as_str(), "</stream:features>"),
        (bind, "</iq>"),
    ] {
        stream.write_all(say.as_bytes()).await?;
        let step = tokio::time::timeout(STEP, read_until(&mut stream, wait));
        step.await
            .map_err(|_| format!("no {wait} from the notification service"))??;
    }
    stream.write_all(b"<presence/>").await?;
    Ok(stream)
}

async fn read_until(stream: &mut TcpStream, wanted: &str) -> Result<()> {
    let mut seen = Vec::new();
    while memmem::find(&seen, wanted.as_bytes()).is_none() {
        if stream.read_buf(&mut seen).await? == 0 || seen.len() > LONGEST {
            return Err(format!("no {wanted}: {}", String::from_utf8_lossy(&seen)).into());
        }
    }
    Ok(())
}

/// Publishes an event for each notification, one after another as an agent's events are.
async fn read(mut stream: TcpStream, agent: u64, channel: &Channel) -> Result<()> {
    let end = memmem::Finder::new(END);
    let mut event = format!(
        r#"{{"type":"State","id":"{agent}","state":"READY","filler":"{}"}}"#,
        "x".repeat(EVENT_BYTES)
    );
    event.truncate(EVENT_BYTES);
    let mut seen = Vec::with_capacity(4096);
    loop {
        if stream.read_buf(&mut seen).await? == 0 || seen.len() > LONGEST {
            return Err("the stream ended".into());
        }
        while let Some(at) = end.find(&seen) {
            seen.drain(..at + END.len());
            let properties = BasicProperties::default()
                .with_content_type("application/json".into())
                .with_delivery_mode(2);
            let confirm = channel
                .basic_publish(
                    "tandem.events".into(),
                    DESTINATION.into(),
                    BasicPublishOptions::default(),
                    event.as_bytes(),
                    properties,
                )
                .await?
                .await?;
            if !confirm.is_ack() {
                return Err("the event was not confirmed".into());
            }
        }
    }
}
