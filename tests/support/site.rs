//! One instance with a property file of the test's own making, for surroundings that a [`Pair`]
//! does not have.
//!
//! [`Pair`]: super::Pair

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tandem::lab::{ProcessSpec, ReservedPort, TandemProcess};
use tandem::simulator::{self, Running};
use tempfile::TempDir;

use super::{LIMIT, until, wait_for};

/// Keys that every instance of these tests has.
const USUAL: [(&str, &str); 6] = [
    ("control.key", "6b1d9f3e07a84c52b6e8d4013f97ac25"),
    ("notify.tls", "false"),
    ("broker.failback-hold", "1s"),
    ("takeback.hold", "2s"),
    ("downstream.probe-interval", "500ms"),
    ("log.level", "info"),
];

/// An instance and what belongs to it.
#[derive(Debug)]
pub struct Site {
    /// Its process; `None` where it was not started.
    pub process: Option<TandemProcess>,
    /// Property file.
    pub config: PathBuf,
    admin: ReservedPort,
    log: PathBuf,
    http: reqwest::Client,
    folder: TempDir,
}

impl Site {
    /// A site that is not started yet.
    pub fn new(id: &str, keys: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let admin = ReservedPort::take().expect("a port");
        let own = [
            ("instance.id", id.to_owned()),
            ("admin.listen", admin.address().to_string()),
            ("data.dir", folder.path().join("data").display().to_string()),
        ];
        let usual = USUAL.map(|(key, value)| (key, value.to_owned()));
        let all = usual.iter().chain(&own).chain(keys).cloned();
        let text = all.collect::<BTreeMap<_, _>>();
        let lines = text.iter().map(|(key, value)| format!("{key}={value}\n"));
        let config = folder.path().join("site.properties");
        std::fs::write(&config, lines.collect::<String>()).expect("a property file");
        Self {
            process: None,
            config,
            admin,
            log: folder.path().join("log"),
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("an HTTP client"),
            folder,
        }
    }

    /// Starts the process.
    pub fn start(&mut self) {
        let binary = Path::new(env!("CARGO_BIN_EXE_tandem"));
        let process = TandemProcess::start(binary, &self.config, BTreeMap::new(), &self.log);
        self.process = Some(process.expect("the instance starts"));
    }

    /// Starts the process in a world of its own, where these lines are all of `/etc/hosts`.
    pub fn start_with_hosts(&mut self, hosts: &Hosts) {
        let config = self.config.display().to_string();
        let words = hosts.words(&["run", "--config", &config]);
        let spec = ProcessSpec {
            name: "an instance with names of its own".to_owned(),
            program: words[0].clone().into(),
            args: words[1..].to_vec(),
            env: BTreeMap::new(),
            log: self.log.clone(),
        };
        let process = TandemProcess::start_spec(spec);
        self.process = Some(process.expect("the instance starts"));
    }

    /// `GET /api/v1/status`; `Null` where it does not answer.
    pub async fn status(&self) -> Value {
        let url = format!("http://{}/api/v1/status", self.admin.address());
        let Ok(answer) = self.http.get(url).send().await else {
            return Value::Null;
        };
        answer.json().await.unwrap_or_default()
    }

    /// Waits until it has this role and consumes, where it leads.
    pub async fn becomes(&self, role: &str) {
        let begun = tokio::time::Instant::now();
        loop {
            let status = self.status().await;
            let group = &status["groups"][0];
            if group["role"] == role && status["inService"] == true {
                return;
            }
            if begun.elapsed() > LIMIT {
                panic!("never {role}: {status:#}\n{}", self.log_text());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Waits until its log has this text.
    pub async fn logs(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), async || {
            self.log_text().contains(text).then_some(())
        })
        .await;
    }

    /// What it has logged.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }
}

/// Names that only the programs of a test know: a mount namespace with another `/etc/hosts`.
#[derive(Debug)]
pub struct Hosts {
    file: tempfile::NamedTempFile,
}

impl Hosts {
    /// `None`, said aloud, where this machine lets nobody have such a namespace.
    pub fn new(lines: &str) -> Option<Self> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), lines).expect("a file");
        let hosts = Self { file };
        let words = hosts.around("true", &[]);
        let tried = std::process::Command::new(&words[0])
            .args(&words[1..])
            .status();
        let works = tried.is_ok_and(|status| status.success());
        if !works {
            eprintln!("left out: no mount namespace to be had here (unshare -rm)");
        }
        works.then_some(hosts)
    }

    /// The command that runs `tandem` with these words among those names.
    fn words(&self, words: &[&str]) -> Vec<String> {
        self.around(env!("CARGO_BIN_EXE_tandem"), words)
    }

    fn around(&self, program: &str, words: &[&str]) -> Vec<String> {
        const SCRIPT: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
        let file = self.file.path().display().to_string();
        let all = ["unshare", "-rm", "sh", "-c", SCRIPT, &file, program];
        all.iter()
            .chain(words)
            .map(|word| (*word).to_owned())
            .collect()
    }

    /// Runs `tandem` among those names: exit code, and what it printed on both outputs.
    pub async fn tandem(&self, words: &[&str]) -> (i32, String) {
        let words = self.words(words);
        let mut command = tokio::process::Command::new(&words[0]);
        let output = command.args(&words[1..]).kill_on_drop(true).output().await;
        let output = output.expect("the program runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.code().unwrap_or(-1), text)
    }
}

/// A simulated downstream of one node on a loopback address.
pub async fn downstream(ip: IpAddr, tls: Option<simulator::config::TlsConfig>) -> Running {
    let mut config = simulator::Config::loopback(1, 10);
    config.forced_logout_after = std::time::Duration::ZERO;
    config.tls = tls;
    for node in &mut config.nodes {
        node.rest.set_ip(ip);
        node.xmpp.set_ip(ip);
    }
    simulator::start(config).await.expect("a simulator")
}

/// Runs the program to its end: exit code, and what it printed on both outputs.
pub async fn tandem(words: &[&str]) -> (i32, String) {
    super::pair::tandem(words.iter().map(|word| (*word).to_owned()).collect()).await
}

/// [`tandem`] again and again until it exits with this code; what it printed then.
pub async fn tandem_until(code: i32, words: &[&str]) -> String {
    wait_for(&format!("exit {code} of {words:?}"), async || {
        let (seen, text) = tandem(words).await;
        if seen != code {
            eprintln!("{seen}: {text}");
        }
        (seen == code).then_some(text)
    })
    .await
}
