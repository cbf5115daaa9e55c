//! From a host and a port to a connection, with TLS where that is wanted.

use std::time::Duration;

use socket2::SockRef;

use super::login::End;
use crate::net::shortage;
use crate::net::{TlsClient, Transport, dial, options};

/// Connects; with `direct` the TLS handshake comes first. A peer that acknowledges nothing for
/// `silence` is gone.
pub(super) async fn connect(
    host: &str,
    port: u16,
    direct: Option<&TlsClient>,
    silence: Duration,
) -> Result<Transport, End> {
    let tcp = dial::connect(host, port)
        .await
        .map_err(|error| match shortage::of(&error) {
            Some(shortage) => End::NoRoom(shortage),
            None => End::Broken(format!("connect failed: {error}")),
        })?;
    options::long_lived(&SockRef::from(&tcp), silence);
    match direct {
        Some(client) => secure(Transport::Plain(tcp), client, host).await,
        None => Ok(Transport::Plain(tcp)),
    }
}

/// The TLS handshake on a connection without TLS. The certificate must be issued for `host`.
pub(super) async fn secure(
    transport: Transport,
    client: &TlsClient,
    host: &str,
) -> Result<Transport, End> {
    let Transport::Plain(tcp) = transport else {
        return Err(End::Broken("TLS inside of TLS".to_owned()));
    };
    match client.handshake(tcp, host).await {
        Ok(tls) => Ok(tls.into()),
        Err(error) => Err(End::Broken(format!("TLS failed: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_notices_a_peer_that_is_gone() {
        let service = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = service.local_addr().unwrap().port();
        let silence = Duration::from_secs(20);
        let Ok(Transport::Plain(tcp)) = connect("127.0.0.1", port, None, silence).await else {
            panic!("it is not connected");
        };
        let socket = SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), silence);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(silence));
    }
}
