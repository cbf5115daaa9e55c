//! AMQP URIs as federation upstreams take them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::FederationTls;
use crate::broker::management::segment;
use crate::net::address::{bare, each_address};

/// Heartbeat of a link in seconds, and its bound of connecting in milliseconds: a link over a
/// cut line is noticed within about two heartbeats.
const LINK_PARAMETERS: &str = "heartbeat=5&connection_timeout=5000";
/// The option that names how a client logs in.
const MECHANISM: &str = "auth_mechanism=";

/// What may stand unencoded in an option's value.
const OPTION: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'_')
    .remove(b'-')
    .remove(b'~');

/// The parts of `scheme://[user[:password]@]authority[/path][?query]`.
struct Parts<'a> {
    scheme: &'a str,
    credentials: Option<&'a str>,
    authority: &'a str,
    path: Option<&'a str>,
    query: Option<&'a str>,
}

fn split(uri: &str) -> Parts<'_> {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("amqp", uri));
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (rest, None),
    };
    let (credentials, authority) = match authority.rsplit_once('@') {
        Some((credentials, authority)) => (Some(credentials), authority),
        None => (None, authority),
    };
    Parts {
        scheme,
        credentials,
        authority,
        path: path.filter(|p| !p.is_empty()),
        query,
    }
}

/// The virtual host that a URI names; `/` where it names none.
pub fn vhost_of(uri: &str) -> String {
    match split(uri).path {
        Some(path) => percent_encoding::percent_decode_str(path)
            .decode_utf8_lossy()
            .into_owned(),
        None => "/".to_owned(),
    }
}

/// Where a URI leads: `host:port`, to compare with others.
pub(super) fn address_of(uri: &str) -> String {
    let parts = split(uri);
    let port = if parts.scheme == "amqps" { 5671 } else { 5672 };
    let authority = parts.authority.to_lowercase();
    // The colons of an IPv6 address are within brackets.
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'));
    match has_port {
        true => authority,
        false => format!("{authority}:{port}"),
    }
}

/// Where a URI of a broker leads that may list several addresses.
pub(super) fn addresses_of(uri: &str) -> Vec<String> {
    let each = each_address(uri);
    each.iter().map(|one| address_of(one)).collect()
}

/// The URI with credentials, virtual host and link parameters where it has none of its own.
pub(super) fn for_federation(uri: &str, user: &str, password: &str) -> String {
    let parts = split(uri);
    let credentials = match parts.credentials {
        Some(given) => given.to_owned(),
        None => format!("{}:{}", segment(user), segment(password)),
    };
    // How an instance logs in says nothing about the brokers themselves.
    let given = parts.query.unwrap_or_default().split('&');
    let given = given.filter(|option| !option.is_empty() && !option.starts_with(MECHANISM));
    let mut options: Vec<&str> = given.collect();
    if !options
        .iter()
        .any(|option| option.starts_with("heartbeat="))
    {
        options.push(LINK_PARAMETERS);
    }
    let query = options.join("&");
    format!(
        "{}://{credentials}@{}/{}?{query}",
        parts.scheme,
        parts.authority,
        parts.path.unwrap_or("%2F"),
    )
}

/// An amqps URI with what says how the broker that connects judges the other one, where it says
/// nothing of that itself. Others stay as they are.
pub(super) fn with_tls(uri: &str, tls: &FederationTls) -> String {
    let parts = split(uri);
    let given = |name: &str| options(uri).any(|(key, _)| key == name);
    let Some(ca_file) = tls.ca_file.as_ref().filter(|_| is_amqps(uri)) else {
        return uri.to_owned();
    };
    let mut wanted = vec![("cacertfile", ca_file.as_str()), ("verify", "verify_peer")];
    let host = host_of(parts.authority);
    // An address cannot be asked for in a handshake; it is looked for in the certificate anyway.
    if host.parse::<std::net::IpAddr>().is_err() {
        wanted.push(("server_name_indication", host));
    }
    if let Some((certificate, key)) = &tls.certificate {
        wanted.extend([("certfile", certificate.as_str()), ("keyfile", key)]);
    }
    let mut out = uri.to_owned();
    for (key, value) in wanted.into_iter().filter(|(key, _)| !given(key)) {
        out.push(if out.contains('?') { '&' } else { '?' });
        out.push_str(key);
        out.push('=');
        out.extend(utf8_percent_encode(value, OPTION));
    }
    out
}

/// Whether a link by one of these URIs (one, or a list of them) takes any certificate for the
/// other broker's, where the broker's version does not refuse such a link.
pub fn unjudged(uris: &Value) -> bool {
    texts(uris)
        .any(|uri| is_amqps(uri) && !options(uri).any(|option| option == ("verify", "verify_peer")))
}

/// The URIs of an upstream: one, or a list of them.
fn texts(uris: &Value) -> impl Iterator<Item = &str> {
    let one = uris.as_str().into_iter();
    one.chain(
        uris.as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str),
    )
}

fn is_amqps(uri: &str) -> bool {
    split(uri).scheme.eq_ignore_ascii_case("amqps")
}

/// `name=value` of the query.
fn options(uri: &str) -> impl Iterator<Item = (&str, &str)> {
    let all = split(uri).query.unwrap_or_default().split('&');
    all.filter_map(|option| option.split_once('='))
}

/// Without port, and without the brackets of an IPv6 address.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => bare(host),
        _ => bare(authority),
    }
}

/// In what two upstreams' URIs differ that lead to the same places: names of options. `None`
/// where they lead elsewhere, log in otherwise, or do not differ.
pub(super) fn other_options(wanted: &Value, found: &Value) -> Option<Vec<String>> {
    let route = |uris: &Value| -> Vec<String> {
        let route = |uri: &str| uri.split('?').next().unwrap_or_default().to_owned();
        texts(uris).map(route).collect()
    };
    if route(wanted) != route(found) {
        return None;
    }
    let all = |uris: &Value| -> std::collections::BTreeSet<(String, String)> {
        let each = texts(uris).flat_map(options);
        each.map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    let (wanted, found) = (all(wanted), all(found));
    let mut names: Vec<String> = wanted
        .symmetric_difference(&found)
        .map(|(key, _)| key.clone())
        .collect();
    names.dedup();
    (!names.is_empty()).then_some(names)
}

/// The URI without its password.
pub(super) fn redacted(uri: &str) -> String {
    let parts = split(uri);
    let mut out = format!("{}://", parts.scheme);
    if let Some(credentials) = parts.credentials {
        let user = credentials.split(':').next().unwrap_or_default();
        out.push_str(user);
        out.push_str(":***@");
    }
    out.push_str(parts.authority);
    for (mark, part) in [('/', parts.path), ('?', parts.query)] {
        if let Some(part) = part {
            out.push(mark);
            out.push_str(part);
        }
    }
    out
}

/// A parameter's value with its `uri`, where it has one, without password.
pub(super) fn redacted_value(value: &Value) -> Value {
    let mut value = value.clone();
    match value.get_mut("uri") {
        Some(Value::String(uri)) => *uri = redacted(uri),
        Some(Value::Array(uris)) => {
            for uri in uris {
                let text = uri.as_str().map(redacted);
                *uri = text.unwrap_or_default().into();
            }
        }
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parts_are_filled_in_and_given_ones_kept() {
        assert_eq!(
            for_federation("host:5672", "u@x", "p:w"),
            format!("amqp://u%40x:p%3Aw@host:5672/%2F?{LINK_PARAMETERS}")
        );
        assert_eq!(
            for_federation("amqps://a:b@h/v?heartbeat=1", "u", "p"),
            "amqps://a:b@h/v?heartbeat=1"
        );
        assert_eq!(
            for_federation("amqps://[::1]:5671/v?auth_mechanism=external", "u", "p"),
            format!("amqps://u:p@[::1]:5671/v?{LINK_PARAMETERS}")
        );
    }

    #[test]
    fn amqps_uris_say_how_the_other_broker_is_judged() {
        let mut tls = FederationTls::default();
        let uri = "amqps://u:p@host-b:5671/%2F?heartbeat=5";
        assert_eq!(with_tls(uri, &tls), uri);
        tls.ca_file = Some("/etc/rabbit mq/ca+1.pem".to_owned());
        let judged = "cacertfile=/etc/rabbit%20mq/ca%2B1.pem&verify=verify_peer";
        assert_eq!(
            with_tls(uri, &tls),
            format!("{uri}&{judged}&server_name_indication=host-b")
        );
        for (plain, mark) in [("amqps://10.0.0.1", '?'), ("amqps://[::1]:5671/v?a=b", '&')] {
            assert_eq!(with_tls(plain, &tls), format!("{plain}{mark}{judged}"));
        }
        assert_eq!(with_tls("amqp://host", &tls), "amqp://host");
        let own = "amqps://host?verify=verify_none&cacertfile=x&server_name_indication=y";
        assert_eq!(with_tls(own, &tls), own);
        tls.certificate = Some(("/c.pem".to_owned(), "/k.pem".to_owned()));
        assert!(with_tls(uri, &tls).ends_with("=host-b&certfile=/c.pem&keyfile=/k.pem"));
        assert!(unjudged(&Value::from(uri)));
        assert!(unjudged(&Value::from(vec![
            with_tls(uri, &tls),
            own.to_owned()
        ])));
        assert!(!unjudged(&Value::from(with_tls(uri, &tls))));
        assert!(!unjudged(&Value::from("amqp://host")));
    }

    #[test]
    fn what_differs_in_the_options_alone_is_named() {
        let other = |a: &str, b: &str| other_options(&Value::from(a), &Value::from(b));
        let names = other("amqps://h/v?a=1&verify=verify_peer", "amqps://h/v?a=2");
        assert_eq!(names.unwrap(), ["a", "verify"]);
        assert_eq!(other("amqps://h/v?a=1", "amqps://h/v?a=1"), None);
        assert_eq!(other("amqps://h/v?a=1", "amqps://i/v"), None);
        assert_eq!(other("amqps://u:p@h?a=1", "amqps://u:q@h"), None);
    }

    #[test]
    fn virtual_host_is_the_decoded_path() {
        assert_eq!(vhost_of("amqp://h:1"), "/");
        assert_eq!(vhost_of("amqp://h:1/"), "/");
        assert_eq!(vhost_of("amqp://h:1/%2f"), "/");
        assert_eq!(vhost_of("amqp://u:p@h/site%20a?x=/y"), "site a");
    }

    #[test]
    fn addresses_are_compared_with_their_port() {
        assert_eq!(address_of("amqp://u:p@Host/v?a=b"), "host:5672");
        assert_eq!(address_of("amqps://host"), "host:5671");
        assert_eq!(address_of("amqp://[::1]"), "[::1]:5672");
        assert_eq!(address_of("amqp://[::1]:7"), "[::1]:7");
        assert_eq!(address_of("10.0.0.1:5673"), "10.0.0.1:5673");
    }

    #[test]
    fn a_list_of_uris_shows_no_password_either() {
        let uris = serde_json::json!({"uri": ["amqp://u:p@a", "amqp://u:p@b/v"], "max-hops": 1});
        let shown = redacted_value(&uris);
        assert_eq!(shown["uri"][0], "amqp://u:***@a");
        assert_eq!(shown["uri"][1], "amqp://u:***@b/v");
        assert_eq!(addresses_of("amqp://u:p@a,b:7/v"), ["a:5672", "b:7"]);
    }

    #[test]
    fn the_password_goes_and_the_rest_stays() {
        assert_eq!(redacted("amqp://u:p@h:1/v?a=b"), "amqp://u:***@h:1/v?a=b");
        assert_eq!(redacted("amqp://h:1"), "amqp://h:1");
    }
}
