//! What a TLS failure means, in words that say what to mend.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError};

use super::KeyNames;
use super::verify::Refusal;
use super::x509::{Facts, date};

/// Longest chain of causes that is followed.
const MAX_CAUSES: usize = 16;

/// Words of this module as an I/O error, told apart from those of other layers by its type.
#[derive(Debug)]
pub(super) struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Said {}

/// An error in our words.
pub(super) fn said(kind: io::ErrorKind, words: impl Into<String>) -> io::Error {
    io::Error::new(kind, Said(words.into()))
}

/// Whether an error is in our words.
pub(super) fn is_said(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Said>())
}

/// The TLS library's error in a chain of causes.
pub(super) fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    for _ in 0..MAX_CAUSES {
        let error = next?;
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // The source of such an error is that of what it holds, which it leaves out itself.
        let held = error.downcast_ref().and_then(io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

/// In words. `own` is our certificate, where we have one.
pub(super) fn words(error: &rustls::Error, names: KeyNames, own: Option<&Facts>) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))
            if inner.is::<Refusal>() =>
        {
            inner.to_string()
        }
        rustls::Error::AlertReceived(alert) => refused(*alert, names, own),
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "what answers on this port does not speak TLS: is it the plain port?".to_owned(),
        other => other.to_string(),
    }
}

/// What the server held against us.
fn refused(alert: AlertDescription, names: KeyNames, own: Option<&Facts>) -> String {
    use AlertDescription as Alert;
    let why = match alert {
        Alert::ProtocolVersion => {
            return "the server speaks neither TLS 1.2 nor TLS 1.3".to_owned();
        }
        Alert::UnknownCA => "it does not trust who issued it",
        Alert::CertificateExpired => "it says that it has expired",
        Alert::CertificateRevoked => "it says that it is revoked",
        Alert::UnsupportedCertificate => "it says that it is not meant for clients",
        Alert::CertificateRequired
        | Alert::BadCertificate
        | Alert::CertificateUnknown
        | Alert::NoCertificate
        | Alert::AccessDenied
        | Alert::HandshakeFailure => "without a reason that says more",
        other => return format!("the server ended TLS: {other:?}"),
    };
    match own {
        None => format!(
            "the server refuses the handshake ({alert:?}); it demands a client certificate, it seems: set {} and {}",
            names.certificate_file, names.private_key_file
        ),
        Some(own) => format!(
            "the server refuses our certificate {} of {}, issued by {}, valid until {} ({alert:?}): {why}",
            own.subject,
            names.certificate_file,
            own.issuer,
            date(own.not_after)
        ),
    }
}
