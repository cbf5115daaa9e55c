//! One instance: its process, and what it says of itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tandem::lab::{ReservedPort, TandemProcess};

use crate::support::{LIMIT, until};

/// One `tandem run`.
#[derive(Debug)]
pub struct Instance {
    /// `gc-1`, …
    pub name: &'static str,
    /// Its process; `None` where it was never started.
    pub process: Option<TandemProcess>,
    /// Property file.
    pub config: PathBuf,
    /// stdout and stderr.
    pub log: PathBuf,
    admin: ReservedPort,
    http: reqwest::Client,
}

impl Instance {
    /// One whose files are in this folder. Not started yet.
    pub(super) fn new(name: &'static str, folder: &Path) -> Self {
        Self {
            name,
            process: None,
            config: folder.join(format!("{name}.properties")),
            log: folder.join(format!("{name}.log")),
            admin: ReservedPort::take().expect("a port"),
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(2))
                .build()
                .expect("an HTTP client"),
        }
    }

    /// Starts the process, also again.
    pub fn start(&mut self) {
        if let Some(process) = &mut self.process {
            return process.restart().expect("the instance starts again");
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_tandem"));
        let env = BTreeMap::new();
        let process = TandemProcess::start(binary, &self.config, env, &self.log);
        self.process = Some(process.expect("the instance starts"));
    }

    /// `POST` of an operator's verb; status and body.
    pub async fn post(&self, path: &str) -> (u16, Value) {
        let url = format!("http://{}{path}", self.admin.address());
        // A verb is answered when it is on disk, which a busy machine takes its time for.
        let answer = self.http.post(url).timeout(LIMIT).send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// Drains it as an operator would, ends the process once nothing is in work, and waits until
    /// it has ended.
    pub async fn drain_and_end(&mut self) {
        let (status, body) = self.post("/api/v1/drain").await;
        assert_eq!(status, 202, "{body}");
        until("the drain has ended", async || {
            let status = self.status().await;
            status["groups"][0]["role"] == "disabled" && status["inflight"] == 0
        })
        .await;
        let process = self.process.as_mut().expect("it was started");
        process.terminate();
        until("the process has ended", async || !process.is_running()).await;
    }

    /// Starts it anew, with these environment variables.
    pub fn start_with(&mut self, env: &[(&str, &str)]) {
        self.kill();
        let binary = Path::new(env!("CARGO_BIN_EXE_tandem"));
        let pairs = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let process = TandemProcess::start(binary, &self.config, pairs.collect(), &self.log);
        self.process = Some(process.expect("the instance starts"));
    }

    /// Starts it anew, in a shell that did this before: `ulimit -Sn 64`.
    pub fn start_after(&mut self, shell: &str, env: &[(&str, &str)]) {
        use std::os::unix::fs::PermissionsExt as _;
        self.kill();
        let script = self.config.with_extension("sh");
        let binary = env!("CARGO_BIN_EXE_tandem");
        let text = format!("#!/bin/sh\nset -e\n{shell}\nexec '{binary}' \"$@\"\n");
        std::fs::write(&script, text).expect("a script");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&script, mode).expect("its mode");
        let pairs = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let process = TandemProcess::start(&script, &self.config, pairs.collect(), &self.log);
        self.process = Some(process.expect("the instance starts"));
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    /// SIGSTOP.
    pub fn freeze(&mut self) {
        if let Some(process) = &mut self.process {
            process.freeze();
        }
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        if let Some(process) = &mut self.process {
            process.thaw();
        }
    }

    /// A JSON document of the admin listener; `Null` where it does not answer.
    pub async fn json(&self, path: &str) -> Value {
        let text = self.get(path).await.unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The broker that it is attached to, `host:port`.
    pub async fn attached(&self) -> Option<String> {
        let status = self.status().await;
        let brokers = status["brokers"].as_array()?;
        let broker = brokers.iter().find(|broker| broker["attached"] == true)?;
        broker["url"].as_str().map(str::to_owned)
    }

    /// State of a peer as it sees it: `alive`, `lost`, …; empty where it knows none.
    pub async fn sees(&self, peer: &str) -> String {
        let status = self.status().await;
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        let entry = peers.iter().find(|entry| entry["instance"] == peer);
        entry
            .and_then(|entry| entry["state"].as_str())
            .unwrap_or_default()
            .to_owned()
    }

    /// A document of the admin listener.
    pub async fn get(&self, path: &str) -> Option<String> {
        let url = format!("http://{}{path}", self.admin.address());
        let answer = self.http.get(url).send().await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }

    /// `GET /api/v1/status`; `Null` where it does not answer.
    pub async fn status(&self) -> Value {
        let text = self.get("/api/v1/status").await.unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Role in group `agents`; empty where it does not answer.
    pub async fn role(&self) -> String {
        let status = self.status().await;
        status["groups"][0]["role"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Role in a group, by the group's index.
    pub async fn role_in(&self, group: usize) -> String {
        let status = self.status().await;
        let role = status["groups"][group]["role"].as_str();
        role.unwrap_or_default().to_owned()
    }

    /// Agents that it owns, and of these with a subscription.
    pub async fn owned(&self) -> (u64, u64) {
        let sessions = &self.status().await["sessions"];
        let count = |name: &str| sessions[name].as_u64().unwrap_or_default();
        (count("owned"), count("subscribed"))
    }

    /// Waits for a role.
    pub async fn becomes(&self, role: &str) {
        let what = format!("{} becomes {role}", self.name);
        until(&what, async || self.role().await == role).await;
    }

    /// Waits until it leads, whether its peer is known to be gone or only silent.
    pub async fn leads(&self) {
        let what = format!("{} leads", self.name);
        until(&what, async || self.role().await.starts_with("leader")).await;
    }

    /// Where its status is asked for, by whom.
    pub fn pages(&self) -> (reqwest::Client, String) {
        let url = format!("http://{}/api/v1/status", self.admin.address());
        (self.http.clone(), url)
    }

    /// Everything it has said.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How often its log says that a link to a broker was lost, or could not be had; at most five
    /// times a minute for one reason.
    pub fn lost_links(&self) -> usize {
        self.log_text().matches("broker not connected").count()
    }

    /// Events that it has dropped since it started.
    pub async fn events_dropped(&self) -> f64 {
        let text = self.get("/metrics").await.unwrap_or_default();
        let lines = text.lines();
        let lines = lines.filter(|line| line.starts_with("tandem_events_dropped_total"));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    /// Address of the admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }
}

/// Lines of its log that an instance leaves behind where the test fails.
const LAST_WORDS: usize = 80;

impl Drop for Instance {
    fn drop(&mut self) {
        let log = self.log_text();
        if std::thread::panicking() && !log.is_empty() {
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
            eprintln!("the last of {}:\n{}", self.name, last.join("\n"));
        }
    }
}
