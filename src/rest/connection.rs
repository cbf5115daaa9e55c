//! The entrance's own connections to the brokers: for commands, and for callbacks.

use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};

use crate::broker::guard;
use crate::net::{TlsClient, TlsError, amqp};
use crate::renewed::Renewed;

/// How a broker is reached.
#[derive(Clone)]
pub(super) struct Dial {
    /// `instance.id`, shown at the broker.
    pub(super) instance: String,
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

    /// Opens a connection for this purpose to the first address that gives one.
    ///
    /// # Errors
    /// Why the last address gave none.
    pub(super) async fn open(&self, dial: &Dial, purpose: &str) -> Result<Connection, String> {
        let mut why = "it has no address".to_owned();
        for uri in &self.uris().map_err(|error| error.to_string())? {
            let opened = tokio::time::timeout(dial.timeout, connect(dial, uri, purpose)).await;
            match opened.unwrap_or_else(|_| Err("not open in time".to_owned())) {
                Ok(connection) => return Ok(connection),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }
}

async fn connect(dial: &Dial, uri: &AMQPUri, purpose: &str) -> Result<Connection, String> {
    let (tls, limit) = (dial.tls.clone(), dial.timeout);
    // In a thread of the library's, that outlives the caller by no more than the same bound.
    let transport = async move |uri: AMQPUri, runtime: async_rs::TokioRuntime| {
        let stream = amqp::connect(&uri, &tls, &runtime, |_| Ok(()));
        let stream = tokio::time::timeout(limit, stream).await;
        Ok(stream.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?)
    };
    let name = format!("tandem/{}/{purpose}", dial.instance);
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into_bytes().into())
        .with_client_property("product".into(), b"tandem".to_vec().into());
    match guard::open(uri.clone(), properties, transport).await {
        Ok(connection) => Ok(connection),
        Err(error) => {
            let reason = amqp::reason(uri, &dial.tls, &error).await;
            guard::note(&error);
            Err(reason.unwrap_or_else(|| error.to_string()))
        }
    }
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
