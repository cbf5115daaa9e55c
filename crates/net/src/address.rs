//! Hosts as people write them.

use std::net::{IpAddr, Ipv6Addr};

/// Why an IPv6 address with a zone, or one that needs a zone, is refused.
const ZONE: &str = "a link-local IPv6 address (fe80::…, with or without a zone as %eth0) means another machine on every host: give a global or unique local address, or a name";
/// Why an IPv6 address without brackets is refused where a port may follow.
const BRACKETS: &str = "an IPv6 address is written in brackets, as [2001:db8::7]:5672";

/// An IPv6 address without its brackets; anything else as it is.
#[must_use]
pub fn bare(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host)
}

/// An IPv6 address in brackets, as URLs have it; anything else as it is.
#[must_use]
pub fn bracketed(host: &str) -> String {
    let host = bare(host);
    match host.parse::<Ipv6Addr>() {
        Ok(_) => format!("[{host}]"),
        Err(_) => host.to_owned(),
    }
}

/// Why a lone host, in brackets or not, cannot be used; `None` where nothing is known against it.
#[must_use]
pub fn host_problem(host: &str) -> Option<&'static str> {
    let host = bare(host);
    let address = host.split('%').next().unwrap_or(host);
    let address: IpAddr = address.parse().ok()?;
    let IpAddr::V6(v6) = address else { return None };
    (host.contains('%') || v6.is_unicast_link_local()).then_some(ZONE)
}

/// The same for the host of `[scheme://][user:password@]host[:port][/…]`, which parsers of URLs
/// refuse without a reason that helps.
#[must_use]
pub fn authority_problem(text: &str) -> Option<&'static str> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let rest = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let authority = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if let Some(inner) = authority.strip_prefix('[') {
        return host_problem(inner.split(']').next().unwrap_or(inner));
    }
    if host_problem(authority).is_some() {
        return Some(ZONE);
    }
    (authority.matches(':').count() > 1).then_some(BRACKETS)
}

/// Addresses that one URL may list.
pub const MAX_LISTED: usize = 16;

/// The same URL once for each address that its authority lists with commas between them:
/// `amqp://u:p@a:1,b:2/v` becomes `amqp://u:p@a:1/v` and `amqp://u:p@b:2/v`. One that lists none
/// stays as it is, and nothing is checked.
#[must_use]
pub fn each_address(text: &str) -> Vec<String> {
    let start = text.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = text.split_at(start);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let user = authority.rfind('@').map_or(0, |at| at + 1);
    let (user, hosts) = authority.split_at(user);
    let each = hosts.split(',').map(str::trim);
    each.map(|host| format!("{scheme}{user}{host}{tail}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_addresses_shares_all_but_the_address() {
        let each = each_address("amqp://u:p,w@a:1, [::1]:2,c/v?x=1");
        let wanted = [
            "amqp://u:p,w@a:1/v?x=1",
            "amqp://u:p,w@[::1]:2/v?x=1",
            "amqp://u:p,w@c/v?x=1",
        ];
        assert_eq!(each, wanted);
        assert_eq!(each_address("a:1,b"), ["a:1", "b"]);
        assert_eq!(each_address("amqps://h/a,b"), ["amqps://h/a,b"]);
        assert_eq!(each_address(""), [""]);
    }

    #[test]
    fn brackets_come_and_go() {
        assert_eq!(bare("[::1]"), "::1");
        assert_eq!(bracketed("::1"), "[::1]");
        assert_eq!(bracketed("[::1]"), "[::1]");
        assert_eq!(bracketed("10.0.0.1"), "10.0.0.1");
        assert_eq!(bracketed("rabbit-1"), "rabbit-1");
    }

    #[test]
    fn zones_and_link_local_addresses_are_refused() {
        for zoned in [
            "fe80::1%eth0",
            "[fe80::1%25eth0]",
            "fe80::1",
            "2001:db8::7%1",
        ] {
            assert_eq!(host_problem(zoned), Some(ZONE), "{zoned}");
        }
        for good in ["::1", "fd00::2", "10.0.0.1", "rabbit-1", "a%b"] {
            assert_eq!(host_problem(good), None, "{good}");
        }
    }

    #[test]
    fn the_host_within_a_url_is_looked_at() {
        for zoned in [
            "amqp://u:p%40w@[fe80::1%eth0]:5672/v",
            "[fe80::1%25eth0]",
            "fe80::1%eth0",
            "http://[fe80::1]:15672",
        ] {
            assert_eq!(authority_problem(zoned), Some(ZONE), "{zoned}");
        }
        for open in ["::1", "2001:db8::7:5672", "amqps://u:p@fd00::2/v"] {
            assert_eq!(authority_problem(open), Some(BRACKETS), "{open}");
        }
        for good in [
            "[::1]:5672",
            "amqp://a:b%25c@h:1/v",
            "h:1",
            "https://h:8445/a:b:c",
            "amqp://u:p@[fd00::2]/%2F",
        ] {
            assert_eq!(authority_problem(good), None, "{good}");
        }
    }
}
