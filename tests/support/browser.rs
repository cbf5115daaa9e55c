//! A real headless Chromium, driven through its DevTools pipe.
//!
//! Messages are JSON texts, each ended by a zero byte, on two named pipes that the browser has as
//! file descriptors 3 and 4.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tandem::lab::process::{GuardedChild, ProcessSpec};
use tempfile::TempDir;

use super::LIMIT;

/// Where Debian and others put it.
const PLACES: [&str; 4] = [
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
    "/usr/bin/google-chrome-stable",
];
/// Answers and happenings that may wait to be read.
const WAITING: usize = 10_000;

/// The browser of `CHROMIUM`, or an installed one; `None` where there is none.
pub fn find() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let places = PLACES.iter().map(PathBuf::from);
    named.into_iter().chain(places).find(|path| path.is_file())
}

/// A browser with one page.
pub struct Browser {
    to: File,
    from: Receiver<Value>,
    next: u64,
    session: Option<String>,
    /// Errors of the page's script and console.
    pub errors: Vec<String>,
    _process: GuardedChild,
    _folder: TempDir,
}

impl Browser {
    /// Starts it with an empty page of this size.
    pub fn start(program: &Path, width: u32, height: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = |name: &str| {
            let path = folder.path().join(name);
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(made.expect("mkfifo runs").success());
            path
        };
        let (to, from) = (pipe("to"), pipe("from"));
        let profile = folder.path().join("profile");
        let script = format!(
            "exec {} --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
             --disable-background-networking --no-first-run --hide-scrollbars --no-proxy-server \
             --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' \
             --window-size={width},{height} --user-data-dir={} --remote-debugging-pipe \
             about:blank 3<{} 4>{}",
            program.display(),
            profile.display(),
            to.display(),
            from.display()
        );
        let spec = ProcessSpec {
            name: "chromium".to_owned(),
            program: PathBuf::from("/bin/sh"),
            args: vec!["-c".to_owned(), script],
            env: BTreeMap::from(
                ["HOME", "TMPDIR"]
                    .map(|name| (name.to_owned(), folder.path().display().to_string())),
            ),
            log: folder.path().join("log"),
        };
        let process = spec.start().expect("the browser starts");
        // Both block until the other side has opened its end.
        let to = File::options().write(true).open(&to).expect("its input");
        let from = File::open(&from).expect("its output");
        let (sender, receiver) = sync_channel(WAITING);
        std::thread::spawn(move || {
            for message in BufReader::new(from).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("it speaks JSON");
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            to,
            from: receiver,
            next: 0,
            session: None,
            errors: Vec::new(),
            _process: process,
            _folder: folder,
        };
        browser.attach(width, height);
        browser
    }

    fn attach(&mut self, width: u32, height: u32) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}));
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", target);
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in [
            "Page.enable",
            "Runtime.enable",
            "Log.enable",
            "Accessibility.enable",
        ] {
            self.call(domain, json!({}));
        }
        self.resize(width, height);
    }

    /// Another size of the window.
    pub fn resize(&mut self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// One call; its result.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser listens");
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.from.recv_timeout(left);
            let message = message.unwrap_or_else(|_| panic!("{method}: no answer"));
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    /// Keeps what the page's script complains of. A server that is away is no fault of the page.
    fn note(&mut self, message: &Value) {
        let entry = &message["params"]["entry"];
        let wrong = message["method"] == "Runtime.exceptionThrown"
            || (entry["level"] == "error" && entry["source"] != "network");
        if wrong {
            self.errors.push(message["params"].to_string());
        }
    }

    /// Goes to a page.
    pub fn open(&mut self, url: &str) {
        let went = self.call("Page.navigate", json!({"url": url}));
        assert!(went["errorText"].is_null(), "{url}: {went}");
        let url = json!(url);
        self.wait(&format!(
            "location.href === {url} && document.readyState === 'complete'"
        ));
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", params);
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result}"
        );
        result["result"]["value"].clone()
    }

    /// Text of the first element that fits a selector.
    pub fn text(&mut self, selector: &str) -> String {
        let selector = json!(selector);
        let text = self.value(&format!(
            "document.querySelector({selector})?.textContent ?? ''"
        ));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true in the page.
    pub fn wait(&mut self, expression: &str) {
        let deadline = Instant::now() + LIMIT;
        while self.value(&format!("!!({expression})")) != true {
            if Instant::now() >= deadline {
                let text = self.value("document.body.innerText");
                panic!("{expression}: not within {LIMIT:?}; page:\n{text}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key as a person would.
    pub fn key(&mut self, key: &str, code: u32) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let params = json!({"type": kind, "key": key, "code": key, "text": text,
                                "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Types into what has the focus.
    pub fn insert(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Whether the page shall think that the reader prefers dark.
    pub fn dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": value}]);
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }

    /// A picture of the whole page, as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let shot = self.call("Page.captureScreenshot", params);
        let data = shot["data"].as_str().expect("a picture");
        base64::engine::general_purpose::STANDARD
            .decode(data)
            .expect("base64")
    }

    /// What a screen reader is told: (role, name) of everything that is not ignored.
    pub fn spoken(&mut self) -> Vec<(String, String)> {
        let tree = self.call("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        let word = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        nodes
            .iter()
            .filter(|node| node["ignored"] != true)
            .map(|node| (word(&node["role"]), word(&node["name"])))
            .collect()
    }
}

/// Keeps a picture for people in the folder that `TANDEM_PICTURES` names, where it does.
pub fn keep(name: &str, png: &[u8]) {
    assert!(
        png.len() > 10_000,
        "{name}: an empty picture ({} bytes)",
        png.len()
    );
    if let Some(folder) = std::env::var_os("TANDEM_PICTURES") {
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(Path::new(&folder).join(name), png).expect("a picture");
    }
}
