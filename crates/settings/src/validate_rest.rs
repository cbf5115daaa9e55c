//! The HTTP entrance: where it listens, and who may use it.

use std::net::{Ipv4Addr, SocketAddr};

use super::finding::Finding;
use super::source::Candidate;
use super::validate::Validator;
use super::value::{Value, is_loopback};
use super::{Rest, RestCallback, schema};
use tandem_model::Secret;
use tandem_net::{KeyNames, TlsServer};

/// The original's port, on all addresses.
const ORIGINAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8112);

/// Whether two listeners get in each other's way.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let all = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (all || a.ip() == b.ip())
}

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
            if self.candidate("rest.enabled").is_none() {
                self.unused(
                    "rest.",
                    "there is no HTTP entrance without it",
                    "rest.listen",
                );
            }
            return None;
        }
        let tls = self.tls(KeyNames::REST, true);
        let mut rest = Rest {
            tls: tls.has_certificate().then(|| TlsServer::new(tls)),
            listen: listen.unwrap_or(ORIGINAL),
            token: self.secret("rest.token"),
            callback: self.callback(),
        };
        self.warn_of_guessable("rest.token", rest.token.as_ref());
        self.fits_header("rest.token", rest.token.as_ref());
        if rest.token.is_none() && !self.failed("rest.token") {
            rest.listen = self.kept_in(rest.listen);
        }
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
        let admin = self.admin_listen();
        if clash(rest.listen, admin) {
            let words = format!("admin.listen is {admin}: only one of the two can listen there");
            self.about("rest.listen", Finding::error(words).allowed("another port"));
        }
        let certificate = self.candidate("rest.certificate-file").is_some();
        if !rest.listen.ip().is_loopback() && !certificate {
            let words = "plain HTTP to other machines: tokens and agents' passwords can be read on \
                         the way; set rest.certificate-file, or put a proxy with TLS in front of it";
            self.about("rest.listen", Finding::warning(words));
        }
        Some(rest)
    }

    /// The original's entrance asks nobody who they are: what its keys open to everybody is opened to
    /// this machine only.
    fn kept_in(&mut self, listen: SocketAddr) -> SocketAddr {
        let by = match self.candidate("rest.listen") {
            Some(_) => "rest.listen",
            None => "rest.enabled",
        };
        let originals = self.candidate(by).is_some_and(Candidate::by_alias);
        if !originals || listen.ip().is_loopback() || self.bool("rest.open") {
            return listen;
        }
        let kept = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listen.port());
        let words = format!(
            "there is no rest.token-file, so the HTTP entrance listens on this machine only, at \
             {kept}: else anybody could send commands"
        );
        let finding = Finding::warning(words);
        self.about(by, finding.allowed("rest.token-file; or rest.open=true"));
        self.derive("rest.listen", &kept.to_string());
        kept
    }

    /// How events are posted, where they may be posted anywhere.
    fn callback(&mut self) -> Option<RestCallback> {
        let mut allow = Vec::new();
        for n in 1..=schema::MAX_CALLBACKS {
            allow.extend(self.callback_url(&format!("rest.callback.allow.{n}")));
        }
        let url = self.callback_url("rest.callback.url");
        if allow.is_empty() && url.is_none() {
            let words = "no events are posted without it";
            self.unused(
                "rest.callback.",
                words,
                "rest.callback.allow.1 or rest.callback.url",
            );
            return None;
        }
        let sign_key = self.secret("rest.callback.sign-key");
        self.warn_of_guessable("rest.callback.sign-key", sign_key.as_ref());
        let token = self.secret("rest.callback.token");
        self.fits_header("rest.callback.token", token.as_ref());
        Some(RestCallback {
            sign_key,
            allow,
            url,
            path: self.text_opt("rest.callback.path"),
            token,
            timeout: self.duration("rest.callback.timeout"),
            max_age: self.duration("rest.callback.max-age"),
            tls: self.tls(KeyNames::CALLBACK, true),
        })
    }

    /// Keys that begin so are given, by this product's names, and say nothing without another one.
    fn unused(&mut self, beginning: &str, why: &str, needed: &str) {
        // Where one cannot be read it may be the one that is needed.
        if self
            .given
            .failed
            .iter()
            .any(|key| key.starts_with(beginning))
        {
            return;
        }
        let given = self.given.values.iter();
        let own = given.filter(|(key, value)| key.starts_with(beginning) && !value.by_alias());
        let keys: Vec<String> = own.map(|(key, _)| key.clone()).collect();
        for key in keys {
            let finding = Finding::warning(format!("it is not used: {why}"));
            self.about(&key, finding.allowed(needed));
        }
    }

    /// A token that nobody can send is none.
    fn fits_header(&mut self, name: &str, token: Option<&Secret>) {
        let fits = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if token.is_some_and(|token| !token.as_bytes().iter().all(|byte| fits(*byte))) {
            let finding = Finding::error("it cannot stand in a header of a request");
            self.about(name, finding.allowed("one line of visible ASCII"));
        }
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
