//! Where events may be posted, and where those of a client are.

use percent_encoding::percent_decode_str;
use reqwest::Url;

/// Longest URL of a callback, bytes.
const MAX_URL: usize = 2000;

/// One entry of `rest.callback.allow.N`: this scheme, host and port, and paths from this one on.
///
/// A host is compared as it is written, never by what its name resolves to: an address of a private
/// network is called where an entry names that very address, and not otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    origin: Origin,
    /// Without a slash at the end.
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    /// In the URL standard's one spelling: lower case, addresses in their usual form.
    host: String,
    port: u16,
}

impl Origin {
    fn of(url: &Url) -> Option<Self> {
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }
}

impl Allowed {
    /// Reads an `http` or `https` URL; `None` where it is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok().filter(is_http)?;
        Some(Self {
            origin: Origin::of(&url)?,
            path: url.path().trim_end_matches('/').to_owned(),
        })
    }

    fn covers(&self, url: &Url) -> bool {
        let within = url.path().strip_prefix(self.path.as_str());
        let within = within.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        within && is_plain(url.path()) && Origin::of(url).as_ref() == Some(&self.origin)
    }
}

/// Whether every server sees the same segments in a path: one that decodes it before it splits it,
/// or cuts a segment's parameters (`..;`), would leave what the entry names.
fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let leaves = |segment: &str| {
        let mut decoded = percent_decode_str(segment);
        decoded.next() == Some(b'.') && decoded.next() == Some(b'.')
    };
    !lower.contains("%2f") && !lower.contains("%5c") && !lower.split('/').any(leaves)
}

/// Whether a text names a scheme; a URL in its query is not meant.
fn has_scheme(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| !scheme.contains(['/', '?', '#']))
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

/// What an instance knows of addresses.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    allow: Vec<Allowed>,
    /// `rest.callback.url`.
    base: Option<String>,
    /// `rest.callback.path`.
    path: Option<String>,
}

impl Addresses {
    /// `base` is allowed by itself.
    #[must_use]
    pub fn new(mut allow: Vec<Allowed>, base: Option<String>, path: Option<String>) -> Self {
        allow.extend(base.as_deref().and_then(Allowed::read));
        Self { allow, base, path }
    }

    /// Where the events of a client go whose envelope has these two fields; `None` where it names no
    /// place and there is none for everybody.
    ///
    /// # Errors
    /// Why it cannot be, for people; never the text, which a client has written.
    pub(in crate::rest) fn resolve(
        &self,
        host: &str,
        endpoint: &str,
    ) -> Result<Option<String>, String> {
        let base = match (host, endpoint, &self.base) {
            ("", whole, _) if has_scheme(whole) => return self.checked(whole).map(Some),
            ("", "", None) => return Ok(None),
            ("", _, None) => return Err("callbackEndpoint without a callbackFqdn".to_owned()),
            ("", _, Some(base)) => base,
            _ => host,
        };
        let endpoint = match endpoint {
            "" => self.path.as_deref().unwrap_or_default(),
            given => given,
        };
        if has_scheme(base) {
            return self.checked(&joined(base, endpoint)).map(Some);
        }
        // A bare name: as the list has it.
        let secure = self.checked(&joined(&format!("https://{base}"), endpoint));
        let plain = || self.checked(&joined(&format!("http://{base}"), endpoint));
        secure.or_else(|_| plain()).map(Some)
    }

    fn checked(&self, text: &str) -> Result<String, String> {
        let url = Url::parse(text).ok().filter(is_http);
        let url = url.ok_or("the callback is no http or https URL")?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err("the callback's URL has a user, a password or a fragment".to_owned());
        }
        if url.as_str().len() > MAX_URL {
            return Err("the callback's URL is too long".to_owned());
        }
        match self.allows(&url) {
            true => Ok(url.into()),
            false => Err("the callback is on no entry of rest.callback.allow".to_owned()),
        }
    }

    /// Whether events may be posted there.
    pub(super) fn allows(&self, url: &Url) -> bool {
        self.allow.iter().any(|allowed| allowed.covers(url))
    }
}

fn joined(base: &str, path: &str) -> String {
    match path {
        "" => base.to_owned(),
        path => format!(
            "{}/{}",
            base.trim_end_matches('/'),
            path.trim_start_matches('/')
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(base: Option<&str>, path: Option<&str>) -> Addresses {
        let allow = [
            "https://crm.example/events",
            "http://10.0.0.5:8113",
            "http://[::1]:80",
        ];
        let allow = allow.iter().map(|text| Allowed::read(text).unwrap());
        Addresses::new(
            allow.collect(),
            base.map(str::to_owned),
            path.map(str::to_owned),
        )
    }

    #[test]
    fn host_and_endpoint_make_a_url_that_the_list_must_have() {
        let ask = |host: &str, endpoint: &str| addresses(None, None).resolve(host, endpoint);
        for (host, endpoint, url) in [
            (
                "https://crm.example",
                "/events/a",
                "https://crm.example/events/a",
            ),
            (
                "https://CRM.example:443/",
                "events",
                "https://crm.example/events",
            ),
            (
                "crm.example",
                "/events?site=1",
                "https://crm.example/events?site=1",
            ),
            ("10.0.0.5:8113", "/event", "http://10.0.0.5:8113/event"),
            ("", "http://[::1]/event", "http://[::1]/event"),
        ] {
            assert_eq!(
                ask(host, endpoint),
                Ok(Some(url.to_owned())),
                "{host} {endpoint}"
            );
        }
        assert_eq!(ask("", ""), Ok(None));
    }

    #[test]
    fn what_the_list_does_not_have_is_refused_however_it_is_written() {
        for (host, endpoint) in [
            ("https://crm.example", "/"),
            ("https://crm.example", "/eventsx"),
            ("https://crm.example", "/events/../admin"),
            ("https://crm.example", "/events/%2e%2e/admin"),
            ("https://crm.example", "/events\\..\\..\\admin"),
            ("https://crm.example", "/events/..%2fadmin"),
            ("https://crm.example", "/events/a%5C..%5Cadmin"),
            ("https://crm.example", "/events/..;x/admin"),
            ("https://crm.example", "/events/.%2e%3b/admin"),
            ("http://crm.example", "/events"),
            ("https://crm.example:8443", "/events"),
            ("https://crm.example@evil.example", "/events"),
            ("https://crm.example.evil.example", "/events"),
            ("https://evil.example#crm.example", "/events"),
            ("https://user:pw@crm.example", "/events"),
            ("http://10.0.0.5", "/event"),
            ("http://169.254.169.254", "/latest"),
            ("http://127.0.0.1:9601", "/api/v1/drain"),
            ("file:///etc/passwd", ""),
            ("", "/events"),
            ("", "gopher://crm.example/events"),
        ] {
            let error = addresses(None, None).resolve(host, endpoint).unwrap_err();
            assert!(!error.contains("evil") && !error.contains("pw"), "{error}");
        }
        // The same address in another spelling is the same address.
        let same = addresses(None, None).resolve("http://0x0a000005:8113", "/event");
        assert_eq!(same, Ok(Some("http://10.0.0.5:8113/event".to_owned())));
    }

    #[test]
    fn one_place_for_everybody_and_one_endpoint() {
        let base = Some("http://client.example:8113/");
        let all = addresses(base, Some("/voice/submit/v1"));
        let url = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(
            all.resolve("", ""),
            url("http://client.example:8113/voice/submit/v1")
        );
        assert_eq!(
            all.resolve("", "/e?return=https://x"),
            url("http://client.example:8113/e?return=https://x")
        );
        assert_eq!(
            all.resolve("", "/other"),
            url("http://client.example:8113/other")
        );
        assert_eq!(
            addresses(base, None).resolve("", ""),
            url("http://client.example:8113/")
        );
        assert!(all.resolve("https://evil.example", "").is_err());
    }
}
