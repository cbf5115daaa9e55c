//! What must not go into production unseen: the defaults' password, and secrets and hosts that
//! stand in this project's own examples.

use super::Broker;
use super::finding::Finding;
use super::url::BrokerAddress;
use super::validate::Validator;
use super::value::{Value, is_loopback};
use tandem_model::Secret;

/// The user that RabbitMQ comes with, and its password.
const GUEST: &str = "guest";
/// Fewer different characters than this are no random secret.
const DIFFERENT: usize = 8;
/// In no random secret, and in many an example.
const EXAMPLES: [&str; 5] = [
    "0123456789abcdef",
    "change",
    "example",
    "password",
    "secret",
];
/// The hosts of the shipped property files end so.
const EXAMPLE_HOSTS: [&str; 2] = [".site-1.example", ".site-2.example"];

impl Validator<'_> {
    /// Warns of what the brokers' addresses and logins have from examples and defaults.
    pub(super) fn warn_of_defaults(&mut self, broker: &Broker) {
        let mut named_user = false;
        for n in 1..=super::schema::MAX_BROKERS {
            let name = format!("broker.url.{n}");
            let Some(Value::Broker(address)) = self.value(&name) else {
                continue;
            };
            self.warn_of_example_hosts(&name, &address);
            let (key, user) = match &address.user {
                Some(user) => (name, user.clone()),
                // Once for all brokers.
                None if named_user => continue,
                None => {
                    named_user = true;
                    ("broker.username".to_owned(), self.text("broker.username"))
                }
            };
            let external = address.tls
                && broker.tls.has_certificate()
                && address.user.is_none()
                && self.candidate("broker.username").is_none();
            if !external {
                let given = address.password.clone();
                let password = given.or_else(|| self.secret("broker.password"));
                self.warn_of_login(&key, &user, password.as_ref(), &address);
            }
        }
    }

    fn warn_of_login(
        &mut self,
        key: &str,
        user: &str,
        password: Option<&Secret>,
        address: &BrokerAddress,
    ) {
        let password = password.map_or("", Secret::expose);
        let allowed = "a user of its own, and its password in broker.password-file";
        let far = !address.nodes.iter().all(|node| is_loopback(&node.host));
        let message = match (user, password) {
            (GUEST, _) if far => {
                "guest is the default, and RabbitMQ lets it in from its own machine only".to_owned()
            }
            (GUEST, _) => return,
            (user, GUEST) => {
                format!("the password of user {user} is guest's, the default")
            }
            (user, password) if user == password => {
                format!("the password of user {user} is its name")
            }
            (user, password) if EXAMPLES.iter().any(|word| password.contains(word)) => {
                format!("the password of user {user} is an example's")
            }
            _ => return,
        };
        self.about(key, Finding::warning(message).allowed(allowed));
    }

    fn warn_of_example_hosts(&mut self, key: &str, address: &BrokerAddress) {
        let example = address.nodes.iter().find(|node| is_example(&node.host));
        if let Some(node) = example {
            self.about(key, of_example(&node.host));
        }
    }

    /// Warns of a secret that is no secret.
    pub(super) fn warn_of_guessable(&mut self, key: &str, secret: Option<&Secret>) {
        if secret.is_some_and(|secret| is_guessable(secret.expose())) {
            let message = "it can be guessed: it is an example's, or not random";
            let allowed = "`openssl rand -hex 32`, in a file";
            self.about(key, Finding::warning(message).allowed(allowed));
        }
    }
}

/// Whether a host stands in the shipped property files.
pub(super) fn is_example(host: &str) -> bool {
    EXAMPLE_HOSTS.iter().any(|end| host.ends_with(end))
}

/// A warning that it does.
pub(super) fn of_example(host: &str) -> Finding {
    let message = format!("{host} is the example's host: there is none of that name");
    Finding::warning(message).allowed("your own")
}

fn is_guessable(secret: &str) -> bool {
    let plain = secret.to_ascii_lowercase();
    let mut different: Vec<char> = plain.chars().collect();
    different.sort_unstable();
    different.dedup();
    different.len() < DIFFERENT || EXAMPLES.iter().any(|word| plain.contains(word))
}

#[cfg(test)]
mod tests {
    use super::is_guessable;

    #[test]
    fn what_openssl_makes_is_no_example() {
        for random in [
            "9d1f6a0b7be84a3c2f5e118c60d7e3a49b7c5d2e8f1a06437bd90ce2546f8a13",
            "kR3vX9+qLw2nB7sT/4hYcD8mZf1GjU6oPiEaQyN5",
        ] {
            assert!(!is_guessable(random), "{random}");
        }
        for example in [
            "0123456789abcdef0123456789abcdef",
            "change-me-change-me-change-me-change-me",
            "ThisIsTheSecretOfOurCluster-2026-11-30",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(is_guessable(example), "{example}");
        }
    }
}
