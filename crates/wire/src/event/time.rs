//! The platform's times in the clients' form.

use chrono::{DateTime, TimeZone};

/// `yyyy-MM-dd HH:mm:ss` in the given zone from the platform's UTC text with zero to three digits
/// of fraction. A text that is no time is passed on, so that nothing is hidden.
pub(super) fn local<Z: TimeZone>(utc: &str, zone: &Z) -> String
where
    Z::Offset: std::fmt::Display,
{
    if utc.is_empty() {
        return String::new();
    }
    match DateTime::parse_from_rfc3339(utc) {
        Ok(time) => time
            .with_timezone(zone)
            .format("%Y-%m-%d %H:%M:%S")
            .to_string(),
        Err(_) => utc.to_owned(),
    }
}
