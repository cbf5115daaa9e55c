//! Who may ask what.
//!
//! A browser on this machine can be made to call a loopback listener by any page it shows. Two
//! checks stop that: a foreign `Origin` must not change anything, and on loopback the `Host` must
//! be an address or a name of this machine, or a name that an attacker points here (rebinding)
//! would make his page same-origin. Off loopback everything that changes or shows agents wants
//! the token, which a browser does not send by itself.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};

use crate::model::Secret;

/// What a request touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Reads what anybody may see.
    Nothing,
    /// Reads about agents.
    Private,
    /// Changes something.
    Change,
}

/// Why a request is refused.
pub(super) type Refusal = (StatusCode, String);

/// The rules of one listener.
#[derive(Debug, Clone)]
pub(super) struct Access {
    loopback: bool,
    token: Option<Secret>,
    machine: Option<String>,
}

impl Access {
    pub(super) fn of(listen: SocketAddr, token: Option<Secret>) -> Self {
        let machine = hostname::get()
            .ok()
            .map(|name| name.to_string_lossy().to_ascii_lowercase());
        Self {
            loopback: listen.ip().is_loopback(),
            token,
            machine,
        }
    }

    pub(super) fn check(&self, headers: &HeaderMap, needs: Needs) -> Result<(), Refusal> {
        let host = authority(headers);
        if self.loopback && !host.as_ref().is_some_and(|host| self.is_ours(host)) {
            let words = "Host is not a name of this machine: use its address";
            return Err((StatusCode::FORBIDDEN, words.to_owned()));
        }
        if needs == Needs::Change && !same_origin(headers, host.as_ref()) {
            let words = "calls from other sites are refused";
            return Err((StatusCode::FORBIDDEN, words.to_owned()));
        }
        let wanted = match needs {
            Needs::Nothing => false,
            Needs::Private => !self.loopback,
            Needs::Change => !self.loopback || self.token.is_some(),
        };
        if wanted {
            self.authorize(headers)
        } else {
            Ok(())
        }
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            let words = "no admin.token-file is configured: allowed on a loopback listener only";
            return Err((StatusCode::UNAUTHORIZED, words.to_owned()));
        };
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, given)| Secret::new(given.trim()));
        // Secrets compare in constant time.
        match given {
            Some(given) if given == *token => Ok(()),
            Some(_) => Err((StatusCode::UNAUTHORIZED, "wrong token".to_owned())),
            None => Err((
                StatusCode::UNAUTHORIZED,
                "a bearer token is needed".to_owned(),
            )),
        }
    }

    fn is_ours(&self, host: &Authority) -> bool {
        let name = host.host().to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.machine.as_deref() == Some(name)
    }
}

/// The one `Host`; `None` where it is missing, doubled or unreadable.
fn authority(headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next()?;
    match hosts.next() {
        Some(_) => None,
        None => Authority::try_from(host.as_bytes()).ok(),
    }
}

fn same_origin(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return false;
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return true;
    };
    let own = origin.to_str().ok().and_then(|origin| {
        let rest = origin
            .strip_prefix("http://")
            .or(origin.strip_prefix("https://"))?;
        Authority::try_from(rest).ok()
    });
    origins.next().is_none() && own.is_some() && own.as_ref() == host
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn access(listen: &str, token: Option<&str>) -> Access {
        Access::of(listen.parse().unwrap(), token.map(Secret::new))
    }

    fn status(access: &Access, needs: Needs, lines: &[(&'static str, &str)]) -> u16 {
        match access.check(&headers(lines), needs) {
            Ok(()) => 200,
            Err((status, _)) => status.as_u16(),
        }
    }

    const NEAR: &str = "127.0.0.1:9601";
    const ANY: &str = "0.0.0.0:9601";
    const LOCAL: (&str, &str) = ("host", "127.0.0.1:9601");
    const FAR: (&str, &str) = ("host", "gc-1.example:9601");
    const GOOD: (&str, &str) = ("authorization", "Bearer s3cret");
    const BAD: (&str, &str) = ("authorization", "Bearer s3creT");

    #[test]
    fn token_rules() {
        use Needs::{Change, Nothing, Private};
        let token = Some("s3cret");
        for (listen, token, needs, lines, wanted) in [
            (NEAR, None, Change, vec![LOCAL], 200),
            (NEAR, token, Change, vec![LOCAL], 401),
            (NEAR, token, Change, vec![LOCAL, BAD], 401),
            (NEAR, token, Change, vec![LOCAL, GOOD], 200),
            (NEAR, token, Private, vec![LOCAL], 200),
            (ANY, None, Nothing, vec![FAR], 200),
            (ANY, None, Private, vec![FAR], 401),
            (ANY, None, Change, vec![FAR], 401),
            (ANY, None, Change, vec![FAR, GOOD], 401),
            (ANY, token, Private, vec![FAR, BAD], 401),
            (ANY, token, Private, vec![FAR, GOOD], 200),
            (ANY, token, Change, vec![FAR, GOOD], 200),
            (ANY, token, Change, vec![FAR], 401),
        ] {
            let got = status(&access(listen, token), needs, &lines);
            assert_eq!(got, wanted, "{listen} {token:?} {needs:?} {lines:?}");
        }
    }

    #[test]
    fn on_loopback_only_names_of_this_machine() {
        let access = access("127.0.0.1:9601", None);
        for good in [
            "127.0.0.1",
            "[::1]:9601",
            "localhost:9601",
            "LOCALHOST.",
            "a.localhost",
        ] {
            assert_eq!(
                status(&access, Needs::Nothing, &[("host", good)]),
                200,
                "{good}"
            );
        }
        for bad in [
            "evil.example",
            "localhost.evil.example:9601",
            "127.0.0.1.evil.example",
            "@",
        ] {
            assert_eq!(
                status(&access, Needs::Nothing, &[("host", bad)]),
                403,
                "{bad}"
            );
        }
        assert_eq!(status(&access, Needs::Nothing, &[]), 403);
        assert_eq!(status(&access, Needs::Nothing, &[LOCAL, LOCAL]), 403);
    }

    #[test]
    fn other_sites_change_nothing() {
        let access = access("127.0.0.1:9601", None);
        let with = |name, value| status(&access, Needs::Change, &[LOCAL, (name, value)]);
        assert_eq!(with("origin", "http://127.0.0.1:9601"), 200);
        assert_eq!(with("sec-fetch-site", "same-origin"), 200);
        assert_eq!(with("origin", "http://127.0.0.1:9602"), 403);
        assert_eq!(with("origin", "http://evil.example"), 403);
        assert_eq!(with("origin", "null"), 403);
        assert_eq!(with("sec-fetch-site", "cross-site"), 403);
    }
}
