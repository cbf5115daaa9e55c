//! AMQP URIs, and connections for the AMQP library.

use std::io;
use std::time::Duration;

use lapin::ErrorKind;
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use reqwest::Url;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub use super::stream::Stream;

use super::address::{MAX_LISTED, authority_problem, bare, bracketed, each_address};
use super::{TlsClient, dial, explain};

/// How long a port is looked at that did not answer as a broker.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// Reads `[amqp[s]://][user:password@]host[:port][/vhost][?options]`. The library's own parser
/// takes an IPv6 address, or no host, for `localhost`.
///
/// # Errors
/// Why it cannot be used; without the text, which may hold a password.
pub fn uri(text: &str) -> Result<AMQPUri, &'static str> {
    const FORM: &str = "not amqp://[user:password@]host[:port][/vhost]";
    let full = match text.contains("://") {
        true => text.to_owned(),
        false => format!("amqp://{text}"),
    };
    if let Some(problem) = authority_problem(&full) {
        return Err(problem);
    }
    let mut uri: AMQPUri = full.parse().map_err(|_| FORM)?;
    let url = Url::parse(&full).map_err(|_| FORM)?;
    let host = url.host_str().map(bare).filter(|host| !host.is_empty());
    let host = host.ok_or("it has no host")?;
    if host.contains(':') {
        uri.authority.host = host.to_owned();
    }
    Ok(uri)
}

/// Reads the same with several addresses of one broker, `amqp://…@a:5672,b:5672/vhost`: one URI an
/// address, in order, at least one.
///
/// # Errors
/// As [`uri`].
pub fn uris(text: &str) -> Result<Vec<AMQPUri>, &'static str> {
    let each = each_address(text);
    if each.len() > MAX_LISTED {
        return Err("it lists more than 16 addresses");
    }
    each.iter().map(|one| uri(one)).collect()
}

/// `host:port` of a URI, to be shown.
#[must_use]
pub fn label(uri: &AMQPUri) -> String {
    format!("{}:{}", bracketed(&uri.authority.host), uri.authority.port)
}

/// Whether the text of a URI has no user name: the library's parser takes `guest` then.
#[must_use]
pub fn names_nobody(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority
        .rsplit_once('@')
        .is_none_or(|(user, _)| user.is_empty() || user.starts_with(':'))
}

/// Makes the client certificate the login (SASL EXTERNAL), where the URI is one of TLS.
pub fn be_who_the_certificate_says(uri: &mut AMQPUri) {
    if uri.scheme == AMQPScheme::AMQPS {
        uri.query.auth_mechanism = Some(SASLMechanism::External);
    }
}

/// Connects to the broker of a URI, with TLS where its scheme says so. `own` is given the socket
/// before anything is sent. Must be called within a tokio runtime. Unbounded in time: the caller
/// bounds it.
///
/// # Errors
/// No address answers, `own` refuses, or TLS fails: why, in words for people.
pub async fn connect(
    uri: &AMQPUri,
    tls: &TlsClient,
    own: impl FnOnce(SockRef<'_>) -> io::Result<()>,
) -> io::Result<Stream> {
    let host = uri.authority.host.as_str();
    let tcp = dial::connect(host, uri.authority.port).await?;
    own(SockRef::from(&tcp))?;
    match uri.scheme {
        AMQPScheme::AMQP => Ok(tcp.into()),
        AMQPScheme::AMQPS => Ok(tls.handshake(tcp, host).await?.into()),
    }
}

/// What a failure to open a connection means where the library's words do not say it; `None` where
/// they do. Where the answer may have been TLS, the broker is asked once more.
pub async fn reason(uri: &AMQPUri, tls: &TlsClient, error: &lapin::Error) -> Option<String> {
    if let Some(words) = tls.explain(error) {
        return Some(words);
    }
    let (closed, unreadable) = match error.kind() {
        ErrorKind::IOError(error) => (
            matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
            ),
            error.kind() == io::ErrorKind::InvalidData,
        ),
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => (false, true),
        _ => (false, false),
    };
    let plain = uri.scheme == AMQPScheme::AMQP;
    if plain && (closed || unreadable) && speaks_tls(uri).await {
        return Some("what answers on this port speaks TLS: begin the URL with amqps://, or give the plain port".to_owned());
    }
    match error.kind() {
        // Closed later than in the handshake, which has words of its own.
        _ if closed && !plain => Some(tls.silent_refusal()),
        // The library puts its own words in front.
        ErrorKind::IOError(error) if explain::is_said(error) => Some(error.to_string()),
        _ => None,
    }
}

/// Whether a port answers the beginning of AMQP with a TLS record: an alert, or a handshake
/// (RFC 8446, section 5.1).
async fn speaks_tls(uri: &AMQPUri) -> bool {
    let look = async {
        let authority = &uri.authority;
        let mut tcp = dial::connect(&authority.host, authority.port).await.ok()?;
        tcp.write_all(PROTOCOL_HEADER).await.ok()?;
        let mut record = [0; 3];
        tcp.read_exact(&mut record).await.ok()?;
        Some(matches!(record, [0x15 | 0x16, 0x03, 0..=4]))
    };
    let looked = tokio::time::timeout(LOOK_LIMIT, look).await;
    looked.ok().flatten().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_that_were_written() {
        for (text, host, port) in [
            ("[::1]:5672", "::1", 5672),
            ("amqp://u:p@[fd00::2]/v", "fd00::2", 5672),
            ("amqps://[fd00::2]", "fd00::2", 5671),
            ("127.0.0.1:5673", "127.0.0.1", 5673),
            ("amqp://u:p@rabbit-1/%2f", "rabbit-1", 5672),
        ] {
            let read = uri(text).unwrap();
            let authority = &read.authority;
            assert_eq!(
                (authority.host.as_str(), authority.port),
                (host, port),
                "{text}"
            );
        }
    }

    #[test]
    fn several_addresses_of_one_broker_are_a_uri_each() {
        let read = uris("amqps://u:p@a,[::1]:7,b:8/v?heartbeat=3").unwrap();
        let labels: Vec<String> = read.iter().map(label).collect();
        assert_eq!(labels, ["a:5671", "[::1]:7", "b:8"]);
        assert!(read.iter().all(|one| one.vhost == "v"
            && one.authority.userinfo.password == "p"
            && one.query.heartbeat == Some(3)));
        assert!(uris("a:5672,").is_err() && uris("a:5672,b:x").is_err());
        let many = vec!["h"; MAX_LISTED + 1].join(",");
        assert!(uris(&many).unwrap_err().contains("16"));
    }

    #[test]
    fn what_is_no_broker_is_refused() {
        for text in [
            "http://x",
            "amqp://",
            "amqp:///v",
            "[fe80::1%25eth0]:5672",
            "::1",
            "h:x",
        ] {
            assert!(uri(text).is_err(), "{text}");
        }
        assert!(uri("[fe80::1%eth0]:5672").unwrap_err().contains("%eth0"));
    }
}
