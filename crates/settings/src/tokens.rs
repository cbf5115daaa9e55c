//! `admin.tokens-file`: who may use the admin API, one line a token.
//!
//! ```text
//! # name   role      SHA-256 of the token, in hexadecimal
//! grafana  read      sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//! ops      operate   sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
//! ```
//!
//! Only the hash is kept, so that who reads the file cannot call. A plain hash is enough for what
//! nobody can guess, and `tandem token` makes such ones; for a word of people it would not be.

use std::fmt;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use tandem_files::read_bounded;
use tandem_model::Secret;
use tandem_model::text::{hex, is_utf16, without_mark};

/// Largest file, in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// Most tokens: each wrong one is compared with all.
pub const MAX_TOKENS: usize = 256;
/// In front of a hash.
const SCHEME: &str = "sha256:";
/// Bytes of a hash.
const HASH: usize = 32;

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRole {
    /// Everything that is read.
    Read,
    /// Every verb too.
    Operate,
}

impl TokenRole {
    /// As it is written in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

impl std::str::FromStr for TokenRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "read" => Ok(Self::Read),
            "operate" => Ok(Self::Operate),
            _ => Err("a role is read or operate".to_owned()),
        }
    }
}

/// One token: whose it is, what it is good for, and how it is recognised.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Shown in the log and the history.
    pub name: String,
    /// What it is good for.
    pub role: TokenRole,
    hash: [u8; HASH],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.role.as_str())
    }
}

impl Token {
    /// The entry for a token whose text is known.
    #[must_use]
    pub fn of(name: &str, role: TokenRole, token: &Secret) -> Self {
        Self {
            name: name.to_owned(),
            role,
            hash: Sha256::digest(token.as_bytes()).into(),
        }
    }

    /// Whether this is the token that was given; takes the same time wherever they differ.
    #[must_use]
    pub fn is(&self, given: &Secret) -> bool {
        let hash: [u8; HASH] = Sha256::digest(given.as_bytes()).into();
        self.hash.ct_eq(&hash).into()
    }

    /// Its line in the file.
    #[must_use]
    pub fn line(&self) -> String {
        let (role, hash) = (self.role.as_str(), hex(&self.hash));
        format!("{} {role} {SCHEME}{hash}", self.name)
    }

    fn parse(line: &str) -> Result<Self, String> {
        let parts: Vec<&str> = line.split_whitespace().collect();
        let [name, role, hash] = parts[..] else {
            return Err("a line is NAME ROLE sha256:HASH".to_owned());
        };
        if !is_name(name) {
            return Err("a name is 1 to 64 letters, digits and . _ - @".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            role: role.parse()?,
            hash: hash.strip_prefix(SCHEME).and_then(unhex).ok_or_else(|| {
                format!(
                    "a hash is {SCHEME} and 64 hexadecimal digits; `tandem token` makes the line"
                )
            })?,
        })
    }
}

/// Whether a token may be called that.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"._-@".contains(&c);
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

fn unhex(text: &str) -> Option<[u8; HASH]> {
    if text.len() != 2 * HASH || !text.is_ascii() {
        return None;
    }
    let mut out = [0; HASH];
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(out)
}

/// Reads the file.
///
/// # Errors
/// All that is wrong, each with its line; no part of a token or hash is repeated.
pub(super) fn read(path: &Path) -> Result<Vec<Token>, Vec<String>> {
    let bytes = read_bounded(path, MAX_BYTES)
        .map_err(|error| vec![format!("{} cannot be read: {error}", path.display())])?;
    if is_utf16(&bytes) {
        return Err(vec!["the file is UTF-16 text: save it as UTF-8".to_owned()]);
    }
    let text =
        std::str::from_utf8(&bytes).map_err(|_| vec!["the file is not UTF-8 text".to_owned()])?;
    parse(without_mark(text))
}

fn parse(text: &str) -> Result<Vec<Token>, Vec<String>> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match Token::parse(line) {
            Err(why) => wrong.push(format!("line {number}: {why}")),
            Ok(new) if tokens.iter().any(|old| old.name == new.name) => {
                wrong.push(format!("line {number}: {} is there already", new.name));
            }
            Ok(new) => match tokens.iter().find(|old| old.hash == new.hash) {
                Some(old) => wrong.push(format!(
                    "line {number}: {} has the token of {}",
                    new.name, old.name
                )),
                None => tokens.push(new),
            },
        }
    }
    if tokens.len() > MAX_TOKENS {
        wrong.push(format!("it has more than {MAX_TOKENS} tokens"));
    }
    if tokens.is_empty() && wrong.is_empty() {
        wrong.push("it has no token".to_owned());
    }
    if wrong.is_empty() {
        Ok(tokens)
    } else {
        Err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_token_is_known_by_its_hash() {
        let text = format!("\u{feff}# who\r\n\r\nops operate {ABC}\r\n");
        let tokens = parse(without_mark(&text)).unwrap();
        assert_eq!((tokens.len(), tokens[0].role), (1, TokenRole::Operate));
        assert!(tokens[0].is(&Secret::new("abc")));
        assert!(!tokens[0].is(&Secret::new("abd")));
        assert_eq!(tokens[0].line(), format!("ops operate {ABC}"));
        assert_eq!(
            Token::of("ops", TokenRole::Operate, &Secret::new("abc")),
            tokens[0]
        );
    }

    #[test]
    fn everything_wrong_is_said_with_its_line_and_no_hash() {
        let text = format!(
            "ops operate {ABC}\nops read sha256:{}\nother read {ABC}\nx write {ABC}\nbad read abc\nö read {ABC}\nshort\n",
            "0".repeat(64)
        );
        let wrong = parse(&text).unwrap_err();
        for (line, said) in [2, 3, 4, 5, 6, 7].iter().zip(&wrong) {
            assert!(said.starts_with(&format!("line {line}: ")), "{said}");
            assert!(!said.contains("ba7816"), "{said}");
        }
        assert_eq!(wrong.len(), 6);
        assert_eq!(parse("# nobody\n").unwrap_err(), ["it has no token"]);
    }
}
