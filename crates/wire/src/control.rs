//! Peer messages as they travel: sealed, authenticated, each accepted once.
//!
//! ```text
//! magic 4 | version 1 | flags 1 | key id 8 | cluster | sender | recipient | boot 8 | sequence 8 | nonce 24 | ciphertext
//! ```
//!
//! Texts are one length byte and UTF-8; an empty recipient is all. Numbers are big-endian. All in
//! front of the ciphertext is its associated data. The cipher is XChaCha20-Poly1305; the key comes
//! from HKDF-SHA256 over `control.key` with purpose, cluster and sender as context. Secrets inside
//! are sealed a second time under a key of their own.
//!
//! Without `control.key` the key comes from a public label: that catches accidents, not attackers.
//! Such messages say so, are refused by instances that have a key (and the other way round), and
//! never carry an agent's password.

mod keys;
mod window;

pub use keys::Keys;

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::model::BootId;
use crate::model::{InstanceId, Secret};
use crate::peer::PeerMessage;

use keys::{Material, NONCE, Purpose};
use window::Window;

/// Largest sealed message, in bytes.
pub const MAX_SEALED: usize = 128 * 1024;

/// (Sender, boot) pairs whose sequence numbers are remembered; the one heard longest ago goes.
const MAX_WINDOWS: usize = 256;

const MAGIC: [u8; 4] = *b"TNDM";
const VERSION: u8 = 1;
const FLAG_KEYED: u8 = 1;
const KEY_ID: usize = 8;

/// Why something could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The sealed message would be larger than [`MAX_SEALED`]; nothing was sent.
    #[error("the message is larger than 64 KiB")]
    TooLarge,
    /// There is no control key, and the content must not be stored under a public one.
    #[error("there is no control key")]
    NoKey,
    /// The system's random generator failed.
    #[error("no random numbers")]
    Random,
    /// The content could not be written as JSON, or the cipher refused it.
    #[error("the content cannot be sealed")]
    Content,
}

/// A message that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("peer message rejected: {reason}")]
pub struct Rejected {
    /// Who it claims to be from, where that much could be read. Not authentic.
    pub claimed: Option<InstanceId>,
    /// `wrong_key`, `replayed`, `version` or `malformed`.
    pub reason: &'static str,
}

/// Seals this instance's messages. One a process: it counts the sequence.
#[derive(Debug)]
pub struct Sealer {
    keys: Keys,
    sequence: u64,
}

impl Sealer {
    /// A sealer that starts at sequence 1.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self { keys, sequence: 0 }
    }

    /// Other keys from now on; the sequence goes on.
    pub fn rekey(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// Seals a message to one peer, or to all.
    ///
    /// # Errors
    /// [`SealError`]; the message is then not to be sent.
    pub fn seal(
        &mut self,
        to: Option<&InstanceId>,
        message: &PeerMessage,
    ) -> Result<Vec<u8>, SealError> {
        self.sequence += 1;
        let header = Header {
            keyed: self.keys.keyed(),
            key_id: self.keys.current().id,
            cluster: self.keys.cluster(),
            sender: self.keys.instance().as_str(),
            recipient: to.map_or("", InstanceId::as_str),
            boot: self.keys.boot(),
            sequence: self.sequence,
            nonce: random_nonce()?,
        };
        let mut sealed = header.write();
        let mut message = message.clone();
        self.seal_secrets(&header, &mut message)?;
        let plain =
            zeroize::Zeroizing::new(serde_json::to_vec(&message).map_err(|_| SealError::Content)?);
        let cipher = self.keys.cipher(
            self.keys.current(),
            Purpose::Message,
            self.keys.instance().as_str(),
        );
        let body = keys::encrypt(&cipher, &header.nonce, &plain, &sealed)?;
        sealed.extend_from_slice(&body);
        if sealed.len() > MAX_SEALED {
            return Err(SealError::TooLarge);
        }
        Ok(sealed)
    }

    fn seal_secrets(
        &self,
        header: &Header<'_>,
        message: &mut PeerMessage,
    ) -> Result<(), SealError> {
        if !header.keyed {
            return message.map_secrets(|_| Ok(Secret::new("")));
        }
        let cipher = self
            .keys
            .cipher(self.keys.current(), Purpose::Secret, header.sender);
        let context = header.identity();
        message.map_secrets(|secret| {
            let nonce = random_nonce()?;
            let body = keys::encrypt(&cipher, &nonce, secret.expose().as_bytes(), &context)?;
            let mut joined = nonce.to_vec();
            joined.extend_from_slice(&body);
            Ok(Secret::new(STANDARD.encode(joined)))
        })
    }
}

/// Opens peers' messages. One a process: it remembers which it has seen.
#[derive(Debug)]
pub struct Opener {
    keys: Keys,
    windows: HashMap<(InstanceId, BootId), Window>,
    clock: u64,
}

impl Opener {
    /// An opener that has seen nothing.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self {
            keys,
            windows: HashMap::new(),
            clock: 0,
        }
    }

    /// Other keys from now on; what was seen stays seen.
    pub fn rekey(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// Opens a message: authentic, for this instance, and not seen before.
    ///
    /// # Errors
    /// [`Rejected`] with the reason.
    pub fn open(&mut self, sealed: &[u8]) -> Result<(InstanceId, BootId, PeerMessage), Rejected> {
        let (header, plain_header, body) = Header::read(sealed)?;
        let claimed = InstanceId::new(header.sender).ok();
        let reject = |reason| Rejected {
            claimed: claimed.clone(),
            reason,
        };
        let Some(sender) = claimed.clone() else {
            return Err(reject("malformed"));
        };
        if header.keyed != self.keys.keyed() || header.cluster != self.keys.cluster() {
            return Err(reject("wrong_key"));
        }
        let Some(material) = self.keys.find(header.key_id) else {
            return Err(reject("wrong_key"));
        };
        let cipher = self.keys.cipher(material, Purpose::Message, header.sender);
        let plain = keys::decrypt(&cipher, &header.nonce, body, plain_header)
            .ok_or_else(|| reject("wrong_key"))?;
        // From here on the header is authentic.
        if !header.recipient.is_empty() && header.recipient != self.keys.instance().as_str() {
            return Err(reject("malformed"));
        }
        let mut message: PeerMessage =
            serde_json::from_slice(&plain).map_err(|_| reject("malformed"))?;
        self.open_secrets(material, &header, &mut message)
            .map_err(|()| reject("malformed"))?;
        let boot = BootId(header.boot);
        if !self.fresh(&sender, boot, header.sequence) {
            return Err(reject("replayed"));
        }
        Ok((sender, boot, message))
    }

    fn open_secrets(
        &self,
        material: &Material,
        header: &Header<'_>,
        message: &mut PeerMessage,
    ) -> Result<(), ()> {
        if !header.keyed {
            return message.map_secrets(|_| Ok(Secret::new("")));
        }
        let cipher = self.keys.cipher(material, Purpose::Secret, header.sender);
        let context = header.identity();
        message.map_secrets(|sealed| {
            let joined = STANDARD.decode(sealed.expose()).map_err(|_| ())?;
            let (nonce, body) = joined.split_first_chunk::<NONCE>().ok_or(())?;
            let plain = keys::decrypt(&cipher, nonce, body, &context).ok_or(())?;
            let text = std::str::from_utf8(&plain).map_err(|_| ())?;
            Ok(Secret::new(text))
        })
    }

    /// Notes a sequence number; false where it was seen or is too old to tell.
    fn fresh(&mut self, sender: &InstanceId, boot: BootId, sequence: u64) -> bool {
        self.clock += 1;
        let key = (sender.clone(), boot);
        if !self.windows.contains_key(&key) && self.windows.len() >= MAX_WINDOWS {
            let oldest = self.windows.iter().min_by_key(|(_, w)| w.last_heard);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.windows.remove(&oldest);
            }
        }
        let window = self.windows.entry(key).or_default();
        window.last_heard = self.clock;
        window.accept(sequence)
    }
}

/// What stands in front of the ciphertext.
struct Header<'a> {
    keyed: bool,
    key_id: [u8; KEY_ID],
    cluster: &'a str,
    sender: &'a str,
    recipient: &'a str,
    boot: u64,
    sequence: u64,
    nonce: [u8; NONCE],
}

impl<'a> Header<'a> {
    fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.push(if self.keyed { FLAG_KEYED } else { 0 });
        out.extend_from_slice(&self.key_id);
        for text in [self.cluster, self.sender, self.recipient] {
            put_text(&mut out, text);
        }
        out.extend_from_slice(&self.boot.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.nonce);
        out
    }

    /// Associated data of the secrets inside: whose they are and in which message.
    fn identity(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        put_text(&mut out, self.sender);
        out.extend_from_slice(&self.boot.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out
    }

    /// The header, its bytes, and the ciphertext.
    fn read(sealed: &'a [u8]) -> Result<(Self, &'a [u8], &'a [u8]), Rejected> {
        let malformed = || Rejected {
            claimed: None,
            reason: "malformed",
        };
        if sealed.len() > MAX_SEALED {
            return Err(malformed());
        }
        let mut rest = sealed;
        if take::<4>(&mut rest) != Some(MAGIC) {
            return Err(malformed());
        }
        match take::<1>(&mut rest) {
            Some([VERSION]) => {}
            Some(_) => {
                return Err(Rejected {
                    claimed: None,
                    reason: "version",
                });
            }
            None => return Err(malformed()),
        }
        let header = Self::read_fields(&mut rest).ok_or_else(malformed)?;
        let length = sealed.len() - rest.len();
        Ok((header, &sealed[..length], rest))
    }

    fn read_fields(rest: &mut &'a [u8]) -> Option<Self> {
        let [flags] = take::<1>(rest)?;
        let key_id = take::<KEY_ID>(rest)?;
        let cluster = take_text(rest)?;
        let sender = take_text(rest)?;
        let recipient = take_text(rest)?;
        Some(Self {
            keyed: flags & FLAG_KEYED != 0,
            key_id,
            cluster,
            sender,
            recipient,
            boot: u64::from_be_bytes(take(rest)?),
            sequence: u64::from_be_bytes(take(rest)?),
            nonce: take(rest)?,
        })
    }
}

/// Texts here are ids and the cluster's name, all far below 255 bytes; more would be cut, and the
/// message then refused by its receiver.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    out.push(length);
    out.extend_from_slice(&bytes[..usize::from(length)]);
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let [length] = take::<1>(rest)?;
    let (head, tail) = rest.split_at_checked(usize::from(length))?;
    *rest = tail;
    std::str::from_utf8(head).ok()
}

fn random_nonce() -> Result<[u8; NONCE], SealError> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
    Ok(nonce)
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;
