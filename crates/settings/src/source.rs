//! Where values come from: the file, then the environment over it.
//!
//! Both become layers of the `config` crate, which decides who wins. A layer holds positions in a
//! table of candidates instead of the values, so that no secret is copied into the library's cache.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Map, Source, Value as Cell};
use zeroize::Zeroizing;

use super::alias::Translate;
use super::finding::{Finding, Findings, Severity, shown, sounds_secret};
use super::schema::{self, Key, Lookup, SCHEMA};
use super::value::{self, Value};
use tandem_files::properties::{self, Entry, MAX_FILE_BYTES};
use tandem_files::read_bounded;
use tandem_model::REDACTED;
use tandem_model::text::{is_utf16, trimmed, without_mark};

mod expand;
mod variables;

use expand::expand;
pub use variables::unknown_variables;
use variables::{group_of_variable, of_service, passed_over};

/// Largest file that may hold one secret, in bytes.
const MAX_SECRET_FILE_BYTES: usize = 64 * 1024;

/// Looks up an environment variable.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where one value was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a property file.
    File(PathBuf, usize),
    /// In an environment variable.
    Env(String),
}

/// One value that was given for a key and is well formed.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The key.
    pub key: &'static Key,
    /// Its full name.
    pub name: String,
    /// The name as it is spelled where it was found.
    pub spelled: String,
    /// Where.
    pub origin: Origin,
    /// The value.
    pub value: Value,
    /// The value as it may be shown.
    pub shown: String,
    /// The text that was found, as it may be shown.
    pub written: String,
}

impl Candidate {
    /// Adds place, key and value to a finding about this candidate.
    pub fn locate(&self, finding: Finding) -> Finding {
        locate(finding, &self.origin)
            .key(&self.spelled)
            .value(&self.written)
    }

    /// Whether it stands there under one of the original's names.
    pub fn by_alias(&self) -> bool {
        let spelled = self.spelled.as_str();
        let spelled = spelled.strip_prefix("TANDEM_").unwrap_or(spelled);
        let mut aliases = self.key.aliases.iter();
        aliases.any(|(alias, _)| alias.eq_ignore_ascii_case(spelled))
    }

    /// Where it was found, in a few words.
    pub fn origin_text(&self) -> String {
        match &self.origin {
            Origin::File(path, line) => {
                let name = path.file_name().unwrap_or(path.as_os_str());
                format!("{}:{line}", name.to_string_lossy())
            }
            Origin::Env(name) => format!("environment {name}"),
        }
    }
}

fn locate(finding: Finding, origin: &Origin) -> Finding {
    match origin {
        Origin::File(path, line) => finding.at(path, Some(*line)),
        Origin::Env(_) => finding,
    }
}

/// What a file and the environment give together.
#[derive(Debug, Default)]
pub struct Given {
    /// The winning candidate of each name.
    pub values: BTreeMap<String, Candidate>,
    /// Names whose value could not be read: what is missing there has been reported already.
    pub failed: Vec<String>,
}

/// Reads both layers. Everything wrong is added to `findings`. `variables`: names of the environment's
/// variables, where they are known; by them groups are found that the file does not name.
pub fn read(path: &Path, env: Env<'_>, variables: &[String], findings: &mut Findings) -> Given {
    let entries = match read_bounded(path, MAX_FILE_BYTES) {
        Ok(bytes) => {
            let (entries, errors) = properties::parse(&bytes);
            for e in errors {
                findings.push(Finding::error(e.message).at(path, Some(e.line)));
            }
            entries
        }
        Err(e) => {
            findings.push(Finding::error(format!("the file cannot be read: {e}")).at(path, None));
            return Given::default();
        }
    };
    let mut reader = Reader {
        path,
        env,
        findings,
        wrong: Vec::new(),
    };
    let mut file: Vec<Candidate> = entries
        .iter()
        .filter_map(|entry| reader.entry(entry))
        .collect();
    reader.second_broker(&mut file);
    let file = reader.without_duplicates(file);
    let wrong_in_file = std::mem::take(&mut reader.wrong);
    let named = file.iter().map(|candidate| candidate.name.as_str());
    let named = named.chain(wrong_in_file.iter().map(|wrong| wrong.name.as_str()));
    let groups = groups(named, variables);
    let environment = reader.environment(&groups);
    let environment = reader.without_duplicates(environment);
    reader.overridden(wrong_in_file, &environment);
    let failed = reader.report_wrong();
    match layered(file, environment) {
        Ok(values) => Given { values, failed },
        Err(e) => {
            findings
                .push(Finding::error(format!("the layers cannot be merged: {e}")).at(path, None));
            Given::default()
        }
    }
}

struct Reader<'a> {
    path: &'a Path,
    env: Env<'a>,
    findings: &'a mut Findings,
    /// What cannot be used of the layer that is being read.
    wrong: Vec<Wrong>,
}

/// A value of a key that cannot be used, or two that contradict each other.
struct Wrong {
    /// Full name of the key.
    name: String,
    finding: Finding,
    /// Whether the key has no value now.
    missing: bool,
}

impl Reader<'_> {
    /// One line of the file.
    fn entry(&mut self, entry: &Entry) -> Option<Candidate> {
        let origin = Origin::File(self.path.to_path_buf(), entry.line);
        match schema::find(&entry.key) {
            Lookup::Known {
                key,
                name,
                translate,
                from_file,
            } => {
                let text = match expand(&entry.value, self.env) {
                    Ok(text) => Zeroizing::new(text),
                    Err(message) => {
                        let value = if key.kind.is_secret() {
                            REDACTED.to_owned()
                        } else {
                            shown(&entry.value)
                        };
                        let finding = locate(Finding::error(message), &origin)
                            .key(&entry.key)
                            .value(value);
                        let finding =
                            finding.allowed("${NAME} or ${NAME:-default}; $${ for a literal ${");
                        self.missing(name, finding);
                        return None;
                    }
                };
                self.candidate(key, name, &entry.key, origin, &text, translate, from_file)
            }
            Lookup::Ignored(ignored) => {
                let message = format!(
                    "this key of the original connector is accepted and not used: {}",
                    ignored.why
                );
                self.findings
                    .push(locate(Finding::warning(message), &origin).key(&entry.key));
                None
            }
            Lookup::BadIndex(allowed) => {
                let finding = Finding::error("no such key").allowed(allowed);
                self.findings.push(
                    locate(finding, &origin)
                        .key(&entry.key)
                        .value(careful(entry)),
                );
                None
            }
            Lookup::Unknown => {
                let message = match schema::nearest(&entry.key) {
                    Some(near) => format!("unknown key; did you mean {near}?"),
                    None => "unknown key".into(),
                };
                let finding = Finding::error(message).allowed("the keys of docs/configuration.md");
                self.findings.push(
                    locate(finding, &origin)
                        .key(&entry.key)
                        .value(careful(entry)),
                );
                None
            }
        }
    }

    /// Text to value; a blank one counts as not given.
    #[allow(clippy::too_many_arguments)] // all of them are one place in a file
    fn candidate(
        &mut self,
        key: &'static Key,
        name: String,
        spelled: &str,
        origin: Origin,
        text: &str,
        translate: Translate,
        from_file: bool,
    ) -> Option<Candidate> {
        if text.trim().is_empty() {
            return None;
        }
        let result = if from_file {
            self.secret_file(&origin, spelled, text).and_then(|secret| {
                value::parse(key.kind, &secret)
                    .map_err(|e| (format!("in the file: {e}"), key.kind.allowed()))
            })
        } else {
            translate
                .apply(text)
                .map_err(|allowed| ("not a value of the original".to_owned(), allowed.to_owned()))
                .and_then(|text| value::parse(key.kind, &text).map_err(|e| (e, key.kind.allowed())))
        };
        let shown = if key.kind.is_secret() && !from_file {
            REDACTED.to_owned()
        } else {
            shown(text)
        };
        match result {
            Ok(value) => {
                let written = if from_file {
                    REDACTED.to_owned()
                } else {
                    shown
                };
                let shown = if from_file {
                    REDACTED.to_owned()
                } else {
                    shown_value(key, &value, written.clone())
                };
                Some(Candidate {
                    key,
                    name,
                    spelled: spelled.to_owned(),
                    origin,
                    value,
                    shown,
                    written,
                })
            }
            Err((message, allowed)) => {
                let finding = Finding::error(message)
                    .key(spelled)
                    .value(shown)
                    .allowed(allowed);
                self.missing(name, locate(finding, &origin));
                None
            }
        }
    }

    fn missing(&mut self, name: String, finding: Finding) {
        self.wrong.push(Wrong {
            name,
            finding,
            missing: true,
        });
    }

    /// What is wrong in the file harms nobody where a variable has the value that is used.
    fn overridden(&mut self, wrong: Vec<Wrong>, environment: &[Candidate]) {
        for wrong in wrong {
            let winner = environment.iter().find(|given| given.name == wrong.name);
            let Some(winner) = winner else {
                self.wrong.push(wrong);
                continue;
            };
            let words = format!(
                "{}; not used: {} wins",
                wrong.finding.message, winner.spelled
            );
            self.findings.push(Finding {
                severity: Severity::Warning,
                message: words,
                ..wrong.finding
            });
        }
    }

    /// Reports what cannot be used; the names of keys that have no value for that reason.
    fn report_wrong(self) -> Vec<String> {
        let mut failed = Vec::new();
        for wrong in self.wrong {
            self.findings.push(wrong.finding);
            failed.extend(wrong.missing.then_some(wrong.name));
        }
        failed
    }

    /// A secret's file; a relative path in a property file starts at that file's folder.
    fn secret_file(
        &mut self,
        origin: &Origin,
        spelled: &str,
        name: &str,
    ) -> Result<Zeroizing<String>, (String, String)> {
        let path = match origin {
            Origin::File(file, _) => beside(file, name),
            Origin::Env(_) => PathBuf::from(name),
        };
        let allowed = || "a readable UTF-8 file that holds only the secret".to_owned();
        let bytes = read_bounded(&path, MAX_SECRET_FILE_BYTES)
            .map_err(|e| (format!("{} cannot be read: {e}", path.display()), allowed()))?;
        if is_utf16(&bytes) {
            let words = "the file is UTF-16 text: save it as UTF-8";
            return Err((words.to_owned(), allowed()));
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| ("the file is not UTF-8 text".to_owned(), allowed()))?;
        let text = without_mark(text).trim_end_matches(['\r', '\n']);
        if trimmed(text).is_empty() {
            return Err(("the file is empty".into(), allowed()));
        }
        if trimmed(text) != text {
            let words = "the secret in the file begins or ends with a blank, which is a part of it";
            let finding = Finding::warning(words).key(spelled).value(shown(name));
            self.findings.push(locate(finding, origin));
        }
        // One secret of several lines is the same secret on every system.
        Ok(Zeroizing::new(text.replace("\r\n", "\n")))
    }

    /// Every variable that could be meant: of native keys, of aliases, of these groups.
    fn environment(&mut self, groups: &BTreeSet<String>) -> Vec<Candidate> {
        let mut found = Vec::new();
        for key in SCHEMA {
            for (pattern, translate) in
                std::iter::once((key.name, Translate::Same)).chain(key.aliases.iter().copied())
            {
                for (spelled, name) in spellings(key, pattern, groups) {
                    self.variable(key, &name, &spelled, translate, false, &mut found);
                }
            }
            if key.kind.is_secret() {
                self.variable(
                    key,
                    key.name,
                    &format!("{}-file", key.name),
                    Translate::Same,
                    true,
                    &mut found,
                );
            }
        }
        found
    }

    fn variable(
        &mut self,
        key: &'static Key,
        name: &str,
        spelled: &str,
        translate: Translate,
        from_file: bool,
        found: &mut Vec<Candidate>,
    ) {
        let variable = format!(
            "TANDEM_{}",
            spelled.to_ascii_uppercase().replace(['.', '-'], "_")
        );
        let Some(text) = (self.env)(&variable).map(Zeroizing::new) else {
            return;
        };
        if of_service(&variable, &text) {
            self.findings.push(passed_over(&variable));
            return;
        }
        let origin = Origin::Env(variable.clone());
        found.extend(self.candidate(
            key,
            name.to_owned(),
            &variable,
            origin,
            trimmed(&text),
            translate,
            from_file,
        ));
    }

    /// The original's 4.x table prints `ACTIVEMQ1` twice and means the second broker by the second.
    fn second_broker(&mut self, candidates: &mut [Candidate]) {
        let is = |candidate: &Candidate| candidate.spelled.eq_ignore_ascii_case("ACTIVEMQ1");
        if candidates.iter().any(|c| c.name == "broker.url.2") {
            return;
        }
        let mut given = candidates.iter_mut().filter(|candidate| is(candidate));
        let (Some(first), Some(second), None) = (given.next(), given.next(), given.next()) else {
            return;
        };
        if first.value == second.value {
            return;
        }
        second.name = "broker.url.2".to_owned();
        let message = "given twice, as in the original's table: the second is taken for ACTIVEMQ2";
        let finding = second.locate(Finding::warning(message));
        self.findings.push(finding);
    }

    /// One candidate a name; two different values for one name in one layer are an error.
    fn without_duplicates(&mut self, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let mut kept: Vec<Candidate> = Vec::new();
        for candidate in candidates {
            match kept.iter().find(|other| other.name == candidate.name) {
                None => kept.push(candidate),
                Some(first) if first.value == candidate.value => {}
                Some(first) => {
                    let same = first.spelled.eq_ignore_ascii_case(&candidate.spelled);
                    let what = if same {
                        "was already given"
                    } else {
                        "is the same key and was given"
                    };
                    let message = format!(
                        "{} {what} in {} with another value, {}",
                        first.spelled,
                        first.origin_text(),
                        first.shown
                    );
                    let finding = candidate.locate(Finding::error(message));
                    let finding = finding.allowed(format!("{} once", candidate.name));
                    self.wrong.push(Wrong {
                        name: candidate.name,
                        finding,
                        missing: false,
                    });
                }
            }
        }
        kept
    }
}

/// Groups of which a key is named in the file, or a variable in the environment.
fn groups<'a>(names: impl Iterator<Item = &'a str>, variables: &[String]) -> BTreeSet<String> {
    let in_file = names.filter_map(schema::group_of);
    let in_environment = variables.iter().filter_map(|name| group_of_variable(name));
    in_file.chain(in_environment).collect()
}

/// How a key may be spelled, each with the full name it stands for.
fn spellings(key: &Key, pattern: &str, groups: &BTreeSet<String>) -> Vec<(String, String)> {
    if key.max_index > 0 {
        let (stem, own) = (
            pattern.trim_end_matches('N'),
            key.name.trim_end_matches('N'),
        );
        return (1..=key.max_index)
            .map(|n| (format!("{stem}{n}"), format!("{own}{n}")))
            .collect();
    }
    if pattern.contains("NAME") {
        let of = |group: &String| key.name.replace("NAME", group);
        return groups.iter().map(|g| (of(g), of(g))).collect();
    }
    vec![(pattern.to_owned(), key.name.to_owned())]
}

/// Values that were translated or shortened are shown as they act, not as they were written.
fn shown_value(key: &Key, value: &Value, written: String) -> String {
    match value {
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Duration(d) => {
            value::duration_text(u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
        }
        Value::Text(text) if !key.kind.is_secret() => shown(text),
        _ => written,
    }
}

/// The value of a key that is not known, hidden where it may be one of a secret key mistyped.
fn careful(entry: &Entry) -> String {
    let near = schema::nearest(&entry.key).map(|near| schema::find(&near));
    let near = matches!(near, Some(Lookup::Known { key, .. }) if key.kind.is_secret());
    if near || sounds_secret(&entry.key) {
        REDACTED.to_owned()
    } else {
        shown(&entry.value)
    }
}

/// A path as a property file means it: relative ones start at the file's folder.
pub fn beside(file: &Path, name: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(name)
}

/// One layer: full name to position in the candidates' table. The library splits names at dots into
/// tables, and then `broker.url` and `broker.url.1` could not stand side by side; so dots become
/// underscores, which no full name has.
#[derive(Debug, Clone)]
struct Layer(Vec<(String, u64, String)>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Cell>, ConfigError> {
        let cell = |(name, at, origin): &(String, u64, String)| {
            (name.replace('.', "_"), Cell::new(Some(origin), *at))
        };
        Ok(self.0.iter().map(cell).collect())
    }
}

fn layered(
    file: Vec<Candidate>,
    environment: Vec<Candidate>,
) -> Result<BTreeMap<String, Candidate>, ConfigError> {
    let split = file.len();
    let mut table: Vec<Option<Candidate>> = file.into_iter().chain(environment).map(Some).collect();
    let cell = |(at, candidate): (usize, &Option<Candidate>)| {
        candidate
            .as_ref()
            .map(|c| (c.name.clone(), at as u64, c.origin_text()))
    };
    let mut cells: Vec<_> = table.iter().enumerate().filter_map(cell).collect();
    let over = Layer(cells.split_off(split));
    let merged = Config::builder()
        .add_source(Layer(cells))
        .add_source(over)
        .build()?
        .collect()?;
    let mut values = BTreeMap::new();
    for (_, cell) in merged {
        let at = cell.into_uint()? as usize;
        if let Some(candidate) = table.get_mut(at).and_then(Option::take) {
            values.insert(candidate.name.clone(), candidate);
        }
    }
    Ok(values)
}
