//! The admin listener.

use std::net::SocketAddr;

use super::finding::Finding;
use super::validate::Validator;
use super::value::Value;
use super::{Admin, tokens};
use tandem_net::{KeyNames, TlsServer};

impl Validator<'_> {
    pub(super) fn admin(&mut self) -> Admin {
        let listen = self.admin_listen();
        let token = self.secret("admin.token");
        let sent = |byte: &u8| byte.is_ascii_graphic();
        if token
            .as_ref()
            .is_some_and(|token| !token.as_bytes().iter().all(sent))
        {
            self.about("admin.token", Finding::warning("nobody can send it: a bearer token has printable ASCII characters only, and no blanks"));
        }
        self.warn_of_guessable("admin.token", token.as_ref());
        let tokens = self.tokens();
        let tls = self.tls(KeyNames::ADMIN, true);
        let tls = tls.has_certificate().then(|| TlsServer::new(tls));
        let open_reads = self.bool("admin.open-reads");
        let unread = self.failed("admin.token") || self.candidate("admin.tokens-file").is_some();
        let nobody = token.is_none() && tokens.is_empty() && !unread;
        if !listen.ip().is_loopback() {
            if nobody {
                let refused = if open_reads {
                    "changing call"
                } else {
                    "call but health and metrics"
                };
                let words = format!(
                    "it is not loopback and there is no admin.token or admin.tokens-file: every {refused} will be refused"
                );
                self.about("admin.listen", Finding::warning(words));
            } else if tls.is_none() && self.candidate("admin.certificate-file").is_none() {
                let words = "plain HTTP to other machines: tokens can be read on the way; set admin.certificate-file, or put a proxy with TLS in front of it";
                self.about("admin.listen", Finding::warning(words));
            }
        }
        let page = match self.value("admin.page-url") {
            Some(Value::Http(address)) => address.url,
            // Where it listens, if that is an address to go to.
            _ if listen.ip().is_unspecified() => String::new(),
            _ if tls.is_some() => format!("https://{listen}"),
            _ => format!("http://{listen}"),
        };
        Admin {
            listen,
            page,
            token,
            tokens,
            open_reads,
            tls,
        }
    }

    /// Where the admin listener is.
    pub(super) fn admin_listen(&self) -> SocketAddr {
        match self.value("admin.listen") {
            Some(Value::Listen(listen)) => listen,
            _ => SocketAddr::from(([127, 0, 0, 1], 9601)),
        }
    }

    fn tokens(&mut self) -> Vec<tokens::Token> {
        let Some(path) = self.path("admin.tokens-file") else {
            return Vec::new();
        };
        match tokens::read(&path) {
            Ok(tokens) => tokens,
            Err(wrong) => {
                for message in wrong {
                    let finding = Finding::error(message);
                    let allowed =
                        "lines NAME read|operate sha256:HASH, as `tandem token` makes them";
                    self.about("admin.tokens-file", finding.allowed(allowed));
                }
                Vec::new()
            }
        }
    }
}
