//! What a check has to say: errors and warnings, each with file, line, key, value and what is allowed.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use tandem_model::REDACTED;

/// Longest part of a value that a finding shows, in characters.
const SHOWN_CHARS: usize = 120;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, but somebody should look.
    Warning,
}

/// One thing found in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Error or warning.
    pub severity: Severity,
    /// The file it is about; `None` for an environment variable or for a pair.
    pub file: Option<PathBuf>,
    /// Line in that file, from 1.
    pub line: Option<usize>,
    /// The key as it is spelled there, or the environment variable.
    pub key: Option<String>,
    /// The value found, secrets redacted.
    pub value: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub allowed: Option<String>,
}

impl Finding {
    /// An error with only a message; the other parts are added with the builder methods.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: None,
            line: None,
            key: None,
            value: None,
            message: message.into(),
            allowed: None,
        }
    }

    /// A warning with only a message.
    pub fn warning(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message)
        }
    }

    /// The file, and the line where it is known.
    pub fn at(mut self, file: &Path, line: Option<usize>) -> Self {
        self.file = Some(file.to_path_buf());
        self.line = line;
        self
    }

    /// The key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The value, as it may be shown (see `shown`).
    pub fn value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// What is allowed.
    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
        })?;
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(f, "{key} = {value}: ")?,
            (Some(key), None) => write!(f, "{key}: ")?,
            _ => {}
        }
        f.write_str(&self.message)?;
        if let Some(allowed) = &self.allowed {
            write!(f, " (allowed: {allowed})")?;
        }
        Ok(())
    }
}

/// All findings of one check, in the order in which they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// Adds one.
    pub fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    /// The errors.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter().filter(|f| f.is_error())
    }

    /// The warnings.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter().filter(|f| !f.is_error())
    }

    /// Whether at least one is an error.
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// Whether there is nothing at all to say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Errors by file and line, then the rest: the order in which a person mends them.
    pub(super) fn sort(&mut self) {
        self.0.sort_by(|a, b| {
            (!a.is_error(), &a.file, a.line.unwrap_or(usize::MAX)).cmp(&(
                !b.is_error(),
                &b.file,
                b.line.unwrap_or(usize::MAX),
            ))
        });
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Findings {}

/// A value as it may be shown: credentials inside a URL redacted, control characters escaped, cut
/// to 120 characters.
pub fn shown(value: &str) -> String {
    let value = redact_url(value);
    let mut out: String = value
        .chars()
        .take(SHOWN_CHARS)
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect();
    if value.chars().count() > SHOWN_CHARS {
        out.push('…');
    }
    out
}

/// Whether a key's name says that its value should not be printed. Used where no schema says it:
/// for unknown keys (a mistyped `broker.pasword` holds a real password) and for ignored ones.
pub(super) fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    [
        "pass",
        "pwd",
        "pasw",
        "secret",
        "token",
        "key",
        "credential",
    ]
    .iter()
    .any(|word| key.contains(word))
}

/// Replaces the user information of a URL: everything up to the last `@`. Where its host was
/// forgotten, the password stands where the port would: what is no port goes, and all behind it.
pub(super) fn redact_url(value: &str) -> String {
    if let Some(at) = value.rfind('@') {
        let start = value[..at].find("://").map_or(0, |i| i + 3);
        return format!("{}{REDACTED}{}", &value[..start], &value[at..]);
    }
    for (scheme, _) in value.match_indices("://") {
        let start = scheme + 3;
        let rest = &value[start..];
        let end = rest.find(['/', '?', '#', ',', ')', ' ']);
        let authority = &rest[..end.unwrap_or(rest.len())];
        // Behind the brackets of an IPv6 address.
        let from = authority.rfind(']').unwrap_or(0);
        let Some(colon) = authority[from..].find(':').map(|i| start + from + i) else {
            continue;
        };
        let port = &value[colon + 1..start + authority.len()];
        if port.parse::<u16>().is_err() && colon + 1 < value.len() {
            return format!("{}{REDACTED}", &value[..=colon]);
        }
    }
    value.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_names_everything() {
        let finding = Finding::error("not a duration")
            .at(Path::new("a.properties"), Some(7))
            .key("peer.lost")
            .value("3")
            .allowed("500ms, 10s, 2m");
        assert_eq!(
            finding.to_string(),
            "error: a.properties:7: peer.lost = 3: not a duration (allowed: 500ms, 10s, 2m)"
        );
    }

    #[test]
    fn credentials_in_urls_are_not_shown() {
        assert_eq!(
            shown("amqp://me:p@ss@host:5672"),
            "amqp://[redacted]@host:5672"
        );
        assert_eq!(shown("me:p@host"), "[redacted]@host");
        assert_eq!(shown("p@ss://x"), "[redacted]@ss://x");
    }

    #[test]
    fn what_stands_where_a_port_would_is_a_password_unless_it_is_a_port() {
        for (value, seen) in [
            ("amqp://u:hunter2", "amqp://u:[redacted]"),
            ("amqp://u:hunter2/vh", "amqp://u:[redacted]"),
            ("amqp://u:h:5672", "amqp://u:[redacted]"),
            ("amqp://u:123456", "amqp://u:[redacted]"),
            ("amqp://u:/hunter2", "amqp://u:[redacted]"),
            (
                "a,tcp://a:1,tcp://u:hunter2",
                "a,tcp://a:1,tcp://u:[redacted]",
            ),
        ] {
            assert_eq!(shown(value), seen);
        }
        for value in [
            "amqp://a:5672/vh",
            "https://fin:8445?x=y:z",
            "amqp://[::1]:5672",
            "amqp://[::1]",
            "failover:(tcp://a:61616,tcp://b:61616)?randomize=false",
            "http://h:",
            "GET:/rest",
        ] {
            assert_eq!(shown(value), value);
        }
    }

    #[test]
    fn long_and_odd_values_are_cut_and_escaped() {
        assert_eq!(shown("a\u{0}b\u{1b}"), "a\\u{0}b\\u{1b}");
        assert_eq!(shown(&"ä".repeat(500)).chars().count(), 121);
    }

    #[test]
    fn errors_come_first_and_in_line_order() {
        let file = Path::new("f");
        let mut findings = Findings(vec![
            Finding::warning("w").at(file, Some(1)),
            Finding::error("second").at(file, Some(9)),
            Finding::error("first").at(file, Some(2)),
        ]);
        findings.sort();
        let order: Vec<_> = findings.0.iter().map(|f| f.message.as_str()).collect();
        assert_eq!(order, ["first", "second", "w"]);
    }
}
