//! Java properties text to entries with line numbers.
//!
//! `java-properties` does escapes and separators. Around it: text is UTF-8, comments are never
//! unescaped (`# C:\users` is a comment, not a broken `\u` escape), every logical line is read by
//! itself so that one bad line hides no other, a file that ends in a backslash loses nothing, and
//! two escapes may stand for one character beyond U+FFFF.

mod surrogates;

use java_properties::{LineContent, PropertiesIter};
use zeroize::Zeroizing;

use tandem_model::text::{is_utf16, trimmed, without_mark};

/// Largest property file, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// One `key = value` of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Line on which it starts, from 1.
    pub line: usize,
    /// The key, unescaped and trimmed.
    pub key: String,
    /// The value, unescaped and trimmed. It may be a secret, so it is wiped when dropped.
    pub value: Zeroizing<String>,
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line on which it starts, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads a whole file's bytes: all entries, and all lines that cannot be read.
pub fn parse(bytes: &[u8]) -> (Vec<Entry>, Vec<SyntaxError>) {
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return (Vec::new(), vec![SyntaxError { line: 1, message }]);
    }
    if is_utf16(bytes) {
        let message = "the file is UTF-16 text: save it as UTF-8".to_owned();
        return (Vec::new(), vec![SyntaxError { line: 1, message }]);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let before = &bytes[..e.valid_up_to()];
            let message = "the file is not UTF-8 text from here on (older tools write ISO-8859-1: \
                           convert the file, or write the letter as \\uXXXX)";
            let line = 1 + before.iter().filter(|b| **b == b'\n').count();
            return (
                Vec::new(),
                vec![SyntaxError {
                    line,
                    message: message.to_owned(),
                }],
            );
        }
    };
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    for (line, logical) in logical_lines(text) {
        match read_one(line, &logical) {
            Ok(entry) => entries.extend(entry),
            Err(error) => errors.push(error),
        }
    }
    (entries, errors)
}

/// Groups natural lines that a trailing backslash continues; comments and blank lines are left out.
/// A line may begin with a byte order mark: also one in the middle, of a file joined of several.
fn logical_lines(text: &str) -> Vec<(usize, Zeroizing<String>)> {
    let mut out: Vec<(usize, Zeroizing<String>)> = Vec::new();
    let mut continued = false;
    for (index, natural) in natural_lines(text).enumerate() {
        if continued {
            if let Some((_, logical)) = out.last_mut() {
                logical.push_str(natural);
                logical.push('\n');
            }
        } else {
            let natural = without_mark(natural);
            let start = natural.trim_start_matches([' ', '\t', '\x0c']);
            if start.is_empty() || start.starts_with(['#', '!']) {
                continue;
            }
            out.push((index + 1, Zeroizing::new(format!("{natural}\n"))));
        }
        let backslashes = natural.bytes().rev().take_while(|b| *b == b'\\').count();
        continued = backslashes % 2 == 1;
    }
    out
}

/// Lines as the format ends them: `\n`, `\r` or `\r\n`.
fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let Some(end) = current.find(['\n', '\r']) else {
            rest = None;
            return Some(current);
        };
        let ending = if current[end..].starts_with("\r\n") {
            2
        } else {
            1
        };
        rest = Some(&current[end + ending..]);
        Some(&current[..end])
    })
}

fn read_one(line: usize, logical: &str) -> Result<Option<Entry>, SyntaxError> {
    let message = "half of a pair of escapes: a character beyond U+FFFF is written as itself, or as \
                   two of them, \\uD83C\\uDFE2";
    let whole = surrogates::join(logical).ok_or_else(|| SyntaxError {
        line,
        message: message.to_owned(),
    })?;
    let input = PropertiesIter::new_with_encoding(whole.as_bytes(), encoding_rs::UTF_8);
    for item in input {
        let item = item.map_err(|e| SyntaxError {
            line,
            message: format!("the line cannot be read: {}", describe(&e)),
        })?;
        if let LineContent::KVPair(key, value) = item.consume_content() {
            let value = Zeroizing::new(value);
            let key = trimmed(&key).to_owned();
            if key.is_empty() && value.is_empty() {
                return Ok(None);
            }
            let value = Zeroizing::new(trimmed(&value).to_owned());
            return Ok(Some(Entry { line, key, value }));
        }
    }
    Ok(None)
}

/// The library's text without its own line number, which counts within one logical line.
fn describe(error: &java_properties::PropertiesError) -> String {
    let text = error.to_string();
    text.split(" (line_number")
        .next()
        .unwrap_or(&text)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(text: &str) -> Vec<(usize, String, String)> {
        let (entries, errors) = parse(text.as_bytes());
        assert_eq!(errors, []);
        entries
            .into_iter()
            .map(|e| (e.line, e.key, e.value.to_string()))
            .collect()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = entries(text);
        assert_eq!(all.len(), 1, "{all:?}");
        let (_, key, value) = all.remove(0);
        (key, value)
    }

    #[test]
    fn separators_blanks_and_escapes() {
        for text in [
            "a.b=c d",
            "a.b : c d",
            "a.b c d",
            "  a.b =  c d  ",
            "a.b\\u003d=c d",
        ] {
            let (key, value) = one(text);
            assert_eq!(
                (key.trim_end_matches('='), value.as_str()),
                ("a.b", "c d"),
                "{text}"
            );
        }
        assert_eq!(one("k=a\\tb\\u00e4\\\\"), ("k".into(), "a\tbä\\".into()));
        assert_eq!(one("k="), ("k".into(), String::new()));
        assert_eq!(one("k=a=b"), ("k".into(), "a=b".into()));
    }

    #[test]
    fn utf8_and_byte_order_mark() {
        assert_eq!(
            one("\u{feff}site=Zürich 🏢"),
            ("site".into(), "Zürich 🏢".into())
        );
    }

    #[test]
    fn lines_are_counted_over_comments_continuations_and_endings() {
        let text = "# one\r\n\r\na = 1, \\\r\n    2\r\n! four\rb = 3\n\n# C:\\users \\\nc=4\\";
        let expected = [(3, "a", "1, 2"), (6, "b", "3"), (9, "c", "4")];
        let expected = expected.map(|(l, k, v)| (l, k.to_owned(), v.to_owned()));
        assert_eq!(entries(text), expected);
    }

    #[test]
    fn a_bad_line_hides_no_other() {
        let (entries, errors) = parse(b"a=1\nb=\\u00zz\nc=3\nd=\\ud83c\n");
        assert_eq!(entries.iter().map(|e| e.line).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 4]);
        assert!(errors[0].message.contains("not hex"), "{errors:?}");
        assert!(errors[1].message.contains("half of a pair"), "{errors:?}");
    }

    #[test]
    fn two_escapes_make_one_character_as_java_writes_it() {
        let text = r"k=\uD83C\uDFE2 \uDBFF\udfff\\uD83C\u00e4";
        assert_eq!(
            one(text),
            ("k".into(), "\u{1f3e2} \u{10ffff}\\uD83Cä".into())
        );
        assert_eq!(one(r"\uD83C\uDFE2=1").0, "\u{1f3e2}");
        for half in [
            r"k=\uD83C",
            r"k=\uDFE2",
            r"k=\uDFE2\uD83C",
            r"k=\uD83C\uD83C",
            r"k=\uD83Cx",
            r"k=\uD83C\\uDFE2",
        ] {
            let (entries, errors) = parse(format!("a=1\n\n{half}\n").as_bytes());
            assert_eq!((entries.len(), errors.len()), (1, 1), "{half}");
            assert_eq!(errors[0].line, 3, "{half}");
            assert!(errors[0].message.contains("half of a pair"), "{errors:?}");
        }
    }

    #[test]
    fn marks_of_joined_files_and_odd_blanks_do_not_count() {
        let text =
            "\u{feff}a=1\r\n\u{feff}b=\u{a0}2\u{a0}\r\n\u{feff}# c\r\u{feff}d\u{a0}=\u{feff}3\n";
        let expected = [(1, "a", "1"), (2, "b", "2"), (4, "d", "3")];
        let expected = expected.map(|(l, k, v)| (l, k.to_owned(), v.to_owned()));
        assert_eq!(entries(text), expected);
    }

    #[test]
    fn other_encodings_and_huge_files_are_refused_with_a_reason() {
        let (entries, errors) = parse(b"a=1\nb=Z\xfcrich\n");
        assert_eq!((entries.len(), errors[0].line), (0, 2));
        assert!(errors[0].message.contains("not UTF-8"));
        for utf16 in [b"\xff\xfea\0=\x001\0".as_slice(), b"\0a\0=\x001"] {
            let (entries, errors) = parse(utf16);
            assert_eq!((entries.len(), errors[0].line), (0, 1));
            assert!(errors[0].message.contains("UTF-16"), "{errors:?}");
        }
        let (_, errors) = parse(&vec![b'a'; MAX_FILE_BYTES + 1]);
        assert!(errors[0].message.contains("larger"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let (entries, _) = parse(&bytes);
            let lines = 1 + bytes.iter().filter(|b| matches!(b, b'\n' | b'\r')).count();
            prop_assert!(entries.iter().all(|e| e.line >= 1 && e.line <= lines));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a-z=:#!\\\\u0-9 \\t\\r\\n\\x0cä]{0,200}") {
            let (entries, errors) = parse(text.as_bytes());
            prop_assert!(entries.len() + errors.len() <= text.len() + 1);
        }

        #[test]
        fn plain_pairs_come_back(key in "[a-z][a-z.-]{0,20}", value in "[A-Za-z0-9/:@.,]{0,40}") {
            let (entries, errors) = parse(format!("{key}={value}").as_bytes());
            prop_assert!(errors.is_empty());
            prop_assert_eq!(&entries[0].key, &key);
            prop_assert_eq!(entries[0].value.as_str(), value.as_str());
        }
    }
}
