//! Servers that behave as a test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tandem_test_kit::certs::Made;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What the server does after it has read a whole request.
#[derive(Clone)]
pub(super) enum Then {
    /// Sends these bytes and closes.
    Answer(Vec<u8>),
    /// Sends these bytes and reads the next request of the connection.
    Keep(Vec<u8>),
    /// Closes with a reset.
    Reset,
    /// Never answers.
    Hang,
}

pub(super) struct Server {
    pub(super) url: String,
    pub(super) connections: Arc<AtomicUsize>,
    /// Requests as received, head and body.
    pub(super) requests: mpsc::Receiver<String>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn server(then: Then) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/finesse/api", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let (seen, requests) = mpsc::channel(64);
    let count = Arc::clone(&connections);
    let task = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(socket, then.clone(), seen.clone()));
        }
    });
    Server {
        url,
        connections,
        requests,
        task,
    }
}

pub(super) async fn serve(mut socket: TcpStream, then: Then, seen: mpsc::Sender<String>) {
    while let Some(request) = read_request(&mut socket).await {
        seen.send(request).await.unwrap();
        match &then {
            Then::Answer(bytes) => {
                let _ = socket.write_all(bytes).await;
                let _ = socket.shutdown().await;
                return;
            }
            Then::Keep(bytes) => socket.write_all(bytes).await.unwrap(),
            Then::Reset => {
                socket2::SockRef::from(&socket)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                return;
            }
            Then::Hang => std::future::pending().await,
        }
    }
}

pub(super) async fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let n = socket.read(&mut chunk).await.ok()?;
        if n == 0 {
            return None;
        }
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            if head.contains("transfer-encoding: chunked") && !body.ends_with("0\r\n\r\n") {
                continue;
            }
            let length = head
                .split_once("content-length: ")
                .map_or(0, |(_, rest)| rest.lines().next().unwrap().parse().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
    }
}

pub(super) fn http(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// An HTTPS server for one request, which demands certificates of its authority's.
pub(super) async fn secure(own: &Made, authority: &Made) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = own.server(Some(authority));
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let Ok(mut tls) = acceptor.accept(tcp).await else {
            return;
        };
        let mut request = [0; 4096];
        let _ = tls.read(&mut request).await;
        let _ = tls.write_all(&http("503 Out", "")).await;
        let _ = tls.shutdown().await;
    });
    format!("https://localhost:{port}")
}
