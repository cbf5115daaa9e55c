//! Telling systemd how the instance is (`sd_notify`): ready, alive, stopping. Without
//! `NOTIFY_SOCKET` in the environment this does nothing.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::engine::View;

/// How often it says that it is alive where the unit sets no `WatchdogSec`.
const UNASKED: Duration = Duration::from_secs(10);

/// The supervisor's socket.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixDatagram,
    pause: Duration,
}

impl Supervisor {
    /// The supervisor that the environment names; `None` where there is none.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let path = std::env::var_os("NOTIFY_SOCKET")?;
        let watchdog = std::env::var("WATCHDOG_USEC").ok();
        let watchdog = watchdog.and_then(|text| text.parse().ok());
        Self::connect(path.as_bytes(), watchdog.map(Duration::from_micros))
            .inspect_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET cannot be used"))
            .ok()
    }

    /// `@` begins a name without a file.
    fn connect(path: &[u8], watchdog: Option<Duration>) -> std::io::Result<Self> {
        let address = match path.strip_prefix(b"@") {
            Some(name) => without_file(name)?,
            None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A supervisor that does not read must not hold the instance.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            // Twice within its patience, with room.
            pause: watchdog.map_or(UNASKED, |patience| patience / 3),
        })
    }

    /// Says that it is ready, then again and again that it lives, each time only after the driver
    /// has published a new view: one that hangs falls silent.
    pub async fn keep(self, mut views: watch::Receiver<Arc<View>>) {
        self.say("READY=1");
        while views.changed().await.is_ok() {
            let status = status(&views.borrow_and_update());
            self.say(&format!("WATCHDOG=1\nSTATUS={status}"));
            tokio::time::sleep(self.pause).await;
        }
        self.say("STOPPING=1");
    }

    fn say(&self, text: &str) {
        // Nobody is left to tell where this fails.
        let _ = self.socket.send(text.as_bytes());
    }
}

#[cfg(target_os = "linux")]
fn without_file(name: &[u8]) -> std::io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn without_file(_: &[u8]) -> std::io::Result<SocketAddr> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// The line that `systemctl status` shows.
fn status(view: &View) -> String {
    let roles = view.groups.iter();
    let roles: Vec<String> = roles
        .map(|group| format!("{} {}", group.name, group.role.as_str()))
        .collect();
    let owned = view.sessions.owned;
    format!(
        "{}, {owned} agents, {} in work",
        roles.join(", "),
        view.inflight
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::view;

    fn next(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 500];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[tokio::test]
    async fn it_is_ready_lives_while_views_come_and_stops() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let patience = Some(Duration::from_millis(3));
        let it = Supervisor::connect(path.as_os_str().as_bytes(), patience).unwrap();
        let (views, seen) = watch::channel(Arc::new(view()));
        let kept = tokio::spawn(it.keep(seen));
        let heard =
            |socket: UnixDatagram| tokio::task::spawn_blocking(move || (next(&socket), socket));
        let (text, socket) = heard(socket).await.unwrap();
        assert_eq!(text, "READY=1");
        views.send_replace(Arc::new(view()));
        let (text, socket) = heard(socket).await.unwrap();
        assert_eq!(
            text,
            "WATCHDOG=1\nSTATUS=agents leader, 7 agents, 4 in work"
        );
        drop(views);
        assert_eq!(heard(socket).await.unwrap().0, "STOPPING=1");
        kept.await.unwrap();
        assert!(Supervisor::connect(b"/nonexistent/notify", None).is_err());
    }
}
