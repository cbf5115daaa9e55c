//! A real Prometheus in front of the instances.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tandem::lab::ReservedPort;
use tandem::lab::process::{GuardedChild, ProcessSpec};
use tempfile::TempDir;

const ALERTS: &str = include_str!("../../dashboards/alerts.yaml");

/// A program of the package `prometheus`, where it is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = PathBuf::from("/usr/bin").join(program);
    let local = PathBuf::from("/usr/local/bin").join(program);
    [path, local].into_iter().find(|path| path.is_file())
}

/// All expressions of dashboards, with the variables filled in.
pub fn expressions() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("dashboards") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ext| ext == "json") {
            let text = std::fs::read_to_string(path).expect("a dashboard");
            let dashboard: Value = serde_json::from_str(&text).expect("JSON");
            for panel in dashboard["panels"].as_array().expect("panels") {
                let targets = panel["targets"].as_array().into_iter().flatten();
                all.extend(targets.filter_map(|t| t["expr"].as_str().map(filled)));
            }
            let annotations = dashboard["annotations"]["list"].as_array();
            let annotations = annotations.into_iter().flatten();
            all.extend(annotations.filter_map(|a| a["expr"].as_str().map(filled)));
        }
    }
    assert!(all.len() > 10, "{all:?}");
    all
}

fn filled(expr: &str) -> String {
    let mut text = expr
        .replace("$__rate_interval", "1m")
        .replace("$__range", "5m");
    for variable in [
        "cluster",
        "instance",
        "group",
        "downstream",
        "site",
        "command",
        "queue",
    ] {
        text = text.replace(&format!("${{{variable}}}"), ".*");
        text = text.replace(&format!("${variable}"), ".*");
    }
    text
}

/// The server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    port: ReservedPort,
    http: reqwest::Client,
    _process: GuardedChild,
    _folder: TempDir,
}

impl Server {
    /// Scrapes these instances each second and loads the alert rules.
    pub fn start(program: &Path, targets: &[(SocketAddr, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = ReservedPort::take().expect("a port");
        let mut text = "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n\
            rule_files: [alerts.yaml]\nscrape_configs:\n  - job_name: tandem\n    static_configs:\n"
            .to_owned();
        for (address, site) in targets {
            let _ = write!(
                text,
                "      - targets: ['{address}']\n        labels: {{ cluster: tandem, site: {site}, mode: active-passive }}\n"
            );
        }
        std::fs::write(folder.path().join("alerts.yaml"), ALERTS).expect("rules");
        let config = folder.path().join("prometheus.yml");
        std::fs::write(&config, text).expect("a configuration");
        let args = [
            format!("--config.file={}", config.display()),
            format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ),
            format!("--web.listen-address={}", port.address()),
        ];
        let spec = ProcessSpec {
            name: "prometheus".to_owned(),
            program: program.to_owned(),
            args: args.to_vec(),
            env: BTreeMap::new(),
            log: folder.path().join("log"),
        };
        Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
            _process: spec.start().expect("it starts"),
            _folder: folder,
            port,
        }
    }

    /// A document of its API; `Null` while it starts.
    pub async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.port.address());
        let Ok(answer) = self.http.get(url).send().await else {
            return Value::Null;
        };
        answer.json().await.unwrap_or_default()
    }

    /// Labels and value of each series that an expression gives now; none while it starts.
    ///
    /// # Panics
    /// Where Prometheus does not understand the expression.
    pub async fn query(&self, expr: &str) -> Vec<(Value, String)> {
        let url = format!("http://{}/api/v1/query", self.port.address());
        let request = self.http.get(url).query(&[("query", expr)]);
        let Ok(answer) = request.send().await else {
            return Vec::new();
        };
        let answer: Value = answer.json().await.unwrap_or_default();
        assert_ne!(answer["status"], "error", "{expr}: {answer}");
        let results = answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let value = |one: &Value| one["value"][1].as_str().unwrap_or_default().to_owned();
        results
            .iter()
            .map(|one| (one["metric"].clone(), value(one)))
            .collect()
    }
}
