//! The handbook tells the truth: its property files load, its command lines parse, what it links
//! to and names exists.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Parser as _;
use tandem::cli::Cli;
use tandem::telemetry::names::{Kind, METRICS};

const ALERTS: &str = include_str!("../dashboards/alerts.yaml");

/// Docker's names of the networks in docker/compose.yaml, which look like metrics.
const NETWORKS: [&str; 1] = ["tandem_between"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and everything under docs, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut files = vec![root().join("README.md"), root().join("docker/README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "md") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 12, "{files:?}");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    };
    files.into_iter().map(read).collect()
}

/// Code blocks in a language, without their indentation.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, Vec<String>)> = None;
    for line in text.lines() {
        let Some(mark) = line.trim_start().strip_prefix("```") else {
            if let Some((_, lines)) = &mut open {
                lines.push(line.trim_start().to_owned());
            }
            continue;
        };
        match open.take() {
            None => open = Some((mark.trim() == language, Vec::new())),
            Some((true, lines)) => found.push(lines.join("\n")),
            Some((false, _)) => {}
        }
    }
    assert!(open.is_none(), "a block that does not end");
    found
}

/// Words of a shell line up to a pipe, a redirection or a comment; enough for what docs hold.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '|' | '>' | '#' | '&' | ';') => break,
            (None, ' ') => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[test]
fn every_property_file_is_accepted() {
    let mut count = 0;
    for (path, text) in pages() {
        for block in blocks(&text, "properties") {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("site.properties");
            std::fs::write(&file, &block).unwrap();
            if let Err(findings) = tandem::settings::load(&file, &|_| None) {
                panic!("{}: {findings}\n{block}", path.display());
            }
            count += 1;
        }
    }
    assert!(count > 0);
}

#[test]
fn every_command_line_is_one() {
    let mut count = 0;
    for (path, text) in pages() {
        for block in blocks(&text, "sh") {
            for line in block.replace("\\\n", " ").lines() {
                let mut words = words(line);
                // Within a container: docker compose exec SERVICE tandem …
                if words.len() > 4 && words[..3] == ["docker", "compose", "exec"] {
                    words.drain(..4);
                }
                match words.first().map(String::as_str) {
                    Some("tandem") => {
                        use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
                        count += 1;
                        match Cli::try_parse_from(&words) {
                            Ok(_) => {}
                            Err(e) if matches!(e.kind(), DisplayHelp | DisplayVersion) => {}
                            Err(error) => panic!("{}: {line}: {error}", path.display()),
                        }
                    }
                    Some(script) if script.starts_with("scripts/") => {
                        assert!(root().join(script).is_file(), "{}: {line}", path.display());
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(count > 15, "{count} command lines");
}

/// The example of two simulated nodes is one that a connector can use: `notify.port` is one port.
#[test]
fn the_two_simulated_nodes_are_where_the_file_beside_them_looks() {
    let text = std::fs::read_to_string(root().join("docs/simulator.md")).unwrap();
    let script = blocks(&text, "sh").join("\n").replace("\\\n", " ");
    let line = words(script.lines().next().unwrap());
    assert!(Cli::try_parse_from(&line).is_ok(), "{line:?}");
    let given = |flag: &str| -> Vec<std::net::SocketAddr> {
        let pairs = line.windows(2).filter(|pair| pair[0] == flag);
        pairs.map(|pair| pair[1].parse().unwrap()).collect()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site.properties");
    std::fs::write(&file, &blocks(&text, "properties")[0]).unwrap();
    let loaded = tandem::settings::load(&file, &|_| None).unwrap();
    let settings = loaded.settings;
    let notify: Vec<_> = given("--xmpp-listen");
    assert_eq!(notify.len(), 2);
    assert_eq!(settings.downstream.nodes.len(), 2);
    for ((node, rest), notify) in settings
        .downstream
        .nodes
        .iter()
        .zip(given("--listen"))
        .zip(notify)
    {
        assert_eq!(node.url, format!("http://{rest}/finesse/api"));
        assert_eq!(node.address, rest.ip().to_string());
        assert_eq!(
            (notify.ip(), notify.port()),
            (rest.ip(), settings.notify.port)
        );
    }
}

/// `tandem word` in running text names a command.
#[test]
fn commands_named_in_sentences_exist() {
    use clap::CommandFactory as _;
    let cli = Cli::command();
    let known: BTreeSet<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    for (path, text) in pages() {
        for part in text.split('`').skip(1).step_by(2) {
            let mut words = part.split_whitespace();
            if words.next() != Some("tandem") {
                continue;
            }
            let Some(word) = words.next().filter(|word| !word.starts_with('-')) else {
                continue;
            };
            let plain = word.chars().all(|c| c.is_ascii_lowercase());
            assert!(
                !plain || known.contains(word),
                "{}: `{part}`",
                path.display()
            );
        }
    }
}

/// As GitHub makes them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = text
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

fn resolves(from: &Path, link: &str) -> Result<(), String> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path = match file {
        "" => from.to_owned(),
        file => from.parent().unwrap().join(file),
    };
    if !path.exists() {
        return Err(format!("{link}: nothing there"));
    }
    if anchor.is_empty() {
        return Ok(());
    }
    let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
    match anchors(&text).contains(anchor) {
        true => Ok(()),
        false => Err(format!("{link}: no such heading")),
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    for (path, text) in pages() {
        for part in text.split("](").skip(1) {
            let link = part.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            count += 1;
            if let Err(why) = resolves(&path, link) {
                panic!("{}: {why}", path.display());
            }
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn every_metric_that_is_named_exists() {
    for (path, text) in pages() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for (at, _) in text.match_indices("tandem_") {
            if text[..at].ends_with(word) {
                continue;
            }
            let name = text[at..].split(|c| !word(c)).next().unwrap();
            if NETWORKS.contains(&name) {
                continue;
            }
            let known = METRICS.iter().any(|metric| {
                let histogram = matches!(metric.kind, Kind::Histogram(_));
                let rest = name.strip_prefix(metric.name);
                rest == Some("")
                    || (histogram && matches!(rest, Some("_bucket" | "_sum" | "_count")))
            });
            assert!(known, "{}: {name}", path.display());
        }
    }
}

#[test]
fn every_alert_has_its_place_in_the_handbook() {
    let page = root().join("docs/troubleshooting.md");
    let names: Vec<&str> = ALERTS
        .lines()
        .filter_map(|line| line.split_once("- alert: "))
        .map(|(_, name)| name.trim())
        .collect();
    let links: Vec<&str> = ALERTS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "))
        .map(|link| link.trim_matches('"'))
        .collect();
    assert_eq!(names.len(), links.len(), "each alert has one runbook_url");
    for (name, link) in names.iter().zip(links) {
        let wanted = format!("docs/troubleshooting.md#{}", name.to_lowercase());
        assert!(link.ends_with(&wanted), "{name}: {link}");
        resolves(&page, &format!("#{}", name.to_lowercase())).unwrap();
    }
}

/// The product's Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "tests" {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") && name != "tests.rs" {
            found.push(path);
        }
    }
    found
}

/// Every fixed reason of the engine, and every role and state of a peer, is in the page's glossary;
/// and the glossary of the handbook is the page's.
#[test]
fn every_word_is_in_the_glossary() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let list: serde_json::Value =
        serde_json::from_str(&read("src/admin/page/glossary.json")).unwrap();
    let page = read("docs/glossary.md");
    let mut known = BTreeSet::new();
    for entry in list.as_array().unwrap() {
        let (word, means) = (
            entry["word"].as_str().unwrap(),
            entry["means"].as_str().unwrap(),
        );
        assert!(page.contains(&format!("| `{word}` | {means} |")), "{word}");
        known.insert(word.to_owned());
    }
    let rows = page.split("## Rows of the history").next().unwrap();
    assert_eq!(
        rows.matches("\n| `").count(),
        list.as_array().unwrap().len()
    );
    let mut said: BTreeSet<String> = ["silent", "consumer_gone", "goodbye", "left", "suspect"]
        .map(str::to_owned)
        .into();
    // Of a downstream node that requests go to now, and of what SIGHUP did.
    said.extend(["current", "nothing", "SIGHUP"].map(str::to_owned));
    let reload = read("src/app/reload.rs");
    let lines = reload.lines().map(str::trim_start);
    let reloads = lines.filter(|line| line.starts_with("(\"") && line.contains("\", self."));
    let before = said.len();
    said.extend(reloads.filter_map(|line| Some(line.split('"').nth(1)?.to_owned())));
    assert_eq!(said.len(), before + 7, "what SIGHUP can change: {said:?}");
    said.extend(tandem::engine::peer::Role::ALL.map(|role| role.as_str().to_owned()));
    let calls = [
        "look_at_roles(\"",
        "look_at_role(",
        "set_role(",
        "take_from(",
        "take_over(",
        "take(",
        "leave_group(",
        "drain(",
    ];
    for path in sources(&root().join("crates/engine/src")) {
        let text = std::fs::read_to_string(path).unwrap();
        for line in text
            .lines()
            .filter(|line| calls.iter().any(|call| line.contains(call)))
        {
            let parts = line.split('"').skip(1).step_by(2);
            let word = |c: char| c.is_ascii_lowercase() || c == '-';
            let words = parts.filter(|part| !part.is_empty() && part.chars().all(word));
            said.extend(words.map(str::to_owned));
        }
    }
    assert!(said.len() > 20, "{said:?}");
    let missing: Vec<&String> = said.difference(&known).collect();
    assert!(
        missing.is_empty(),
        "src/admin/page/glossary.json lacks {missing:?}"
    );
}

/// The rooms of `src/` that a file of one of them uses, beside its own.
fn rooms_used(text: &str, own: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named = code.split("crate::").skip(1).flat_map(|rest| {
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap().split(',').collect(),
            None => vec![rest],
        };
        list.into_iter()
            .map(move |one| one.trim_start().split(|c| !word(c)).next().unwrap())
    });
    named
        .filter(|name| *name != own)
        .map(str::to_owned)
        .collect()
}

/// What the map of the house says: rooms are used downwards only. Tests may look up.
#[test]
fn no_room_of_the_product_uses_one_that_uses_it() {
    let src = root().join("src");
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(&src) {
        let inside = path.strip_prefix(&src).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap();
        let room = room.trim_end_matches(".rs");
        if room == "lib" || room == "main" || path.ends_with("testing.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let used = rooms_used(&text, room);
        uses.entry(room.to_owned()).or_default().extend(used);
    }
    assert!(uses.len() > 20, "{uses:?}");
    // Those that use none of the rest go, until none is left.
    while !uses.is_empty() {
        let lowest = |used: &BTreeSet<String>| !used.iter().any(|room| uses.contains_key(room));
        let gone: Vec<String> = (uses.iter())
            .filter(|(_, used)| lowest(used))
            .map(|(room, _)| room.clone())
            .collect();
        assert!(!gone.is_empty(), "these rooms stand in a circle: {uses:#?}");
        uses.retain(|room, _| !gone.contains(room));
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let mut manifests = vec![
        root().join("Cargo.toml"),
        root().join("tests/kit/Cargo.toml"),
        root().join("tests/simulation/Cargo.toml"),
        root().join("fuzz/Cargo.toml"),
    ];
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        manifests.push(entry.unwrap().path().join("Cargo.toml"));
    }
    let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
    let manifest: String = manifests.iter().map(read).collect();
    let page = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let sections = manifest.split("\n[").filter(|section| {
        section.starts_with("dependencies]") || section.starts_with("dev-dependencies]")
    });
    let lines = sections
        .flat_map(str::lines)
        .filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = lines
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
        .map(|name| name.trim_end_matches(".workspace"))
        .filter(|name| !name.starts_with("tandem"))
        .collect();
    assert!(names.len() > 30, "{names:?}");
    let missing: Vec<&&str> = (names.iter())
        .filter(|name| !page.contains(&format!("| `{name}` |")))
        .collect();
    assert!(missing.is_empty(), "docs/dependencies.md lacks {missing:?}");
    let listed = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let gone: Vec<&str> = listed
        .filter_map(|line| line.split_once('`').map(|(name, _)| name))
        .filter(|name| !names.contains(name))
        .collect();
    assert!(gone.is_empty(), "docs/dependencies.md lists {gone:?}");
}

/// Words of one broker protocol, or of one product. The engine knows links, consumers with a
/// priority, deliveries, confirms and what brokers pass on to each other; what a protocol calls
/// them, and wants of those who use them, is known to its shell (`src/broker`).
const PROTOCOL_WORDS: [&str; 12] = [
    "amqp",
    "rabbit",
    "lapin",
    "stomp",
    "exchange",
    "routing key",
    "federat",
    "mandatory",
    "x-priority",
    "x-received",
    "vhost",
    "virtual host",
];

#[test]
fn the_engine_says_no_word_of_a_broker_protocol() {
    // What people read in a trace, as in version 0.1.
    let told = r#"if *relayed { ", over federation" } else"#;
    let mut found = Vec::new();
    for path in sources(&root().join("crates/engine/src")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.replace(told, "").to_lowercase();
            let words = PROTOCOL_WORDS.iter().filter(|word| line.contains(*word));
            found.extend(words.map(|word| format!("{}:{number} {word}", path.display())));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// What stands in a folder of sources, by its short name.
fn rooms_in(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap().path())).collect();
    names.retain(|name| !matches!(name.as_str(), "lib" | "main" | "mod" | "tests" | "testing"));
    names.sort();
    names.dedup();
    assert!(!names.is_empty(), "{folder}");
    names
}

#[test]
fn every_room_stands_in_the_map_of_the_house() {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let stands = |name: &str| rows.iter().any(|row| row.contains(name));
    let mut missing = Vec::new();
    for room in rooms_in("src") {
        if !stands(&format!("`src/{room}`")) && !stands(&format!("`src/{room}.rs`")) {
            missing.push(format!("src/{room}"));
        }
    }
    for room in rooms_in("crates") {
        if !stands(&format!("`crates/{room}")) {
            missing.push(format!("crates/{room}"));
        }
    }
    let engine = "crates/engine/src";
    for room in rooms_in(engine) {
        if root().join(engine).join(format!("{room}.rs")).exists() {
            if !stands(&format!("`{room}.rs`")) {
                missing.push(format!("{engine}/{room}.rs"));
            }
            continue;
        }
        let row = rows
            .iter()
            .find(|row| row.starts_with(&format!("| `{room}` |")));
        for file in rooms_in(&format!("{engine}/{room}")) {
            if !row.is_some_and(|row| row.contains(&format!("`{file}`"))) {
                missing.push(format!("{engine}/{room}/{file}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "docs/architecture.md lacks {missing:#?}"
    );
}
