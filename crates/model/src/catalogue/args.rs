//! Arguments of a command.

use super::ErrorCode;
use crate::Secret;

/// One argument in a command's body.
#[derive(Debug, Clone, Copy)]
pub struct ArgSpec {
    /// Name in the JSON form; compared without case, blanks, `_` and `-`.
    pub name: &'static str,
    /// Other names in the JSON form: those that the original's documents print.
    pub aliases: &'static [&'static str],
    /// Error where it is absent or empty; `None` makes it optional.
    pub missing: Option<ErrorCode>,
    /// Carries a password: kept as a [`Secret`] and redacted wherever the body is shown.
    pub secret: bool,
    /// Takes what the other arguments leave of the text form, commas included.
    pub rest: bool,
    /// Takes any JSON value in the object form, which is kept as JSON text.
    pub json: bool,
    /// Holds names and values: in the object form also an object of them, or one pair as `name`
    /// and `value` beside the other arguments.
    pub pairs: bool,
    /// In the text form it is there only where it is this word (or empty): anything else belongs
    /// to an argument before it that may have commas.
    pub only: Option<&'static str>,
}

/// Whether two argument names are the same, however their words are joined.
fn same_name(one: &str, other: &str) -> bool {
    let plain = |name: &str| {
        let bytes = name.bytes();
        bytes
            .filter(|byte| !matches!(byte, b'_' | b'-' | b' '))
            .map(|byte| byte.to_ascii_lowercase())
            .collect::<Vec<_>>()
    };
    plain(one) == plain(other)
}

impl ArgSpec {
    /// A required argument.
    #[must_use]
    pub const fn required(name: &'static str, missing: ErrorCode) -> Self {
        Self {
            name,
            missing: Some(missing),
            ..Self::optional(name)
        }
    }

    /// An optional argument.
    #[must_use]
    pub const fn optional(name: &'static str) -> Self {
        Self {
            name,
            aliases: &[],
            missing: None,
            secret: false,
            rest: false,
            json: false,
            pairs: false,
            only: None,
        }
    }

    /// The same, with all commas that no other argument needs.
    #[must_use]
    pub const fn with_commas(mut self) -> Self {
        self.rest = true;
        self
    }

    /// The same, with any JSON value in the object form.
    #[must_use]
    pub const fn any_json(mut self) -> Self {
        self.json = true;
        self
    }

    /// The same, with names and values in the object form.
    #[must_use]
    pub const fn or_pairs(mut self) -> Self {
        self.pairs = true;
        self
    }

    /// The same, with other names in the JSON form.
    #[must_use]
    pub const fn or(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// The same, told from other text by being this word.
    #[must_use]
    pub const fn only(mut self, word: &'static str) -> Self {
        self.only = Some(word);
        self
    }

    /// A required password, which may have commas.
    #[must_use]
    pub const fn password(missing: ErrorCode) -> Self {
        Self {
            secret: true,
            ..Self::required("password", missing).with_commas()
        }
    }

    /// Whether this is a name of the argument in the JSON form.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        same_name(self.name, name) || self.aliases.iter().any(|alias| same_name(alias, name))
    }
}

/// The arguments that a command came with, by the names of its specification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args(Vec<(&'static str, Secret)>);

impl Args {
    /// Adds an argument. All are kept as secrets: no argument is ever shown by accident.
    pub fn push(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, Secret::new(value)));
    }

    /// Gives an argument another value; one that is absent stays so.
    pub fn replace(&mut self, name: &str, value: impl Into<String>) {
        if let Some((_, old)) = self.0.iter_mut().find(|(key, _)| *key == name) {
            *old = Secret::new(value);
        }
    }

    /// An argument's text; `None` where absent or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.secret(name).map(Secret::expose)
    }

    /// An argument as a secret; `None` where absent or empty.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.0
            .iter()
            .find(|(key, value)| *key == name && !value.expose().is_empty())
            .map(|(_, value)| value)
    }

    /// An argument's text, or the given error.
    ///
    /// # Errors
    /// Where the argument is absent or empty.
    pub fn need(&self, name: &str, missing: ErrorCode) -> Result<&str, ErrorCode> {
        self.get(name).ok_or(missing)
    }
}
