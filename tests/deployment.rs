//! What is shipped for systemd, Docker and Kubernetes is read by its own tool, where that is
//! installed; a test that could not be run says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use clap::Parser as _;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `None`, said aloud, where the program is not installed.
fn tool(program: &str, args: &[&str]) -> Option<Output> {
    let output = Command::new(program)
        .args(args)
        .current_dir(root())
        .output();
    match output {
        Ok(output) => Some(output),
        Err(_) => {
            eprintln!("NOT RUN: no {program} here");
            None
        }
    }
}

fn said(output: &Output) -> String {
    let all = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn systemd_accepts_the_unit_and_finds_it_hardened() {
    let unit = std::fs::read_to_string(root().join("config/systemd/tandem@.service")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tandem@.service");
    // The program need not be installed for the unit to be right.
    let program = env!("CARGO_BIN_EXE_tandem");
    std::fs::write(&file, unit.replace("/usr/local/bin/tandem", program)).unwrap();
    let file = file.display().to_string();
    let Some(output) = tool("systemd-analyze", &["verify", "--man=no", &file]) else {
        return;
    };
    let text = said(&output);
    assert!(
        output.status.success() && !text.contains("tandem@"),
        "{text}"
    );
    let args = ["security", "--offline=true", "--threshold=20", &file];
    let output = tool("systemd-analyze", &args).unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn compose_accepts_the_two_sites() {
    let args = ["compose", "-f", "docker/compose.yaml", "config", "--quiet"];
    if let Some(output) = tool("docker", &args) {
        let text = said(&output);
        if !text.contains("is not a docker command")
            && !text.contains("unknown shorthand flag")
            && !text.contains("unknown command")
        {
            assert!(output.status.success(), "{text}");
            return;
        }
    }
    older_compose_accepts_it();
}

/// The program before the plug-in knows everything but the project's name.
fn older_compose_accepts_it() {
    let mut command = Command::new("docker-compose");
    command.args([
        "-f",
        "-",
        "--project-directory",
        "docker",
        "config",
        "--quiet",
    ]);
    command.current_dir(root());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("NOT RUN: neither docker compose nor docker-compose here");
        return;
    };
    let text = std::fs::read_to_string(root().join("docker/compose.yaml")).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("name:"));
    let kept = kept.collect::<Vec<_>>().join("\n");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(kept.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// A YAML file with one document as JSON; `None`, said aloud, without python3 and its yaml.
fn yaml(file: &str) -> Option<serde_json::Value> {
    let script = format!("import json, yaml; print(json.dumps(yaml.safe_load(open({file:?}))))");
    let output = tool("python3", &["-c", &script])?;
    if said(&output).contains("No module named") {
        eprintln!("NOT RUN: python3 without yaml");
        return None;
    }
    Some(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output))))
}

fn is_a_command(words: &[&str]) {
    if let Err(error) = tandem::cli::Cli::try_parse_from(words) {
        panic!("{words:?}: {error}");
    }
}

/// Every variable that a service sets is read, and the mounted file loads with them.
#[test]
fn the_services_of_compose_are_configured_as_the_program_reads_it() {
    let Some(compose) = yaml("docker/compose.yaml") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "s".repeat(64)).unwrap();
    for service in ["topology", "gc-1", "gc-2"] {
        let service = &compose["services"][service];
        let given: BTreeMap<&str, String> = service["environment"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| {
                let value = value.as_str().unwrap();
                let value = match value {
                    file if file.starts_with("/run/tandem/") => secret.display().to_string(),
                    other => other.replace("${BROKER_PASSWORD:-tandem}", "tandem"),
                };
                (key.as_str(), value)
            })
            .collect();
        let mounts = service["volumes"].as_array().unwrap().iter();
        let file = mounts
            .filter_map(|mount| {
                mount
                    .as_str()?
                    .strip_suffix(":/etc/tandem/site.properties:ro")
            })
            .next()
            .unwrap();
        let asked = RefCell::new(BTreeSet::new());
        let read = |name: &str| {
            asked.borrow_mut().insert(name.to_owned());
            given.get(name).cloned()
        };
        let loaded = tandem::settings::load(&root().join("docker").join(file), &read);
        let loaded = loaded.unwrap_or_else(|findings| panic!("{findings}"));
        assert_eq!(loaded.settings.broker.urls.len(), 2);
        let unknown = given.keys().find(|name| !asked.borrow().contains(**name));
        assert!(unknown.is_none(), "{unknown:?} is no setting");
        if let Some(words) = service["command"].as_array() {
            let words = words.iter().map(|word| word.as_str().unwrap());
            is_a_command(&std::iter::once("tandem").chain(words).collect::<Vec<_>>());
        }
    }
    // The simulator's line within its script.
    let script = compose["services"]["finesse"]["command"][0]
        .as_str()
        .unwrap();
    let line = script.split("exec ").nth(1).unwrap();
    let line = line
        .replace("$$one", "127.0.0.1")
        .replace("$$two", "127.0.0.2");
    let words: Vec<String> = line
        .split_whitespace()
        .filter(|word| *word != "\\")
        .map(|word| word.trim_matches('"').to_owned())
        .collect();
    is_a_command(&words.iter().map(String::as_str).collect::<Vec<_>>());
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
        return;
    }
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// What the image is built from is enough for cargo, and for what the sources include.
#[test]
fn the_dockerfile_copies_what_the_build_reads_and_nothing_is_ignored_of_it() {
    let text = std::fs::read_to_string(root().join("docker/Dockerfile")).unwrap();
    let allowed = root().join("docker/Dockerfile.dockerignore");
    let allowed = std::fs::read_to_string(allowed).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut copied = 0;
    for line in text
        .lines()
        .filter(|line| line.starts_with("COPY ") && !line.contains("--from"))
    {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let (to, from) = words.split_last().unwrap();
        for source in from {
            let ignored = !allowed.lines().any(|line| line == format!("!{source}"));
            assert!(!ignored, "{source} is kept out by the ignore file");
            let to = match *to {
                "./" => folder.path().join(source),
                to => folder.path().join(to),
            };
            copy(&root().join(source), &to);
            copied += 1;
        }
    }
    assert!(copied >= 4, "{text}");
    // Members, targets and the lock file are all there.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "metadata",
        "--locked",
        "--offline",
        "--no-deps",
        "--format-version",
        "1",
    ]);
    let output = cargo.current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let mut files = Vec::new();
    sources(&folder.path().join("src"), &mut files);
    sources(&folder.path().join("crates"), &mut files);
    let mut included = 0;
    for file in files {
        // Tests are not built into the image.
        let of_tests = |part: std::path::Component| part.as_os_str() == "tests";
        let inside = file.strip_prefix(folder.path()).unwrap();
        if inside.components().any(of_tests) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for part in text.split("include_str!(").skip(1) {
            let Some(name) = part.trim_start().strip_prefix('"') else {
                continue;
            };
            let name = name.split('"').next().unwrap();
            let path = file.parent().unwrap().join(name);
            assert!(
                path.is_file(),
                "{} includes {name}, which is not copied",
                file.display()
            );
            included += 1;
        }
    }
    assert!(included >= 4, "{included}");
    // What it starts, and how it is asked whether it lives.
    for line in text.lines() {
        let Some((_, list)) = line.split_once("CMD ") else {
            continue;
        };
        let mut words: Vec<String> = serde_json::from_str(list).unwrap();
        if words[0] != "tandem" {
            words.insert(0, "tandem".to_owned());
        }
        is_a_command(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// The schemas of Kubernetes themselves, where `pip install kubernetes-validate` has brought them.
#[test]
fn the_kubernetes_manifests_fit_the_schemas() {
    let args = [
        "-m",
        "kubernetes_validate",
        "--strict",
        "docker/kubernetes/tandem.yaml",
    ];
    let program = std::env::var("KUBERNETES_VALIDATE_PYTHON");
    let program = program.unwrap_or_else(|_| "python3".to_owned());
    let Some(output) = tool(&program, &args) else {
        return;
    };
    let text = said(&output);
    if text.contains("No module named") {
        eprintln!("NOT RUN: no kubernetes-validate here");
        return;
    }
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches(" passed for resource ").count(), 6, "{text}");
}

/// Reads the manifests and checks what makes them a pair.
const MANIFESTS: &str = r#"
import sys, yaml
docs = list(yaml.safe_load_all(open("docker/kubernetes/tandem.yaml")))
kinds = {}
for d in docs:
    assert set(d) >= {"apiVersion", "kind", "metadata"}, d
    assert d["metadata"]["namespace"] == "tandem", d["metadata"]
    kinds.setdefault(d["kind"], []).append(d)
deployments = kinds["Deployment"]
assert len(deployments) == 2
claims = {c["metadata"]["name"] for c in kinds["PersistentVolumeClaim"]}
configs = set()
for d in deployments:
    spec = d["spec"]
    pod = spec["template"]["spec"]
    box = pod["containers"][0]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["replicas"] == 1 and spec["strategy"]["type"] == "Recreate"
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    for probe, path in [("livenessProbe", "/livez"), ("startupProbe", "/livez"), ("readinessProbe", "/readyz")]:
        assert box[probe]["httpGet"] == {"path": path, "port": "admin"}, box[probe]
    command = box["lifecycle"]["preStop"]["exec"]["command"]
    print(" ".join(command))
    print(" ".join(["tandem"] + box["args"]))
    mounts = {m["name"] for m in box["volumeMounts"]}
    assert mounts == {v["name"] for v in pod["volumes"]}, mounts
    claim = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert claim[0] in claims
    assert box["securityContext"]["readOnlyRootFilesystem"] and pod["securityContext"]["runAsNonRoot"]
    configs.add((claim[0], box["args"][-1]))
assert len(configs) == 2, configs
budget = kinds["PodDisruptionBudget"][0]["spec"]
assert budget["maxUnavailable"] == 1
service = kinds["Service"][0]["spec"]["selector"]
assert all(service.items() <= d["spec"]["template"]["metadata"]["labels"].items() for d in deployments)
"#;

#[test]
fn the_kubernetes_manifests_are_a_pair() {
    match tool("python3", &["-c", "import yaml"]) {
        Some(output) if output.status.success() => {}
        _ => {
            eprintln!("NOT RUN: no python3 with yaml here");
            return;
        }
    }
    let output = tool("python3", &["-c", MANIFESTS]).unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    for line in text.lines() {
        is_a_command(&line.split(' ').collect::<Vec<_>>());
    }
}
