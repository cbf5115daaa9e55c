//! Removes files after this program has ended, however it ended.
//!
//! What a program removes itself stays behind when it is killed. So a small shell in a process
//! group of its own collects paths from a pipe and removes them when the pipe closes, which it
//! does with this value and with this program alike.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::LabError;

/// The processes that write into the folders are killed at the same moment, so it tries for a
/// while. The folder in its first argument goes too where it is empty then.
const SCRIPT: &str = r#"trap '' HUP INT TERM
folder=$1
shift
while IFS= read -r path; do set -- "$@" "$path"; done
tries=0
while [ $tries -lt 60 ]; do
  left=
  for path; do
    if [ -e "$path" ]; then
      rm -rf -- "$path"
      left=1
    fi
  done
  [ -z "$left" ] && break
  tries=$((tries + 1))
  sleep 0.2
done
rmdir -- "$folder""#;

/// A list of paths that go when this value or this program goes.
#[derive(Debug)]
pub struct Janitor {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Janitor {
    /// Starts the shell, with nothing to remove yet; at the end it also removes `if_empty`, where
    /// that is an empty folder.
    ///
    /// # Errors
    /// [`LabError::Io`] where no shell can be started.
    pub fn start(if_empty: &Path) -> Result<Self, LabError> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(if_empty)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(LabError::io("start /bin/sh"))?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// Adds a file or folder.
    ///
    /// # Errors
    /// [`LabError::Io`] where the shell is gone or the path has a line break.
    pub fn add(&mut self, path: &Path) -> Result<(), LabError> {
        let bytes = path.as_os_str().as_bytes();
        let Some(pipe) = self.pipe.as_mut().filter(|_| !bytes.contains(&b'\n')) else {
            let source = std::io::ErrorKind::InvalidInput.into();
            return Err(LabError::io(format!("remember {}", path.display()))(source));
        };
        let line = [bytes, b"\n"].concat();
        pipe.write_all(&line)
            .map_err(LabError::io("tell the janitor"))
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.pipe = None;
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_goes_and_the_rest_stays() {
        let parent = tempfile::tempdir().unwrap();
        let (gone, kept) = (parent.path().join("it goes"), parent.path().join("kept"));
        for folder in [&gone, &kept] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("file"), "x").unwrap();
        }
        let empty = parent.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        let mut janitor = Janitor::start(&empty).unwrap();
        janitor.add(&gone).unwrap();
        janitor.add(&parent.path().join("never there")).unwrap();
        assert!(janitor.add(Path::new("a\nb")).is_err());
        assert!(gone.exists());
        drop(janitor);
        assert!(!gone.exists() && !empty.exists() && kept.exists());
        drop(Janitor::start(&kept).unwrap());
        assert!(kept.join("file").exists(), "what is not empty stays");
    }
}
