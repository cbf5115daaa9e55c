//! Servers with certificates of every kind, and what a client says of them.

use tokio::net::TcpListener;

use super::*;
use tandem_test_kit::certs::{Kind, Made, Maker, text};

const AUTHORITY: Kind = Kind {
    authority: true,
    expired: false,
};
const USUAL: Kind = Kind {
    authority: false,
    expired: false,
};

fn client(ca_file: Option<&Path>) -> TlsClient {
    let files = TlsFiles {
        ca_file: ca_file.map(Path::to_owned),
        ..TlsFiles::default()
    };
    TlsClient::new(files, KeyNames::BROKER)
}

/// A client's verdict on a server that it reaches under this name.
async fn verdict(server: &Made, client: &TlsClient, name: &str) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = server.server(None);
    let served = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let _ = acceptor.accept(tcp).await;
    });
    let tcp = TcpStream::connect(address).await.unwrap();
    let result = client.handshake(tcp, name).await;
    served.abort();
    result.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_private_authority_is_trusted_and_a_stranger_is_named() {
    let maker = Maker::new();
    let authority = maker.make(&["Site CA"], AUTHORITY, None);
    let server = maker.make(&["localhost", "::1"], USUAL, Some(&authority));
    let trusting = client(Some(&authority.certificate));
    assert_eq!(verdict(&server, &trusting, "localhost").await, Ok(()));
    assert_eq!(verdict(&server, &trusting, "::1").await, Ok(()));
    let said = verdict(&server, &client(None), "localhost")
        .await
        .unwrap_err();
    for part in ["CN=localhost", "issued by CN=Site CA", "broker.ca-file"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn a_wrong_name_is_told_with_those_that_would_be_right() {
    let maker = Maker::new();
    let authority = maker.make(&["Site CA"], AUTHORITY, None);
    let server = maker.make(&["rabbit-1", "10.0.0.7"], USUAL, Some(&authority));
    let trusting = client(Some(&authority.certificate));
    let said = verdict(&server, &trusting, "127.0.0.1").await.unwrap_err();
    let wanted =
        "the server's certificate CN=rabbit-1 is not for 127.0.0.1, but for rabbit-1, 10.0.0.7";
    assert_eq!(said, wanted);
}

#[tokio::test]
async fn an_expired_certificate_is_told_with_its_date_whoever_of_the_chain_it_is() {
    let maker = Maker::new();
    let expired = Kind {
        expired: true,
        ..USUAL
    };
    let authority = maker.make(&["Site CA"], AUTHORITY, None);
    let server = maker.make(&["localhost"], expired, Some(&authority));
    let trusting = client(Some(&authority.certificate));
    let said = verdict(&server, &trusting, "localhost").await.unwrap_err();
    let wanted = "the server's certificate CN=localhost expired on 2021-01-01 00:00:00 UTC";
    assert_eq!(said, wanted);
    let between = Kind {
        expired: true,
        ..AUTHORITY
    };
    let between = maker.make(&["Between CA"], between, Some(&authority));
    let mut server = maker.make(&["localhost"], USUAL, Some(&between));
    let chain = text(&server.certificate) + &text(&between.certificate);
    server.certificate = maker.file("chain.pem", chain);
    let said = verdict(&server, &trusting, "localhost").await.unwrap_err();
    assert!(
        said.contains("CN=Between CA") && said.contains("expired on 2021"),
        "{said}"
    );
}

#[tokio::test]
async fn the_very_certificate_of_a_server_is_trusted_but_for_name_and_time() {
    let maker = Maker::new();
    // As `openssl req -x509` makes them: an authority's, which no server should have.
    let server = maker.make(&["localhost"], AUTHORITY, None);
    let pinning = client(Some(&server.certificate));
    assert_eq!(verdict(&server, &pinning, "localhost").await, Ok(()));
    let said = verdict(&server, &pinning, "127.0.0.1").await.unwrap_err();
    assert!(
        said.contains("is not for 127.0.0.1, but for localhost"),
        "{said}"
    );
    let said = verdict(&server, &client(None), "localhost")
        .await
        .unwrap_err();
    assert!(
        said.contains("exactly this certificate into broker.ca-file"),
        "{said}"
    );

    let expired = Kind {
        expired: true,
        ..AUTHORITY
    };
    let server = maker.make(&["localhost"], expired, None);
    let pinning = client(Some(&server.certificate));
    let said = verdict(&server, &pinning, "localhost").await.unwrap_err();
    assert!(said.contains("expired on 2021-01-01"), "{said}");
}

#[tokio::test]
async fn a_servers_certificate_of_an_unknown_authority_is_trusted_where_it_is_in_the_file() {
    let maker = Maker::new();
    let authority = maker.make(&["Site CA"], AUTHORITY, None);
    let server = maker.make(&["localhost"], USUAL, Some(&authority));
    let other = maker.make(&["localhost"], USUAL, Some(&authority));
    let pinning = client(Some(&server.certificate));
    assert_eq!(verdict(&server, &pinning, "localhost").await, Ok(()));
    assert!(verdict(&other, &pinning, "localhost").await.is_err());
}

/// Who holds the key of a server must not become an authority by that.
#[tokio::test]
async fn a_pinned_certificate_that_is_no_authoritys_vouches_for_nobody() {
    let maker = Maker::new();
    let server = maker.make(&["localhost"], USUAL, None);
    let forged = maker.make(&["localhost"], USUAL, Some(&server));
    let pinning = client(Some(&server.certificate));
    assert_eq!(verdict(&server, &pinning, "localhost").await, Ok(()));
    assert!(verdict(&forged, &pinning, "localhost").await.is_err());
}

#[tokio::test]
async fn a_file_that_was_read_again_counts_for_what_exists_already() {
    let maker = Maker::new();
    let (one, two) = (
        maker.make(&["One CA"], AUTHORITY, None),
        maker.make(&["Two CA"], AUTHORITY, None),
    );
    let server = maker.make(&["localhost"], USUAL, Some(&two));
    let ca_file = maker.file("ca.pem", text(&one.certificate));
    let client = client(Some(&ca_file));
    assert!(verdict(&server, &client, "localhost").await.is_err());
    maker.file("ca.pem", "damaged");
    assert!(client.reload().is_err());
    maker.file("ca.pem", text(&two.certificate));
    client.reload().unwrap();
    assert_eq!(verdict(&server, &client, "localhost").await, Ok(()));
}

#[tokio::test]
async fn what_does_not_speak_tls_is_said_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let (mut tcp, _) = listener.accept().await.unwrap();
        let _ = tcp.write_all(b"AMQP\x00\x00\x09\x01").await;
    });
    let tcp = TcpStream::connect(address).await.unwrap();
    let said = client(None).handshake(tcp, "localhost").await.unwrap_err();
    assert!(said.to_string().contains("does not speak TLS"), "{said}");
}

/// What a client hears that reads from a server which demands a certificate of `authority`'s.
async fn demanded(maker: &Maker, authority: &Made, own: Option<&Made>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = maker.make(&["localhost"], USUAL, Some(authority));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = server.server(Some(authority));
    let served = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        if let Ok(mut tls) = acceptor.accept(tcp).await {
            let _ = tls.write_all(b"welcome").await;
            let _ = tls.shutdown().await;
        }
    });
    let files = TlsFiles {
        ca_file: Some(authority.certificate.clone()),
        certificate_file: own.map(|own| own.certificate.clone()),
        private_key_file: own.map(|own| own.key.clone()),
    };
    let client = TlsClient::new(files, KeyNames::BROKER);
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut tls = client.handshake(tcp, "localhost").await.unwrap();
    // With TLS 1.3 the server's verdict comes after the handshake.
    let mut heard = String::new();
    let read = tls.read_to_string(&mut heard).await;
    served.await.unwrap();
    match read {
        Ok(_) => heard,
        Err(error) => client.explained(error).to_string(),
    }
}

#[tokio::test]
async fn a_server_that_demands_a_certificate_gets_it_or_says_what_is_wrong_with_it() {
    let maker = Maker::new();
    let authority = maker.make(&["Site CA"], AUTHORITY, None);
    let own = maker.make(&["tandem"], USUAL, Some(&authority));
    assert_eq!(demanded(&maker, &authority, Some(&own)).await, "welcome");
    let said = demanded(&maker, &authority, None).await;
    assert!(said.contains("demands a client certificate"), "{said}");
    assert!(said.contains("broker.certificate-file"), "{said}");
    let expired = Kind {
        expired: true,
        ..USUAL
    };
    let old = maker.make(&["tandem"], expired, Some(&authority));
    let said = demanded(&maker, &authority, Some(&old)).await;
    for part in [
        "refuses our certificate CN=tandem",
        "valid until 2021-01-01",
        "expired",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let stranger = maker.make(&["Other CA"], AUTHORITY, None);
    let foreign = maker.make(&["tandem"], USUAL, Some(&stranger));
    let said = demanded(&maker, &authority, Some(&foreign)).await;
    assert!(said.contains("issued by CN=Other CA"), "{said}");
}

/// The reason that a file is refused for.
fn refused(maker: &Maker, text: impl AsRef<[u8]>) -> String {
    let path = maker.file("it.pem", text);
    let error = client(Some(&path)).config().unwrap_err();
    let shown = error.to_string();
    assert!(
        shown.starts_with("broker.ca-file ") && shown.contains("it.pem"),
        "{shown}"
    );
    shown
}

#[test]
fn a_ca_file_holds_certificates_and_says_so_where_it_does_not() {
    let maker = Maker::new();
    let made = maker.make(&["Site CA"], AUTHORITY, None);
    assert!(refused(&maker, "").contains("holds no certificate"));
    assert!(refused(&maker, text(&made.key)).contains("a private key and no certificate"));
    assert!(refused(&maker, [0x30, 0x82]).contains("not PEM text"));
    let cut = text(&made.certificate);
    assert!(refused(&maker, &cut[..cut.len() / 2]).contains("damaged"));
    let nonsense = "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n";
    assert!(refused(&maker, nonsense).contains("certificate 1 cannot be read"));
    let missing = client(Some(Path::new("/nonexistent/ca.pem"))).config();
    let error = missing.unwrap_err().to_string();
    assert!(
        error.contains("/nonexistent/ca.pem: it cannot be read"),
        "{error}"
    );
}

#[tokio::test]
async fn a_byte_order_mark_hides_no_certificate() {
    let maker = Maker::new();
    let authority = maker.make(&["Site CA"], AUTHORITY, None);
    let server = maker.make(&["localhost"], USUAL, Some(&authority));
    let marked = format!("\u{feff}{}", text(&authority.certificate));
    let trusting = client(Some(&maker.file("marked.pem", marked)));
    assert_eq!(verdict(&server, &trusting, "localhost").await, Ok(()));
}

#[test]
fn without_verification_no_ca_file_is_read() {
    let files = TlsFiles {
        ca_file: Some("/nonexistent/ca.pem".into()),
        ..TlsFiles::default()
    };
    assert!(
        TlsClient::with(files, KeyNames::NOTIFY, false)
            .config()
            .is_ok()
    );
}

/// Certificate and key from `testdata`, made by `openssl`.
fn pair(certificate: &str, key: &str) -> TlsClient {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/testdata"));
    let files = TlsFiles {
        ca_file: None,
        certificate_file: Some(folder.join(certificate)),
        private_key_file: Some(folder.join(key)),
    };
    TlsClient::new(files, KeyNames::BROKER)
}

#[test]
fn keys_of_all_three_forms_are_taken() {
    for (certificate, key) in [
        ("rsa.pem", "rsa.pkcs8"),
        ("rsa.pem", "rsa.pkcs1"),
        ("ec.pem", "ec.pkcs8"),
        ("ec.pem", "ec.sec1"),
    ] {
        let client = pair(certificate, key);
        assert!(client.config().is_ok(), "{key}: {:?}", client.config());
        assert_eq!(client.check(), Ok(Vec::new()), "{key}");
    }
}

#[test]
fn keys_that_cannot_be_used_say_why() {
    for (certificate, key, wanted) in [
        ("rsa.pem", "rsa.encrypted", "the key is encrypted"),
        ("rsa.pem", "rsa.encrypted-pkcs1", "the key is encrypted"),
        ("rsa.pem", "ec.pkcs8", "does not belong to CN=tandem-rsa"),
        ("rsa.pem", "rsa.pem", "holds no private key"),
    ] {
        let error = pair(certificate, key).config().unwrap_err();
        let TlsError::File {
            key: named, reason, ..
        } = error
        else {
            panic!("{key}: {error}");
        };
        assert_eq!(named, "broker.private-key-file", "{key}");
        assert!(reason.contains(wanted), "{key}: {reason}");
    }
    let error = pair("rsa.pkcs8", "rsa.pkcs8").config().unwrap_err();
    assert!(
        error.to_string().starts_with("broker.certificate-file "),
        "{error}"
    );
}

#[test]
fn expired_files_are_told() {
    let maker = Maker::new();
    let expired = Kind {
        authority: true,
        expired: true,
    };
    let old = maker.make(&["Old CA"], expired, None);
    let told = client(Some(&old.certificate)).check().unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, "broker.ca-file");
    assert!(
        told[0].1.contains("CN=Old CA") && told[0].1.contains("expired on 2021"),
        "{told:?}"
    );
}
