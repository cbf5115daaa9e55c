//! Events as fields joined by `#`.

use chrono::TimeZone;

use super::ClientEvent;

pub(super) fn render<Z: TimeZone>(_event: &ClientEvent, _zone: &Z) -> Vec<String>
where
    Z::Offset: std::fmt::Display,
{
    Vec::new()
}
