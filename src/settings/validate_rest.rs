//! The HTTP entrance: where it listens, and who may use it.

use std::net::SocketAddr;

use super::finding::Finding;
use super::validate::Validator;
use super::value::{Value, is_loopback};
use super::{Rest, RestCallback, schema};
use crate::net::KeyNames;

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
            callback: self.callback(),
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

    /// How events are posted, where they may be posted anywhere.
    fn callback(&mut self) -> Option<RestCallback> {
        let mut allow = Vec::new();
        for n in 1..=schema::MAX_CALLBACKS {
            allow.extend(self.callback_url(&format!("rest.callback.allow.{n}")));
        }
        let url = self.callback_url("rest.callback.url");
        if allow.is_empty() && url.is_none() {
            return None;
        }
        Some(RestCallback {
            allow,
            url,
            path: self.text_opt("rest.callback.path"),
            token: self.secret("rest.callback.token"),
            timeout: self.duration("rest.callback.timeout"),
            max_age: self.duration("rest.callback.max-age"),
            tls: self.tls(KeyNames::CALLBACK, true),
        })
    }

    fn callback_url(&mut self, name: &str) -> Option<String> {
        let Some(Value::Http(address)) = self.value(name) else {
            return None;
        };
        if address.user.is_some() || address.password.is_some() {
            let finding = Finding::error("a callback has no user and no password in its URL");
            self.about(name, finding.allowed("rest.callback.token-file"));
        }
        if !address.tls && !is_loopback(&address.host) {
            let words = "events are posted without encryption: who is called, by whom, and the \
                         token can be read on the way";
            self.about(name, Finding::warning(words));
        }
        Some(address.url)
    }
}
