//! AMQP 0-9-1 byte by byte, for what no library would write: a client, and a relay that changes
//! what a broker says.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::LIMIT;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 206;
/// Flags of the properties that are used here.
const HEADERS: u16 = 1 << 13;
const CORRELATION_ID: u16 = 1 << 10;
const MESSAGE_ID: u16 = 1 << 7;
const TYPE: u16 = 1 << 5;

/// A short string of any bytes.
fn short(text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("at most 255 bytes");
    [&[length], text].concat()
}

/// A length of four bytes, and so many more.
fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("it is short enough");
    [&length.to_be_bytes(), bytes].concat()
}

/// An entry of a table.
fn entry(key: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
    [&short(key), &[kind][..], value].concat()
}

/// A table in a table in a table, so many deep.
fn nested_tables(depth: usize) -> Vec<u8> {
    (1..depth).fold(long(b""), |inner, _| long(&entry(b"a", b'F', &inner)))
}

/// A table with a list in a list in a list, so many deep.
fn nested_lists(depth: usize) -> Vec<u8> {
    let lists = (1..depth).fold(long(b""), |inner, _| long(&[b"A", &inner[..]].concat()));
    long(&entry(b"a", b'A', &lists))
}

/// Those whose texts are not UTF-8.
pub fn no_texts(id: &str) -> Vec<(String, u16, Vec<u8>)> {
    let mut all = poisons(id);
    all.retain(|(name, ..)| !name.ends_with("tables") && !name.ends_with("lists"));
    all
}

/// Properties that cannot be read: flags and bytes, with a `message_id` that can.
pub fn poisons(id: &str) -> Vec<(String, u16, Vec<u8>)> {
    let binary: Vec<u8> = (0..16).map(|n| 0x80 | (n * 7)).collect();
    let kind = short(b"GetState#1001");
    let named = |what: &str| format!("{id}-{what}");
    let with = |what: &str, flags: u16, before: &[u8], kind: &[u8]| {
        let name = named(what);
        let bytes = [before, &short(name.as_bytes()), kind].concat();
        (name, flags | MESSAGE_ID | TYPE, bytes)
    };
    let deep = long(&entry(b"deep", b'F', &nested_tables(2_999)));
    let key = long(&entry(b"k\xff\xfe", b'V', b""));
    let inner = long(&entry(b"k", b'F', &long(&entry(b"\xff", b'V', b""))));
    vec![
        with("correlation", CORRELATION_ID, &short(&binary), &kind),
        with("key", HEADERS, &key, &kind),
        with("inner-key", HEADERS, &inner, &kind),
        with("tables", HEADERS, &deep, &kind),
        with("lists", HEADERS, &nested_lists(3_000), &kind),
        with("type", 0, b"", &short(b"MakeReady#1001\xc3")),
    ]
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub channel: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether it is this method.
    pub fn is(&self, class: u16, method: u16) -> bool {
        let id = [class.to_be_bytes(), method.to_be_bytes()].concat();
        self.kind == METHOD && self.payload.starts_with(&id)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind];
        bytes.extend(self.channel.to_be_bytes());
        bytes.extend(long(&self.payload));
        bytes.push(FRAME_END);
        bytes
    }

    async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        let kind = from.read_u8().await?;
        let channel = from.read_u16().await?;
        let size = from.read_u32().await?;
        let mut payload = vec![0; usize::try_from(size).expect("64 bits")];
        from.read_exact(&mut payload).await?;
        assert_eq!(from.read_u8().await?, FRAME_END, "a frame without its end");
        let frame = Self {
            kind,
            channel,
            payload,
        };
        Ok(frame)
    }
}

/// A connection with one channel, on which the broker confirms.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
}

impl RawClient {
    /// Connects and logs in; `amqp://user:password@host:port/%2f`.
    pub async fn open(uri: &str) -> Self {
        let rest = uri.strip_prefix("amqp://").expect("an AMQP URI");
        let (login, host) = rest.split_once('@').expect("with a user");
        let (user, password) = login.split_once(':').expect("and a password");
        let address = host.trim_end_matches("/%2f");
        let stream = TcpStream::connect(address).await.expect("a connection");
        let mut client = Self { stream };
        client.send(b"AMQP\0\0\x09\x01").await;
        client.expect(10, 10).await;
        let response = format!("\0{user}\0{password}");
        let start_ok = [
            long(b""),
            short(b"PLAIN"),
            long(response.as_bytes()),
            short(b"en_US"),
        ];
        client.method(0, 10, 11, &start_ok.concat()).await;
        let tune = client.expect(10, 30).await;
        client.method(0, 10, 31, &tune.payload[4..]).await;
        let open = [short(b"/"), short(b""), vec![0]].concat();
        client.method(0, 10, 40, &open).await;
        client.expect(10, 41).await;
        client.method(1, 20, 10, &short(b"")).await;
        client.expect(20, 11).await;
        client.method(1, 85, 10, &[0]).await;
        client.expect(85, 11).await;
        client
    }

    /// Publishes a message with these properties, as they are, and waits for the confirm.
    pub async fn publish(&mut self, (exchange, key): (&str, &[u8]), flags: u16, properties: &[u8]) {
        let body = b"body";
        let publish = [vec![0, 0], short(exchange.as_bytes()), short(key), vec![0]];
        self.method(1, 60, 40, &publish.concat()).await;
        let mut header = vec![0, 60, 0, 0];
        header.extend(u64::try_from(body.len()).expect("64 bits").to_be_bytes());
        header.extend(flags.to_be_bytes());
        header.extend(properties);
        self.frame(1, HEADER, header).await;
        self.frame(1, BODY, body.to_vec()).await;
        self.expect(60, 80).await;
    }

    async fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let mut payload = [class.to_be_bytes(), method.to_be_bytes()].concat();
        payload.extend(arguments);
        self.frame(channel, METHOD, payload).await;
    }

    async fn frame(&mut self, channel: u16, kind: u8, payload: Vec<u8>) {
        let frame = Frame {
            kind,
            channel,
            payload,
        };
        self.send(&frame.bytes()).await;
    }

    async fn send(&mut self, bytes: &[u8]) {
        let sent = self.stream.write_all(bytes).await;
        sent.expect("the broker takes it");
    }

    /// The next frame that is this method; heartbeats are passed over.
    async fn expect(&mut self, class: u16, method: u16) -> Frame {
        let next = async {
            loop {
                let frame = Frame::read(&mut self.stream).await.expect("an answer");
                if frame.kind == METHOD {
                    return frame;
                }
            }
        };
        let frame = tokio::time::timeout(LIMIT, next).await.expect("in time");
        let said = String::from_utf8_lossy(&frame.payload);
        assert!(frame.is(class, method), "not {class}.{method}: {said}");
        frame
    }
}

/// Changes a frame on its way; `None`: the bytes that come in its place.
pub type Meddle = Arc<dyn Fn(Frame) -> Result<Frame, Vec<u8>> + Send + Sync>;

/// A relay to a broker that knows frames.
#[derive(Debug)]
pub struct Meddler {
    /// Where to connect to.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Meddler {
    /// Starts a relay to the broker of a URI. `from_broker` and `to_broker` see every frame.
    pub async fn start(uri: &str, from_broker: Meddle, to_broker: Meddle) -> Self {
        let (_, host) = uri.split_once('@').expect("a URI with a user");
        let target = host.trim_end_matches("/%2f").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(broker) = TcpStream::connect(&target).await else {
                    continue;
                };
                let (from, to) = (from_broker.clone(), to_broker.clone());
                connections.spawn(relay(client, broker, from, to));
            }
        });
        Self { address, task }
    }

    /// The URI with this relay in the place of the broker.
    pub fn uri(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
    }
}

async fn relay(mut client: TcpStream, mut broker: TcpStream, from: Meddle, to: Meddle) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_broker, mut to_broker) = broker.split();
    // Both directions end with the first that does.
    tokio::select! {
        _ = pump(&mut from_broker, &mut to_client, &from, 0) => {}
        _ = pump(&mut from_client, &mut to_broker, &to, 8) => {}
    }
}

/// Hands on frames, behind so many bytes that are none.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    meddle: &Meddle,
    head: usize,
) -> std::io::Result<()> {
    let mut start = vec![0; head];
    from.read_exact(&mut start).await?;
    to.write_all(&start).await?;
    loop {
        let frame = Frame::read(from).await?;
        let bytes = meddle(frame).map_or_else(|bytes| bytes, |frame| frame.bytes());
        to.write_all(&bytes).await?;
        to.flush().await?;
    }
}
