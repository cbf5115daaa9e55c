//! Broker list.

use super::finding::Finding;
use super::schema;
use super::url::{BrokerAddress, HttpAddress};
use super::validate::{Validator, text};
use super::value::{Value, is_loopback};
use super::{Broker, BrokerUrl, FederationFiles, ManagementUrl};
use tandem_model::Secret;
use tandem_net::{KeyNames, TlsClient};

/// What brokers do with links to an amqps URL that say nothing of certificates.
const UNJUDGED: &str = "the brokers' own links to it name no file of authorities: RabbitMQ 3.10 believes any certificate there, 4.0 does not connect, later ones judge by the system's authorities";

impl Validator<'_> {
    pub(super) fn broker(&mut self) -> Broker {
        let tls = self.tls(KeyNames::BROKER, true);
        let urls = self.broker_urls(&tls);
        let federation = self.federation(&urls);
        let (first, max) = (
            self.duration("broker.reconnect-delay"),
            self.duration("broker.reconnect-delay-max"),
        );
        if first > max {
            let message = format!("it is below broker.reconnect-delay, {}", text(first));
            self.about(
                "broker.reconnect-delay-max",
                Finding::error(message).allowed("broker.reconnect-delay or longer"),
            );
        }
        Broker {
            urls,
            randomize: self.bool("broker.randomize"),
            priority_backup: self.bool("broker.priority-backup"),
            failback_hold: self.duration("broker.failback-hold"),
            backup: self.bool("broker.backup"),
            timeout: self.duration("broker.timeout"),
            reconnect_delay: first,
            reconnect_delay_max: max,
            probe_interval: self.duration("broker.probe-interval"),
            probe_count: u32::try_from(self.int("broker.probe-count")).unwrap_or(u32::MAX),
            heartbeat: self.duration("broker.heartbeat"),
            fence: self.bool("broker.fence"),
            tls,
            federation,
        }
    }

    /// Files of the brokers' own, of which only their names can be judged here.
    fn federation(&mut self, urls: &[BrokerUrl]) -> FederationFiles {
        let [ca, certificate, key] = [
            "federation.ca-file",
            "federation.certificate-file",
            "federation.private-key-file",
        ];
        for (has, misses) in [(certificate, key), (key, certificate), (certificate, ca)] {
            if self.candidate(has).is_some() && self.candidate(misses).is_none() {
                let message = format!("{misses} is missing");
                let allowed = "federation.ca-file alone, or all three";
                self.about(has, Finding::error(message).allowed(allowed));
            }
        }
        if self.candidate(ca).is_some() && !urls.iter().any(|url| url.amqp.starts_with("amqps:")) {
            let message =
                "no broker's URL is amqps, so the links between the brokers do not use it";
            self.about(ca, Finding::warning(message));
        }
        let secure = (1..=schema::MAX_BROKERS).map(|n| format!("broker.url.{n}"));
        let mut secure =
            secure.filter(|name| matches!(self.value(name), Some(Value::Broker(it)) if it.tls));
        // A broker alone has no links.
        if self.candidate(ca).is_none()
            && urls.len() > 1
            && let Some(name) = secure.next()
        {
            let finding = Finding::warning(UNJUDGED).allowed("federation.ca-file set");
            self.about(&name, finding);
        }
        let given = |key| match self.value(key) {
            Some(Value::Text(path)) => Some(path),
            _ => None,
        };
        FederationFiles {
            ca_file: given(ca),
            certificate: given(certificate).zip(given(key)),
        }
    }

    fn broker_urls(&mut self, tls: &TlsClient) -> Vec<BrokerUrl> {
        let mut urls: Vec<BrokerUrl> = Vec::new();
        let mut tried = false;
        for n in 1..=schema::MAX_BROKERS {
            let (name, management) = (
                format!("broker.url.{n}"),
                format!("broker.management-url.{n}"),
            );
            tried |= self.failed(&name);
            let Some(Value::Broker(address)) = self.value(&name) else {
                if self.candidate(&management).is_some() && !self.failed(&name) {
                    self.about(
                        &management,
                        Finding::error(format!("there is no {name} that it belongs to")),
                    );
                }
                continue;
            };
            let label = address.label();
            if let Some(problem) = listed_already(&label, &urls) {
                self.about(&name, Finding::error(problem).allowed("each broker once"));
                continue;
            }
            if !address.tls && !address.nodes.iter().all(|node| is_loopback(&node.host)) {
                self.about(&name, Finding::warning("plain AMQP to another machine: agents' passwords can be read on the way; use amqps://"));
            }
            let url = self.broker_url(&address, &management, tls);
            let shared = urls.iter().find_map(|other| {
                let mut apis = url.management.url.split(',');
                let api =
                    apis.find(|api| other.management.url.split(',').any(|one| one == *api))?;
                Some((api, &other.label))
            });
            if let Some((api, other)) = shared {
                let message = format!(
                    "{api} is the management API of {other} already: one of them is not looked at"
                );
                self.about(
                    &management,
                    Finding::warning(message).allowed("each broker's own"),
                );
            }
            urls.push(url);
        }
        if urls.is_empty() && !tried {
            self.about(
                "broker.url.1",
                Finding::error("no broker is given").allowed("host:port, amqp://… or amqps://…"),
            );
        }
        urls
    }

    fn broker_url(
        &mut self,
        address: &BrokerAddress,
        management: &str,
        tls: &TlsClient,
    ) -> BrokerUrl {
        let default_user = self.text("broker.username");
        let default_password = self
            .secret("broker.password")
            .unwrap_or_else(|| Secret::new(""));
        let vhost = self.text("broker.vhost");
        // The certificate says who we are, where nothing else does.
        let external = address.tls
            && tls.has_certificate()
            && address.user.is_none()
            && self.candidate("broker.username").is_none();
        let amqp = if external {
            address.external_uri(&vhost)
        } else {
            address.uri(&default_user, &default_password, &vhost)
        };
        let mut username = address.user.clone().unwrap_or(default_user);
        let mut password = address.password.clone().unwrap_or(default_password);
        let url = match self.value(management) {
            Some(Value::HttpList(list)) => {
                let plain = |http: &HttpAddress| !http.tls && !is_loopback(&http.host);
                if list.iter().any(plain) {
                    self.about(management, Finding::warning("plain http to another machine: the broker's password can be read on the way; use https://"));
                }
                let given = list.iter().find(|http| http.user.is_some());
                if let Some(http) = given {
                    username = http.user.clone().unwrap_or(username);
                    password = http.password.clone().unwrap_or(password);
                }
                let guest = external && username == "guest";
                self.warn_of_guest(
                    guest,
                    management,
                    list.iter().map(|http| http.host.as_str()),
                );
                let urls: Vec<String> = list.into_iter().map(|http| http.url).collect();
                urls.join(",")
            }
            _ => {
                let scheme = if address.tls { "https" } else { "http" };
                let hosts = address.nodes.iter().map(|node| node.host.as_str());
                let mut urls: Vec<String> = Vec::new();
                for host in hosts.clone() {
                    let url = format!("{scheme}://{host}:15672");
                    // Nodes on one machine: which API belongs to which, nobody can tell.
                    if !urls.contains(&url) {
                        urls.push(url);
                    }
                }
                let url = urls.join(",");
                self.derive(management, &url);
                self.warn_of_guest(external, management, hosts);
                url
            }
        };
        BrokerUrl {
            amqp,
            label: address.label(),
            management: ManagementUrl {
                url,
                username,
                password,
                tls: tls.clone(),
            },
        }
    }

    /// The management API knows no login by certificate.
    fn warn_of_guest<'h>(
        &mut self,
        guest: bool,
        management: &str,
        mut hosts: impl Iterator<Item = &'h str>,
    ) {
        if guest && hosts.any(|host| !is_loopback(host)) {
            let message = "the broker's login is the client certificate, which its management API does not take: with no user it is asked as guest, and refuses that from another machine";
            let finding = Finding::warning(message);
            self.about(
                management,
                finding.allowed("https://user:password@host:15671"),
            );
        }
    }
}

/// Why a broker may not be listed, where one of its addresses is listed already.
fn listed_already(label: &str, urls: &[BrokerUrl]) -> Option<String> {
    let known = |address: &&str| {
        let mut all = urls.iter().flat_map(|other| other.label.split(','));
        all.any(|other| other == *address)
    };
    let address = label.split(',').find(known)?;
    Some(match label.contains(',') {
        true => format!("{address} is in the list already, as another broker's"),
        false => "this broker is in the list already".to_owned(),
    })
}
