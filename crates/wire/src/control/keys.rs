//! Keys for peer messages and for what is kept on disk.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{KEY_ID, SealError, random_nonce};
use crate::model::BootId;
use crate::model::{InstanceId, Secret};

/// Bytes of a nonce.
pub(super) const NONCE: usize = 24;

/// Known to all: stands in for a control key that was not configured.
const PUBLIC_LABEL: &[u8] = b"tandem: no control key configured";
const SALT: &[u8] = b"tandem control 1";

/// What a derived key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Peer messages.
    Message,
    /// Secrets inside them.
    Secret,
    /// What is kept on disk.
    Storage,
    /// Not a key: what tells keys apart in the header.
    Id,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Message => b"message",
            Self::Secret => b"secret",
            Self::Storage => b"storage",
            Self::Id => b"id",
        }
    }
}

/// One configured key, as far as it is needed.
#[derive(Clone)]
pub(super) struct Material {
    extracted: Zeroizing<[u8; 32]>,
    pub(super) id: [u8; KEY_ID],
}

impl Material {
    fn new(key: &[u8], cluster: &str) -> Self {
        let (extracted, _) = Hkdf::<Sha256>::extract(Some(SALT), key);
        let mut material = Self {
            extracted: Zeroizing::new(extracted.into()),
            id: [0; KEY_ID],
        };
        let full = material.derive(Purpose::Id, &[cluster]);
        material.id.copy_from_slice(&full[..KEY_ID]);
        material
    }

    fn derive(&self, purpose: Purpose, context: &[&str]) -> Zeroizing<[u8; 32]> {
        let mut out = Zeroizing::new([0; 32]);
        let mut info = Vec::with_capacity(96);
        let label = [purpose.label()];
        for part in label
            .into_iter()
            .chain(context.iter().map(|t| t.as_bytes()))
        {
            // Length first, so that no two contexts run together alike.
            info.extend_from_slice(&(part.len() as u64).to_be_bytes());
            info.extend_from_slice(part);
        }
        // Neither step can fail: 32 bytes are a hash's length, the least and far from the most.
        if let Ok(hkdf) = Hkdf::<Sha256>::from_prk(self.extracted.as_slice()) {
            let _ = hkdf.expand(&info, out.as_mut_slice());
        }
        out
    }
}

/// The keys of this instance, and who it is.
#[derive(Clone)]
pub struct Keys {
    keyed: bool,
    current: Material,
    previous: Option<Material>,
    cluster: String,
    instance: InstanceId,
    boot: BootId,
}

impl Keys {
    /// Derives the keys. Without `current` the messages are sealed under a public label (see the
    /// module's text) and `previous` is not used.
    #[must_use]
    pub fn new(
        current: Option<&Secret>,
        previous: Option<&Secret>,
        cluster: &str,
        instance: InstanceId,
        boot: BootId,
    ) -> Self {
        let key = current.map_or(PUBLIC_LABEL, |key| key.expose().as_bytes());
        Self {
            keyed: current.is_some(),
            current: Material::new(key, cluster),
            previous: previous
                .filter(|_| current.is_some())
                .map(|key| Material::new(key.expose().as_bytes(), cluster)),
            cluster: cluster.to_owned(),
            instance,
            boot,
        }
    }

    /// The same instance under another key, and no previous one: for what it keeps for itself.
    #[must_use]
    pub fn with_key(&self, key: &Secret) -> Self {
        Self {
            keyed: true,
            current: Material::new(key.expose().as_bytes(), &self.cluster),
            previous: None,
            ..self.clone()
        }
    }

    /// Whether a control key is configured: only then secrets travel.
    #[must_use]
    pub fn keyed(&self) -> bool {
        self.keyed
    }

    /// This instance.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// This start of it.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.boot.0
    }

    /// `cluster.name`.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Seals something to be kept on disk; `purpose` must be the same when it is opened.
    ///
    /// # Errors
    /// [`SealError::NoKey`] without a control key, [`SealError::Random`], [`SealError::Content`].
    pub fn seal_bytes(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        if !self.keyed {
            return Err(SealError::NoKey);
        }
        let nonce = random_nonce()?;
        let mut sealed = self.current.id.to_vec();
        sealed.extend_from_slice(&nonce);
        let cipher = self.storage_cipher(&self.current, purpose);
        let body = encrypt(&cipher, &nonce, plain, purpose.as_bytes())?;
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens what [`Keys::seal_bytes`] sealed, under the current or the previous key; `None` where
    /// it was sealed under another key, for another instance or purpose, or was changed.
    #[must_use]
    pub fn open_bytes(&self, purpose: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        if !self.keyed {
            return None;
        }
        let (id, rest) = sealed.split_first_chunk::<KEY_ID>()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE>()?;
        let cipher = self.storage_cipher(self.find(*id)?, purpose);
        decrypt(&cipher, nonce, body, purpose.as_bytes())
    }

    fn storage_cipher(&self, material: &Material, purpose: &str) -> XChaCha20Poly1305 {
        let context = [self.cluster.as_str(), self.instance.as_str(), purpose];
        let key = material.derive(Purpose::Storage, &context);
        XChaCha20Poly1305::new((&*key).into())
    }

    pub(super) fn current(&self) -> &Material {
        &self.current
    }

    pub(super) fn find(&self, id: [u8; KEY_ID]) -> Option<&Material> {
        std::iter::once(&self.current)
            .chain(&self.previous)
            .find(|material| material.id == id)
    }

    pub(super) fn cipher(
        &self,
        material: &Material,
        purpose: Purpose,
        sender: &str,
    ) -> XChaCha20Poly1305 {
        let key = material.derive(purpose, &[&self.cluster, sender]);
        XChaCha20Poly1305::new((&*key).into())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("keyed", &self.keyed)
            .field("cluster", &self.cluster)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

pub(super) fn encrypt(
    cipher: &XChaCha20Poly1305,
    nonce: &[u8; NONCE],
    plain: &[u8],
    associated: &[u8],
) -> Result<Vec<u8>, SealError> {
    let payload = Payload {
        msg: plain,
        aad: associated,
    };
    cipher
        .encrypt(&XNonce::from(*nonce), payload)
        .map_err(|_| SealError::Content)
}

pub(super) fn decrypt(
    cipher: &XChaCha20Poly1305,
    nonce: &[u8; NONCE],
    body: &[u8],
    associated: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let payload = Payload {
        msg: body,
        aad: associated,
    };
    cipher
        .decrypt(&XNonce::from(*nonce), payload)
        .ok()
        .map(Zeroizing::new)
}
