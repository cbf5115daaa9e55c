//! The HTTP entrance: where it listens, and who may use it.

use std::net::SocketAddr;

use super::Rest;
use super::finding::Finding;
use super::validate::Validator;
use super::value::Value;

/// The original's port, on all addresses.
const ORIGINAL: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8112);

impl Validator<'_> {
    /// The entrance, where one is wanted.
    pub(super) fn rest(&mut self) -> Option<Rest> {
        let listen = match self.value("rest.listen") {
            Some(Value::Listen(listen)) => Some(listen),
            _ => None,
        };
        let wanted = match self.value("rest.enabled") {
            Some(Value::Bool(wanted)) => wanted,
            _ => listen.is_some(),
        };
        if !wanted {
            return None;
        }
        let rest = Rest {
            listen: listen.unwrap_or(ORIGINAL),
            token: self.secret("rest.token"),
        };
        self.warn_of_guessable("rest.token", rest.token.as_ref());
        let open = rest.listen.ip().is_loopback() || self.bool("rest.open");
        if rest.token.is_none() && !open && !self.failed("rest.token") {
            let words = format!(
                "the HTTP entrance at {} is not on loopback and there is no rest.token-file: \
                 anybody could send commands",
                rest.listen
            );
            let finding = Finding::error(words)
                .allowed("rest.token-file; or a loopback address; or rest.open=true");
            self.about("rest.listen", finding);
        }
        Some(rest)
    }
}
