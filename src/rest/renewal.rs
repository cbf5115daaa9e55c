//! What SIGHUP renews of a running entrance.

use super::RestConfig;
use super::callback::bearer_header;
use crate::model::Secret;
use crate::renewed::Renewed;

/// The tokens and passwords of a running entrance. Connections that stand are left alone.
#[derive(Debug, Clone)]
pub struct Renewal {
    token: Renewed<Option<Secret>>,
    callback_token: Option<Renewed<Option<Secret>>>,
    sign_key: Option<Renewed<Option<Secret>>>,
    brokers: Renewed<Vec<(String, String)>>,
}

impl Renewal {
    /// Of an entrance with this configuration.
    #[must_use]
    pub fn of(config: &RestConfig) -> Self {
        let callbacks = config.callbacks.as_ref();
        Self {
            token: config.token.clone(),
            callback_token: callbacks.map(|callbacks| callbacks.token.clone()),
            sign_key: callbacks.map(|callbacks| callbacks.sign_key.clone()),
            brokers: config.publisher.brokers.clone(),
        }
    }

    /// Another token is asked for.
    pub fn token(&self, token: Option<Secret>) {
        self.token.set(token);
    }

    /// Whether events can be posted with this token.
    ///
    /// # Errors
    /// It cannot stand in a header.
    pub fn fits(token: &Secret) -> Result<(), String> {
        let header = bearer_header(token).map_err(|error| error.to_string());
        header.map(|_| ())
    }

    /// Events are posted with another token, which fits.
    pub fn callback_token(&self, token: Option<Secret>) {
        if let Some(renewed) = &self.callback_token {
            renewed.set(token);
        }
    }

    /// Events are signed with another key.
    pub fn sign_key(&self, key: Option<Secret>) {
        if let Some(renewed) = &self.sign_key {
            renewed.set(key);
        }
    }

    /// The same brokers with other users and passwords: URIs and what they are called.
    pub fn brokers(&self, brokers: Vec<(String, String)>) {
        self.brokers.set(brokers);
    }
}
