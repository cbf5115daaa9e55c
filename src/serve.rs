//! Serves a listener's connections: the head of a request has a bound, and so has a pause between
//! two of them.

use std::net::SocketAddr;

use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the head of a request may take, counted from the answer before; so long a connection
/// may be idle, too.
const HEAD: Duration = Duration::from_secs(15);

/// Until `shutdown` is cancelled; then open requests have `closing` to end. The listener bounds how
/// many connections there are; `app` is made for each, whose other end it is given.
pub(crate) async fn serve<L>(
    mut listener: L,
    app: impl Fn(SocketAddr) -> Router,
    shutdown: CancellationToken,
    closing: Duration,
) where
    L: Listener<Addr = SocketAddr>,
{
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            // A panic in a request has been logged; its connection is gone.
            Some(_) = open.join_next() => {}
            (stream, from) = listener.accept() => {
                open.spawn(connection(stream, app(from), HEAD, shutdown.clone()));
            }
        }
    }
    drop(listener);
    let ended = async { while open.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(closing, ended).await;
}

async fn connection<S>(stream: S, app: Router, head: Duration, shutdown: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut served = std::pin::pin!(served);
    // How it ends is the client's affair.
    tokio::select! {
        _ = served.as_mut() => return,
        () = shutdown.cancelled() => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn who_does_not_end_a_head_in_time_is_cut_off_however_busy() {
        let (mut client, stream) = tokio::io::duplex(1024);
        let head = Duration::from_millis(300);
        let app = Router::new();
        tokio::spawn(connection(stream, app, head, CancellationToken::new()));
        let _ = client.write_all(b"POST / HTTP/1.1\r\n").await;
        let trickle = async {
            while client.write_all(b"a: b\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest).await;
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), trickle).await;
        ended.expect("cut off");
    }
}
