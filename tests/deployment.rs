//! What is shipped for systemd, Docker and Kubernetes is read by its own tool, where that is
//! installed; a test that could not be run says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

use std::path::Path;
use std::process::{Command, Output};

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
    let Some(output) = tool("docker", &args) else {
        return;
    };
    let text = said(&output);
    if text.contains("is not a docker command") || text.contains("unknown shorthand flag") {
        eprintln!("NOT RUN: docker without compose");
        return;
    }
    assert!(output.status.success(), "{text}");
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
    use clap::Parser as _;
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
        if let Err(error) = tandem::cli::Cli::try_parse_from(line.split(' ')) {
            panic!("{line}: {error}");
        }
    }
}
