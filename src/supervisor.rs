//! Telling systemd how the instance is (`sd_notify`): ready, alive, stopping. Without
//! `NOTIFY_SOCKET` in the environment this does nothing.
//!
//! This is the only place that speaks to the supervisor. That the process lives is said by the
//! driver's own progress, and by nothing else: neither a thread that runs nor a runtime that turns
//! proves that commands are served.

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
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let other = |pid: u64| pid != u64::from(std::process::id());
        // The supervisor may watch another process, of which this one is a child.
        let watched = !number("WATCHDOG_PID").is_some_and(other);
        let patience = number("WATCHDOG_USEC").filter(|_| watched);
        Self::connect(path.as_bytes(), patience.map(Duration::from_micros))
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
    /// has published a new view: one that hangs falls silent. Ends when the driver has ended.
    pub async fn keep(self, mut views: watch::Receiver<Arc<View>>) {
        self.say("READY=1");
        while views.changed().await.is_ok() {
            let status = status(&views.borrow_and_update());
            self.say(&format!("WATCHDOG=1\nSTATUS={status}"));
            let ended = views.wait_for(|_| false);
            if tokio::time::timeout(self.pause, ended).await.is_ok() {
                break;
            }
            // What came during the pause proves nothing after it.
            views.mark_unchanged();
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
    use crate::testing::view;

    /// Long against the pause of these tests: whoever says nothing meanwhile is silent.
    const SILENCE: Duration = Duration::from_millis(500);

    struct Ear {
        socket: UnixDatagram,
        path: std::path::PathBuf,
        _folder: tempfile::TempDir,
    }

    impl Ear {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            Self {
                socket,
                path,
                _folder: folder,
            }
        }

        /// A supervisor with very little patience, so that it is spoken to often.
        fn supervisor(&self) -> Supervisor {
            let patience = Some(Duration::from_millis(3));
            Supervisor::connect(self.path.as_os_str().as_bytes(), patience).unwrap()
        }

        /// What is said next; `None` where nothing is for so long.
        async fn next(self, limit: Duration) -> (Option<String>, Self) {
            let heard = tokio::task::spawn_blocking(move || {
                self.socket.set_read_timeout(Some(limit)).unwrap();
                let mut buffer = [0; 500];
                let length = self.socket.recv(&mut buffer).ok();
                let text = length.map(|length| String::from_utf8_lossy(&buffer[..length]).into());
                (text, self)
            });
            heard.await.unwrap()
        }

        async fn hears(self, wanted: &str) -> Self {
            let (text, ear) = self.next(Duration::from_secs(30)).await;
            assert_eq!(text.as_deref(), Some(wanted));
            ear
        }
    }

    const ALIVE: &str = "WATCHDOG=1\nSTATUS=agents leader, 7 agents, 4 in work";

    #[tokio::test]
    async fn it_is_ready_lives_while_views_come_and_stops() {
        let ear = Ear::new();
        let (views, seen) = watch::channel(Arc::new(view()));
        let kept = tokio::spawn(ear.supervisor().keep(seen));
        let ear = ear.hears("READY=1").await;
        views.send_replace(Arc::new(view()));
        let ear = ear.hears(ALIVE).await;
        drop(views);
        ear.hears("STOPPING=1").await;
        kept.await.unwrap();
        assert!(Supervisor::connect(b"/nonexistent/notify", None).is_err());
    }

    #[tokio::test]
    async fn a_driver_that_stands_still_is_not_said_to_live() {
        let ear = Ear::new();
        let (views, seen) = watch::channel(Arc::new(view()));
        let kept = tokio::spawn(ear.supervisor().keep(seen));
        let ear = ear.hears("READY=1").await;
        let (said, ear) = ear.next(SILENCE).await;
        assert_eq!(said, None, "no view yet");
        views.send_replace(Arc::new(view()));
        let ear = ear.hears(ALIVE).await;
        let (said, ear) = ear.next(SILENCE).await;
        assert_eq!(said, None, "no further view");
        // And goes on with the driver.
        views.send_replace(Arc::new(view()));
        ear.hears(ALIVE).await;
        drop(views);
        kept.await.unwrap();
    }
}
