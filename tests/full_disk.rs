//! Output that cannot be written: a command that could not show what it found has failed, one
//! whose reader has enough has not, and none ends by a panic.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Takes nothing: every write fails with "no space left".
const FULL: &str = "/dev/full";

fn full() -> Stdio {
    Stdio::from(File::options().write(true).open(FULL).unwrap())
}

fn tandem(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.args(words).stdin(Stdio::null());
    command
}

/// A property file that is in order but for a warning, and one that is not.
fn files(folder: &Path) -> [PathBuf; 2] {
    let least = "broker.url.1=127.0.0.1:1\ndownstream.url.1=http://127.0.0.1:1/finesse/api\n";
    ["NUMBER_OF_LICENSES=1\n", "mode=x\n"].map(|more| {
        let path = folder.join(format!("{}.properties", more.len()));
        std::fs::write(&path, format!("{least}{more}")).unwrap();
        path
    })
}

/// Command lines that show something without any server, with their exit code.
fn lines<'a>(good: &'a str, bad: &'a str) -> Vec<(Vec<&'a str>, i32)> {
    vec![
        (vec!["check", good], 0),
        (vec!["check", good, "--json"], 0),
        (vec!["check", bad], 64),
        (vec!["topology", "print", "--config", good], 0),
        (vec!["topology", "print", "--config", good, "--json"], 0),
        (vec!["commands"], 0),
        (vec!["commands", "--json"], 0),
        (vec!["completions", "bash"], 0),
        (vec!["--help"], 0),
        (vec!["--version"], 0),
        (vec!["status", "--help"], 0),
    ]
}

#[test]
fn what_could_not_be_shown_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let [good, bad] = files(folder.path()).map(|path| path.display().to_string());
    for (words, code) in lines(&good, &bad) {
        let shown = tandem(&words).output().unwrap();
        assert_eq!(shown.status.code(), Some(code), "{words:?} {shown:?}");
        assert!(!shown.stdout.is_empty(), "{words:?}");
        let hidden = tandem(&words).stdout(full()).output().unwrap();
        let wanted = if code == 0 { 1 } else { code };
        let said = String::from_utf8_lossy(&hidden.stderr).into_owned();
        assert_eq!(hidden.status.code(), Some(wanted), "{words:?} {said}");
        assert!(
            said.contains("standard output cannot be written: No space left"),
            "{words:?} {said}"
        );
    }
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let [good, bad] = files(folder.path()).map(|path| path.display().to_string());
    for (words, code) in lines(&good, &bad) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = tandem(&words).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{words:?} {said}");
        assert!(!said.contains("cannot be written"), "{words:?} {said}");
    }
}

#[test]
fn complaints_that_cannot_be_written_end_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [good, bad] = files(folder.path()).map(|path| path.display().to_string());
    for (words, code) in [
        // With a warning beside the output.
        (vec!["topology", "print", "--config", &good], 0),
        (vec!["topology", "print", "--config", &bad], 64),
        (vec!["run", "--config", &bad], 64),
        (vec!["status", "--url", "http://127.0.0.1:1"], 69),
        (vec!["nonsense"], 64),
        (vec!["send", "nonsense", "--broker", "127.0.0.1:1"], 64),
        (vec!["simulate", "finesse", "--config", &bad], 64),
    ] {
        let mut running = tandem(&words)
            .stdout(Stdio::piped())
            .stderr(full())
            .spawn()
            .unwrap();
        let mut text = String::new();
        running
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        let ended = running.wait().unwrap();
        assert_eq!(ended.code(), Some(code), "{words:?} {text}");
    }
    // Neither can be written.
    let both = tandem(&["check", &good])
        .stdout(full())
        .stderr(full())
        .status();
    assert_eq!(both.unwrap().code(), Some(1));
}
