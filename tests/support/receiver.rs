//! The server for posted events of `docs/clients`.

use std::sync::{Arc, Mutex};

/// The receiver of `docs/clients`, in Python.
pub struct Receiver {
    pub process: tokio::process::Child,
    pub url: String,
    pub lines: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    pub async fn start(key: &std::path::Path) -> Self {
        use tokio::io::AsyncBufReadExt as _;
        let sample = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/docs/clients/callback_receiver.py"
        );
        let mut process = tokio::process::Command::new("python3")
            .arg(sample)
            .arg("--key-file")
            .arg(key)
            .args(["--port", "0"])
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 runs");
        let output = tokio::io::BufReader::new(process.stdout.take().unwrap());
        let mut output = output.lines();
        let first = output.next_line().await.unwrap().unwrap();
        let port = first.strip_prefix("listening ").unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let all = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                all.lock().unwrap().push(line);
            }
        });
        Self {
            process,
            url,
            lines,
        }
    }

    pub fn said(&self, beginning: &str) -> usize {
        let lines = self.lines.lock().unwrap();
        lines
            .iter()
            .filter(|line| line.starts_with(beginning))
            .count()
    }
}
