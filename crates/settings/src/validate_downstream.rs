//! Downstream nodes, permissions, and the notification service.

use super::finding::Finding;
use super::schema;
use super::validate::Validator;
use super::validate_defaults::{is_example, of_example};
use super::value::{Value, is_loopback};
use super::{AllowRule, Credentials, Downstream, DownstreamKind, Node, Notify, NotifyTls};
use tandem_net::address::{bare, bracketed};
use tandem_net::{KeyNames, TlsClient, TlsFiles};

impl Validator<'_> {
    pub(super) fn downstream(&mut self) -> Downstream {
        let kind = if self.text("downstream.kind") == "http" {
            DownstreamKind::Http
        } else {
            DownstreamKind::Finesse
        };
        let nodes = self.nodes(kind);
        let allow = self.allow(kind);
        let tls_verify = self.bool("downstream.tls-verify");
        if !tls_verify {
            let message = "certificates are not checked: anybody on the way can read agents' passwords; give downstream.ca-file instead";
            self.about("downstream.tls-verify", Finding::warning(message));
        }
        Downstream {
            kind,
            nodes,
            request_timeout: self.duration("downstream.request-timeout"),
            probe_interval: self.duration("downstream.probe-interval"),
            admin: self.downstream_admin(),
            failback: self.bool("downstream.failback"),
            tls: self.tls(KeyNames::DOWNSTREAM, tls_verify),
            tls_verify,
            allow,
        }
    }

    fn nodes(&mut self, kind: DownstreamKind) -> Vec<Node> {
        let mut nodes: Vec<Node> = Vec::new();
        let mut tried = false;
        for n in 1..=schema::MAX_NODES {
            let (url_key, address_key) = (
                format!("downstream.url.{n}"),
                format!("downstream.address.{n}"),
            );
            let bad = self.failed(&url_key) || self.failed(&address_key);
            let address = self.text_opt(&address_key);
            let node = match (self.value(&url_key), address) {
                (Some(Value::Http(_)), address) => {
                    Some(self.node(&url_key, &address_key, address, kind))
                }
                (_, Some(address)) if !bad && kind == DownstreamKind::Finesse => {
                    let url = format!("https://{}:8445/finesse/api", bracketed(&address));
                    self.derive(&url_key, &url);
                    Some(Node {
                        url,
                        address: bare(&address).to_owned(),
                    })
                }
                (_, Some(_)) if !bad => {
                    self.about(
                        &address_key,
                        Finding::error(format!(
                            "with downstream.kind = http, {url_key} must be given too"
                        )),
                    );
                    None
                }
                _ => None,
            };
            if n > 1 && node.is_some() && nodes.is_empty() && !tried {
                self.about(
                    &url_key,
                    Finding::error("there is a secondary downstream but no primary")
                        .allowed("downstream.url.1 first"),
                );
            }
            tried |= bad || node.is_some();
            nodes.extend(node);
        }
        if nodes.is_empty() && !tried {
            let finding = Finding::error("no downstream is given");
            self.about(
                "downstream.url.1",
                finding
                    .allowed("http://… or https://…; with finesse downstream.address.1 is enough"),
            );
        }
        nodes
    }

    fn node(
        &mut self,
        url_key: &str,
        address_key: &str,
        address: Option<String>,
        kind: DownstreamKind,
    ) -> Node {
        let Some(Value::Http(http)) = self.value(url_key) else {
            return Node {
                url: String::new(),
                address: String::new(),
            };
        };
        if is_example(&http.host) {
            self.about(url_key, of_example(&http.host));
        }
        if http.user.is_some() || http.password.is_some() {
            self.about(
                url_key,
                Finding::error("credentials do not belong into this URL")
                    .allowed("downstream.admin-user and downstream.admin-password"),
            );
        }
        if !http.tls && !is_loopback(&http.host) {
            self.about(url_key, Finding::warning("plain http to another machine: agents' passwords can be read on the way; use https://"));
        }
        // The platform serves its API nowhere else.
        let url = if kind == DownstreamKind::Finesse && http.path.is_empty() {
            let url = format!("{}/finesse/api", http.url);
            self.derive(url_key, &url);
            url
        } else {
            http.url
        };
        let address = address.unwrap_or_else(|| {
            self.derive(address_key, &http.host);
            http.host.clone()
        });
        Node {
            url,
            address: bare(&address).to_owned(),
        }
    }

    fn allow(&mut self, kind: DownstreamKind) -> Vec<AllowRule> {
        let mut rules = Vec::new();
        for n in 1..=schema::MAX_ALLOW {
            let key = format!("downstream.allow.{n}");
            if let Some(Value::Allow(rule)) = self.value(&key) {
                if kind == DownstreamKind::Finesse {
                    self.about(
                        &key,
                        Finding::warning("it has no effect with downstream.kind = finesse"),
                    );
                }
                rules.push(rule);
            }
        }
        if kind == DownstreamKind::Http && rules.is_empty() {
            self.about(
                "downstream.allow.1",
                Finding::warning("no rule is given, so that every Call command is refused"),
            );
        }
        rules
    }

    fn downstream_admin(&mut self) -> Option<Credentials> {
        let (user_key, password_key) = ("downstream.admin-user", "downstream.admin-password");
        match (self.text_opt(user_key), self.secret(password_key)) {
            (Some(user), Some(password)) => Some(Credentials { user, password }),
            (Some(_), None) if !self.failed(password_key) => {
                self.about(
                    user_key,
                    Finding::error("downstream.admin-password is missing")
                        .allowed("both or neither"),
                );
                None
            }
            (None, Some(_)) if !self.failed(user_key) => {
                self.about(
                    password_key,
                    Finding::error("downstream.admin-user is missing").allowed("both or neither"),
                );
                None
            }
            _ => None,
        }
    }

    pub(super) fn notify(&mut self, downstream: &Downstream) -> Notify {
        let tls = if self.bool("notify.tls") {
            NotifyTls::Direct
        } else {
            NotifyTls::Opportunistic
        };
        let far = downstream
            .nodes
            .iter()
            .any(|node| !is_loopback(&node.address));
        if tls == NotifyTls::Opportunistic && far && downstream.kind == DownstreamKind::Finesse {
            let message = "notification connections to another machine begin plain: without STARTTLS agents' passwords can be read on the way";
            self.about("notify.tls", Finding::warning(message));
        }
        let tls_client = self.notify_tls(downstream);
        Notify {
            port: u16::try_from(self.int("notify.port")).unwrap_or(u16::MAX),
            tls,
            connect_timeout: self.duration("notify.connect-timeout"),
            ping_interval: self.duration("notify.ping-interval"),
            tls_client,
        }
    }

    /// As the downstream's, but for authorities of its own where `notify.ca-file` names them.
    fn notify_tls(&mut self, downstream: &Downstream) -> TlsClient {
        let Some(ca_file) = self.file("notify.ca-file") else {
            let path = downstream.tls.files().ca_file.clone();
            if let Some(path) = path.filter(|_| self.candidate("notify.ca-file").is_none()) {
                self.derive("notify.ca-file", &path.display().to_string());
            }
            return downstream.tls.clone();
        };
        let files = TlsFiles {
            ca_file: Some(ca_file),
            ..downstream.tls.files().clone()
        };
        let tls = TlsClient::with(files, KeyNames::NOTIFY, downstream.tls_verify);
        self.check_tls(&tls, &[KeyNames::NOTIFY.ca_file]);
        tls
    }
}
