//! The Debian package: built from this program, unpacked and installed into a root of its own.
//! Where this system has no dpkg it is said aloud.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::CommandFactory as _;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tandem");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn said(output: &Output) -> String {
    let all = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// Runs it to a good end.
fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    said(&output)
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("NOT RUN: no {program} here");
    }
    found
}

/// Builds the package into a folder.
fn package(to: &Path) -> PathBuf {
    let mut command = Command::new(root().join("scripts/package"));
    command.args(["--program", PROGRAM, "--to"]).arg(to);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

fn dpkg(to: &Path) -> Command {
    let mut command = Command::new("dpkg");
    command.arg(format!("--root={}", to.display()));
    // Its scripts run outside of that root, its dependencies are not there.
    command.args([
        "--force-script-chrootless",
        "--force-not-root",
        "--force-depends",
    ]);
    command.args(["--force-unsafe-io", "--force-confold", "--log=/dev/null"]);
    command
}

/// A root in which dpkg has installed nothing yet.
fn empty_root(folder: &Path) -> PathBuf {
    let to = folder.join("root");
    for name in ["updates", "info", "triggers"] {
        std::fs::create_dir_all(to.join("var/lib/dpkg").join(name)).unwrap();
    }
    std::fs::write(to.join("var/lib/dpkg/status"), "").unwrap();
    to
}

#[test]
fn the_package_is_installed_keeps_what_was_configured_and_goes() {
    if !has("dpkg") || !has("dpkg-deb") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = package(&folder.path().join("out"));
    let to = empty_root(folder.path());
    run(dpkg(&to).arg("--install").arg(&file));
    let program = to.join("usr/bin/tandem");
    let version = run(Command::new(&program).arg("--version"));
    assert_eq!(version, format!("tandem {}\n", tandem::VERSION));
    the_unit_is_right(&to);
    the_pages_are_readable(&to);
    for shell in [
        "usr/share/bash-completion/completions/tandem",
        "usr/share/zsh/vendor-completions/_tandem",
        "usr/share/fish/vendor_completions.d/tandem.fish",
    ] {
        let text = std::fs::read_to_string(to.join(shell)).unwrap();
        assert!(text.contains("switchover"), "{shell}");
    }
    // The examples do not run as they are without saying so.
    let config = to.join("etc/tandem/site-1.properties");
    let said = run(Command::new(&program).arg("check").arg(&config).env_clear());
    assert!(said.contains(" 0 error(s), 5 warning(s)"), "{said}");
    assert!(said.contains("is the example's host"), "{said}");
    // What was written there stays over a new installation.
    let own = std::fs::read_to_string(&config).unwrap() + "control.key-file=/run/key\n";
    std::fs::write(&config, &own).unwrap();
    run(dpkg(&to).arg("--install").arg(&file));
    assert_eq!(std::fs::read_to_string(&config).unwrap(), own);
    run(dpkg(&to).args(["--remove", "tandem"]));
    assert!(!program.exists() && config.exists());
}

/// systemd reads the unit as it is in the package, with the program where the package put it.
fn the_unit_is_right(to: &Path) {
    if !has("systemd-analyze") {
        return;
    }
    let unit = std::fs::read_to_string(to.join("usr/lib/systemd/system/tandem@.service")).unwrap();
    let program = to.join("usr/bin/tandem").display().to_string();
    let file = to.join("tandem@.service");
    std::fs::write(&file, unit.replace("=tandem ", &format!("={program} "))).unwrap();
    let text = run(Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&file));
    assert!(!text.contains("tandem@"), "{text}");
}

/// A page a command, and man has nothing to complain of.
fn the_pages_are_readable(to: &Path) {
    let folder = to.join("usr/share/man/man1");
    let pages: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for command in tandem::cli::Cli::command().get_subcommands() {
        let page = format!("tandem-{}.1.gz", command.get_name());
        assert_eq!(
            pages.contains(&page),
            !command.is_hide_set(),
            "{page} in {pages:?}"
        );
    }
    if !has("man") {
        return;
    }
    for (page, part) in [
        ("tandem.1.gz", "switchover"),
        ("tandem-drain.1.gz", "--limit"),
    ] {
        let mut man = Command::new("man");
        man.args(["--warnings", "-l"]).arg(folder.join(page));
        man.env("MANPAGER", "cat")
            .env("PAGER", "cat")
            .env("LC_ALL", "C.UTF-8")
            .env("MAN_KEEP_FORMATTING", "");
        let output = man.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains(part),
            "{page}: {}",
            said(&output)
        );
        assert!(output.stderr.is_empty(), "{page}: {}", said(&output));
    }
}

/// cargo-deb reads its table in another way than the script: what both need is there.
#[test]
fn every_asset_of_the_package_is_there_and_what_is_configured_is_kept() {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, table) = text.split_once("\n[package.metadata.deb]\n").unwrap();
    let table = table.split("\n[").next().unwrap();
    let assets: Vec<Vec<&str>> = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("[\"")?.strip_suffix("\"],"))
        .map(|line| line.split("\", \"").collect())
        .collect();
    assert!(assets.len() > 10, "{assets:?}");
    for asset in &assets {
        let [source, target, mode] = asset[..] else {
            panic!("{asset:?}");
        };
        assert!(["644", "640", "755"].contains(&mode), "{asset:?}");
        if !source.starts_with("target/") && !source.contains('*') {
            assert!(root().join(source).is_file(), "{source}");
        }
        if let Some(name) = target.strip_prefix("etc/") {
            let kept = format!("\"/etc/{name}\"");
            assert!(table.contains(&kept), "{kept} is no conffile");
        }
    }
}
