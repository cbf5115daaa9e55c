//! What a certificate says of itself, for people and for the checks that the TLS library leaves
//! to its user.

use std::net::IpAddr;

use chrono::DateTime;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// Longest name of a certificate that is shown, in characters: it is the other side's text.
const MAX_NAME: usize = 160;
/// Names of hosts in a certificate that are shown.
const MAX_HOSTS: usize = 8;

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whom it is for, as `CN=rabbit-1, O=Example`; with its serial number where it does not say.
    pub(super) subject: String,
    /// Who signed it.
    pub(super) issuer: String,
    /// It names itself as issuer.
    pub(super) signed_itself: bool,
    /// First and last second of its validity, since the epoch.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    /// Whether it says that it is an authority's; `None` where it says nothing, as old ones do.
    pub(super) authority: Option<bool>,
    /// Names and addresses of the hosts it is for.
    pub(super) hosts: Vec<String>,
}

impl Facts {
    /// `None` where it cannot be read.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(certificate).ok()?;
        let constraints = read.basic_constraints().ok()?;
        let subject = match shown(&read.subject().to_string()) {
            empty if empty.is_empty() => format!("serial {}", read.raw_serial_as_string()),
            subject => subject,
        };
        Some(Self {
            subject,
            issuer: shown(&read.issuer().to_string()),
            signed_itself: read.issuer().as_raw() == read.subject().as_raw(),
            not_before: read.validity().not_before.timestamp(),
            not_after: read.validity().not_after.timestamp(),
            authority: constraints.map(|constraints| constraints.value.ca),
            hosts: hosts(&read),
        })
    }

    /// Why it is not valid at this time; `None` where it is.
    pub(super) fn untimely(&self, now: UnixTime) -> Option<String> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now > self.not_after {
            Some(format!("expired on {}", date(self.not_after)))
        } else if now < self.not_before {
            let (from, now) = (date(self.not_before), date(now));
            Some(format!(
                "is valid from {from} only, and this machine's clock says {now}"
            ))
        } else {
            None
        }
    }
}

fn hosts(read: &X509Certificate<'_>) -> Vec<String> {
    let names = read.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(shown(name)),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(four) => Some(IpAddr::from(four).to_string()),
            Err(_) => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|sixteen| IpAddr::from(sixteen).to_string()),
        },
        _ => None,
    };
    names.filter_map(host).take(MAX_HOSTS).collect()
}

/// A second since the epoch as a date with time, UTC.
pub(super) fn date(seconds: i64) -> String {
    match DateTime::from_timestamp(seconds, 0) {
        Some(time) => time.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
        None => format!("{seconds} s after 1970"),
    }
}

fn shown(name: &str) -> String {
    let plain = name.chars().filter(|c| !c.is_control());
    plain.take(MAX_NAME).collect()
}
