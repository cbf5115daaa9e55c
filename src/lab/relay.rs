//! A TCP relay that can be cut, made to swallow everything, and healed.
//!
//! What a peer sees: after [`Relay::cut`] its connections are reset and new ones are refused;
//! after [`Relay::black_hole`] connections stay open and nothing arrives any more, as with a
//! firewall that drops packets. New connections are accepted by the kernel in that state, and
//! then silent. After [`Relay::heal`] held-back bytes arrive, as TCP would have sent them again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::{LabError, ReservedPort};

/// Connections at one time; further ones wait in the listener's queue.
const MAX_CONNECTIONS: usize = 256;
const BUFFER_BYTES: usize = 16 * 1024;
/// Pause after a failed bind or accept.
const RETRY: Duration = Duration::from_millis(50);

/// Which way bytes flow through a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the connecting side to the target.
    ToTarget,
    /// From the target back to the connecting side.
    FromTarget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct State {
    cut: bool,
    hold_to_target: bool,
    hold_from_target: bool,
}

impl State {
    fn holds(self, direction: Direction) -> bool {
        match direction {
            Direction::ToTarget => self.hold_to_target,
            Direction::FromTarget => self.hold_from_target,
        }
    }
}

/// Forwards a port of its own on 127.0.0.1 to a target. Dropping it closes everything.
#[derive(Debug)]
pub struct Relay {
    port: ReservedPort,
    target: SocketAddr,
    state: watch::Sender<State>,
    /// Whether the listener is open, as the task last reported.
    listening: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts a relay to `target`, which need not listen yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// No free port, or it cannot be bound.
    pub async fn start(target: SocketAddr) -> Result<Self, LabError> {
        let port = ReservedPort::take()?;
        let address = port.address();
        let listener = TcpListener::bind(address)
            .await
            .map_err(LabError::io(format!("listen on {address}")))?;
        let (state, changes) = watch::channel(State::default());
        let (report, listening) = watch::channel(true);
        let task = tokio::spawn(run(listener, address, target, changes, report));
        Ok(Self {
            port,
            target,
            state,
            listening,
            task,
        })
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Where it forwards to.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Resets all connections and refuses new ones; returns when that is so.
    pub async fn cut(&self) {
        self.change(State {
            cut: true,
            ..State::default()
        })
        .await;
    }

    /// Stops forwarding in one direction, or both where `only` is `None`; connections stay open.
    pub async fn black_hole(&self, only: Option<Direction>) {
        self.change(State {
            cut: false,
            hold_to_target: only != Some(Direction::FromTarget),
            hold_from_target: only != Some(Direction::ToTarget),
        })
        .await;
    }

    /// Forwards again, and listens again where it had been cut.
    pub async fn heal(&self) {
        self.change(State::default()).await;
    }

    async fn change(&self, state: State) {
        self.state.send_replace(state);
        let mut listening = self.listening.clone();
        // Ends early only where the task is gone, and then nothing listens.
        let _ = listening.wait_for(|open| *open != state.cut).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        // The connections' tasks end because the sender of their state is gone.
    }
}

async fn run(
    first: TcpListener,
    address: SocketAddr,
    target: SocketAddr,
    mut state: watch::Receiver<State>,
    report: watch::Sender<bool>,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut listener = Some(first);
    loop {
        if state.borrow_and_update().cut {
            listener = None;
            report.send_replace(false);
            if state.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(open) = &listener else {
            match TcpListener::bind(address).await {
                Ok(bound) => {
                    listener = Some(bound);
                    report.send_replace(true);
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
            continue;
        };
        let accepted = tokio::select! {
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
            accepted = accept(open, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let state = state.clone();
                tokio::spawn(async move {
                    forward(stream, target, state).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, permit))
}

/// Forwards one connection until both sides have ended it, or the relay is cut or dropped.
async fn forward(mut client: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let connected = tokio::select! {
        server = TcpStream::connect(target) => server.ok(),
        () = gone(&mut state) => None,
    };
    let Some(mut server) = connected else {
        return reset(&client);
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let orderly = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let mut states = (state.clone(), state.clone());
        let to_target = pump(
            client_read,
            server_write,
            Direction::ToTarget,
            &mut states.0,
        );
        let from_target = pump(
            server_read,
            client_write,
            Direction::FromTarget,
            &mut states.1,
        );
        tokio::select! {
            ended = async { tokio::try_join!(to_target, from_target) } => ended.is_ok(),
            () = gone(&mut state) => false,
        }
    };
    if !orderly {
        reset(&client);
        reset(&server);
    }
}

/// Makes the close that follows a reset, as from a host that has lost the connection.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Copies one direction up to its end, pausing while it is held. What was read before the pause
/// is kept: TCP loses nothing.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    state: &mut watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        released(state, direction).await;
        let count = from.read(&mut buffer).await?;
        released(state, direction).await;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

/// Waits while the direction is held.
async fn released(state: &mut watch::Receiver<State>, direction: Direction) {
    // An error means that the relay was dropped: `gone` ends the connection.
    let _ = state.wait_for(|s| !s.holds(direction)).await;
}

/// Waits until the relay is cut or dropped.
async fn gone(state: &mut watch::Receiver<State>) {
    let _ = state.wait_for(|s| s.cut).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Generous: only a failing test waits this long.
    const LIMIT: Duration = Duration::from_secs(20);
    /// How long silence is watched for.
    const SILENCE: Duration = Duration::from_millis(150);

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn answer(stream: &mut TcpStream) -> io::Result<u8> {
        tokio::time::timeout(LIMIT, stream.read_u8()).await.unwrap()
    }

    #[tokio::test]
    async fn cut_resets_and_refuses_until_healed() {
        let relay = Relay::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        stream.write_u8(7).await.unwrap();
        assert_eq!(answer(&mut stream).await.unwrap(), 7);

        relay.cut().await;
        assert!(answer(&mut stream).await.is_err());
        assert!(TcpStream::connect(relay.address()).await.is_err());

        relay.heal().await;
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        stream.write_u8(8).await.unwrap();
        assert_eq!(answer(&mut stream).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn a_black_hole_holds_bytes_back_until_healed() {
        for only in [None, Some(Direction::ToTarget), Some(Direction::FromTarget)] {
            let relay = Relay::start(echo().await).await.unwrap();
            let mut stream = TcpStream::connect(relay.address()).await.unwrap();
            stream.write_u8(1).await.unwrap();
            assert_eq!(answer(&mut stream).await.unwrap(), 1);

            relay.black_hole(only).await;
            stream.write_u8(2).await.unwrap();
            let silent = tokio::time::timeout(SILENCE, stream.read_u8()).await;
            assert!(silent.is_err(), "{only:?}: {silent:?}");

            relay.heal().await;
            assert_eq!(answer(&mut stream).await.unwrap(), 2);
        }
    }

    #[tokio::test]
    async fn an_orderly_end_passes_through() {
        let relay = Relay::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        stream.write_all(b"last words").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(rest, b"last words");
    }
}
