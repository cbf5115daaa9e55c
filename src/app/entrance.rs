//! The HTTP entrance at the start.

use tokio::net::TcpListener;

use super::AppError;
use super::configure::rest_config;
use crate::rest;
use crate::settings::Settings;

/// The HTTP entrance where one is wanted: what is wrong with it is said before anything starts.
pub(super) async fn open(
    settings: &Settings,
    told: rest::Callbacks,
) -> Result<Option<(TcpListener, rest::Ready)>, AppError> {
    let Some((listen, config)) = rest_config(settings) else {
        return Ok(None);
    };
    let words = |error: std::io::Error| AppError::Io(error.to_string());
    let listener = rest::bind(listen).await.map_err(words)?;
    let ready = rest::Ready::new(config, told)
        .map_err(|error| AppError::Settings(format!("the HTTP entrance: {error}")))?;
    Ok(Some((listener, ready)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;
    use tandem_test_kit::certs::{Kind, Maker};

    /// Settings that were good when they were read, and why nothing starts with them.
    async fn refused(maker: &Maker, listen: &str, keys: &str, then: impl FnOnce()) -> AppError {
        let text = format!(
            "instance.id=gc-1\nbroker.url.1=localhost\n\
             downstream.url.1=http://localhost:8080/finesse/api\n\
             rest.listen={listen}\nrest.token=f3a9c1d27b604e8895d1\n{keys}"
        );
        let file = maker.file("site.properties", text);
        let loaded = settings::load(&file, &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
        then();
        match open(&loaded.settings, rest::Callbacks::default()).await {
            Ok(_) => panic!("it opened"),
            Err(error) => error,
        }
    }

    #[tokio::test]
    async fn files_that_went_bad_after_they_were_checked_end_the_start_with_their_name() {
        let maker = Maker::new();
        let (own, other) = (["a"], ["b"]);
        let [made, another] = [own, other].map(|name| maker.make(&name, Kind::default(), None));
        let keys = format!(
            "rest.certificate-file={}\nrest.private-key-file={}\n",
            made.certificate.display(),
            made.key.display()
        );
        // The key of another one: half of a renewal.
        let half = || {
            std::fs::copy(&another.key, &made.key).unwrap();
        };
        let said = refused(&maker, "127.0.0.1:0", &keys, half).await;
        assert!(matches!(said, AppError::Settings(_)), "{said:?}");
        let said = said.to_string();
        assert!(said.contains("HTTP entrance"), "{said}");
        assert!(said.contains("rest.private-key-file"), "{said}");
        std::fs::copy(&another.certificate, &made.certificate).unwrap();
        let gone = || std::fs::remove_file(&made.certificate).unwrap();
        let said = refused(&maker, "127.0.0.1:0", &keys, gone)
            .await
            .to_string();
        assert!(said.contains("rest.certificate-file"), "{said}");
        assert!(
            said.contains(&made.certificate.display().to_string()),
            "{said}"
        );
    }

    #[tokio::test]
    async fn authorities_of_callbacks_that_went_bad_end_the_start_with_their_name() {
        let maker = Maker::new();
        let authority = Kind {
            authority: true,
            ..Kind::default()
        };
        let made = maker.make(&["CA"], authority, None);
        let keys = format!(
            "rest.callback.allow.1=https://crm.example/\nrest.callback.ca-file={}\n",
            made.certificate.display()
        );
        let garbage = || std::fs::write(&made.certificate, "hello").unwrap();
        let said = refused(&maker, "127.0.0.1:0", &keys, garbage)
            .await
            .to_string();
        assert!(said.contains("rest.callback.ca-file"), "{said}");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_ends_the_start_with_the_address_and_the_key() {
        let maker = Maker::new();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let said = refused(&maker, &address, "", || ()).await.to_string();
        assert!(
            said.contains(&address) && said.contains("rest.listen"),
            "{said}"
        );
    }
}
