//! For tests: names that resolve to what a test says, addresses that swallow connections, and
//! certificates of every kind.

pub(crate) mod certs;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// Names that tests have taught, with their addresses.
static NAMES: LazyLock<Mutex<HashMap<String, Vec<IpAddr>>>> = LazyLock::new(Mutex::default);

/// A name of its own with these addresses, in this order.
pub(crate) fn teach(addresses: &[&str]) -> String {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let name = format!("taught-{}.test", names.len());
    let addresses = addresses.iter().map(|text| text.parse().unwrap());
    names.insert(name.clone(), addresses.collect());
    name
}

/// What a name was taught to mean.
pub(super) fn addresses(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = names.get(host)?;
    Some(known.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
}

/// A port that answers no connection: its queue of connections to be accepted is full.
pub(crate) struct BlackHole {
    address: SocketAddr,
    _held: Vec<socket2::Socket>,
}

impl BlackHole {
    pub(crate) async fn open(ip: &str) -> Self {
        let socket = |address: SocketAddr| {
            let domain = socket2::Domain::for_address(address);
            socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap()
        };
        let address = SocketAddr::new(ip.parse().unwrap(), 0);
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

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}
