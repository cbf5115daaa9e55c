//! The library's idea of a runtime, whose connections are guarded.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{FRAME_MAX, Guard, Transport};
use async_rs::Tokio;
use async_rs::traits::Reactor;
use futures::Stream;
use futures::io::{AsyncRead, AsyncWrite};

/// tokio with another type of connection.
#[derive(Debug, Clone)]
pub(super) struct Guarded(pub(super) Tokio);

impl Reactor for Guarded {
    type TcpStream = Guard<Transport>;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Not used: the library reads and writes what its connector gives it.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Guard<Transport>, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connected = self.0.tcp_connect_addr(address);
        async move {
            let transport = connected.await?.into_inner();
            Ok(Guard::new(transport.into(), FRAME_MAX))
        }
    }
}
