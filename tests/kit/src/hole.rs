//! An address that swallows connections. Shared with the tests in `tests/`.

use std::net::SocketAddr;
use std::time::Duration;

/// A port that answers no connection: its queue of connections to be accepted is full.
pub struct BlackHole {
    address: SocketAddr,
    _held: Vec<socket2::Socket>,
}

impl BlackHole {
    /// On any port of this address.
    pub async fn open(ip: &str) -> Self {
        Self::at(SocketAddr::new(ip.parse().unwrap(), 0)).await
    }

    /// At this place.
    pub async fn at(address: SocketAddr) -> Self {
        let socket = |address: SocketAddr| {
            let domain = socket2::Domain::for_address(address);
            socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap()
        };
        let listener = socket(address);
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut held = vec![listener];
        // Until one is not answered any more.
        loop {
            let short = Duration::from_millis(200);
            let probe = tokio::net::TcpStream::connect(address);
            match tokio::time::timeout(short, probe).await {
                Ok(connected) => held.push(socket2::Socket::from(
                    connected.unwrap().into_std().unwrap(),
                )),
                Err(_) => break,
            }
            assert!(held.len() < 64, "the queue is never full");
        }
        Self {
            address,
            _held: held,
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}
