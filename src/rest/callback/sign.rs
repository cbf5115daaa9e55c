//! Signed events: a client knows by the header that an instance made the request, and when.

use reqwest::header::{HeaderName, HeaderValue};
use ring::hmac;

use crate::clock::wall_ms;
use crate::model::Secret;
use crate::model::text::hex;

/// `t=<seconds since the epoch>,v1=<hex of HMAC-SHA256 over "<t>.<body>">`.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-tandem-signature");

/// Signs what is posted.
#[derive(Clone)]
pub(super) struct Signer(hmac::Key);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    pub(super) fn new(key: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()))
    }

    /// The header's value for a body that is sent now: the time of the attempt, not of the event.
    pub(super) fn now(&self, body: &[u8]) -> Option<HeaderValue> {
        let text = self.at(wall_ms() / 1000, body);
        HeaderValue::from_str(&text).ok()
    }

    fn at(&self, seconds: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{seconds}.").as_bytes());
        context.update(body);
        format!("t={seconds},v1={}", hex(context.sign().as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef`
    #[test]
    fn a_signature_is_the_one_that_openssl_makes() {
        let signer = Signer::new(&Secret::new("0123456789abcdef0123456789abcdef".to_owned()));
        assert_eq!(
            signer.at(1_700_000_000, b"{\"a\":1}"),
            "t=1700000000,v1=f05f2539e3ae1c49aec5f8cfdad75ef6b06480b133973ffbb7ec9e18827af177"
        );
    }
}
