//! A broker for tests that speaks as much AMQP as a publication needs, and answers as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use amq_protocol::frame::{AMQPFrame, parse_frame};
use lapin::types::AMQPValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What it does with a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Confirms,
    Refuses,
    SaysNothing,
    /// Confirms, and says that it takes no more, until it has another manner.
    IsInAlarm,
    /// The same, and does not confirm.
    HoldsBack,
    /// Ends the connection.
    Leaves,
}

/// What it has seen.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// Connections, those that have ended included.
    pub(super) connections: usize,
    /// Connections that stand.
    pub(super) open: usize,
    /// Header `x-attempt` of each publication.
    pub(super) attempts: Vec<i64>,
}

pub(super) struct FakeBroker {
    address: SocketAddr,
    manner: watch::Sender<Manner>,
    seen: Arc<Mutex<Seen>>,
}

impl FakeBroker {
    pub(super) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (manner, told) = watch::channel(manner);
        let seen = Arc::<Mutex<Seen>>::default();
        let noted = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                note(&noted, |seen| {
                    seen.connections += 1;
                    seen.open += 1;
                });
                let (told, noted) = (told.clone(), Arc::clone(&noted));
                tokio::spawn(async move {
                    let _ = serve(stream, told, &noted).await;
                    note(&noted, |seen| seen.open -= 1);
                });
            }
        });
        Self {
            address,
            manner,
            seen,
        }
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn set(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    pub(super) fn seen(&self) -> Seen {
        note(&self.seen, |seen| seen.clone())
    }
}

fn note<T>(seen: &Mutex<Seen>, note: impl FnOnce(&mut Seen) -> T) -> T {
    note(&mut seen.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A frame.
fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    let head = [&[kind][..], &channel.to_be_bytes(), &size.to_be_bytes()].concat();
    [&head, payload, &[0xCE]].concat()
}

fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let payload = [&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat();
    frame(1, channel, &payload)
}

async fn serve(
    mut stream: TcpStream,
    mut told: watch::Receiver<Manner>,
    seen: &Mutex<Seen>,
) -> std::io::Result<()> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await?;
    let start = [
        &[0, 9, 0, 0, 0, 0, 0, 0, 0, 5][..],
        b"PLAIN",
        &[0, 0, 0, 5],
        b"en_US",
    ];
    stream
        .write_all(&method(0, 10, 10, &start.concat()))
        .await?;
    let (mut read, mut write) = stream.into_split();
    // Publications so far, a channel.
    let mut tags = std::collections::HashMap::<u16, u64>::new();
    let mut in_alarm = false;
    // In an alarm the other side writes nothing, heartbeats included.
    let mut beats = tokio::time::interval(std::time::Duration::from_secs(1));
    let mut tuned = false;
    loop {
        let mut head = [0; 7];
        tokio::select! {
            got = read.read_exact(&mut head) => { got?; }
            _ = beats.tick(), if tuned => {
                write.write_all(&frame(8, 0, &[])).await?;
                continue;
            }
            changed = told.changed(), if in_alarm => {
                if changed.is_ok() {
                    write.write_all(&method(0, 10, 61, &[])).await?;
                }
                in_alarm = false;
                continue;
            }
        }
        let channel = u16::from_be_bytes([head[1], head[2]]);
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut rest = vec![0; usize::try_from(size).unwrap() + 1];
        read.read_exact(&mut rest).await?;
        tuned |= rest.starts_with(&[0, 10, 0, 40]);
        let answer = match (head[0], &rest[..]) {
            (8, _) => frame(8, 0, &[]),
            // start-ok, open, close of a connection.
            (1, [0, 10, 0, 11, ..]) => method(0, 10, 30, &[7, 255, 0, 2, 0, 0, 0, 2]),
            (1, [0, 10, 0, 40, ..]) => method(0, 10, 41, &[0]),
            (1, [0, 10, 0, 50, ..]) => method(0, 10, 51, &[]),
            // A channel's open, close and confirms.
            (1, [0, 20, 0, 10, ..]) => method(channel, 20, 11, &[0; 4]),
            (1, [0, 20, 0, 40, ..]) => method(channel, 20, 41, &[]),
            (1, [0, 85, 0, 10, ..]) => method(channel, 85, 11, &[]),
            (2, _) => {
                let whole = [&head[..], &rest].concat();
                note(seen, |seen| seen.attempts.push(attempt(&whole)));
                let tag = tags.entry(channel).or_default();
                *tag += 1;
                let arguments = [&tag.to_be_bytes()[..], &[0]].concat();
                let manner = *told.borrow_and_update();
                let ack = method(channel, 60, 80, &arguments);
                match manner {
                    Manner::Confirms => ack,
                    Manner::Refuses => method(channel, 60, 120, &arguments),
                    Manner::SaysNothing => continue,
                    Manner::IsInAlarm | Manner::HoldsBack => {
                        in_alarm = true;
                        let blocked = method(0, 10, 60, &[3, b'l', b'o', b'w']);
                        match manner {
                            Manner::IsInAlarm => [blocked, ack].concat(),
                            _ => blocked,
                        }
                    }
                    Manner::Leaves => return Ok(()),
                }
            }
            _ => continue,
        };
        write.write_all(&answer).await?;
    }
}

fn attempt(frame: &[u8]) -> i64 {
    let Ok((_, AMQPFrame::Header(_, header))) = parse_frame(frame) else {
        return 0;
    };
    let headers = header.properties.headers().clone().unwrap_or_default();
    match headers.inner().get("x-attempt") {
        Some(AMQPValue::LongLongInt(attempt)) => *attempt,
        _ => 0,
    }
}
