//! "Since when": a time, or how long ago.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

/// What is understood, for error messages.
const FORMS: &str = "give 90s, 30m, 1h, 7d or a time as 2026-11-30T08:00:00Z";

/// The time that is meant: `1h` (also `s`, `m`, `d`) before `now`, an RFC 3339 time, or a day (UTC).
///
/// # Errors
/// In words, where it is neither.
pub(crate) fn since(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    ago(text)
        .and_then(|ago| now.checked_sub_signed(ago))
        .ok_or_else(|| FORMS.to_owned())
}

fn ago(text: &str) -> Option<TimeDelta> {
    let unit = text.chars().last()?;
    let number = text.strip_suffix(unit)?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i64 = number.parse().ok()?;
    match unit {
        's' => TimeDelta::try_seconds(number),
        'm' => TimeDelta::try_minutes(number),
        'h' => TimeDelta::try_hours(number),
        'd' => TimeDelta::try_days(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_days_and_spans() {
        let now: DateTime<Utc> = "2026-11-30T08:00:00Z".parse().unwrap();
        let is = |text: &str| since(text, now).map(|at| at.to_rfc3339());
        for (text, wanted) in [
            ("1h", "2026-11-30T07:00:00+00:00"),
            ("90s", "2026-11-30T07:58:30+00:00"),
            ("7d", "2026-11-23T08:00:00+00:00"),
            ("2026-11-30", "2026-11-30T00:00:00+00:00"),
            ("2026-11-30T09:00:00+02:00", "2026-11-30T07:00:00+00:00"),
        ] {
            assert_eq!(is(text).as_deref(), Ok(wanted), "{text}");
        }
        for text in [
            "",
            "h",
            "1",
            "-1h",
            "1w",
            "1.5h",
            "99999999999999999999d",
            "9223372036854775807d",
            "1é",
            "yesterday",
        ] {
            assert!(is(text).is_err(), "{text}");
        }
    }
}
