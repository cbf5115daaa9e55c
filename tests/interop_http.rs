//! A foreign HTTP server behind the connector: Python's, which keeps connections alive and then
//! closes them unasked, redirects, sends chunks, and compresses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Desk, PairOptions, run};
use tandem::client::Message;

const SERVER: &str = r#"
import gzip, json, socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An idle connection is closed without a word.
    timeout = 0.2

    def log_message(self, *args):
        pass

    def say(self, status, data, **headers):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Transfer_Encoding" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        print(self.command, self.path, flush=True)
        word = self.path.rsplit("/", 1)[-1]
        data = json.dumps({"word": word, "got": body}).encode()
        if word == "chunked":
            self.say(200, b"", Transfer_Encoding="chunked")
            for at in range(0, len(data), 7):
                part = data[at:at + 7]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        elif word == "moved":
            self.say(307, b"", Location="/base/v1/target")
        elif word == "compresses":
            accepted = self.headers.get("Accept-Encoding")
            if accepted is None or "gzip" in accepted:
                self.say(200, gzip.compress(data), Content_Encoding="gzip")
            else:
                self.say(200, data)
        elif word == "insists":
            self.say(200, gzip.compress(data), Content_Encoding="gzip")
        elif word == "closes":
            self.say(200, data, Connection="close")
        elif word == "resets":
            self.say(200, data)
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self.say(200, data)

    do_GET = do_POST = do_PUT = answer

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("port", server.server_address[1], flush=True)
server.serve_forever()
"#;

/// The server's process; killed when dropped.
struct Foreign {
    child: Child,
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Foreign {
    fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-c", SERVER])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python 3; run scripts/setup");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("its port").unwrap();
        let port = first.strip_prefix("port ").unwrap().parse().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let writes = seen.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                writes.lock().unwrap().push(line);
            }
        });
        Self { child, port, seen }
    }

    fn count(&self, line: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|known| *known == line).count()
    }
}

async fn call(desk: &Desk, method: &str, word: &str) -> Message {
    let call = json!({"method": method, "path": format!("/v1/{word}"), "body": {"n": 1}});
    let mut command = tandem::client::Command::new("Call#key", call.to_string());
    command.json = true;
    let id = desk.send_command(command).await;
    desk.reply(&id).await
}

#[test]
fn a_foreign_server_is_understood() {
    run(async |shared| {
        let server = Foreign::start();
        let options = PairOptions::default()
            .instances(1)
            .set("downstream.kind", "http")
            .set(
                "downstream.url.1",
                &format!("http://127.0.0.1:{}/base", server.port),
            )
            .set(
                "downstream.url.2",
                &format!("http://127.0.0.2:{}/base", server.port),
            )
            .set("downstream.allow.1", "GET /v1")
            .set("downstream.allow.2", "PUT /v1")
            .set("downstream.allow.3", "POST /v1");
        let pair = shared.pair(options).await;
        let desk = pair.desk("desk-foreign", 0).await;
        // Connections that were kept alive and have been closed meanwhile, politely or not.
        for word in ["plain", "closes", "resets", "chunked", "compresses"] {
            for method in ["GET", "PUT", "POST"] {
                let reply = call(&desk, method, word).await;
                assert_eq!(
                    reply.field("outcome"),
                    "OK",
                    "{method} {word}: {}",
                    reply.text
                );
                assert_eq!(reply.json["body"]["word"], word, "{}", reply.text);
                assert_eq!(reply.json["body"]["got"], r#"{"n":1}"#, "{}", reply.text);
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            assert_eq!(server.count(&format!("POST /base/v1/{word}")), 1, "{word}");
        }
        // A redirect is not followed, whatever the method: a POST stays in doubt.
        for (method, outcome) in [("GET", "FAILED"), ("POST", "IN_DOUBT")] {
            let reply = call(&desk, method, "moved").await;
            assert_eq!(reply.field("outcome"), outcome, "{}", reply.text);
        }
        assert_eq!(server.count("POST /base/v1/moved"), 1);
        for method in ["GET", "POST"] {
            assert_eq!(server.count(&format!("{method} /base/v1/target")), 0);
        }
        // Compressed although it was asked not to be.
        let reply = call(&desk, "GET", "insists").await;
        assert_eq!(reply.field("outcome"), "FAILED", "{}", reply.text);
        assert!(reply.text.contains("gzip"), "{}", reply.text);
        let reply = call(&desk, "POST", "insists").await;
        assert_eq!(reply.field("outcome"), "OK", "{}", reply.text);
        assert_eq!(reply.json["body"], Value::Null, "{}", reply.text);
        assert_eq!(server.count("POST /base/v1/insists"), 1);
    });
}
