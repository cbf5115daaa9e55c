//! Whether a server's certificate is believed, and which certificate of ours it is shown.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use super::KeyNames;
use super::x509::{Facts, date};

/// Whom a client trusts.
pub(super) enum Trust {
    /// Anybody: laboratories only. Signatures are still checked, so the peer owns its key.
    Everybody,
    /// Who has a certificate of one of the authorities, or shows one of these certificates.
    These {
        /// `None` where there is no authority at all.
        authorities: Option<Arc<WebPkiServerVerifier>>,
        /// Believed as they stand, whoever signed them. The library refuses an authority's
        /// certificate as a server's own (RFC 5280, 4.2.1.9), which is what `openssl req -x509`
        /// makes.
        pinned: Vec<CertificateDer<'static>>,
    },
}

impl Trust {
    /// The system's authorities and these certificates. Why one of these cannot be used, else.
    pub(super) fn beside_the_systems(
        provider: &Arc<CryptoProvider>,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        // None at all is no error here: servers that are reached in plain need none.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for (at, certificate) in certificates.iter().enumerate() {
            // What says that it is no authority's may not sign others.
            if Facts::of(certificate).is_some_and(|facts| facts.authority == Some(false)) {
                continue;
            }
            roots
                .add(certificate.clone())
                .map_err(|error| format!("certificate {} cannot be used: {error}", at + 1))?;
        }
        let authorities = if roots.is_empty() {
            None
        } else {
            let builder =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            Some(builder.build().map_err(|error| error.to_string())?)
        };
        Ok(Self::These {
            authorities,
            pinned: certificates,
        })
    }
}

/// The part of a client that can change while it is used.
pub(super) struct Live {
    provider: Arc<CryptoProvider>,
    names: KeyNames,
    trust: RwLock<Arc<Trust>>,
    identity: RwLock<Option<Arc<CertifiedKey>>>,
}

impl Live {
    pub(super) fn new(
        provider: Arc<CryptoProvider>,
        names: KeyNames,
        trust: Trust,
        identity: Option<Arc<CertifiedKey>>,
    ) -> Self {
        Self {
            provider,
            names,
            trust: RwLock::new(Arc::new(trust)),
            identity: RwLock::new(identity),
        }
    }

    pub(super) fn replace(&self, trust: Trust, identity: Option<Arc<CertifiedKey>>) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
        *self
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner) = identity;
    }

    pub(super) fn identity(&self) -> Option<Arc<CertifiedKey>> {
        let identity = self.identity.read().unwrap_or_else(PoisonError::into_inner);
        identity.clone()
    }

    fn trust(&self) -> Arc<Trust> {
        let trust = self.trust.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&trust)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl ResolvesClientCert for Live {
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        // Shown whichever authorities the server names: its answer says more than our silence.
        let identity = self.identity()?;
        identity.key.choose_scheme(schemes)?;
        Some(identity)
    }

    fn has_certs(&self) -> bool {
        self.identity().is_some()
    }
}

impl ServerCertVerifier for Live {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let trust = self.trust();
        let Trust::These {
            authorities,
            pinned,
        } = &*trust
        else {
            return Ok(ServerCertVerified::assertion());
        };
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let checked = match authorities {
            None => Err(unknown),
            Some(all) => {
                all.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        };
        let error = match checked {
            Ok(believed) => return Ok(believed),
            Err(_) if pinned.iter().any(|pin| pin == end_entity) => {
                match pinned_is_good(end_entity, server_name, now) {
                    Ok(()) => return Ok(ServerCertVerified::assertion()),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let chain = [std::slice::from_ref(end_entity), intermediates].concat();
        Err(refusal(error, &chain, server_name, self.names))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// What is left to check of a certificate that is believed as it stands: its time and its names.
fn pinned_is_good(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let facts = Facts::of(certificate).ok_or(CertificateError::BadEncoding)?;
    if let Some(why) = facts.untimely(now) {
        return Err(said(format!(
            "the server's certificate {} {why}",
            facts.subject
        )));
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

/// Why a certificate is not believed: an error of the TLS library, for [`super::explain`].
#[derive(Debug)]
pub(super) struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refusal {}

fn said(words: String) -> rustls::Error {
    let refusal: Arc<dyn Error + Send + Sync> = Arc::new(Refusal(words));
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(refusal)))
}

/// The library's error with which certificate, which name, since when.
fn refusal(
    error: rustls::Error,
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    names: KeyNames,
) -> rustls::Error {
    let rustls::Error::InvalidCertificate(why) = &error else {
        return error;
    };
    let facts: Vec<Facts> = chain.iter().filter_map(Facts::of).collect();
    let Some(leaf) = facts.first() else {
        return error;
    };
    let subject = format!("the server's certificate {}", leaf.subject);
    // An intermediate one may be the one that is out of date.
    let which = |has: &dyn Fn(&Facts) -> bool| match facts.iter().position(has) {
        None | Some(0) => subject.clone(),
        Some(at) => format!(
            "{} of the server's chain of certificates",
            facts[at].subject
        ),
    };
    let ca_file = names.ca_file;
    match why {
        // Ours already.
        CertificateError::Other(OtherError(inner)) if inner.is::<Refusal>() => error,
        CertificateError::ExpiredContext { not_after, .. } => {
            let end = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX);
            let which = which(&|one: &Facts| one.not_after == end);
            said(format!("{which} expired on {}", date(end)))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let begin = i64::try_from(not_before.as_secs()).unwrap_or(i64::MAX);
            let now = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            let which = which(&|one: &Facts| one.not_before == begin);
            said(format!(
                "{which} is valid from {} only, and this machine's clock says {}",
                date(begin),
                date(now)
            ))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            said(format!(
                "{subject} is not for {}, but {}",
                host(name),
                hosts(leaf)
            ))
        }
        CertificateError::UnknownIssuer if leaf.signed_itself => said(format!(
            "{subject} is signed by itself and is not trusted: put exactly this certificate into {ca_file} if it is the right one"
        )),
        CertificateError::UnknownIssuer => said(format!(
            "{subject} was issued by {}, which neither the system nor {ca_file} trusts",
            facts.last().unwrap_or(leaf).issuer
        )),
        CertificateError::Other(_) if leaf.authority == Some(true) => said(format!(
            "{subject} is an authority's, not a server's: put exactly this certificate into {ca_file} if it is the right one, or give the server one that is not"
        )),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => said(
            format!("{subject} is not meant for servers (extended key usage)"),
        ),
        other => said(format!("{subject} cannot be used: {other}")),
    }
}

fn host(name: &ServerName<'_>) -> String {
    match name {
        ServerName::IpAddress(ip) => IpAddr::from(*ip).to_string(),
        named => named.to_str().into_owned(),
    }
}

fn hosts(facts: &Facts) -> String {
    if facts.hosts.is_empty() {
        return "names no host at all (subjectAltName; the common name does not count)".to_owned();
    }
    format!("for {}", facts.hosts.join(", "))
}
