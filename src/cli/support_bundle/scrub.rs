//! The last look: no secret of the configuration may be in a text, whoever wrote it there.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::{REDACTED, Secret};
use crate::net::amqp;
use crate::settings::Settings;

/// Shorter ones are words of every text (`guest`): they are looked for only as whole values behind
/// a word that says that a secret follows, and within a URL.
const SHORTEST: usize = 6;
/// Such words.
const NAMES: [&str; 7] = [
    "password",
    "passwd",
    "pwd",
    "secret",
    "token",
    "key",
    "authorization",
];

/// Secrets, in every form in which they may be written.
#[derive(Default)]
pub(super) struct Scrub {
    anywhere: Vec<Secret>,
    by_name: Vec<Secret>,
}

impl Scrub {
    /// Those of a configuration.
    pub(super) fn of(settings: &Settings) -> Self {
        let mut all: Vec<Secret> = Vec::new();
        let control = &settings.control;
        all.extend(
            [&control.key, &control.previous_key]
                .into_iter()
                .flatten()
                .cloned(),
        );
        all.extend(settings.admin.token.clone());
        if let Some(rest) = &settings.rest {
            all.extend(rest.token.clone());
            let callback = rest.callback.iter();
            let callback = callback.flat_map(|it| [&it.token, &it.sign_key]);
            all.extend(callback.flatten().cloned());
        }
        let admin = settings.downstream.admin.as_ref();
        all.extend(admin.map(|admin| admin.password.clone()));
        for url in &settings.broker.urls {
            all.push(url.management.password.clone());
            let uris = amqp::uris(&url.amqp).unwrap_or_default();
            let passwords = uris.into_iter().map(|uri| uri.authority.userinfo.password);
            all.extend(passwords.map(Secret::new));
        }
        let mut forms = Vec::new();
        for secret in all.iter().filter(|secret| secret.len() >= SHORTEST) {
            let text = secret.expose();
            forms.push(secret.clone());
            forms.push(Secret::new(
                utf8_percent_encode(text, NON_ALPHANUMERIC).to_string(),
            ));
            // As a text within JSON.
            let json = serde_json::to_string(text).unwrap_or_default();
            forms.push(Secret::new(json.trim_matches('"')));
        }
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        all.retain(|secret| (1..SHORTEST).contains(&secret.len()));
        Self {
            anywhere: forms,
            by_name: all,
        }
    }

    /// The text without them.
    pub(super) fn clean(&self, text: &str) -> String {
        let clean = |text: String, form: &Secret| text.replace(form.expose(), REDACTED);
        let text = self.anywhere.iter().fold(text.to_owned(), clean);
        if self.by_name.is_empty() {
            return text;
        }
        let lines = text.split_inclusive('\n');
        lines.map(|line| self.clean_line(line)).collect()
    }

    fn clean_line(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for secret in &self.by_name {
            let secret = secret.expose();
            let hidden = format!(":{REDACTED}@");
            line = line.replace(&format!(":{secret}@"), &hidden);
            let lower = line.to_ascii_lowercase();
            let named = NAMES
                .iter()
                .filter_map(|name| Some(lower.find(name)? + name.len()));
            if let Some(from) = named.min() {
                let behind = whole_replaced(&line[from..], secret);
                line.truncate(from);
                line.push_str(&behind);
            }
        }
        line
    }
}

/// The text with every `word` replaced that is not a part of a longer one.
fn whole_replaced(text: &str, word: &str) -> String {
    let inner = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '.';
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (at, _) in text.match_indices(word) {
        let end = at + word.len();
        let alone = !text[..at].ends_with(inner) && !text[end..].starts_with(inner);
        if alone && at >= done {
            out.push_str(&text[done..at]);
            out.push_str(REDACTED);
            done = end;
        }
    }
    out + &text[done..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_secrets_go_where_their_name_stands_and_words_stay() {
        let scrub = Scrub {
            anywhere: Vec::new(),
            by_name: vec![Secret::new("guest"), Secret::new("a.b")],
        };
        for (text, wanted) in [
            ("broker.password = guest\n", "broker.password = ***\n"),
            (
                r#"{"user": "guest", "Token": "a.b"}"#,
                r#"{"user": "guest", "Token": "***"}"#,
            ),
            ("amqp://guest:guest@h/guest", "amqp://guest:***@h/guest"),
            ("a guest came\n", "a guest came\n"),
            ("password=guests", "password=guests"),
            ("password=guest,guest", "password=***,***"),
        ] {
            assert_eq!(scrub.clean(text), wanted.replace("***", REDACTED), "{text}");
        }
    }
}
