//! Whether the platform's application is there: it is itself a user of the service, and its
//! presence tells.

use super::stanza::Presence;

/// Addresses of the application that are told apart.
const MAX_RESOURCES: usize = 8;
/// The application's user.
const USER: &str = "finesse";

/// What is known of the application.
#[derive(Debug, Default)]
pub(super) struct Application {
    /// Addresses by which it is there.
    here: Vec<String>,
    /// It is not there by any.
    gone: bool,
    /// Its presence was seen.
    pub(super) seen: bool,
}

/// Its address without a resource.
pub(super) fn address(domain: &str) -> String {
    format!("{USER}@{domain}")
}

/// Whether `from` is an address of the application. Addresses are compared without letter case.
pub(super) fn is_application(from: &str, domain: &str) -> bool {
    let bare = from.split('/').next().unwrap_or_default();
    bare.split_once('@').is_some_and(|(user, of)| {
        user.eq_ignore_ascii_case(USER) && of.eq_ignore_ascii_case(domain)
    })
}

impl Application {
    /// Takes a presence of the application. Tells whether it is there now, where that has changed.
    pub(super) fn take(&mut self, presence: Presence) -> Option<bool> {
        let Presence { from, available } = presence;
        let whole = !from.contains('/');
        match available? {
            // A service may say this of a user that it does not know, without a resource then:
            // whoever was never there has not gone.
            false if self.here.is_empty() && whole => return None,
            false if whole => self.here.clear(),
            false => self.here.retain(|known| *known != from),
            true if self.here.contains(&from) || self.here.len() >= MAX_RESOURCES => {}
            true => self.here.push(from),
        }
        self.seen = true;
        let gone = self.here.is_empty();
        (std::mem::replace(&mut self.gone, gone) != gone).then_some(!gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_applications_own_address_counts() {
        for from in ["finesse@d.example", "Finesse@D.example/a@b/c"] {
            assert!(is_application(from, "d.example"), "{from}");
        }
        for from in [
            "d.example",
            "d.example/finesse@d.example",
            "finesse@e.example",
            "x@d.example",
        ] {
            assert!(!is_application(from, "d.example"), "{from}");
        }
    }

    #[test]
    fn addresses_have_a_bound() {
        let mut application = Application::default();
        for n in 0..2 * MAX_RESOURCES {
            application.take(Presence {
                from: format!("finesse@d/{n}"),
                available: Some(true),
            });
        }
        assert_eq!(application.here.len(), MAX_RESOURCES);
    }
}
