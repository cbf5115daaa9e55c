//! Certificates made for one test. Shared with the tests in `tests/`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

/// A certificate with its key, as files.
pub struct Made {
    pub certificate: PathBuf,
    pub key: PathBuf,
    params: CertificateParams,
    pair: KeyPair,
}

/// What a certificate is made for.
#[derive(Clone, Copy, Default)]
pub struct Kind {
    /// An authority's, as `openssl req -x509` makes them.
    pub authority: bool,
    /// Expired on 2021-01-01.
    pub expired: bool,
}

/// Makes certificates in a folder.
pub struct Maker {
    folder: tempfile::TempDir,
}

impl Maker {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file with this text.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// One for these host names, with the first as common name, signed by `issuer` or by itself.
    pub fn make(&self, names: &[&str], kind: Kind, issuer: Option<&Made>) -> Made {
        let owned: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(owned).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        if kind.authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        } else {
            params.is_ca = IsCa::ExplicitNoCa;
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
        }
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        let year = if kind.expired { 2021 } else { 2100 };
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let pair = KeyPair::generate().unwrap();
        let certificate = match issuer {
            None => params.self_signed(&pair),
            Some(issuer) => {
                let issuer = Issuer::from_params(&issuer.params, &issuer.pair);
                params.signed_by(&pair, &issuer)
            }
        };
        let stem = format!("{}-{:x}", names[0], getrandom::u64().unwrap());
        Made {
            certificate: self.file(&format!("{stem}.pem"), certificate.unwrap().pem()),
            key: self.file(&format!("{stem}.key"), pair.serialize_pem()),
            params,
            pair,
        }
    }
}

impl Made {
    /// A TLS server that shows this certificate, and demands one of its clients where `clients` is
    /// their authority.
    pub fn server(&self, clients: Option<&Made>) -> tokio_rustls::TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                let authority = CertificateDer::from_pem_file(&authority.certificate);
                roots.add(authority.unwrap()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate).unwrap();
        let config = builder.with_single_cert(
            chain.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(&self.key).unwrap(),
        );
        Arc::new(config.unwrap()).into()
    }
}

/// What a file holds, as text.
pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
