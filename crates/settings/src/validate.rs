//! Candidates to settings: defaults, derived values, and the checks between keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::finding::{Finding, Findings, shown};
use super::schema::{self, Default_, SCHEMA};
use super::source::{Candidate, Given, Origin, beside};
use super::value::{self, Value, duration_text};
use super::{
    Agent, Consumer, Control, Effective, Instance, Log, LogFormat, MessageFormat, Mode, Peer,
    Settings,
};
use tandem_model::brokers::QueueType;
use tandem_model::{REDACTED, Secret};
use tandem_net::{KeyNames, TlsClient, TlsError, TlsFiles};

/// Builds settings; `None` only where something that cannot be done without is missing or wrong,
/// and then `findings` says so.
pub(super) fn assemble(
    path: &Path,
    given: &Given,
    findings: &mut Findings,
) -> (Option<Settings>, Vec<Effective>) {
    let mut v = Validator {
        path,
        given,
        findings,
        derived: Vec::new(),
        unopened: Vec::new(),
    };
    let instance = v.instance();
    let cluster_name = v.text("cluster.name");
    let broker = v.broker();
    v.warn_of_defaults(&broker);
    let groups = v.groups(&cluster_name);
    let peer = v.peer();
    let downstream = v.downstream();
    let notify = v.notify(&downstream);
    let settings = Settings {
        cluster_name,
        queue_type: match v.text("queue.type").as_str() {
            "quorum" => QueueType::Quorum,
            _ => QueueType::Classic,
        },
        mode: if v.text("mode") == "active-active" {
            Mode::ActiveActive
        } else {
            Mode::ActivePassive
        },
        hash_exchange: v.hash_exchange(&groups),
        groups,
        command_max_age: v.duration("command.max-age"),
        consumer: Consumer {
            priority: u8::try_from(v.int("consumer.priority")).unwrap_or(u8::MAX),
            prefetch: u16::try_from(v.int("consumer.prefetch")).unwrap_or(u16::MAX),
        },
        peer,
        takeback_hold: v.duration("takeback.hold"),
        takeover_rate: u32::try_from(v.int("takeover.rate")).unwrap_or(u32::MAX),
        remembered: usize::try_from(v.int("command.remembered")).unwrap_or(usize::MAX),
        agent: v.agent(),
        notify,
        message_format: match v.text("message.format").as_str() {
            "json" => MessageFormat::Json,
            "default-values" => MessageFormat::DefaultValues,
            _ => MessageFormat::Default,
        },
        control: v.control(),
        data_dir: v.data_dir(&instance.id),
        admin: v.admin(),
        rest: v.rest(),
        trace_generate: v.bool("trace.generate"),
        shutdown_grace: v.duration("shutdown.grace"),
        log: Log {
            format: if v.text("log.format") == "json" {
                LogFormat::Json
            } else {
                LogFormat::Text
            },
            level: v.text("log.level"),
        },
        instance,
        broker,
        downstream,
    };
    let usable = !settings.broker.urls.is_empty() && !settings.downstream.nodes.is_empty();
    let effective = v.effective();
    (usable.then_some(settings), effective)
}

/// What is given, what was found, and access to it for the parts.
pub(super) struct Validator<'a> {
    path: &'a Path,
    pub(super) given: &'a Given,
    findings: &'a mut Findings,
    /// Values that were computed: full name, value as it may be shown.
    derived: Vec<(String, String)>,
    /// Keys of files that could not be opened.
    unopened: Vec<String>,
}

/// Access to single values.
impl Validator<'_> {
    pub(super) fn candidate(&self, name: &str) -> Option<&Candidate> {
        self.given.values.get(name)
    }

    pub(super) fn failed(&self, name: &str) -> bool {
        self.given.failed.iter().any(|failed| failed == name)
    }

    /// The given value, else the table's default.
    pub(super) fn value(&self, name: &str) -> Option<Value> {
        if let Some(candidate) = self.candidate(name) {
            return Some(candidate.value.clone());
        }
        let key = SCHEMA.iter().find(|key| key.name == name)?;
        match key.default {
            Default_::Is(text) => value::parse(key.kind, text).ok(),
            _ => None,
        }
    }

    pub(super) fn text_opt(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    // The table gives every key that the next four read a default of the right type; a unit test
    // loads a file that sets none of them.
    pub(super) fn text(&self, name: &str) -> String {
        self.text_opt(name).unwrap_or_default()
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Bool(true)))
    }

    pub(super) fn int(&self, name: &str) -> u64 {
        match self.value(name) {
            Some(Value::Int(number)) => number,
            _ => 0,
        }
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        match self.value(name) {
            Some(Value::Duration(duration)) => duration,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn secret(&self, name: &str) -> Option<Secret> {
        match self.value(name) {
            Some(Value::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    /// A file's name; a relative one starts at the property file's folder.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        let candidate = self.given.values.get(name)?;
        let Value::Text(text) = &candidate.value else {
            return None;
        };
        Some(match &candidate.origin {
            Origin::File(file, _) => beside(file, text),
            Origin::Env(_) => PathBuf::from(text),
        })
    }

    /// A file that must be readable.
    pub(super) fn file(&mut self, name: &str) -> Option<PathBuf> {
        let path = self.path(name)?;
        if let Err(e) = std::fs::File::open(&path) {
            let message = format!("{} cannot be read: {e}", path.display());
            self.about(name, Finding::error(message).allowed("a readable PEM file"));
            self.unopened.push(name.to_owned());
        }
        Some(path)
    }

    /// The certificates that these keys name, looked into.
    pub(super) fn tls(&mut self, names: KeyNames, verify: bool) -> TlsClient {
        let files = TlsFiles {
            ca_file: self.file(names.ca_file),
            certificate_file: self.file(names.certificate_file),
            private_key_file: self.file(names.private_key_file),
        };
        for (has, misses) in [
            (names.certificate_file, names.private_key_file),
            (names.private_key_file, names.certificate_file),
        ] {
            if self.candidate(has).is_some() && self.candidate(misses).is_none() {
                let message = format!("{misses} is missing");
                self.about(has, Finding::error(message).allowed("both or neither"));
            }
        }
        let tls = TlsClient::with(files, names, verify);
        let all = [
            names.ca_file,
            names.certificate_file,
            names.private_key_file,
        ];
        self.check_tls(&tls, &all);
        tls
    }

    /// Reports what is wrong with the files of these keys.
    pub(super) fn check_tls(&mut self, tls: &TlsClient, keys: &[&str]) {
        match tls.check() {
            Ok(untimely) => {
                for (key, message) in untimely {
                    if keys.contains(&key) {
                        self.about(key, Finding::warning(message));
                    }
                }
            }
            Err(errors) => {
                for error in errors {
                    let TlsError::File { key, reason, .. } = error else {
                        continue;
                    };
                    // A file that cannot be opened has been reported already.
                    if keys.contains(&key) && !self.unopened.iter().any(|name| name == key) {
                        self.about(key, Finding::error(reason).allowed("a PEM file"));
                    }
                }
            }
        }
    }

    /// Reports about a key, where it was given if it was given.
    pub(super) fn about(&mut self, name: &str, finding: Finding) {
        let finding = match self.given.values.get(name) {
            Some(candidate) => candidate.locate(finding),
            None => finding.at(self.path, None).key(name),
        };
        self.findings.push(finding);
    }

    pub(super) fn derive(&mut self, name: &str, value: &str) {
        self.derived.push((name.to_owned(), shown(value)));
    }
}

/// The parts.
impl Validator<'_> {
    fn instance(&mut self) -> Instance {
        let id = self.text_opt("instance.id").unwrap_or_else(|| {
            let host = hostname::get().unwrap_or_default();
            let id = id_from_host(&host.to_string_lossy());
            self.derive("instance.id", &id);
            id
        });
        let site = self.text_opt("instance.site").unwrap_or_else(|| {
            self.derive("instance.site", &id);
            id.clone()
        });
        Instance { id, site }
    }

    fn peer(&mut self) -> Peer {
        let peer = Peer {
            heartbeat: self.duration("peer.heartbeat"),
            suspect: self.duration("peer.suspect"),
            lost: self.duration("peer.lost"),
        };
        let values = format!(
            "peer.heartbeat = {}, peer.suspect = {}, peer.lost = {}",
            text(peer.heartbeat),
            text(peer.suspect),
            text(peer.lost)
        );
        if peer.suspect <= peer.heartbeat {
            let finding = Finding::error(format!(
                "peer.suspect must be longer than peer.heartbeat; now {values}"
            ));
            self.about(
                "peer.suspect",
                finding.allowed("heartbeat < suspect < lost"),
            );
        } else if peer.suspect < 2 * peer.heartbeat {
            let finding = Finding::warning(format!(
                "one late heartbeat makes a peer suspected; now {values}"
            ));
            self.about(
                "peer.suspect",
                finding.allowed("best three times peer.heartbeat"),
            );
        }
        if peer.lost <= peer.suspect {
            let finding = Finding::error(format!(
                "peer.lost must be longer than peer.suspect; now {values}"
            ));
            self.about("peer.lost", finding.allowed("heartbeat < suspect < lost"));
        }
        peer
    }

    fn agent(&self) -> Agent {
        Agent {
            states_interval: self.duration("agent.states-interval"),
            not_ready_reason: self.text_opt("agent.not-ready-reason"),
            logout_reason: self.text_opt("agent.logout-reason"),
            supervisor_not_ready_reason: self.text_opt("agent.supervisor-not-ready-reason"),
            supervisor_logout_reason: self.text_opt("agent.supervisor-logout-reason"),
            make_ready: self.bool("agent.make-ready"),
        }
    }

    fn control(&mut self) -> Control {
        let control = Control {
            key: self.secret("control.key"),
            previous_key: self.secret("control.previous-key"),
        };
        self.warn_of_guessable("control.key", control.key.as_ref());
        match (&control.key, &control.previous_key) {
            (None, Some(_)) if !self.failed("control.key") => {
                self.about(
                    "control.previous-key",
                    Finding::error("control.key is missing")
                        .allowed("control.key, with or without control.previous-key"),
                );
            }
            (Some(key), Some(previous)) if key == previous => {
                self.about(
                    "control.previous-key",
                    Finding::warning("it is the same as control.key"),
                );
            }
            _ => {}
        }
        control
    }

    fn data_dir(&mut self, id: &str) -> PathBuf {
        let text = self.text_opt("data.dir").unwrap_or_else(|| {
            let text = format!("./data/{id}");
            self.derive("data.dir", &text);
            text
        });
        PathBuf::from(text)
    }

    /// Every key with its value and origin, in the table's order.
    fn effective(&self) -> Vec<Effective> {
        let mut lines = Vec::new();
        for key in SCHEMA {
            let mut given: Vec<&Candidate> = self
                .given
                .values
                .values()
                .filter(|c| c.key.name == key.name)
                .collect();
            let number = |name: &str| name.rsplit('.').next().and_then(|n| n.parse::<u16>().ok());
            given.sort_by_key(|c| (number(&c.name), c.name.clone()));
            let mut own: Vec<Effective> = given
                .iter()
                .map(|c| Effective {
                    key: c.name.clone(),
                    value: c.shown.clone(),
                    origin: c.origin_text(),
                })
                .collect();
            // What was made of a given value is what counts.
            own.retain(|line| !self.derived.iter().any(|(name, _)| *name == line.key));
            let derived = self.derived.iter().filter(|(name, _)| belongs(name, key));
            own.extend(derived.map(|(name, value)| Effective {
                key: name.clone(),
                value: value.clone(),
                origin: "derived".into(),
            }));
            own.sort_by_key(|line| number(&line.key));
            let indexed = key.max_index > 0 || key.name.contains("NAME");
            if own.is_empty() && !indexed {
                let (value, origin) = match key.default {
                    Default_::Is(_) if key.kind.is_secret() => (REDACTED, "default"),
                    Default_::Is(text) => (text, "default"),
                    _ => ("", "not set"),
                };
                own.push(Effective {
                    key: key.name.into(),
                    value: value.into(),
                    origin: origin.into(),
                });
            }
            lines.extend(own);
        }
        lines
    }
}

fn belongs(name: &str, key: &schema::Key) -> bool {
    if key.max_index == 0 {
        return name == key.name;
    }
    let stem = key.name.trim_end_matches('N');
    name.strip_prefix(stem)
        .is_some_and(|rest| rest.parse::<u16>().is_ok())
}

/// A duration as a property file has it.
pub(super) fn text(duration: Duration) -> String {
    duration_text(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A host name as an instance id: up to the first dot, lower case, other characters as dashes, at
/// most 32 characters; `tandem` where nothing is left.
fn id_from_host(host: &str) -> String {
    let first = host
        .split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let clean: String = first
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .take(32)
        .collect();
    match clean.trim_matches('-') {
        "" => "tandem".into(),
        id => id.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_become_ids() {
        assert_eq!(id_from_host("GC_Host-1.site.example"), "gc-host-1");
        assert_eq!(id_from_host("Zürich"), "z-rich");
        assert_eq!(id_from_host(""), "tandem");
        assert_eq!(id_from_host("..."), "tandem");
        assert_eq!(id_from_host(&"a".repeat(60)).len(), 32);
    }
}
