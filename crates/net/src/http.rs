//! Names of HTTP servers that have several addresses.
//!
//! The HTTP library tries the two families beside each other, but addresses of one family one
//! after the other, each for its share of the time for connecting. So that only the first
//! connection pays for an address that does not answer, the one that answered last comes first.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::Response;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::dial;

/// Hosts whose address is remembered; at the bound all are forgotten.
const MAX_HOSTS: usize = 64;

/// Resolves names for one HTTP client. Clones share what they remember.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// By host, where its last answer came from.
    good: Arc<Mutex<HashMap<String, IpAddr>>>,
    /// Hosts that the system is not asked for.
    taught: Arc<HashMap<String, Vec<IpAddr>>>,
}

impl Addresses {
    /// These hosts have these addresses; the system is asked for all others. For tests: no name of
    /// a machine has two addresses of one family.
    #[must_use]
    pub fn taught(hosts: HashMap<String, Vec<IpAddr>>) -> Self {
        Self {
            taught: Arc::new(hosts),
            ..Self::default()
        }
    }

    /// Remembers the address that an answer came from.
    pub fn note(&self, response: &Response) {
        let (Some(host), Some(from)) = (response.url().host_str(), response.remote_addr()) else {
            return;
        };
        let mut known = self.lock();
        if known.get(host) == Some(&from.ip()) {
            return;
        }
        if known.len() >= MAX_HOSTS {
            known.clear();
        }
        known.insert(host.to_owned(), from.ip());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, IpAddr>> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolve for Addresses {
    fn resolve(&self, name: Name) -> Resolving {
        let good = self.lock().get(name.as_str()).copied();
        let taught = self.taught.get(name.as_str()).cloned();
        Box::pin(async move {
            // The library puts in the port.
            let address = |ip| SocketAddr::new(ip, 0);
            let mut all = match taught {
                Some(ips) => {
                    dial::worth_trying(name.as_str(), ips.into_iter().map(address).collect())?
                }
                None => dial::resolve(name.as_str(), 0).await?,
            };
            all.sort_by_key(|address: &SocketAddr| good != Some(address.ip()));
            Ok(Box::new(all.into_iter()) as Addrs)
        })
    }
}
