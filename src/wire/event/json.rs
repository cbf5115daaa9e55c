//! Events as JSON objects.

use chrono::TimeZone;

use super::ClientEvent;

pub(super) fn render<Z: TimeZone>(_event: &ClientEvent, _zone: &Z) -> Option<Vec<u8>>
where
    Z::Offset: std::fmt::Display,
{
    None
}
