//! The entrance's own connections to the brokers: for commands, and for callbacks.

use std::time::Duration;

use lapin::ConnectionProperties;
use lapin::uri::AMQPUri;

use crate::broker::cut::{self, CutConnection, How};
use crate::broker::{Identity, guard};
use crate::net::{TlsClient, TlsError, amqp, dial};
use crate::renewed::Renewed;

/// How a broker is reached.
#[derive(Clone)]
pub(super) struct Dial {
    /// Shown at the broker.
    pub(super) identity: Identity,
    /// Bound of one connect-and-open, for each address.
    pub(super) timeout: Duration,
    /// Certificates.
    pub(super) tls: TlsClient,
}

/// Why there can be no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadConfig {
    #[error("broker {0}: {1}")]
    Uri(String, &'static str),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("HTTP client: {0}")]
    Http(String),
}

/// A broker: one address, or those of a cluster's nodes. Its user and password are those of the time
/// when a connection is opened.
#[derive(Clone)]
pub(super) struct Broker {
    /// URIs and labels of all brokers, and which of them it is.
    all: Renewed<Vec<(String, String)>>,
    index: usize,
    heartbeat: Duration,
    /// What it is called.
    pub(super) label: String,
}

impl Broker {
    /// Each of these, which are `(URI, label)`.
    pub(super) fn all(
        all: &Renewed<Vec<(String, String)>>,
        heartbeat: Duration,
    ) -> Result<Vec<Self>, BadConfig> {
        let brokers = all.get();
        let each = brokers.iter().enumerate().map(|(index, (_, label))| {
            let broker = Self {
                all: all.clone(),
                index,
                heartbeat,
                label: label.clone(),
            };
            broker.uris()?;
            Ok(broker)
        });
        each.collect()
    }

    fn uris(&self) -> Result<Vec<AMQPUri>, BadConfig> {
        let seconds = u16::try_from(self.heartbeat.as_secs()).unwrap_or(60).max(1);
        let all = self.all.get();
        let text = all.get(self.index).map_or("", |(uri, _)| uri.as_str());
        let bad = |reason| BadConfig::Uri(self.label.clone(), reason);
        let mut uris = amqp::uris(text).map_err(bad)?;
        for uri in &mut uris {
            uri.query.heartbeat = Some(seconds);
        }
        Ok(uris)
    }

    /// Opens a connection for this purpose to the first address that gives one: each is tried for
    /// the bound of one connect-and-open, the next one a little later beside it. Dropping the future
    /// cuts what was begun.
    ///
    /// # Errors
    /// Why no address gave one.
    pub(super) async fn open(&self, dial: &Dial, purpose: &str) -> Result<CutConnection, String> {
        let uris = self.uris().map_err(|error| error.to_string())?;
        let how = How {
            tls: dial.tls.clone(),
            limit: dial.timeout,
            heartbeat: self.heartbeat,
        };
        let attempt = |at: usize| {
            let opening = connect(&uris[at], &how, dial.identity.properties(purpose));
            async {
                let opened = tokio::time::timeout(dial.timeout, opening).await;
                opened.unwrap_or_else(|_| Err("not open in time".to_owned()))
            }
        };
        match dial::in_turn(uris.len(), dial::NODE_DELAY, attempt, |_| false).await {
            Ok((_, connection)) => Ok(connection),
            Err(failures) => {
                let named = failures.into_iter();
                let named = named.map(|(at, why)| (amqp::label(&uris[at]), why));
                Err(dial::in_words(uris.len() == 1, named))
            }
        }
    }
}

async fn connect(
    uri: &AMQPUri,
    how: &How,
    properties: ConnectionProperties,
) -> Result<CutConnection, String> {
    let opened = cut::open(uri, how, properties).await;
    opened.map_err(|not| {
        guard::note(&not.error);
        not.reason.unwrap_or_else(|| not.error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_one_broker_with_several_addresses() {
        let text = "amqp://u:p@127.0.0.1:5672,127.0.0.1:5673/%2f".to_owned();
        let all = Renewed::new(vec![(text, "b".to_owned())]);
        let brokers = Broker::all(&all, Duration::from_secs(2));
        let brokers = brokers.ok().unwrap();
        assert_eq!(brokers[0].uris().ok().unwrap().len(), 2);
    }

    #[test]
    fn a_new_password_counts_for_the_next_connection() {
        let named = |password: &str| {
            let each = ["a", "b"].map(|host| (format!("amqp://u:{password}@{host}"), host.into()));
            each.to_vec()
        };
        let all = Renewed::new(named("old"));
        let brokers = Broker::all(&all, Duration::from_secs(2)).ok().unwrap();
        all.set(named("new"));
        for (broker, host) in brokers.iter().zip(["a", "b"]) {
            let uri = broker.uris().ok().unwrap().remove(0);
            let user = &uri.authority.userinfo;
            assert_eq!(
                (uri.authority.host.as_str(), user.password.as_str()),
                (host, "new")
            );
        }
    }
}
