//! For tests: names that resolve to what a test says, addresses that swallow connections, and
//! certificates of every kind.

pub(crate) mod certs;
pub(crate) mod hole;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{LazyLock, Mutex, PoisonError};

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
