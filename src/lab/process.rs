//! Child processes that never outlive the program that started them.
//!
//! Each child leads a process group of its own, in which a small shell also waits on a pipe from
//! this program. The pipe closes when the handle is dropped and also when this program is killed;
//! the shell then kills the group. So nothing keeps running after `kill -9` of a test run, and
//! nothing is ever looked up by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::LabError;

/// Puts the waiting shell into the group, then becomes the program, so that the group's leader,
/// the child that Rust waits for, and the program are one process. The program has no stdin.
const GUARD: &str = r#"exec 3<&0 </dev/null
(read _ <&3; kill -s KILL -- -$$) >/dev/null 2>&1 &
exec 3<&-
exec "$@""#;

/// How often a process or a port is looked at while waiting.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// How much of a log's end goes into an error.
const TAIL_BYTES: u64 = 2048;

/// What to start and where its output goes.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// Name for error texts.
    pub name: String,
    /// Path of the program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables set on top of this process's own.
    pub env: BTreeMap<String, String>,
    /// stdout and stderr are appended here.
    pub log: PathBuf,
}

impl ProcessSpec {
    /// Starts the process in a group of its own.
    ///
    /// # Errors
    /// [`LabError::Io`] where the log cannot be opened or the shell not be started. A program
    /// that does not exist shows as a process that ends with status 127.
    pub fn start(&self) -> Result<GuardedChild, LabError> {
        self.start_in(None)
    }

    /// The same with this working directory instead of this process's own: for programs that leave
    /// files where they stand.
    pub(super) fn start_in(&self, folder: Option<&Path>) -> Result<GuardedChild, LabError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(LabError::io(format!("open {}", self.log.display())))?;
        let copy = log
            .try_clone()
            .map_err(LabError::io("duplicate the log's descriptor"))?;
        let mut command = Command::new("/bin/sh");
        if let Some(folder) = folder {
            command.current_dir(folder);
        }
        let mut child = command
            .args(["-c", GUARD, "sh"])
            .arg(&self.program)
            .args(&self.args)
            .envs(&self.env)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(copy)
            .process_group(0)
            .spawn()
            .map_err(LabError::io(format!("start {}", self.program.display())))?;
        let pipe = child.stdin.take();
        Ok(GuardedChild {
            child,
            pipe,
            status: None,
        })
    }

    /// The end of the log, for error texts.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_default()
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A running (or ended) child with its process group. Dropping it kills the group.
#[derive(Debug)]
pub struct GuardedChild {
    child: Child,
    /// Its end is the waiting shell's signal, so it is open as long as the group exists, and
    /// `None` once it has been killed.
    pipe: Option<ChildStdin>,
    status: Option<ExitStatus>,
}

impl GuardedChild {
    /// Process id, which is also the id of the process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status where the process has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Sends a signal to the program alone. Nothing happens where it has ended.
    pub fn signal(&mut self, signal: Signal) {
        // An unreaped child keeps its id, so this cannot hit another process.
        if self.exited().is_none() {
            let _ = kill(as_pid(self.child.id()), signal);
        }
    }

    /// Kills the group and every descendant that made a group of its own, and waits for the
    /// program itself. Afterwards its ports are free.
    pub fn kill(&mut self) {
        // Once the group is gone its id may be another's.
        let Some(pipe) = self.pipe.take() else {
            return;
        };
        let descendants = descendants(self.child.id());
        // The group exists at least as long as the waiting shell in it, so its id is still ours.
        let _ = killpg(as_pid(self.child.id()), Signal::SIGKILL);
        if self.status.is_none() {
            self.status = self.child.wait().ok();
        }
        for (pid, started) in descendants {
            if start_time(pid) == Some(started) {
                let _ = kill(as_pid(pid), Signal::SIGKILL);
            }
        }
        drop(pipe);
    }

    /// Waits until the program has ended, at most `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for GuardedChild {
    fn drop(&mut self) {
        self.kill();
    }
}

fn as_pid(pid: u32) -> Pid {
    // Linux process ids are below 2^22.
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

/// Parent and start time (clock ticks since boot) of a process.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold anything.
    let after_name = text.rsplit_once(')')?.1;
    let mut fields = after_name.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((parent, started))
}

fn start_time(pid: u32) -> Option<u64> {
    stat(pid).map(|(_, started)| started)
}

/// All processes below `root`, with their start times: an id alone may have been given to
/// another process by the time it is used.
fn descendants(root: u32) -> Vec<(u32, u64)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let all: Vec<(u32, u32, u64)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| stat(pid).map(|(parent, started)| (pid, parent, started)))
        .collect();
    let mut found: Vec<(u32, u64)> = Vec::new();
    let mut parents = vec![root];
    while let Some(current) = parents.pop() {
        for &(pid, parent, started) in &all {
            if parent == current && found.iter().all(|&(known, _)| known != pid) {
                found.push((pid, started));
                parents.push(pid);
            }
        }
    }
    found
}

/// One `tandem` process, usually `tandem run`.
#[derive(Debug)]
pub struct TandemProcess {
    spec: ProcessSpec,
    child: GuardedChild,
}

impl TandemProcess {
    /// Starts `binary run --config config` with `env` on top of this process's environment;
    /// its output is appended to `log`.
    ///
    /// # Errors
    /// [`LabError::Io`] where the log cannot be opened or no process be started.
    pub fn start(
        binary: &Path,
        config: &Path,
        env: BTreeMap<String, String>,
        log: &Path,
    ) -> Result<Self, LabError> {
        Self::start_spec(ProcessSpec {
            name: format!("tandem run --config {}", config.display()),
            program: binary.to_owned(),
            args: vec![
                "run".to_owned(),
                "--config".to_owned(),
                config.display().to_string(),
            ],
            env,
            log: log.to_owned(),
        })
    }

    /// Starts any other command line, for example `tandem simulate`.
    ///
    /// # Errors
    /// As [`TandemProcess::start`].
    pub fn start_spec(spec: ProcessSpec) -> Result<Self, LabError> {
        let child = spec.start()?;
        Ok(Self { spec, child })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Where stdout and stderr go.
    pub fn log(&self) -> &Path {
        &self.spec.log
    }

    /// Whether it has not ended (a frozen one runs).
    pub fn is_running(&mut self) -> bool {
        self.child.exited().is_none()
    }

    /// An error with its status and the end of its log where it has ended.
    ///
    /// # Errors
    /// [`LabError::Ended`].
    pub fn must_run(&mut self) -> Result<(), LabError> {
        match self.child.exited() {
            None => Ok(()),
            Some(status) => Err(LabError::Ended {
                name: self.spec.name.clone(),
                status: status.to_string(),
                log: self.spec.log.clone(),
                tail: self.log_tail(),
            }),
        }
    }

    /// The last 2 KiB of its output.
    pub fn log_tail(&self) -> String {
        self.spec.log_tail()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// SIGTERM: drain and exit. Does not wait.
    pub fn terminate(&mut self) {
        self.child.signal(Signal::SIGTERM);
    }

    /// SIGHUP: reads its property file again.
    pub fn hang_up(&mut self) {
        self.child.signal(Signal::SIGHUP);
    }

    /// SIGSTOP: the process hangs, its sockets stay open.
    pub fn freeze(&mut self) {
        self.child.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        self.child.signal(Signal::SIGCONT);
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// [`LabError::Deadline`] after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        self.child
            .wait(limit)
            .await
            .ok_or_else(|| LabError::Deadline {
                what: format!("end of {}", self.spec.name),
                limit,
            })
    }

    /// Kills it where it still runs and starts the same command line again.
    ///
    /// # Errors
    /// As [`TandemProcess::start`].
    pub fn restart(&mut self) -> Result<(), LabError> {
        self.child.kill();
        self.child = self.spec.start()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, folder: &Path) -> ProcessSpec {
        ProcessSpec {
            name: "test".to_owned(),
            program: "/bin/sh".into(),
            args: vec!["-c".to_owned(), script.to_owned()],
            env: BTreeMap::from([("WORD".to_owned(), "hello".to_owned())]),
            log: folder.join("log"),
        }
    }

    fn state(pid: u32) -> Option<char> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        text.rsplit_once(')')?.1.trim().chars().next()
    }

    async fn until(mut condition: impl FnMut() -> bool) {
        for _ in 0..1500 {
            if condition() {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        panic!("condition not met in 30 s");
    }

    #[tokio::test]
    async fn output_and_status_are_kept_and_restart_appends() {
        let folder = tempfile::tempdir().unwrap();
        let mut process =
            TandemProcess::start_spec(shell("echo $WORD; exit 3", folder.path())).unwrap();
        let status = process.wait(Duration::from_secs(30)).await.unwrap();
        assert_eq!(status.code(), Some(3));
        process.restart().unwrap();
        process.wait(Duration::from_secs(30)).await.unwrap();
        let log = std::fs::read_to_string(process.log()).unwrap();
        assert_eq!(log, "hello\nhello\n");
    }

    #[tokio::test]
    async fn freeze_thaw_and_terminate() {
        let folder = tempfile::tempdir().unwrap();
        let mut process =
            TandemProcess::start_spec(shell("echo up; exec sleep 600", folder.path())).unwrap();
        let pid = process.pid();
        until(|| std::fs::read_to_string(folder.path().join("log")).is_ok_and(|t| t == "up\n"))
            .await;
        process.freeze();
        until(|| state(pid) == Some('T')).await;
        assert!(process.is_running());
        process.thaw();
        until(|| state(pid) == Some('S')).await;
        process.terminate();
        let status = process.wait(Duration::from_secs(30)).await.unwrap();
        assert!(!status.success());
    }

    #[tokio::test]
    async fn dropping_ends_the_group_and_descendants_in_other_sessions() {
        let folder = tempfile::tempdir().unwrap();
        let script = "sleep 600 & echo $!; setsid sleep 600 & echo $!; wait";
        let process = TandemProcess::start_spec(shell(script, folder.path())).unwrap();
        let read = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        until(|| read().lines().count() == 2).await;
        let pids: Vec<u32> = read().lines().map(|l| l.parse().unwrap()).collect();
        drop(process);
        until(|| pids.iter().all(|&p| matches!(state(p), None | Some('Z')))).await;
    }

    #[tokio::test]
    async fn a_closed_pipe_ends_the_group() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = shell("exec sleep 600", folder.path()).start().unwrap();
        child.pipe = None;
        let status = child.wait(Duration::from_secs(30)).await;
        assert!(status.is_some_and(|s| !s.success()));
    }
}
