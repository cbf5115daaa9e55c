//! Which instance a command is for, and as whom: options, else a property file, else the
//! environment, else this machine's usual address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use reqwest::Url;

use super::client::ClientError;
use crate::files::read_bounded;
use crate::model::Secret;
use crate::model::text::trimmed;
use crate::net::{KeyNames, TlsClient, TlsFiles};
use crate::settings::{self, Settings};

/// Where an instance on this machine listens that was told nothing else.
const USUAL: &str = "http://127.0.0.1:9601";
/// The instance, where neither `--url` nor `--config` says it.
const URL_VARIABLE: &str = "TANDEM_URL";
/// The token's file, where neither `--token-file` nor the property file has a token.
const TOKEN_VARIABLE: &str = "TANDEM_TOKEN_FILE";
/// Private authorities, where neither `--ca-file` nor the property file names any.
const CA_VARIABLE: &str = "TANDEM_CA_FILE";
/// Longest file of a token or password, bytes.
const SECRET_FILE: usize = 64 * 1024;

/// Which instance, and as whom.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Target {
    /// Admin address of the instance [env: TANDEM_URL] [default: that of --config, else
    /// http://127.0.0.1:9601]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Property file of the instance: its address, certificate and admin.token
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File that holds the bearer token [env: TANDEM_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates of private authorities (PEM) for https, beside the system's; the instance's
    /// own certificate too [env: TANDEM_CA_FILE]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// An instance that can be asked.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Base URL of its admin API.
    pub(super) url: Url,
    /// What the host of `url` is, where the certificate has another name than the address.
    pub(super) at: Option<SocketAddr>,
    /// As whom.
    pub(super) token: Option<Secret>,
    /// Whom to believe.
    pub(super) tls: TlsClient,
}

/// Looks up an environment variable.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

fn process(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Target {
    /// The instance meant.
    pub(super) fn place(&self) -> Result<Place, ClientError> {
        let settings = self.config.as_deref().map(load).transpose()?;
        self.place_by(settings.as_ref(), &process)
    }

    /// The instance meant where the property file has been read already.
    pub(super) fn place_of(&self, settings: &Settings) -> Result<Place, ClientError> {
        self.place_by(Some(settings), &process)
    }

    fn place_by(&self, settings: Option<&Settings>, env: Env<'_>) -> Result<Place, ClientError> {
        let given = match (&self.url, settings) {
            (Some(url), _) => Some(("--url", url.clone())),
            (None, Some(_)) => None,
            (None, None) => env(URL_VARIABLE).map(|url| (URL_VARIABLE, url)),
        };
        let (url, at) = match (given, settings) {
            (Some((name, url)), _) => (base(name, &url)?, None),
            (None, Some(settings)) => listens(settings)?,
            (None, None) => (base("--url", USUAL)?, None),
        };
        let own = settings.and_then(|settings| settings.admin.token.clone());
        let variable = || env(TOKEN_VARIABLE).map(PathBuf::from);
        let token = match (&self.token_file, own) {
            (Some(file), _) => Some(read_token("--token-file", file)?),
            (None, Some(token)) => Some(token),
            (None, None) => {
                let file = variable();
                file.map(|file| read_token(TOKEN_VARIABLE, &file))
                    .transpose()?
            }
        };
        // The listener's own certificate is trusted as it stands in its file.
        let own = settings.and_then(|settings| settings.admin.tls.as_ref());
        let own = own.and_then(|tls| tls.files().certificate_file.clone());
        let files = TlsFiles {
            ca_file: self
                .ca_file
                .clone()
                .or(own)
                .or_else(|| env(CA_VARIABLE).map(PathBuf::from)),
            ..TlsFiles::default()
        };
        Ok(Place {
            url,
            at,
            token,
            tls: TlsClient::new(files, KeyNames::OPTIONS),
        })
    }
}

pub(super) fn load(file: &Path) -> Result<Settings, ClientError> {
    match settings::load_from_process(file) {
        Ok(loaded) => Ok(loaded.settings),
        Err(findings) => Err(ClientError::Usage(findings.to_string())),
    }
}

/// Its brokers, each as the AMQP client takes it.
pub(super) fn brokers(settings: &Settings) -> Vec<String> {
    let urls = settings.broker.urls.iter();
    urls.map(|url| url.amqp.clone()).collect()
}

/// `command.queue`.
pub(super) fn command_queue(settings: &Settings) -> Option<&str> {
    let queue = settings.groups.first()?.queues.first()?;
    Some(queue)
}

/// Where the instance of a property file listens, as it is reached from the same machine.
fn listens(settings: &Settings) -> Result<(Url, Option<SocketAddr>), ClientError> {
    let mut near = settings.admin.listen;
    match near.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => near.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => near.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let Some(tls) = &settings.admin.tls else {
        return Ok((base("admin.listen", &format!("http://{near}"))?, None));
    };
    // By a name that its certificate has.
    let hosts = tls.hosts();
    let named = |host: &&String| host.parse::<IpAddr>().is_err() && !host.contains('*');
    let by_address = hosts.iter().any(|host| host.parse() == Ok(near.ip()));
    match hosts.iter().find(named).filter(|_| !by_address) {
        Some(host) => {
            let url = base("admin.listen", &format!("https://{host}:{}", near.port()))?;
            Ok((url, Some(near)))
        }
        None => Ok((base("admin.listen", &format!("https://{near}"))?, None)),
    }
}

/// `host:port` is enough.
fn base(name: &str, text: &str) -> Result<Url, ClientError> {
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let shown = || settings::shown(text);
    let wrong = |why: &str| ClientError::Usage(format!("{name} {}: {why}", shown()));
    let url = Url::parse(&full).map_err(|error| wrong(&error.to_string()))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(wrong("only http and https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ClientError::Usage(format!(
            "{name}: no credentials there; use --token-file"
        )));
    }
    Ok(url)
}

/// The text of a file that an option names and that holds a secret.
pub(super) fn secret_file(name: &str, file: &Path) -> Result<Secret, ClientError> {
    let wrong = |why: String| ClientError::Usage(format!("{name} {}: {why}", file.display()));
    let bytes = read_bounded(file, SECRET_FILE).map_err(|error| wrong(error.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("not UTF-8 text".to_owned()))?;
    Ok(Secret::new(text))
}

fn read_token(name: &str, file: &Path) -> Result<Secret, ClientError> {
    let text = secret_file(name, file)?;
    let token = trimmed(text.expose());
    let printable = token.bytes().all(|b| b.is_ascii_graphic());
    if token.is_empty() || !printable {
        let why = "holds no token";
        return Err(ClientError::Usage(format!(
            "{name} {}: {why}",
            file.display()
        )));
    }
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::super::exit;
    use super::*;
    use tandem_test_kit::certs::{Kind, Maker};

    #[test]
    fn addresses_are_read_with_and_without_scheme() {
        let base = |text| base("--url", text);
        assert_eq!(
            base("127.0.0.1:9601").unwrap().as_str(),
            "http://127.0.0.1:9601/"
        );
        assert_eq!(base("https://a/x").unwrap().as_str(), "https://a/x");
        for bad in ["ftp://a", "http://", "http://me:secret@a"] {
            let error = base(bad).unwrap_err();
            assert_eq!(error.code(), exit::USAGE, "{bad}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_token_file_must_hold_a_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_path_buf();
        let read_token = |path: &Path| read_token("--token-file", path);
        assert_eq!(read_token(&path).unwrap_err().code(), exit::USAGE);
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), Secret::new("s3cret"));
        std::fs::write(&path, "\u{feff}s3cret\r\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), Secret::new("s3cret"));
        std::fs::write(&path, "two words\n").unwrap();
        assert!(read_token(&path).is_err());
        let error = read_token(&path.join("none")).unwrap_err();
        assert!(error.to_string().contains("--token-file"), "{error}");
    }

    const LEAST: &str = "instance.id=gc-1\nbroker.url.1=localhost\ndownstream.url.1=http://localhost:8080/finesse/api\n";

    fn place(target: &Target, file: Option<&str>, env: &[(&str, &str)]) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let settings = file.map(|more| {
            let path = folder.path().join("site.properties");
            std::fs::write(&path, format!("{LEAST}{more}")).unwrap();
            settings::load(&path, &|_| None).unwrap().settings
        });
        let env = |name: &str| {
            let found = env.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        target.place_by(settings.as_ref(), &env).unwrap()
    }

    #[test]
    fn options_go_before_the_file_and_the_file_before_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "0f-the-environment").unwrap();
        let token = token.display().to_string();
        let env = [
            (URL_VARIABLE, "http://env:1"),
            (TOKEN_VARIABLE, token.as_str()),
        ];
        let url = |place: &Place| place.url.as_str().to_owned();
        let none = Target::default();
        assert_eq!(url(&place(&none, None, &[])), "http://127.0.0.1:9601/");
        let by_env = place(&none, None, &env);
        assert_eq!(url(&by_env), "http://env:1/");
        assert_eq!(by_env.token, Some(Secret::new("0f-the-environment")));
        let file = "admin.listen=0.0.0.0:9700\nadmin.token=0f-the-file\n";
        let by_file = place(&none, Some(file), &env);
        assert_eq!(url(&by_file), "http://127.0.0.1:9700/");
        assert_eq!(by_file.token, Some(Secret::new("0f-the-file")));
        let option = Target {
            url: Some("other:2".to_owned()),
            ..Target::default()
        };
        assert_eq!(url(&place(&option, Some(file), &env)), "http://other:2/");
    }

    #[test]
    fn a_listener_with_a_certificate_is_reached_by_a_name_that_it_has() {
        let maker = Maker::new();
        for (names, url) in [
            (
                &["gc-1.example", "127.0.0.1"][..],
                "https://127.0.0.1:9700/",
            ),
            (&["gc-1.example"][..], "https://gc-1.example:9700/"),
        ] {
            let made = maker.make(names, Kind::default(), None);
            let file = format!(
                "admin.listen=127.0.0.1:9700\nadmin.certificate-file={}\nadmin.private-key-file={}\n",
                made.certificate.display(),
                made.key.display()
            );
            let place = place(&Target::default(), Some(&file), &[]);
            assert_eq!(place.url.as_str(), url);
            assert_eq!(place.at.is_some(), names.len() == 1);
            assert_eq!(place.tls.files().ca_file, Some(made.certificate.clone()));
        }
    }
}
