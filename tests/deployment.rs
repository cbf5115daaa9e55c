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
    assert!(unit.contains("\nExecStart=tandem run "), "{unit}");
    std::fs::write(&file, unit.replace("=tandem ", &format!("={program} "))).unwrap();
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

/// What `kubectl apply -k docker/kubernetes` would send; `None`, said aloud, without the tool.
fn manifests() -> Option<String> {
    let output = tool("kubectl", &["kustomize", "docker/kubernetes"])?;
    assert!(output.status.success(), "{}", said(&output));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// The schemas of Kubernetes themselves, where `pip install kubernetes-validate` has brought them.
#[test]
fn the_kubernetes_manifests_fit_the_schemas() {
    let Some(manifests) = manifests() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.yaml");
    std::fs::write(&file, manifests).unwrap();
    let file = file.display().to_string();
    let args = ["-m", "kubernetes_validate", "--strict", &file];
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
    assert_eq!(text.matches(" passed for resource ").count(), 7, "{text}");
}

/// Reads the manifests from stdin and checks what makes them a pair. Prints, a line each: the
/// commands, then the deployments' variables as JSON.
const MANIFESTS: &str = r#"
import json, sys, yaml
docs = list(yaml.safe_load_all(sys.stdin))
kinds = {}
for d in docs:
    assert d["metadata"]["namespace"] == "tandem", d["metadata"]
    kinds.setdefault(d["kind"], []).append(d)
deployments = kinds["Deployment"]
assert len(deployments) == 2
claims = {c["metadata"]["name"] for c in kinds["PersistentVolumeClaim"]}
seconds = lambda text: int(text.removesuffix("s"))
configs = set()
variables = []
labels_of = [d["spec"]["template"]["metadata"]["labels"] for d in deployments]
for d, labels in zip(deployments, labels_of):
    spec = d["spec"]
    pod = spec["template"]["spec"]
    box = pod["containers"][0]
    assert spec["replicas"] == 1 and spec["strategy"]["type"] == "Recreate"
    fit = [l for l in labels_of if spec["selector"]["matchLabels"].items() <= l.items()]
    assert fit == [labels], spec["selector"]
    for probe, path in [("livenessProbe", "/livez"), ("startupProbe", "/livez"), ("readinessProbe", "/readyz")]:
        assert box[probe]["httpGet"] == {"path": path, "port": "admin"}, box[probe]
    command = box["lifecycle"]["preStop"]["exec"]["command"]
    print(" ".join(command))
    print(" ".join(["tandem"] + box["args"]))
    mounts = {m["name"]: m["mountPath"] for m in box["volumeMounts"]}
    assert set(mounts) == {v["name"] for v in pod["volumes"]}, mounts
    claim = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert claim[0] in claims
    assert box["securityContext"]["readOnlyRootFilesystem"] and pod["securityContext"]["runAsNonRoot"]
    configs.add((claim[0], box["args"][-1]))
    # Apart from the other one, and not only from itself.
    for rule in pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]:
        assert all(rule["labelSelector"]["matchLabels"].items() <= l.items() for l in labels_of), rule
    # The broker's login is a secret, and every file that is named is in a mount.
    env = {e["name"]: e for e in box["env"]}
    assert env["TANDEM_BROKER_USERNAME"]["valueFrom"]["secretKeyRef"]["name"] == "tandem-broker"
    assert "TANDEM_BROKER_PASSWORD" not in env
    given = {name: e.get("value", "tandem") for name, e in env.items()}
    secrets = [mounts[v["name"]] for v in pod["volumes"] if "secret" in v]
    for name, value in given.items():
        if name.endswith("_FILE"):
            assert any(value.startswith(mount + "/") for mount in secrets), (name, value)
    assert command[command.index("--token-file") + 1] == given["TANDEM_ADMIN_TOKEN_FILE"]
    # The drain, then the end, and room before SIGKILL.
    drain = int(command[command.index("--limit") + 1])
    needed = drain + seconds(given["TANDEM_SHUTDOWN_GRACE"]) + 5
    assert pod["terminationGracePeriodSeconds"] >= needed, needed
    variables.append(given)
assert len(configs) == 2, configs
budget = kinds["PodDisruptionBudget"][0]["spec"]
assert budget["maxUnavailable"] == 1
assert all(budget["selector"]["matchLabels"].items() <= l.items() for l in labels_of)
# One Service an instance.
served = []
for service in kinds["Service"]:
    served.append([l for l in labels_of if service["spec"]["selector"].items() <= l.items()])
assert sorted(map(str, served)) == sorted(str([l]) for l in labels_of), served
for given in variables:
    print(json.dumps(given))
"#;

#[test]
fn the_kubernetes_manifests_are_a_pair() {
    let Some(manifests) = manifests() else {
        return;
    };
    match tool("python3", &["-c", "import yaml"]) {
        Some(output) if output.status.success() => {}
        _ => {
            eprintln!("NOT RUN: no python3 with yaml here");
            return;
        }
    }
    let mut command = Command::new("python3");
    command.args(["-c", MANIFESTS]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(manifests.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 6, "{text}");
    for line in text.lines().take(4) {
        is_a_command(&line.split(' ').collect::<Vec<_>>());
    }
    // The shipped files load with these variables, and their login is no default.
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "9d1f6a0b7be84a3c2f5e118c60d7e3a4").unwrap();
    for (line, site) in text.lines().skip(4).zip(["site-1", "site-2"]) {
        let given: BTreeMap<String, String> = serde_json::from_str(line).unwrap();
        let asked = RefCell::new(BTreeSet::new());
        let read = |name: &str| {
            asked.borrow_mut().insert(name.to_owned());
            let value = given.get(name)?;
            let file = value.starts_with("/run/tandem/");
            Some(if file {
                secret.display().to_string()
            } else {
                value.clone()
            })
        };
        let file = root().join(format!("config/active-passive/{site}.properties"));
        let loaded = tandem::settings::load(&file, &read);
        let loaded = loaded.unwrap_or_else(|findings| panic!("{findings}"));
        let unknown = given.keys().find(|name| !asked.borrow().contains(*name));
        assert!(unknown.is_none(), "{unknown:?} is no setting");
        let of_login = |w: &&tandem::settings::Finding| w.message.contains("password of");
        let login = loaded.warnings.iter().find(of_login);
        assert_eq!(login, None);
    }
}
