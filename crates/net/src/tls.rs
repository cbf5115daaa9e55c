//! One TLS client for everything that connects: AMQP, the management API, the downstream and its
//! notification service.
//!
//! It trusts the system's authorities and, beside them, what a `…ca-file` holds. It shows a client
//! certificate where one is configured and the server asks for one.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, InconsistentKeys};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::verify::{Live, Trust};
use super::x509::Facts;
use super::{explain, pem};

const OTHER: io::ErrorKind = io::ErrorKind::Other;

/// Files that say whom to trust and who we are, all PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities to trust beside the system's; the very certificate of a server too.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, first, and those that lead from it to its authority.
    pub certificate_file: Option<PathBuf>,
    /// The key of that certificate, not encrypted.
    pub private_key_file: Option<PathBuf>,
}

/// What the files are called where they are configured: what a message tells to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyNames {
    /// Of [`TlsFiles::ca_file`].
    pub ca_file: &'static str,
    /// Of [`TlsFiles::certificate_file`].
    pub certificate_file: &'static str,
    /// Of [`TlsFiles::private_key_file`].
    pub private_key_file: &'static str,
}

impl KeyNames {
    /// For brokers and their management API.
    pub const BROKER: Self = Self {
        ca_file: "broker.ca-file",
        certificate_file: "broker.certificate-file",
        private_key_file: "broker.private-key-file",
    };
    /// For the downstream.
    pub const DOWNSTREAM: Self = Self {
        ca_file: "downstream.ca-file",
        certificate_file: "downstream.certificate-file",
        private_key_file: "downstream.private-key-file",
    };
    /// For the downstream's notification service.
    pub const NOTIFY: Self = Self {
        ca_file: "notify.ca-file",
        ..Self::DOWNSTREAM
    };
    /// For the admin listener.
    pub const ADMIN: Self = Self {
        ca_file: "--ca-file",
        certificate_file: "admin.certificate-file",
        private_key_file: "admin.private-key-file",
    };
    /// For the HTTP entrance.
    pub const REST: Self = Self {
        ca_file: "--ca-file",
        certificate_file: "rest.certificate-file",
        private_key_file: "rest.private-key-file",
    };
    /// For posted events; there are no client certificates.
    pub const CALLBACK: Self = Self {
        ca_file: "rest.callback.ca-file",
        certificate_file: "rest.callback.certificate-file",
        private_key_file: "rest.callback.private-key-file",
    };
    /// For options of the command line.
    pub const OPTIONS: Self = Self {
        ca_file: "--ca-file",
        certificate_file: "--certificate-file",
        private_key_file: "--private-key-file",
    };
}

/// Why no TLS settings could be made; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{key} {path}: {reason}", path = path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The TLS library refused the settings.
    #[error("TLS settings: {0}")]
    Library(String),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Library(error.to_string())
    }
}

/// A TLS client. Its files are read when it is first used; clones share what was read.
#[derive(Clone)]
pub struct TlsClient(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    names: KeyNames,
    verify: bool,
    built: Mutex<Option<Built>>,
}

#[derive(Clone)]
struct Built {
    config: Arc<ClientConfig>,
    live: Arc<Live>,
}

/// Two are equal that would do the same.
impl PartialEq for TlsClient {
    fn eq(&self, other: &Self) -> bool {
        let of = |client: &Self| (client.0.files.clone(), client.0.names, client.0.verify);
        of(self) == of(other)
    }
}

impl Eq for TlsClient {}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("files", &self.0.files)
            .field("verify", &self.0.verify)
            .finish_non_exhaustive()
    }
}

impl Default for TlsClient {
    /// Trusts the system's authorities, has no certificate of its own.
    fn default() -> Self {
        Self::new(TlsFiles::default(), KeyNames::BROKER)
    }
}

impl TlsClient {
    /// A client with these files. Nothing is read yet.
    #[must_use]
    pub fn new(files: TlsFiles, names: KeyNames) -> Self {
        Self::with(files, names, true)
    }

    /// The same, except that it takes every certificate where `verify` is false: for laboratories
    /// only.
    #[must_use]
    pub fn with(files: TlsFiles, names: KeyNames, verify: bool) -> Self {
        Self(Arc::new(Inner {
            files,
            names,
            verify,
            built: Mutex::default(),
        }))
    }

    /// Certificate and key as the files hold them now; `None` where they are not given.
    pub(super) fn identity(&self) -> Result<Option<Arc<CertifiedKey>>, TlsError> {
        self.0.identity()
    }

    /// Whether it has a certificate to show.
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        let files = &self.0.files;
        files.certificate_file.is_some() && files.private_key_file.is_some()
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> &TlsFiles {
        &self.0.files
    }

    /// Settings for the TLS library: TLS 1.2 and 1.3, no ALPN.
    ///
    /// # Errors
    /// A file cannot be used; one error, the first.
    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.built().map(|built| built.config)
    }

    /// Reads the files again: connections made from now on go by what they hold now, those of HTTP
    /// clients that exist already too.
    ///
    /// # Errors
    /// As [`Self::config`]; everything stays as it was then.
    pub fn reload(&self) -> Result<(), TlsError> {
        let (trust, identity) = self.0.read()?;
        if let Some(built) = &*self.0.lock() {
            built.live.replace(trust, identity);
        }
        Ok(())
    }

    fn built(&self) -> Result<Built, TlsError> {
        let mut slot = self.0.lock();
        if let Some(built) = &*slot {
            return Ok(built.clone());
        }
        let (trust, identity) = self.0.read()?;
        let live = Arc::new(Live::new(provider(), self.0.names, trust, identity));
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&live) as _)
            .with_client_cert_resolver(Arc::clone(&live) as _);
        let built = Built {
            config: Arc::new(config),
            live,
        };
        *slot = Some(built.clone());
        Ok(built)
    }

    /// Certificates of the files that are not valid now: which key, and which since when.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub fn check(&self) -> Result<Vec<(&'static str, String)>, Vec<TlsError>> {
        let (files, names) = (&self.0.files, self.0.names);
        let (trust, identity) = (self.0.authorities(), self.0.identity());
        let errors: Vec<TlsError> = [trust.as_ref().err(), identity.as_ref().err()]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = UnixTime::since_unix_epoch(seconds.unwrap_or_default());
        let of = |key, path: &Option<PathBuf>| {
            let bytes = path.as_deref().and_then(|path| pem::read(path).ok());
            let all = bytes.and_then(|bytes| pem::certificates(&bytes).ok());
            let facts = all.unwrap_or_default();
            let facts: Vec<Facts> = facts.iter().filter_map(Facts::of).collect();
            facts.into_iter().filter_map(move |facts| {
                let why = facts.untimely(now)?;
                Some((
                    key,
                    format!("the certificate {} in it {why}", facts.subject),
                ))
            })
        };
        let trusted = of(names.ca_file, &files.ca_file);
        Ok(trusted
            .chain(of(names.certificate_file, &files.certificate_file))
            .collect())
    }

    /// A TLS session with a host (an IPv6 address without brackets) over a connection to it.
    ///
    /// # Errors
    /// What went wrong, in words that name certificate, host and key.
    pub async fn handshake(&self, tcp: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| explain::said(OTHER, format!("{host} is no host name")))?;
        let config = self
            .config()
            .map_err(|error| explain::said(OTHER, error.to_string()))?;
        let connected = TlsConnector::from(config).connect(name, tcp).await;
        connected.map_err(|error| self.explained(error))
    }

    /// What a failure of TLS means, wherever it stands in this error's chain of causes; `None`
    /// where it is about something else.
    #[must_use]
    pub fn explain(&self, error: &(dyn Error + 'static)) -> Option<String> {
        let found = explain::find(error)?;
        Some(explain::words(found, self.0.names, self.own().as_ref()))
    }

    /// An error of a handshake in our words.
    #[must_use]
    pub fn explained(&self, error: io::Error) -> io::Error {
        match self.explain(&error) {
            Some(words) => explain::said(error.kind(), words),
            // Of a kind that is told apart from a connection lost later.
            None if error.kind() == io::ErrorKind::UnexpectedEof => explain::said(
                OTHER,
                "the connection was closed during the TLS handshake: is this a TLS port?",
            ),
            None => error,
        }
    }

    /// What a server may have meant that closed the connection right after the handshake without
    /// a word, as some do that miss a client certificate.
    #[must_use]
    pub fn silent_refusal(&self) -> String {
        match self.own() {
            Some(own) => format!(
                "it was closed after the TLS handshake: the server may refuse our certificate {}",
                own.subject
            ),
            None => format!(
                "it was closed after the TLS handshake: the server may demand a client certificate, see {} and {}",
                self.0.names.certificate_file, self.0.names.private_key_file
            ),
        }
    }

    /// Our certificate, where it was read already.
    fn own(&self) -> Option<Facts> {
        let built = self.0.lock().clone()?;
        Facts::of(built.live.identity()?.cert.first()?)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Option<Built>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Result<(Trust, Option<Arc<CertifiedKey>>), TlsError> {
        let trust = if self.verify {
            let (certificates, path) = (self.authorities()?, self.files.ca_file.as_deref());
            Trust::beside_the_systems(&provider(), certificates).map_err(|reason| {
                TlsError::File {
                    key: self.names.ca_file,
                    path: path.map(Path::to_owned).unwrap_or_default(),
                    reason,
                }
            })?
        } else {
            Trust::Everybody
        };
        Ok((trust, self.identity()?))
    }

    /// The certificates of the CA file; none without one.
    fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let Some(path) = &self.files.ca_file else {
            return Ok(Vec::new());
        };
        let read = pem::read(path).and_then(|bytes| pem::certificates(&bytes));
        let read = read.and_then(|found| {
            let odd = found.iter().position(|one| Facts::of(one).is_none());
            match odd {
                Some(at) => Err(format!("certificate {} cannot be read", at + 1)),
                None => Ok(found),
            }
        });
        read.map_err(|reason| TlsError::File {
            key: self.names.ca_file,
            path: path.clone(),
            reason,
        })
    }

    /// Certificate and key, where both are given.
    fn identity(&self) -> Result<Option<Arc<CertifiedKey>>, TlsError> {
        let (Some(certificate_file), Some(key_file)) =
            (&self.files.certificate_file, &self.files.private_key_file)
        else {
            return Ok(None);
        };
        let bad_certificate = |reason| TlsError::File {
            key: self.names.certificate_file,
            path: certificate_file.clone(),
            reason,
        };
        let bad_key = |reason| TlsError::File {
            key: self.names.private_key_file,
            path: key_file.clone(),
            reason,
        };
        let bytes = pem::read(certificate_file).map_err(bad_certificate)?;
        let chain = pem::certificates(&bytes).map_err(bad_certificate)?;
        let subject = chain.first().and_then(Facts::of).map(|facts| facts.subject);
        let subject = subject
            .ok_or_else(|| bad_certificate("its first certificate cannot be read".into()))?;
        let bytes = pem::read(key_file).map_err(bad_key)?;
        let key = pem::private_key(&bytes).map_err(bad_key)?;
        match CertifiedKey::from_der(chain, key, &provider()) {
            Ok(identity) => Ok(Some(Arc::new(identity))),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                Err(bad_key(format!(
                    "the key does not belong to {subject}, the first certificate of {}",
                    certificate_file.display()
                )))
            }
            Err(error) => Err(bad_key(format!("the key cannot be used: {error}"))),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests;
