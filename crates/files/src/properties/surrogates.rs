//! Characters beyond U+FFFF as Java writes them: two `\uXXXX` escapes, a surrogate pair.

use zeroize::Zeroizing;

/// Length of one escape, in bytes.
const ESCAPE: usize = 6;

/// The line with each pair of escapes as the character that it stands for; everything else stays
/// as it is, other escapes included. `None` where half of a pair stands alone.
pub(super) fn join(line: &str) -> Option<Zeroizing<String>> {
    let mut out = Zeroizing::new(String::with_capacity(line.len()));
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match escaped(rest) {
            Some(high @ 0xd800..=0xdbff) => {
                let low = rest.get(ESCAPE..).and_then(escaped);
                let pair = [high, low.unwrap_or_default()];
                let joined = char::decode_utf16(pair).next()?.ok()?;
                out.push(joined);
                2 * ESCAPE
            }
            Some(0xdc00..=0xdfff) => return None,
            // Two characters, so that the second backslash of two begins no escape.
            _ => {
                let length = rest.chars().take(2).map(char::len_utf8).sum();
                out.push_str(&rest[..length]);
                length
            }
        };
        rest = &rest[length..];
    }
    out.push_str(rest);
    Some(out)
}

/// The number of the escape that a text begins with.
fn escaped(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..ESCAPE - 2)?;
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| hex)
}
