//! The TLS side of a listener of ours: a certificate that can change while it is served.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::x509::Facts;
use super::{TlsClient, TlsError};

/// What is spoken over it.
const ALPN: &[u8] = b"http/1.1";

/// A certificate with its key for a listener. Its files are read when it is first used; clones
/// share what was read.
#[derive(Clone)]
pub struct TlsServer(Arc<Inner>);

struct Inner {
    /// Reads and checks the files; it never connects.
    files: TlsClient,
    live: RwLock<Option<Arc<CertifiedKey>>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Two are equal that would do the same.
impl PartialEq for TlsServer {
    fn eq(&self, other: &Self) -> bool {
        self.0.files == other.0.files
    }
}

impl Eq for TlsServer {}

impl TlsServer {
    /// One that shows the certificate of these files.
    #[must_use]
    pub fn new(files: TlsClient) -> Self {
        let live = RwLock::default();
        Self(Arc::new(Inner { files, live }))
    }

    /// Takes connections: TLS 1.2 and 1.3, HTTP/1.1.
    ///
    /// # Errors
    /// A file cannot be used; one error, the first.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        self.reload()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.0) as _);
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config).into())
    }

    /// Reads the files again: connections made from now on are shown what they hold now.
    ///
    /// # Errors
    /// As [`Self::acceptor`]; everything stays as it was then.
    pub fn reload(&self) -> Result<(), TlsError> {
        let identity = self.0.files.identity()?;
        *self.0.live.write().unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(())
    }

    /// Names and addresses that its certificate is for; none where it cannot be read.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        let identity = self.0.files.identity().ok().flatten();
        let facts = identity.and_then(|identity| Facts::of(identity.cert.first()?));
        facts.map(|facts| facts.hosts).unwrap_or_default()
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> &super::TlsFiles {
        self.0.files.files()
    }
}

impl ResolvesServerCert for Inner {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyNames, TlsFiles};
    use tandem_test_kit::certs::{Kind, Made, Maker};
    use tokio::net::{TcpListener, TcpStream};

    fn files(ca: Option<&Made>, own: Option<&Made>) -> TlsClient {
        let files = TlsFiles {
            ca_file: ca.map(|made| made.certificate.clone()),
            certificate_file: own.map(|made| made.certificate.clone()),
            private_key_file: own.map(|made| made.key.clone()),
        };
        TlsClient::new(files, KeyNames::ADMIN)
    }

    #[tokio::test]
    async fn a_new_certificate_is_shown_after_a_reload_and_a_broken_one_changes_nothing() {
        let maker = Maker::new();
        let first = maker.make(&["localhost"], Kind::default(), None);
        let second = maker.make(&["localhost", "127.0.0.1"], Kind::default(), None);
        let server = TlsServer::new(files(None, Some(&first)));
        let acceptor = server.acceptor().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let _ = acceptor.accept(tcp).await;
            }
        });
        let pinned = async |made: &Made| {
            let tcp = TcpStream::connect(address).await.unwrap();
            files(Some(made), None)
                .handshake(tcp, "localhost")
                .await
                .is_ok()
        };
        // What is pinned later stands in files of its own.
        let (one, two) = (maker.path("one.pem"), maker.path("two.pem"));
        std::fs::copy(&first.certificate, &one).unwrap();
        std::fs::copy(&second.certificate, &two).unwrap();
        let key = std::fs::read(&first.key).unwrap();
        assert!(pinned(&first).await && !pinned(&second).await);
        std::fs::write(&first.key, "no key").unwrap();
        assert!(
            server
                .reload()
                .unwrap_err()
                .to_string()
                .contains("admin.private-key-file")
        );
        assert!(pinned(&first).await);
        std::fs::copy(&second.certificate, &first.certificate).unwrap();
        std::fs::write(&first.key, key).unwrap();
        assert!(server.reload().is_err(), "the key of another certificate");
        std::fs::copy(&second.key, &first.key).unwrap();
        server.reload().unwrap();
        assert!(pinned(&second).await);
        assert_eq!(server.hosts(), ["localhost", "127.0.0.1"]);
    }
}
