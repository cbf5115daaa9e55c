//! Files that come with the project: the original's tables, the examples, the documentation.

use crate::schema::{Default_, Key};

use super::*;

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name)
}

fn with_key(name: &str) -> Option<String> {
    (name == "TANDEM_CONTROL_KEY").then(|| KEY.to_owned())
}

#[test]
fn the_originals_tables_load_once_the_named_lines_are_added() {
    for mode in ["active-passive", "active-active"] {
        let files = Files::new();
        files.write("control.key", KEY);
        let pair: Vec<Loaded> = ["1", "2"]
            .map(|n| {
                let original =
                    fs::read_to_string(root(&format!("tests/data/original/{mode}-{n}.properties")))
                        .unwrap();
                let as_it_stands =
                    load(&files.write("o.properties", &original), &|_| None).unwrap_err();
                let ports = as_it_stands
                    .errors()
                    .filter(|f| f.message.contains("61616") && f.message.contains("5672"))
                    .count();
                assert_eq!(ports, 2, "{as_it_stands}");
                let missing = as_it_stands
                    .errors()
                    .filter(|f| f.message == "no downstream is given")
                    .count();
                assert_eq!(
                    (as_it_stands.errors().count(), missing),
                    if mode == "active-active" {
                        (2, 0)
                    } else {
                        (3, 1)
                    }
                );
                let mut text = original.replace(":61616", ":5672")
                    + &format!("mode={mode}\ncontrol.key-file=control.key\ninstance.id=gc-{n}\n");
                if mode == "active-passive" {
                    text += "Finesse_1=https://finesse-1.example:8445/finesse/api/\n";
                }
                load(&files.write(&format!("{n}.properties"), text), &|_| None)
                    .unwrap_or_else(|e| panic!("{e}"))
            })
            .into();
        assert_eq!(check_pair(&pair), Findings::default(), "{mode}");
        assert_eq!(pair[1].settings.consumer.priority, 100);
        if mode == "active-active" {
            let urls: Vec<_> = pair[1]
                .settings
                .downstream
                .nodes
                .iter()
                .map(|n| n.url.as_str())
                .collect();
            assert_eq!(
                urls,
                [
                    "https://finesse-2.example:8445/finesse/api",
                    "https://finesse-1.example:8445/finesse/api"
                ]
            );
        }
    }
}

fn mentions(text: &str, key: &Key) -> bool {
    let stem = key.name.replace("NAME", "night");
    let stem = if key.max_index > 0 {
        stem.replace(".N", ".1")
    } else {
        stem
    };
    let line = |l: &str| {
        let name = l
            .trim_start_matches('#')
            .split('=')
            .next()
            .unwrap_or_default();
        name == stem || (key.kind.is_secret() && name == format!("{stem}-file"))
    };
    text.lines().any(line)
}

/// What has a warning in an example, so that none runs unchanged without saying so.
const NOT_UNCHANGED: [&str; 5] = [
    "broker.url.1",
    "broker.url.2",
    "broker.username",
    "downstream.url.1",
    "downstream.url.2",
];

#[test]
fn the_example_pairs_are_clean_and_name_every_key() {
    for mode in ["active-passive", "active-active"] {
        let pair = ["1", "2"].map(|n| {
            let path = root(&format!("config/{mode}/site-{n}.properties"));
            let text = fs::read_to_string(&path).unwrap();
            for key in SCHEMA {
                assert!(
                    mentions(&text, key),
                    "{} does not mention {}",
                    path.display(),
                    key.name
                );
                if let Default_::Is(default) = key.default {
                    let commented = text
                        .lines()
                        .find_map(|l| l.strip_prefix(&format!("#{}=", key.name)));
                    assert!(
                        commented.is_none_or(|shown| shown == default),
                        "{} in {}",
                        key.name,
                        path.display()
                    );
                }
            }
            let loaded = load(&path, &with_key).unwrap_or_else(|e| panic!("{e}"));
            let warnings = loaded
                .warnings
                .iter()
                .map(|w| w.key.clone().unwrap_or_default());
            assert_eq!(warnings.collect::<Vec<_>>(), NOT_UNCHANGED);
            // What is commented out must be right as well.
            for line in text
                .lines()
                .filter_map(|l| l.strip_prefix('#'))
                .filter(|l| !l.starts_with(' ') && l.contains('='))
            {
                assert!(
                    matches!(
                        schema::find(line.split('=').next().unwrap_or_default()),
                        schema::Lookup::Known { .. }
                    ),
                    "{line}"
                );
            }
            loaded
        });
        assert_eq!(check_pair(&pair), Findings::default());
    }
}

/// The table of `docs/configuration.md`, from the schema.
fn documented(key: &Key) -> String {
    let aliases: Vec<String> = key
        .aliases
        .iter()
        .map(|(name, translate)| match translate {
            alias::Translate::Millis => format!("`{name}` (ms)"),
            alias::Translate::Seconds => format!("`{name}` (s)"),
            alias::Translate::Not => format!("`{name}` (opposite)"),
            _ => format!("`{name}`"),
        })
        .collect();
    let default = match key.default {
        Default_::Is(text) => format!("`{text}`"),
        Default_::NotSet => "—".into(),
        Default_::Computed(how) => how.into(),
        Default_::Required(what) => format!("required: {what}"),
    };
    let cells = [
        format!("`{}`", key.name),
        aliases.join(", "),
        default,
        key.kind.allowed(),
        key.help.into(),
    ];
    format!(
        "| {} |",
        cells
            .map(|cell| cell.replace('|', "\\|").replace('<', "\\<"))
            .join(" | ")
    )
}

#[test]
fn the_documentation_has_every_key_as_it_is() {
    let path = root("docs/configuration.md");
    let rows: Vec<String> = SCHEMA.iter().map(documented).collect();
    let text = fs::read_to_string(&path).unwrap();
    let found: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| `") && line.matches(" | ").count() >= 4)
        .collect();
    let missing: Vec<_> = rows
        .iter()
        .filter(|row| !found.contains(&row.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "put these rows into docs/configuration.md:\n{}",
        missing
            .iter()
            .map(|r| r.as_str())
            .collect::<Vec<_>>()
            .join("\n")
    );
    assert_eq!(
        found.len(),
        rows.len(),
        "docs/configuration.md has rows of keys that do not exist"
    );
    for ignored in alias::IGNORED {
        assert!(
            text.contains(&format!("`{}`", ignored.name)),
            "{} is not documented",
            ignored.name
        );
    }
}
