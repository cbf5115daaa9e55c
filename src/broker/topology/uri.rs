//! AMQP URIs as federation upstreams take them.

use serde_json::Value;

use crate::broker::management::segment;
use crate::net::address::each_address;

/// Heartbeat of a link in seconds, and its bound of connecting in milliseconds: a link over a
/// cut line is noticed within about two heartbeats.
const LINK_PARAMETERS: &str = "heartbeat=5&connection_timeout=5000";
/// The option that names how a client logs in.
const MECHANISM: &str = "auth_mechanism=";

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
