//! Sign-ins that fail: each is told at once and by its kind, not by the bound of the whole.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const STARTTLS: &str = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\
    <mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms></stream:features>";
const SCRAM: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
    <mechanism>SCRAM-SHA-1</mechanism><mechanism>PLAIN</mechanism></mechanisms></stream:features>";

async fn is_unreachable(service: &mut Service, expected: &str) {
    let happening = service.next().await;
    assert!(
        matches!(&happening, Happening::Unreachable { reason } if reason.contains(expected)),
        "{expected}: {happening:?}"
    );
}

#[tokio::test]
async fn a_service_that_is_none_or_wants_something_else_is_unreachable() {
    let error = |condition: &str| {
        format!(
            "{HEADER}<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
        )
    };
    for (answer, expected) in [
        (
            "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(),
            "not well-formed",
        ),
        (error("host-unknown"), "stream error host-unknown"),
        (error("policy-violation"), "stream error policy-violation"),
        (format!("{HEADER}</stream:stream>"), "closed the stream"),
        // It demands encryption and offers none.
        (format!("{HEADER}<stream:features/>"), "no SASL mechanism"),
        (format!("{HEADER}<presence/>"), "no stream features"),
        (format!("{HEADER}<!DOCTYPE x [<!ENTITY y 'z'>]>"), "DOCTYPE"),
    ] {
        let mut service = Service::new().await;
        let (_subscription, mut peer) = service.start().await;
        peer.until("version='1.0'>").await;
        peer.send(&answer).await;
        is_unreachable(&mut service, expected).await;
    }
}

#[tokio::test]
async fn a_demand_that_has_nothing_to_do_with_the_password_is_no_refusal() {
    for condition in ["encryption-required", "mechanism-too-weak", "aborted"] {
        let mut service = Service::new().await;
        let (_subscription, mut peer) = service.start().await;
        peer.greet(PLAIN).await;
        peer.until("</auth>").await;
        peer.send(&format!(
            "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><{condition}/><text>t</text></failure>"
        ))
        .await;
        is_unreachable(&mut service, condition).await;
    }
}

#[tokio::test]
async fn nothing_may_be_slipped_in_before_the_handshake() {
    for (answer, expected) in [
        (
            "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>",
            "refused STARTTLS",
        ),
        (
            "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><presence from='a'/>",
            "data before the TLS handshake",
        ),
    ] {
        let mut service = Service::new().await;
        let (_subscription, mut peer) = service.start().await;
        peer.greet(STARTTLS).await;
        peer.until("<starttls").await;
        peer.send(answer).await;
        is_unreachable(&mut service, expected).await;
    }
}

/// The exchange up to the answer to a challenge.
async fn challenge(peer: &mut Peer<'_>) {
    peer.greet(SCRAM).await;
    let auth = peer.until("</auth>").await;
    assert!(auth.contains("'SCRAM-SHA-1'"), "{auth}");
    let message = auth.rsplit('>').nth(1).unwrap().trim_end_matches("</auth");
    let first = String::from_utf8(STANDARD.decode(message).unwrap()).unwrap();
    let nonce = first.strip_prefix("n,,n=1205,r=").unwrap();
    let challenge = STANDARD.encode(format!("r={nonce}-server,s=AAAA,i=4096"));
    peer.send(&format!(
        "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{challenge}</challenge>"
    ))
    .await;
    let response = peer.until("</response>").await;
    let message = response
        .rsplit('>')
        .nth(1)
        .unwrap()
        .trim_end_matches("</response");
    let last = String::from_utf8(STANDARD.decode(message).unwrap()).unwrap();
    assert!(
        last.starts_with(&format!("c=biws,r={nonce}-server,p=")),
        "{last}"
    );
}

#[tokio::test]
async fn without_tls_the_password_is_not_shown_to_a_service_that_knows_scram() {
    let mut service = Service::new().await;
    let (_subscription, mut peer) = service.start().await;
    challenge(&mut peer).await;
    peer.send("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>")
        .await;
    let reason = "not-authorized".to_owned();
    assert_eq!(service.next().await, Happening::Refused { reason });
}

#[tokio::test]
async fn a_service_that_cannot_prove_to_know_the_password_is_not_believed() {
    let wrong = STANDARD.encode("v=AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    for data in ["", &wrong, "?"] {
        let mut service = Service::new().await;
        let (_subscription, mut peer) = service.start().await;
        challenge(&mut peer).await;
        peer.send(&format!(
            "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{data}</success>"
        ))
        .await;
        let expected = if data == "?" {
            "malformed"
        } else {
            "did not prove"
        };
        is_unreachable(&mut service, expected).await;
    }
}

/// Ten thousand of them wait at a time.
#[tokio::test]
async fn an_idle_session_is_small() {
    let service = Service::new().await;
    let (closed, orders) = (CancellationToken::new(), Orders::default());
    let session = session::run(&service.spec, 7, &service.sink, &closed, &orders);
    let size = std::mem::size_of_val(&session);
    assert!(size <= 1_024, "{size} bytes");
}
