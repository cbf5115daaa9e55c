//! For tests: names that resolve to what a test says, addresses that swallow connections, and
//! certificates of every kind.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};

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

/// A certificate with its key, as files.
pub(crate) struct Made {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    params: CertificateParams,
    pair: KeyPair,
}

/// What a certificate is made for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Kind {
    /// An authority's, as `openssl req -x509` makes them.
    pub(crate) authority: bool,
    /// Expired on 2021-01-01.
    pub(crate) expired: bool,
}

/// Makes certificates in a folder.
pub(crate) struct Maker {
    folder: tempfile::TempDir,
}

impl Maker {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file with this text.
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// One for these host names, with the first as common name, signed by `issuer` or by itself.
    pub(crate) fn make(&self, names: &[&str], kind: Kind, issuer: Option<&Made>) -> Made {
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
    /// A TLS server that shows this certificate.
    pub(crate) fn server(&self) -> tokio_rustls::TlsAcceptor {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let chain = CertificateDer::pem_file_iter(&self.certificate).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                chain.map(Result::unwrap).collect(),
                PrivateKeyDer::from_pem_file(&self.key).unwrap(),
            );
        std::sync::Arc::new(config.unwrap()).into()
    }
}

/// What a file holds, as text.
pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
