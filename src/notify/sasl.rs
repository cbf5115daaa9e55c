//! SASL as client (RFC 6120 section 6): PLAIN (RFC 4616), SCRAM-SHA-1 (RFC 5802) and SCRAM-SHA-256
//! (RFC 7677), without channel binding.
//!
//! SASLprep (RFC 4013) is not applied: it leaves names and passwords of ASCII as they are, and
//! others that are in normal form KC, as nearly all keyboards write them.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Iterations that a service may ask for: fewer than RFC 7677 demands make a password easy to guess
/// for whoever plays the service, more would be work without end.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=1_000_000;
/// Random bytes in a nonce.
const NONCE: usize = 18;

/// A way to prove who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    Plain,
    ScramSha1,
    ScramSha256,
}

/// With TLS the password is safe on the way and PLAIN, the platform's own way, costs nothing.
/// Without it a password is shown to nobody who offers something else.
const PROTECTED: [Mechanism; 3] = [
    Mechanism::Plain,
    Mechanism::ScramSha256,
    Mechanism::ScramSha1,
];
const OPEN: [Mechanism; 3] = [
    Mechanism::ScramSha256,
    Mechanism::ScramSha1,
    Mechanism::Plain,
];

impl Mechanism {
    /// The best one of what is offered.
    pub(super) fn choose(offered: &[String], protected: bool) -> Option<Self> {
        let order = if protected { PROTECTED } else { OPEN };
        order
            .into_iter()
            .find(|mechanism| offered.iter().any(|name| name == mechanism.name()))
    }

    /// As it is registered.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha256 => "SCRAM-SHA-256",
        }
    }
}

/// The one message of PLAIN, in base64.
pub(super) fn plain(user: &str, password: &str) -> Zeroizing<String> {
    // Sized beforehand, so that no unwiped copy is left behind by growing.
    let mut data = Zeroizing::new(String::with_capacity(user.len() + password.len() + 2));
    for part in ["\0", user, "\0", password] {
        data.push_str(part);
    }
    Zeroizing::new(STANDARD.encode(data.as_bytes()))
}

/// Why a SCRAM exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScramError {
    /// A message that the mechanism does not have.
    #[error("malformed SCRAM message")]
    Malformed,
    /// The nonce is not made from ours.
    #[error("SCRAM nonce is not ours")]
    Nonce,
    /// See [`ITERATIONS`].
    #[error("SCRAM iterations out of bounds")]
    Iterations,
    /// The service has not shown that it knows the password.
    #[error("service did not prove that it knows the password")]
    Unproven,
    /// No random numbers.
    #[error("no random numbers")]
    Random,
}

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy)]
struct Hash {
    pbkdf2: pbkdf2::Algorithm,
    hmac: hmac::Algorithm,
    digest: &'static digest::Algorithm,
}

/// SCRAM before the service's challenge.
pub(super) struct Scram {
    hash: Hash,
    nonce: String,
    /// `client-first-message-bare`.
    first: String,
}

/// SCRAM after it: what the service must answer to be believed.
pub(super) struct Proof {
    /// `client-final-message`, in base64.
    pub(super) message: String,
    signature: hmac::Tag,
}

impl Scram {
    /// An exchange by `mechanism`; none for PLAIN, which has no exchange.
    pub(super) fn new(mechanism: Mechanism, user: &str) -> Option<Result<Self, ScramError>> {
        let hash = hash(mechanism)?;
        let mut random = [0; NONCE];
        let filled = getrandom::fill(&mut random).map_err(|_| ScramError::Random);
        Some(filled.map(|()| Self::with_nonce(hash, user, STANDARD.encode(random))))
    }

    fn with_nonce(hash: Hash, user: &str, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self {
            hash,
            first: format!("n={user},r={nonce}"),
            nonce,
        }
    }

    /// `client-first-message`, in base64.
    pub(super) fn first(&self) -> String {
        STANDARD.encode(format!("n,,{}", self.first))
    }

    /// The answer to `server-first-message`, given in base64. Takes as long as the service wants
    /// (see [`ITERATIONS`]: up to some hundred milliseconds).
    pub(super) fn answer(&self, challenge: &str, password: &str) -> Result<Proof, ScramError> {
        let challenge = decode(challenge)?;
        let mut parts = challenge.split(',');
        let mut part = |name| parts.next().and_then(|part| part.strip_prefix(name));
        // An extension that must be understood (`m=`) stands before all of them, and is refused here.
        let nonce = part("r=").ok_or(ScramError::Malformed)?;
        let salt = part("s=").and_then(|salt| STANDARD.decode(salt).ok());
        let salt = salt.ok_or(ScramError::Malformed)?;
        let iterations = part("i=").and_then(|count| count.parse().ok());
        let iterations = iterations.ok_or(ScramError::Malformed)?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ScramError::Nonce);
        }
        let iterations = Some(iterations)
            .filter(|count| ITERATIONS.contains(count))
            .and_then(NonZeroU32::new)
            .ok_or(ScramError::Iterations)?;
        // The base64 of "n,,": no channel binding.
        let bare = format!("c=biws,r={nonce}");
        let signed = format!("{},{challenge},{bare}", self.first);
        let (proof, signature) = self
            .hash
            .sign(password, &salt, iterations, signed.as_bytes());
        let message = STANDARD.encode(format!("{bare},p={}", STANDARD.encode(proof)));
        Ok(Proof { message, signature })
    }
}

impl Proof {
    /// Checks `server-final-message`, given in base64.
    pub(super) fn check(&self, outcome: &str) -> Result<(), ScramError> {
        let outcome = decode(outcome)?;
        let verifier = outcome
            .split(',')
            .next()
            .and_then(|part| part.strip_prefix("v="));
        let signature = verifier.and_then(|text| STANDARD.decode(text).ok());
        let signature = signature.ok_or(ScramError::Unproven)?;
        let equal: bool = signature.ct_eq(self.signature.as_ref()).into();
        equal.then_some(()).ok_or(ScramError::Unproven)
    }
}

fn decode(base64: &str) -> Result<String, ScramError> {
    let bytes = STANDARD.decode(base64).map_err(|_| ScramError::Malformed)?;
    String::from_utf8(bytes).map_err(|_| ScramError::Malformed)
}

fn hash(mechanism: Mechanism) -> Option<Hash> {
    match mechanism {
        Mechanism::Plain => None,
        Mechanism::ScramSha1 => Some(Hash {
            pbkdf2: pbkdf2::PBKDF2_HMAC_SHA1,
            hmac: hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            digest: &digest::SHA1_FOR_LEGACY_USE_ONLY,
        }),
        Mechanism::ScramSha256 => Some(Hash {
            pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256,
            hmac: hmac::HMAC_SHA256,
            digest: &digest::SHA256,
        }),
    }
}

impl Hash {
    /// Client proof and server signature (RFC 5802 section 3).
    fn sign(
        self,
        password: &str,
        salt: &[u8],
        iterations: NonZeroU32,
        message: &[u8],
    ) -> (Vec<u8>, hmac::Tag) {
        let mut salted = Zeroizing::new(vec![0; self.digest.output_len()]);
        pbkdf2::derive(
            self.pbkdf2,
            iterations,
            salt,
            password.as_bytes(),
            &mut salted,
        );
        let key = hmac::Key::new(self.hmac, &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let server_key = hmac::sign(&key, b"Server Key");
        let stored_key = digest::digest(self.digest, client_key.as_ref());
        let client_signature = hmac::sign(&hmac::Key::new(self.hmac, stored_key.as_ref()), message);
        let mut proof = client_key.as_ref().to_vec();
        for (byte, other) in proof.iter_mut().zip(client_signature.as_ref()) {
            *byte ^= other;
        }
        let signature = hmac::sign(&hmac::Key::new(self.hmac, server_key.as_ref()), message);
        (proof, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Vector {
        mechanism: Mechanism,
        nonce: &'static str,
        challenge: &'static str,
        last: &'static str,
        outcome: &'static str,
    }

    /// The examples of RFC 5802 section 5 and RFC 7677 section 3.
    const VECTORS: [Vector; 2] = [
        Vector {
            mechanism: Mechanism::ScramSha1,
            nonce: "fyko+d2lbbFgONRv9qkxdawL",
            challenge: "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            last: "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            outcome: "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        },
        Vector {
            mechanism: Mechanism::ScramSha256,
            nonce: "rOprNGfwEbeRWgbNEkqO",
            challenge: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            last: "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            outcome: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        },
    ];

    fn answer(vector: &Vector, challenge: &str) -> Result<Proof, ScramError> {
        let hash = hash(vector.mechanism).unwrap();
        let scram = Scram::with_nonce(hash, "user", vector.nonce.to_owned());
        scram.answer(&STANDARD.encode(challenge), "pencil")
    }

    #[test]
    fn the_examples_of_the_rfcs_come_out() {
        for vector in VECTORS {
            let proof = answer(&vector, vector.challenge).unwrap();
            assert_eq!(proof.message, STANDARD.encode(vector.last));
            assert_eq!(proof.check(&STANDARD.encode(vector.outcome)), Ok(()));
            for other in ["", "v=", "v=AAAA", "e=invalid-proof"] {
                let checked = proof.check(&STANDARD.encode(other));
                assert_eq!(checked, Err(ScramError::Unproven), "{other}");
            }
            assert_eq!(proof.check("\u{e9}"), Err(ScramError::Malformed));
        }
    }

    #[test]
    fn a_service_cannot_choose_nonce_extensions_or_work_at_will() {
        let [vector, _] = &VECTORS;
        let nonce = vector.nonce;
        for (challenge, expected) in [
            (
                "r=else,s=QSXCR+Q6sek8bf92,i=4096".to_owned(),
                ScramError::Nonce,
            ),
            (format!("r={nonce},s=AAAA,i=4096"), ScramError::Nonce),
            (format!("r={nonce}x,s=AAAA,i=1"), ScramError::Iterations),
            (
                format!("r={nonce}x,s=AAAA,i=4000000000"),
                ScramError::Iterations,
            ),
            (format!("r={nonce}x,s=AAAA,i=x"), ScramError::Malformed),
            (format!("r={nonce}x,s=\u{e9},i=4096"), ScramError::Malformed),
            (
                format!("m=ext,r={nonce}x,s=AAAA,i=4096"),
                ScramError::Malformed,
            ),
            ("e=other-error".to_owned(), ScramError::Malformed),
            (String::new(), ScramError::Malformed),
        ] {
            assert_eq!(
                answer(vector, &challenge).err(),
                Some(expected),
                "{challenge}"
            );
        }
    }

    #[test]
    fn names_are_escaped_and_nonces_differ() {
        let first = |user| {
            let scram = Scram::new(Mechanism::ScramSha1, user).unwrap().unwrap();
            decode(&scram.first()).unwrap()
        };
        assert!(
            first("a,b=c").starts_with("n,,n=a=2Cb=3Dc,r="),
            "{}",
            first("a,b=c")
        );
        assert_ne!(first("a"), first("a"));
        assert!(Scram::new(Mechanism::Plain, "a").is_none());
    }

    #[test]
    fn a_password_is_shown_only_where_nobody_else_sees_it() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let all = names(&["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN", "SCRAM-SHA-256"]);
        assert_eq!(Mechanism::choose(&all, true), Some(Mechanism::Plain));
        assert_eq!(Mechanism::choose(&all, false), Some(Mechanism::ScramSha256));
        let plain = names(&["DIGEST-MD5", "PLAIN"]);
        assert_eq!(Mechanism::choose(&plain, false), Some(Mechanism::Plain));
        let scram = names(&["SCRAM-SHA-1"]);
        assert_eq!(Mechanism::choose(&scram, true), Some(Mechanism::ScramSha1));
        assert_eq!(Mechanism::choose(&names(&["EXTERNAL"]), true), None);
    }
}
