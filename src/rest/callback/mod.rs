//! Events of a destination are posted to the URL that its client has named.
//!
//! ```text
//!   Hello, Connect ──▶ entrance ── registration ──▶ <cluster>.events ──▶ <cluster>.callbacks   (who is called where)
//!                         └─ declares and binds ─▶ <cluster>.callback.<destination>            (events that wait)
//!
//!   one instance a broker holds the registry: Keeper ── one Worker a destination ──▶ POST, then ack
//! ```
//!
//! Everything that must outlive an instance is kept by the broker. Registrations are messages that
//! the keeper holds without acknowledging them: when it is gone, whatever the way, the broker gives
//! them to the next one, and with them what was not posted yet. Both queues have one active
//! consumer at a time, so that the events of a destination are posted in order and by one instance.
//!
//! A destination is at home at the broker that its client's last Hello or Connect went to. The
//! others learn of it by federation and stand by: they collect its events too, and let each go by
//! after a while. Where the home is lost, the keeper of another broker says so by a registration of
//! its own, as if the client had said Hello there, and posts from its queue what was made since.
//! Where a broker was its home before, it posts what is left and lets go.

mod address;
mod chores;
mod existing;
mod home;
mod keeper;
mod names;
mod objects;
mod post;
mod sign;
mod tally;
mod warned;
mod worker;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::connection::{BadConfig, Broker};
use super::publisher::PublisherConfig;
use crate::clock::wall_ms;
use crate::model::Secret;
use crate::net::TlsClient;
use crate::renewed::Renewed;
use keeper::Keeper;
use post::Poster;

pub use address::{Addresses, Allowed};
pub(crate) use existing::{CURE, Difference, listed};
pub use objects::Objects;
pub(super) use objects::Registration;
pub(super) use post::bearer_header;
pub use tally::{Callbacks, Row as CallbackRow};

/// Destinations that are posted from one broker; beyond it the one that was silent longest is let
/// go.
const DESTINATIONS: usize = 500;
/// Ids of events that are remembered a destination: a copy by another broker is not posted again.
const RECENT: usize = 256;

/// How events are posted.
#[derive(Debug, Clone)]
pub struct CallbackConfig {
    /// What is kept at the brokers.
    pub objects: Objects,
    /// Where they may be posted.
    pub addresses: Addresses,
    /// Bearer token of every request; `None`: there is none.
    pub token: Renewed<Option<Secret>>,
    /// Key by which every request is signed; `None`: it is not.
    pub sign_key: Renewed<Option<Secret>>,
    /// Bound of one request.
    pub timeout: Duration,
    /// An event older than this is not tried any more.
    pub max_age: Duration,
    /// Certificates.
    pub tls: TlsClient,
}

/// What the keepers of all brokers share.
#[derive(Debug)]
struct Shared {
    objects: Objects,
    poster: Poster,
    max_age: Duration,
    tally: Callbacks,
    recent: Mutex<HashMap<String, VecDeque<String>>>,
    /// Brokers that cannot be had from here, and since when, milliseconds since the epoch. Those of
    /// the list.
    lost: Mutex<HashMap<String, u64>>,
}

impl Shared {
    /// Whether this event of a destination was dealt with before.
    fn knows(&self, destination: &str, id: &str) -> bool {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = recent.get(destination);
        known.is_some_and(|known| known.iter().any(|one| one == id))
    }

    /// A broker's session has ended, or there can be none.
    fn lost(&self, broker: &str) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.entry(broker.to_owned()).or_insert_with(wall_ms);
    }

    fn found(&self, broker: &str) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.remove(broker);
    }

    fn lost_since(&self, broker: &str) -> Option<u64> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.get(broker).copied()
    }

    fn note(&self, destination: &str, id: &str) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= 2 * DESTINATIONS && !recent.contains_key(destination) {
            recent.clear();
        }
        let known = recent.entry(destination.to_owned()).or_default();
        if known.len() >= RECENT {
            known.pop_front();
        }
        known.push_back(id.to_owned());
    }
}

/// Posts events, at every broker of the list.
pub(super) struct Posting {
    keepers: Vec<Keeper>,
}

impl Posting {
    /// # Errors
    /// A broker URL or certificate that cannot be read.
    pub(super) fn new(
        config: &CallbackConfig,
        publisher: &PublisherConfig,
        tally: Callbacks,
    ) -> Result<Self, BadConfig> {
        let shared = Arc::new(Shared {
            objects: config.objects.clone(),
            poster: Poster::new(config)?,
            max_age: config.max_age,
            tally,
            recent: Mutex::default(),
            lost: Mutex::default(),
        });
        let keeper = |broker| Keeper::new(broker, publisher.dial(), Arc::clone(&shared));
        let brokers = Broker::all(&publisher.brokers, publisher.heartbeat)?;
        Ok(Self {
            keepers: brokers.into_iter().map(keeper).collect(),
        })
    }

    /// Goes on until it is told to stop, and then for what is being posted.
    pub(super) async fn run(self, stop: CancellationToken) {
        let keepers = self.keepers.into_iter();
        let keepers = keepers.map(|keeper| keeper.run(stop.clone()));
        futures::future::join_all(keepers).await;
    }
}
