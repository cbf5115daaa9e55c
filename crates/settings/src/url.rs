//! Broker and HTTP addresses.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::value::is_host;
use tandem_model::Secret;
use tandem_net::address::{MAX_LISTED, authority_problem, bare, each_address};

/// What may stand unencoded in the user, password and virtual host of an AMQP URI.
const PART: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Why a second scheme is refused.
const ONCE: &str = "several addresses of one broker share all else: amqp://user:password@host-a:5672,host-b:5672/vhost";

/// ActiveMQ's ports: stock OpenWire, the second connector of the 4.x tables, that of the Siebel ones.
const ACTIVEMQ_PORTS: [u16; 3] = [61_616, 61_614, 61_626];

/// A broker as a property names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// `amqps`.
    pub tls: bool,
    /// Where it listens: one address, or those of a cluster's nodes, in order.
    pub nodes: Vec<NodeAddress>,
    /// User name, where the URL has one.
    pub user: Option<String>,
    /// Password, where the URL has one.
    pub password: Option<Secret>,
    /// Virtual host, where the URL has one.
    pub vhost: Option<String>,
}

/// One address of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// Host, an IPv6 address in brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl BrokerAddress {
    /// Reads `host`, `host:port`, `amqp://…` or `amqps://…`, with one address or several of one
    /// broker and commas between them. The error never holds more of the text than a bad address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let full = with_scheme(text)?;
        if full.matches("://").count() > 1 {
            return Err(ONCE.into());
        }
        let each = each_address(&full);
        if each.len() > MAX_LISTED {
            return Err(format!(
                "it lists {} addresses, at most {MAX_LISTED} are possible",
                each.len()
            ));
        }
        let mut whole: Option<Self> = None;
        for (at, one) in each.iter().enumerate() {
            let read = Self::parse_one(one).map_err(|why| match each.len() {
                1 => why,
                count => format!("address {} of {count}{}: {why}", at + 1, shown(one)),
            })?;
            let Some(known) = &mut whole else {
                whole = Some(read);
                continue;
            };
            for node in read.nodes {
                if known.nodes.contains(&node) {
                    return Err(format!(
                        "address {} of {}, {node}, is listed twice",
                        at + 1,
                        each.len()
                    ));
                }
                known.nodes.push(node);
            }
        }
        whole.ok_or_else(|| "it has no address".into())
    }

    /// One with one address and a scheme.
    fn parse_one(full: &str) -> Result<Self, String> {
        if let Some(problem) = authority_problem(full) {
            return Err(problem.into());
        }
        let url = Url::parse(full).map_err(|e| format!("not a broker's address: {e}"))?;
        let tls = url.scheme() == "amqps";
        if url.query().is_some() || url.fragment().is_some() {
            return Err("options in the URL are not supported: each is a key of its own".into());
        }
        let host = url
            .host_str()
            .filter(|host| is_host(host))
            .ok_or("it has no valid host")?
            .to_ascii_lowercase();
        let port = url.port().unwrap_or(if tls { 5671 } else { 5672 });
        if ACTIVEMQ_PORTS.contains(&port) {
            return Err(format!(
                "port {port} is ActiveMQ's; RabbitMQ listens for AMQP 0-9-1 on 5672, so use {host}:5672 (amqps: 5671)"
            ));
        }
        if port == 0 {
            return Err("0 is no port to connect to".into());
        }
        Ok(Self {
            tls,
            nodes: vec![NodeAddress { host, port }],
            user: (!url.username().is_empty())
                .then(|| decode(url.username()))
                .transpose()?,
            password: url
                .password()
                .map(|p| decode(p).map(Secret::new))
                .transpose()?,
            vhost: vhost(url.path())?,
        })
    }

    /// `host:port`; of several addresses all, in the order of the alphabet: each file may prefer
    /// another node of the same broker.
    pub fn label(&self) -> String {
        let mut each: Vec<String> = self.nodes.iter().map(NodeAddress::to_string).collect();
        each.sort();
        each.join(",")
    }

    /// All addresses with commas between them, in their own order.
    fn authority(&self) -> String {
        let each: Vec<String> = self.nodes.iter().map(NodeAddress::to_string).collect();
        each.join(",")
    }

    /// The whole AMQP URI, with these credentials and virtual host where the URL has none.
    pub fn uri(&self, user: &str, password: &Secret, vhost: &str) -> String {
        let encode = |text: &str| utf8_percent_encode(text, PART).to_string();
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let user = encode(self.user.as_deref().unwrap_or(user));
        let password = encode(self.password.as_ref().unwrap_or(password).expose());
        let vhost = encode(self.vhost.as_deref().unwrap_or(vhost));
        format!("{scheme}://{user}:{password}@{}/{vhost}", self.authority())
    }

    /// The same for a client whose TLS certificate is its login (SASL EXTERNAL).
    pub fn external_uri(&self, vhost: &str) -> String {
        let vhost = utf8_percent_encode(self.vhost.as_deref().unwrap_or(vhost), PART);
        format!(
            "amqps://{}/{vhost}?auth_mechanism=external",
            self.authority()
        )
    }
}

/// With `amqp` as its scheme where it has none.
fn with_scheme(text: &str) -> Result<String, String> {
    if text.to_ascii_lowercase().starts_with("failover:") {
        return Err("list the brokers one by one, as broker.url.1, broker.url.2".into());
    }
    let scheme = text
        .split_once("://")
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("amqp" | "amqps") => Ok(text.to_owned()),
        Some("tcp" | "ssl" | "stomp" | "http" | "https") => Err(
            "this is no AMQP 0-9-1 address: give the RabbitMQ broker as host:5672, or amqps://host:5671".into(),
        ),
        Some(scheme) if scheme.contains(',') => Err(ONCE.into()),
        Some(_) => Err("not a scheme of a broker".into()),
        None if text.contains('@') => {
            Err("with a user it must begin with amqp:// or amqps://".into())
        }
        None if text.contains('/') => {
            Err("with a virtual host it must begin with amqp:// or amqps://".into())
        }
        None => Ok(format!("amqp://{text}")),
    }
}

/// The address of a URL of one address, for a message that is about it; nothing where it may be
/// something else.
fn shown(one: &str) -> String {
    let rest = one.split_once("://").map_or(one, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let address = authority.rsplit('@').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:[]-_%".contains(c);
    let address_it_is = !tail.contains('@') && !address.is_empty() && address.chars().all(plain);
    match address_it_is {
        true => format!(", {address}"),
        false => String::new(),
    }
}

/// One path segment; none and a lone slash both mean "not given".
fn vhost(path: &str) -> Result<Option<String>, String> {
    let segment = path.strip_prefix('/').unwrap_or(path);
    if segment.contains('/') {
        return Err("a slash in the virtual host is written %2F".into());
    }
    if segment.is_empty() {
        Ok(None)
    } else {
        decode(segment).map(Some)
    }
}

fn decode(part: &str) -> Result<String, String> {
    let text = percent_decode_str(part)
        .decode_utf8()
        .map_err(|_| "its % escapes are not UTF-8")?;
    if text.chars().any(char::is_control) {
        Err("it has control characters".into())
    } else {
        Ok(text.into_owned())
    }
}

/// An `http` or `https` base URL, its credentials apart.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpAddress {
    /// `https`.
    pub tls: bool,
    /// Host, an IPv6 address without brackets.
    pub host: String,
    /// The URL without credentials and without a slash at the end.
    pub url: String,
    /// Path, without a slash at the end; empty for the root.
    pub path: String,
    /// User name, where the URL has one.
    pub user: Option<String>,
    /// Password, where the URL has one.
    pub password: Option<Secret>,
}

impl HttpAddress {
    /// Reads a URL. The error never holds the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(problem) = authority_problem(text) {
            return Err(problem.into());
        }
        let mut url = Url::parse(text).map_err(|e| format!("not a URL: {e}"))?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err("neither http nor https".into()),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err("a base URL has neither ? nor #".into());
        }
        let host = url
            .host_str()
            .filter(|host| is_host(host))
            .ok_or("it has no valid host")?;
        let host = bare(host).to_owned();
        let user = (!url.username().is_empty())
            .then(|| decode(url.username()))
            .transpose()?;
        let password = url
            .password()
            .map(|p| decode(p).map(Secret::new))
            .transpose()?;
        // An http(s) URL always has a host, so that neither call can fail.
        let cleared = url.set_username("").and(url.set_password(None));
        cleared.map_err(|()| "credentials cannot be taken out of it")?;
        let path = url.path().trim_end_matches('/').to_owned();
        Ok(Self {
            tls,
            host,
            url: url.as_str().trim_end_matches('/').to_owned(),
            path,
            user,
            password,
        })
    }
}

impl HttpAddress {
    /// Reads the base URLs of one service that several machines give, with commas between them:
    /// `http://a:1,b:1` or `http://a:1,http://b:2`. At least one; never the text in an error.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let each: Vec<String> = match text.matches("://").count() {
            0 | 1 => each_address(text),
            _ => text.split(',').map(|one| one.trim().to_owned()).collect(),
        };
        let count = each.len();
        if count > MAX_LISTED {
            return Err(format!(
                "it lists {count} addresses, at most {MAX_LISTED} are possible"
            ));
        }
        let mut list: Vec<Self> = Vec::with_capacity(count);
        for (at, one) in each.iter().enumerate() {
            let place = || match count {
                1 => String::new(),
                _ => format!("address {} of {count}{}: ", at + 1, shown(one)),
            };
            let read = Self::parse(one).map_err(|why| format!("{}{why}", place()))?;
            if list.iter().any(|other| other.url == read.url) {
                return Err(format!("{}it is listed twice", place()));
            }
            list.push(read);
        }
        Ok(list)
    }
}

impl fmt::Debug for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAddress")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> String {
        BrokerAddress::parse(text)
            .unwrap()
            .uri("guest", &Secret::new("gu/est"), "/")
    }

    #[test]
    fn broker_forms() {
        assert_eq!(
            uri("rabbit-1:5673"),
            "amqp://guest:gu%2Fest@rabbit-1:5673/%2F"
        );
        assert_eq!(uri("Rabbit-1"), "amqp://guest:gu%2Fest@rabbit-1:5672/%2F");
        assert_eq!(uri("[::1]:5672"), "amqp://guest:gu%2Fest@[::1]:5672/%2F");
        assert_eq!(uri("amqps://me:p%40ss@h"), "amqps://me:p%40ss@h:5671/%2F");
        assert_eq!(uri("amqp://h/team"), "amqp://guest:gu%2Fest@h:5672/team");
        assert_eq!(uri("AMQP://h/%2F"), "amqp://guest:gu%2Fest@h:5672/%2F");
    }

    #[test]
    fn several_addresses_are_one_broker() {
        let text = "amqp://me:p%2Cw@Host-b:5673,host-a,[::1]/team";
        let address = BrokerAddress::parse(text).unwrap();
        assert_eq!(address.label(), "[::1]:5672,host-a:5672,host-b:5673");
        assert_eq!(
            address.uri("x", &Secret::new("y"), "/"),
            "amqp://me:p%2Cw@host-b:5673,host-a:5672,[::1]:5672/team"
        );
        assert_eq!(
            uri("host-a:5672, host-b:5672"),
            "amqp://guest:gu%2Fest@host-a:5672,host-b:5672/%2F"
        );
        let external = BrokerAddress::parse("amqps://a,b").unwrap();
        assert_eq!(
            external.external_uri("/"),
            "amqps://a:5671,b:5671/%2F?auth_mechanism=external"
        );
    }

    #[test]
    fn the_bad_address_of_several_is_named_and_no_password_is() {
        let why = |text: &str| BrokerAddress::parse(text).unwrap_err();
        for (text, words) in [
            ("a:5672,b:x", "address 2 of 2, b:x: "),
            ("a:5672,,b", "address 2 of 3: "),
            ("a:5672,b:61616", "address 2 of 2, b:61616: port 61616"),
            ("amqp://u:secret@a,fe80::1/v", "address 2 of 2, fe80::1: "),
            ("a,b,A:5672", "address 3 of 3, a:5672, is listed twice"),
            ("amqp://a,amqp://b", "share all else"),
            ("a:5672,amqp://b", "share all else"),
        ] {
            let message = why(text);
            assert!(message.contains(words), "{text}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
        // A slash in the password, and its rest looks like addresses.
        assert!(!why("amqp://u:x,secret/w@a,b").contains("secret"));
        let many = vec!["h"; 17].join(",");
        assert!(why(&many).contains("at most 16"));
    }

    #[test]
    fn management_apis_of_one_broker_are_listed_both_ways() {
        let urls = |text: &str| -> Vec<String> {
            let list = HttpAddress::parse_list(text).unwrap();
            list.into_iter().map(|one| one.url).collect()
        };
        let both = ["http://a:15672/rmq", "http://b:15672/rmq"];
        assert_eq!(urls("http://u:p@a:15672,b:15672/rmq"), both);
        assert_eq!(urls("http://u:p@a:15672/rmq/,http://b:15672/rmq"), both);
        let list = HttpAddress::parse_list("https://u:p@a,b").unwrap();
        assert!(list.iter().all(|one| one.user.as_deref() == Some("u")));
        for (bad, words) in [
            ("http://a,b:x", "address 2 of 2, b:x: "),
            ("http://a,http://a", "address 2 of 2, a: it is listed twice"),
        ] {
            let message = HttpAddress::parse_list(bad).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn the_broker_library_reads_back_what_was_meant() {
        for (text, host, port) in [
            ("rabbit-1:5673", "rabbit-1", 5673),
            ("amqps://h/a%2Fb", "h", 5671),
            ("[::1]:5673", "::1", 5673),
            ("amqps://[FD00::2]", "fd00::2", 5671),
        ] {
            let address = BrokerAddress::parse(text).unwrap();
            let uri = address.uri("us:er@x", &Secret::new("p@ss/wört %"), "/");
            let read = tandem_net::amqp::uri(&uri).unwrap();
            assert_eq!(
                (read.authority.host.as_str(), read.authority.port),
                (host, port)
            );
            assert_eq!(read.authority.userinfo.username, "us:er@x");
            assert_eq!(read.authority.userinfo.password, "p@ss/wört %");
            assert_eq!(read.vhost, address.vhost.as_deref().unwrap_or("/"));
        }
    }

    #[test]
    fn a_certificate_as_login_is_a_uri_of_its_own() {
        let address = BrokerAddress::parse("amqps://[fd00::2]/a%2Fb").unwrap();
        let read = tandem_net::amqp::uri(&address.external_uri("/")).unwrap();
        assert_eq!(
            (read.authority.host.as_str(), &*read.vhost),
            ("fd00::2", "a/b")
        );
        let mechanism = lapin::uri::SASLMechanism::External;
        assert_eq!(read.query.auth_mechanism, Some(mechanism));
    }

    #[test]
    fn zones_and_bare_ipv6_addresses_are_explained() {
        for text in ["[fe80::1%eth0]:5672", "fe80::1%eth0", "amqp://[fe80::1]"] {
            let message = BrokerAddress::parse(text).unwrap_err();
            assert!(message.contains("link-local"), "{text}: {message}");
        }
        for text in ["::1", "fd00::2:5672"] {
            let message = BrokerAddress::parse(text).unwrap_err();
            assert!(message.contains("in brackets"), "{text}: {message}");
        }
        let message = HttpAddress::parse("https://[fe80::1%25eth0]:8445").unwrap_err();
        assert!(message.contains("link-local"), "{message}");
    }

    #[test]
    fn activemq_addresses_are_explained() {
        let message = BrokerAddress::parse("amq-1:61616").unwrap_err();
        assert!(
            message.contains("61616") && message.contains("amq-1:5672"),
            "{message}"
        );
        for old in [
            "tcp://h:61616",
            "ssl://h:61617",
            "failover:(tcp://a,tcp://b)",
            "failover://(tcp://a)",
        ] {
            assert!(BrokerAddress::parse(old).is_err(), "{old}");
        }
    }

    #[test]
    fn a_failover_list_is_told_apart_from_a_bad_scheme() {
        let message = BrokerAddress::parse("failover:(tcp://a:61616,tcp://b:61616)").unwrap_err();
        assert!(message.contains("one by one"), "{message}");
    }

    #[test]
    fn bad_broker_addresses_are_refused_without_repeating_them() {
        let bad = [
            "",
            ":5672",
            "h:0",
            "h:99999",
            "h:x",
            "h/v",
            "me:pw@h",
            "amqp://h?heartbeat=1",
            "amqp://h/a/b",
            "amqp://",
            "amqp://a b",
            "ws://h",
            "amqp://me:%ff@h",
        ];
        for text in bad {
            let message = BrokerAddress::parse(text).unwrap_err();
            assert!(!message.contains("pw"), "{text}: {message}");
        }
    }

    #[test]
    fn http_bases_lose_slash_and_credentials() {
        let base = HttpAddress::parse("https://me:pw@Finesse-1.example:8445/finesse/api/").unwrap();
        assert_eq!(base.url, "https://finesse-1.example:8445/finesse/api");
        assert_eq!(
            (base.host.as_str(), base.path.as_str(), base.tls),
            ("finesse-1.example", "/finesse/api", true)
        );
        assert_eq!(base.user.as_deref(), Some("me"));
        assert!(!format!("{base:?}").contains("pw"));
        assert_eq!(HttpAddress::parse("http://[::1]:80/").unwrap().host, "::1");
        for bad in [
            "h:8445",
            "ftp://h",
            "http://h?x",
            "http://h#x",
            "/a",
            "http://",
        ] {
            assert!(HttpAddress::parse(bad).is_err(), "{bad}");
        }
    }
}
