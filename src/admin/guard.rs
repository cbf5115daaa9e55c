//! Who may ask what.
//!
//! A browser on this machine can be made to call a loopback listener by any page it shows. Two
//! checks stop that: a foreign `Origin` must not change anything, and on loopback the `Host` must
//! be an address or a name of this machine, or a name that an attacker points here (rebinding)
//! would make his page same-origin. Off loopback everything but the empty page and the metrics
//! wants a token, which a browser does not send by itself; `admin.open-reads` opens what is read,
//! agents aside.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};

use super::throttle::Throttle;
use crate::listener::bearer;
use crate::settings::{Admin, Token, TokenRole};

/// What a request touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Reads what anybody may see: the empty page, metrics.
    Nothing,
    /// Reads.
    Read,
    /// Reads about agents.
    Private,
    /// Changes something.
    Change,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) words: String,
    /// When it is worth while to ask again.
    pub(super) retry: Option<Duration>,
}

/// Who asks: a token's name, or an address without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) token: Option<String>,
    pub(super) from: IpAddr,
    /// Why, in the caller's words; empty where nothing was said.
    pub(super) reason: String,
}

impl Caller {
    fn new(token: Option<String>, from: IpAddr) -> Self {
        let reason = String::new();
        Self {
            token,
            from,
            reason,
        }
    }
}

/// The tokens, and what is open without one. Clones share it, and it can be replaced while the
/// listener runs.
#[derive(Debug, Clone, Default)]
pub struct Rules(Arc<RwLock<Arc<Set>>>);

#[derive(Debug, Default)]
struct Set {
    tokens: Vec<Token>,
    open_reads: bool,
}

/// What the token of `admin.token` is called.
const UNNAMED: &str = "admin.token";

impl Rules {
    /// As the settings say.
    #[must_use]
    pub fn of(settings: &Admin) -> Self {
        let rules = Self::default();
        rules.replace(settings);
        rules
    }

    /// Puts other settings in their place, for all requests from now on.
    pub fn replace(&self, settings: &Admin) {
        let unnamed = settings.token.iter();
        let unnamed = unnamed.map(|token| Token::of(UNNAMED, TokenRole::Operate, token));
        let set = Set {
            tokens: unnamed.chain(settings.tokens.iter().cloned()).collect(),
            open_reads: settings.open_reads,
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
    }

    /// Whether there is any token.
    pub(super) fn any(&self) -> bool {
        !self.set().tokens.is_empty()
    }

    fn set(&self) -> Arc<Set> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The rules of one listener.
#[derive(Debug)]
pub(super) struct Access {
    loopback: bool,
    /// A browser believes a certificate for its own names only: no name can be made to point here.
    certain: bool,
    rules: Rules,
    machine: Option<String>,
    throttle: Throttle,
}

impl Access {
    pub(super) fn of(listen: SocketAddr, tls: bool, rules: Rules) -> Self {
        let machine = hostname::get()
            .ok()
            .map(|name| name.to_string_lossy().to_ascii_lowercase());
        Self {
            loopback: listen.ip().is_loopback(),
            certain: tls,
            rules,
            machine,
            throttle: Throttle::default(),
        }
    }

    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        needs: Needs,
        from: IpAddr,
    ) -> Result<Caller, Refusal> {
        let host = authority(headers);
        let rebound = self.loopback && !self.certain;
        if rebound && !host.as_ref().is_some_and(|host| self.is_ours(host)) {
            let words = "Host is not a name of this machine: use its address";
            return Err(refused(StatusCode::FORBIDDEN, words));
        }
        if needs == Needs::Change && !same_origin(headers, host.as_ref()) {
            let words = "calls from other sites are refused";
            return Err(refused(StatusCode::FORBIDDEN, words));
        }
        let set = self.rules.set();
        let wanted = match needs {
            Needs::Nothing => false,
            Needs::Read => !self.loopback && !set.open_reads,
            Needs::Private => !self.loopback,
            Needs::Change => !self.loopback || !set.tokens.is_empty(),
        };
        if wanted {
            self.authorize(headers, &set, needs, from)
        } else {
            Ok(Caller::new(None, from))
        }
    }

    fn authorize(
        &self,
        headers: &HeaderMap,
        set: &Set,
        needs: Needs,
        from: IpAddr,
    ) -> Result<Caller, Refusal> {
        let unauthorized = |words: &str| Err(refused(StatusCode::UNAUTHORIZED, words));
        if set.tokens.is_empty() {
            return unauthorized(
                "neither admin.token-file nor admin.tokens-file is configured: allowed on a \
                 loopback listener only",
            );
        }
        let Some(given) = bearer(headers) else {
            return unauthorized("a bearer token is needed");
        };
        if let Some(retry) = self.throttle.wait(from, now()) {
            let words = "too many wrong tokens from this address: none is looked at for a while";
            return Err(Refusal {
                retry: Some(retry),
                ..refused(StatusCode::TOO_MANY_REQUESTS, words)
            });
        }
        // All are compared, each in constant time.
        let mut fitting = set.tokens.iter().filter(|token| token.is(&given));
        let Some(token) = fitting.next() else {
            if self.throttle.wrong(from, now()) {
                tracing::warn!(%from, "admin: too many wrong tokens: none is looked at for a while");
            }
            return unauthorized("wrong token");
        };
        if needs == Needs::Change && token.role != TokenRole::Operate {
            let words = format!("the token {} may read only", token.name);
            return Err(refused(StatusCode::FORBIDDEN, &words));
        }
        Ok(Caller::new(Some(token.name.clone()), from))
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

fn refused(status: StatusCode, words: &str) -> Refusal {
    Refusal {
        status,
        words: words.to_owned(),
        retry: None,
    }
}

fn now() -> Instant {
    Instant::now()
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
    use crate::model::Secret;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn settings(token: Option<&str>, open_reads: bool) -> Admin {
        let read = Token::of("grafana", TokenRole::Read, &Secret::new("r3ad"));
        let operate = Token::of("ops", TokenRole::Operate, &Secret::new("0ps"));
        Admin {
            listen: NEAR.parse().unwrap(),
            token: token.map(Secret::new),
            tokens: token.map_or_else(Vec::new, |_| vec![read, operate]),
            open_reads,
            page: String::new(),
            tls: None,
        }
    }

    fn access(listen: &str, token: Option<&str>) -> Access {
        let rules = Rules::of(&settings(token, false));
        Access::of(listen.parse().unwrap(), false, rules)
    }

    fn checked(
        access: &Access,
        needs: Needs,
        lines: &[(&'static str, &str)],
    ) -> Result<Caller, Refusal> {
        access.check(&headers(lines), needs, "10.0.0.7".parse().unwrap())
    }

    fn status(access: &Access, needs: Needs, lines: &[(&'static str, &str)]) -> u16 {
        match checked(access, needs, lines) {
            Ok(_) => 200,
            Err(refusal) => refusal.status.as_u16(),
        }
    }

    const NEAR: &str = "127.0.0.1:9601";
    const ANY: &str = "0.0.0.0:9601";
    const LOCAL: (&str, &str) = ("host", "127.0.0.1:9601");
    const FAR: (&str, &str) = ("host", "gc-1.example:9601");
    const GOOD: (&str, &str) = ("authorization", "Bearer s3cret");
    const BAD: (&str, &str) = ("authorization", "Bearer s3creT");
    const READ: (&str, &str) = ("authorization", "Bearer r3ad");
    const OPERATE: (&str, &str) = ("authorization", "bearer  0ps ");

    #[test]
    fn token_rules() {
        use Needs::{Change, Nothing, Private, Read};
        let token = Some("s3cret");
        for (listen, token, needs, lines, wanted) in [
            (NEAR, None, Change, vec![LOCAL], 200),
            (NEAR, token, Change, vec![LOCAL], 401),
            (NEAR, token, Change, vec![LOCAL, BAD], 401),
            (NEAR, token, Change, vec![LOCAL, GOOD], 200),
            (NEAR, token, Private, vec![LOCAL], 200),
            (ANY, None, Nothing, vec![FAR], 200),
            (ANY, None, Read, vec![FAR], 401),
            (ANY, token, Read, vec![FAR], 401),
            (ANY, token, Read, vec![FAR, READ], 200),
            (ANY, token, Private, vec![FAR, READ], 200),
            (ANY, token, Change, vec![FAR, READ], 403),
            (ANY, token, Change, vec![FAR, OPERATE], 200),
            (NEAR, token, Read, vec![LOCAL], 200),
            (NEAR, token, Change, vec![LOCAL, READ], 403),
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
    fn open_reads_open_what_is_not_about_agents() {
        let rules = Rules::of(&settings(Some("s3cret"), true));
        let access = Access::of(ANY.parse().unwrap(), false, rules.clone());
        assert_eq!(status(&access, Needs::Read, &[FAR]), 200);
        assert_eq!(status(&access, Needs::Private, &[FAR]), 401);
        assert_eq!(status(&access, Needs::Change, &[FAR]), 401);
        rules.replace(&settings(Some("other"), false));
        assert_eq!(status(&access, Needs::Read, &[FAR]), 401);
        assert_eq!(status(&access, Needs::Private, &[FAR, GOOD]), 401);
    }

    #[test]
    fn a_caller_is_known_by_the_tokens_name() {
        let access = access(ANY, Some("s3cret"));
        let who = |line| checked(&access, Needs::Change, &[FAR, line]).unwrap().token;
        assert_eq!(who(GOOD).as_deref(), Some("admin.token"));
        assert_eq!(who(OPERATE).as_deref(), Some("ops"));
    }

    #[test]
    fn wrong_tokens_are_limited_and_then_right_ones_wait_too() {
        let access = access(ANY, Some("s3cret"));
        for _ in 0..super::super::throttle::WRONG {
            assert_eq!(status(&access, Needs::Private, &[FAR, BAD]), 401);
        }
        for line in [BAD, GOOD] {
            let refusal = checked(&access, Needs::Private, &[FAR, line]).unwrap_err();
            assert_eq!(refusal.status.as_u16(), 429);
            assert!(refusal.retry.is_some());
        }
        assert_eq!(status(&access, Needs::Nothing, &[FAR]), 200);
        let other = "10.0.0.8".parse().unwrap();
        let good = access.check(&headers(&[FAR, GOOD]), Needs::Change, other);
        assert!(good.is_ok());
    }

    #[test]
    fn with_a_certificate_any_name_that_it_proves_will_do() {
        let rules = Rules::of(&settings(None, false));
        let access = Access::of(NEAR.parse().unwrap(), true, rules);
        assert_eq!(status(&access, Needs::Read, &[FAR]), 200);
        let site = ("origin", "https://evil.example");
        assert_eq!(status(&access, Needs::Change, &[FAR, site]), 403);
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
