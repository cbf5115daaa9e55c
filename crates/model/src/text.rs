//! Texts: byte order marks, which editors and clients of some systems put in front of them, bytes
//! in hexadecimal, and times as flags and simulator files have them.

use std::time::Duration;

/// The mark.
const MARK: char = '\u{feff}';

/// The text behind the marks at its beginning, which say nothing of it.
#[must_use]
pub fn without_mark(text: &str) -> &str {
    text.trim_start_matches(MARK)
}

/// The text without marks and blanks at its ends. A mark is no blank to `str::trim`.
#[must_use]
pub fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c == MARK || c.is_whitespace())
}

/// Whether bytes are the other form of Unicode that systems write into files without being asked,
/// with its mark or without.
#[must_use]
pub fn is_utf16(bytes: &[u8]) -> bool {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [0, other, ..] | [other, 0, ..] => *other != 0,
        _ => false,
    }
}

/// Bytes in hexadecimal, in small letters.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Longest duration of a command line: with more, clocks overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Parses `500ms`, `10s`, `2m` or `0`, up to 365 days.
///
/// # Errors
/// The allowed form.
pub fn duration(value: &str) -> Result<Duration, String> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "like 500ms, 10s or 2m")?;
    let duration = match &value[digits.len()..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        "" if number == 0 => Duration::ZERO,
        _ => return Err("like 500ms, 10s or 2m".to_owned()),
    };
    match duration <= LONGEST {
        true => Ok(duration),
        false => Err("at most 365 days".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_stay_where_clocks_do_not_overflow() {
        assert_eq!(duration("525600m"), Ok(LONGEST));
        for long in [
            "525601m",
            "31536001s",
            "18446744073709551615s",
            "18446744073709551615m",
        ] {
            assert_eq!(duration(long).unwrap_err(), "at most 365 days", "{long}");
        }
        assert!(duration("99999999999999999999s").is_err());
    }

    #[test]
    fn marks_go_from_the_beginning_only() {
        assert_eq!(without_mark("\u{feff}\u{feff}a\u{feff}b"), "a\u{feff}b");
        assert_eq!(without_mark(""), "");
        assert_eq!(trimmed(" \u{feff}\u{a0}a b\r\n\u{feff}"), "a b");
    }

    #[test]
    fn utf_16_is_known_by_its_mark_or_its_zeros() {
        for bytes in [
            b"\xff\xfea\0".as_slice(),
            b"\xfe\xff\0a",
            b"a\0b\0",
            b"\0a\0b",
        ] {
            assert!(is_utf16(bytes), "{bytes:?}");
        }
        for bytes in [b"".as_slice(), b"a", b"ab", b"\0\0", b"\xef\xbb\xbfa"] {
            assert!(!is_utf16(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn each_byte_has_two_digits() {
        assert_eq!(hex(&[0, 0x0f, 0xa0, 0xff]), "000fa0ff");
        assert_eq!(hex(&[]), "");
    }
}
