//! Certificates and private keys from PEM files: bounded, and with errors that say what the file
//! holds instead.

use std::path::Path;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use tandem_files::read_pem;

/// A file's bytes, wiped when they are dropped. Why not, else.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    read_pem(path).map_err(|error| format!("it cannot be read: {error}"))
}

/// All certificates of a file, at least one.
pub(super) fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut found = Vec::new();
    for (at, certificate) in CertificateDer::pem_slice_iter(bytes).enumerate() {
        let broken = |error: pem::Error| format!("section {} is damaged: {error}", at + 1);
        found.push(certificate.map_err(broken)?);
    }
    if !found.is_empty() {
        return Ok(found);
    }
    Err(if is_der(bytes) {
        "it is not PEM text; `openssl x509 -inform der -in FILE -out FILE.pem` makes that of a DER certificate"
    } else if contains(bytes, b"PRIVATE KEY-----") {
        "it holds a private key and no certificate"
    } else {
        "it holds no certificate (no line -----BEGIN CERTIFICATE-----)"
    }
    .to_owned())
}

/// The first private key of a file: PKCS#8, PKCS#1 (RSA) or SEC1 (EC).
pub(super) fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // Both forms: PKCS#8 says it in the section's name, the older one in a header.
    if contains(bytes, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(bytes, b"Proc-Type: 4,ENCRYPTED")
    {
        return Err("the key is encrypted; give one without a passphrase, in a file that only this user may read (`openssl pkey -in FILE -out FILE.plain`)".to_owned());
    }
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if is_der(bytes) => Err(
            "it is not PEM text; `openssl pkey -inform der -in FILE -out FILE.pem` makes that of a DER key".to_owned(),
        ),
        Err(pem::Error::NoItemsFound) => Err(
            "it holds no private key (no line -----BEGIN PRIVATE KEY-----, RSA PRIVATE KEY or EC PRIVATE KEY)".to_owned(),
        ),
        Err(error) => Err(format!("the key is damaged: {error}")),
    }
}

/// Whether this may be DER: an ASN.1 sequence.
fn is_der(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x30)
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(bytes, text).is_some()
}
