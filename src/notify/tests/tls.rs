//! The same over TLS, with a certificate made for these tests only.

use std::sync::Arc;

use super::*;

const CERTIFICATE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/notify/testdata/localhost.pem"
);
const KEY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/notify/testdata/localhost.key"
);

fn acceptor() -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(CERTIFICATE).unwrap()],
            PrivateKeyDer::from_pem_file(KEY).unwrap(),
        )
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

async fn raw_accept(service: &Service) -> TcpStream {
    timeout(PATIENCE, service.listener.accept())
        .await
        .unwrap()
        .unwrap()
        .0
}

#[tokio::test]
async fn direct_tls_works_with_a_trusted_certificate() {
    let mut service = Service::new().await;
    let files = TlsFiles {
        ca_file: Some(CERTIFICATE.into()),
        ..TlsFiles::default()
    };
    service.spec.tls = Tls::Direct(TlsClient::new(files, KeyNames::NOTIFY));
    let subscription = subscribe(service.spec.clone(), 7, service.sink.clone());
    let tls = acceptor().accept(raw_accept(&service).await).await.unwrap();
    let mut peer = Peer {
        io: Box::new(tls),
        seen: String::new(),
    };
    peer.login().await;
    assert_eq!(service.next().await, Happening::Up);
    drop(subscription);
    peer.until("</stream:stream>").await;
}

#[tokio::test]
async fn an_untrusted_certificate_is_unreachable() {
    let mut service = Service::new().await;
    service.spec.tls = Tls::Direct(TlsClient::default());
    let _subscription = subscribe(service.spec.clone(), 7, service.sink.clone());
    assert!(acceptor().accept(raw_accept(&service).await).await.is_err());
    let happening = service.next().await;
    assert!(
        matches!(&happening, Happening::Unreachable { reason } if reason.contains("TLS failed")),
        "{happening:?}"
    );
}

#[tokio::test]
async fn starttls_is_used_where_offered() {
    const OFFER: &str = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>";
    let mut service = Service::new().await;
    let subscription = subscribe(service.spec.clone(), 7, service.sink.clone());
    let mut socket = raw_accept(&service).await;
    let mut peer = Peer {
        io: Box::new(&mut socket),
        seen: String::new(),
    };
    peer.greet(OFFER).await;
    peer.until("xmpp-tls").await;
    peer.until(">").await;
    peer.send("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        .await;
    drop(peer);
    let tls = acceptor().accept(socket).await.unwrap();
    let mut peer = Peer {
        io: Box::new(tls),
        seen: String::new(),
    };
    peer.login().await;
    assert_eq!(service.next().await, Happening::Up);
    drop(subscription);
}
