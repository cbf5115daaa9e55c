//! The last look: no secret of the configuration may be in a text, whoever wrote it there.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::{REDACTED, Secret};
use crate::net::amqp;
use crate::settings::Settings;

/// Shorter ones are words of every text: `guest` is no secret.
const SHORTEST: usize = 6;

/// Secrets, in every form in which they may be written.
#[derive(Default)]
pub(super) struct Scrub(Vec<Secret>);

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
        Self(forms)
    }

    /// The text without them.
    pub(super) fn clean(&self, text: &str) -> String {
        let clean = |text: String, form: &Secret| text.replace(form.expose(), REDACTED);
        self.0.iter().fold(text.to_owned(), clean)
    }
}
