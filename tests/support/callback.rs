//! A client's HTTP server for events, which can be wrong in every way.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// How it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// 200, after so long.
    Slowly(Duration),
    /// By a reset, once it has read the request.
    Reset,
    /// Never.
    Never,
    /// 307 to this URL.
    Redirect(String),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method and path.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As text.
    pub body: String,
    /// Whether it was answered 2xx.
    pub taken: bool,
}

impl Request {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(one, _)| one == name);
        found.map_or("", |(_, value)| value)
    }

    /// The event's id.
    pub fn id(&self) -> &str {
        self.header("idempotency-key")
    }
}

#[derive(Debug)]
struct State {
    answer: Answer,
    requests: Vec<Request>,
}

/// The server; at its end nobody listens there.
#[derive(Debug)]
pub struct CallbackServer {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for CallbackServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CallbackServer {
    /// Listens at a port of its own, or again at one that another had.
    pub async fn start(at: Option<SocketAddr>) -> Self {
        Self::start_with(at, None).await
    }

    /// With this certificate.
    pub async fn secure(tls: TlsAcceptor) -> Self {
        Self::start_with(None, Some(tls)).await
    }

    async fn start_with(at: Option<SocketAddr>, tls: Option<TlsAcceptor>) -> Self {
        let at = at.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = super::wait_for("the callback's port", async || {
            TcpListener::bind(at).await.ok()
        })
        .await;
        let state = Arc::new(Mutex::new(State {
            answer: Answer::Status(200),
            requests: Vec::new(),
        }));
        let (address, shared) = (listener.local_addr().unwrap(), Arc::clone(&state));
        let task = tokio::spawn(async move {
            // Ended with the task.
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let stream = stream.into_std().unwrap();
                let socket = stream.try_clone().unwrap();
                let stream = TcpStream::from_std(stream).unwrap();
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                open.spawn(async move {
                    match tls {
                        None => serve(stream, &socket, shared).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &socket, shared).await,
                            Err(error) => println!("no TLS: {error}"),
                        },
                    }
                });
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on.
    pub fn answer(&self, answer: Answer) {
        self.state.lock().unwrap().answer = answer;
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Ids of the events that were answered 2xx, in order.
    pub fn taken(&self) -> Vec<String> {
        let requests = self.requests();
        let taken = requests.iter().filter(|request| request.taken);
        taken.map(|request| request.id().to_owned()).collect()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    socket: &std::net::TcpStream,
    state: Arc<Mutex<State>>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read(&mut stream).await {
        let answer = state.lock().unwrap().answer.clone();
        request.taken = matches!(answer, Answer::Status(200..300) | Answer::Slowly(_));
        if let Answer::Slowly(time) = answer {
            tokio::time::sleep(time).await;
        }
        state.lock().unwrap().requests.push(request);
        let text = match answer {
            Answer::Status(status) => {
                format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok")
            }
            Answer::Slowly(_) => "HTTP/1.1 204 X\r\n\r\n".to_owned(),
            Answer::Redirect(to) => {
                format!("HTTP/1.1 307 X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
            }
            Answer::Reset => {
                let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
                return;
            }
            Answer::Never => std::future::pending().await,
        };
        if stream.get_mut().write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers = lines.iter().skip(1).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    let mut request = Request {
        line: lines.first()?.clone(),
        headers: headers.collect(),
        body: String::new(),
        taken: false,
    };
    let length = request.header("content-length").parse().unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}
