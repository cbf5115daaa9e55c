//! Whole files: what loads, what is refused and how it is said.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::schema::SCHEMA;
use super::*;

mod certificates;
mod contradictions;
mod entrance;
mod origins;
mod pairs;
mod shipped;

const KEY: &str = "6b1d9f3e07a84c52b6e8d4013f97ac25";
const LEAST: &str = "instance.id=gc-1\nbroker.url.1=localhost\ndownstream.url.1=http://localhost:8080/finesse/api\n";

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn load_with(text: &str, env: &[(&str, &str)]) -> Result<Loaded, Findings> {
    let files = Files::new();
    let path = files.write("site.properties", text);
    let env: BTreeMap<_, _> = env
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let names: Vec<String> = env.keys().cloned().collect();
    load_named(&path, &|name| env.get(name).cloned(), &names)
}

fn good(text: &str) -> Loaded {
    load_with(&format!("{LEAST}{text}"), &[]).unwrap_or_else(|e| panic!("{e}"))
}

fn errors(text: &str) -> Vec<String> {
    let findings = load_with(&format!("{LEAST}{text}"), &[]).expect_err("it should not load");
    findings.errors().map(ToString::to_string).collect()
}

fn one_error(text: &str) -> String {
    let mut all = errors(text);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

fn origin<'a>(loaded: &'a Loaded, key: &str) -> (&'a str, &'a str) {
    let line = loaded
        .effective
        .iter()
        .find(|line| line.key == key)
        .unwrap();
    (&line.value, &line.origin)
}

#[test]
fn the_least_file_has_the_contracts_defaults() {
    let loaded = good("");
    let s = &loaded.settings;
    assert_eq!(
        (s.cluster_name.as_str(), s.mode, s.instance.site.as_str()),
        ("tandem", Mode::ActivePassive, "gc-1")
    );
    assert_eq!(
        s.broker.urls[0].amqp,
        "amqp://guest:guest@localhost:5672/%2F"
    );
    assert_eq!(s.broker.urls[0].management.url, "http://localhost:15672");
    assert!(!s.broker.randomize && s.broker.priority_backup && s.broker.backup && !s.broker.fence);
    let ms = |d: Duration| d.as_millis();
    assert_eq!(
        (
            ms(s.broker.failback_hold),
            ms(s.broker.timeout),
            ms(s.broker.heartbeat)
        ),
        (5000, 10_000, 2000)
    );
    assert_eq!(
        (
            ms(s.broker.reconnect_delay),
            ms(s.broker.reconnect_delay_max)
        ),
        (100, 5000)
    );
    assert_eq!(
        s.groups,
        [Group {
            name: "agents".into(),
            queues: vec!["Connector1".into()],
            priority: None,
            hash_weight: 1,
        }]
    );
    assert_eq!(
        (
            ms(s.command_max_age),
            s.consumer.priority,
            s.consumer.prefetch
        ),
        (30_000, 127, 1000)
    );
    assert_eq!(
        (ms(s.peer.heartbeat), ms(s.peer.suspect), ms(s.peer.lost)),
        (500, 1500, 3000)
    );
    assert_eq!((ms(s.takeback_hold), s.takeover_rate), (10_000, 200));
    assert_eq!(
        s.downstream.nodes,
        [Node {
            url: "http://localhost:8080/finesse/api".into(),
            address: "localhost".into()
        }]
    );
    assert_eq!(
        (
            ms(s.downstream.request_timeout),
            ms(s.downstream.probe_interval)
        ),
        (3000, 5000)
    );
    assert!(s.downstream.tls_verify && !s.downstream.failback && s.downstream.admin.is_none());
    assert_eq!(
        (ms(s.agent.states_interval), s.agent.make_ready),
        (5000, false)
    );
    assert_eq!((s.notify.port, s.notify.tls), (5223, NotifyTls::Direct));
    assert_eq!(
        (ms(s.notify.connect_timeout), ms(s.notify.ping_interval)),
        (10_000, 3000)
    );
    assert_eq!(
        (s.message_format, s.control.key.is_none()),
        (MessageFormat::Json, true)
    );
    assert_eq!(
        (s.data_dir.as_path(), s.admin.listen.to_string()),
        (Path::new("./data/gc-1"), "127.0.0.1:9601".into())
    );
    assert_eq!(
        (ms(s.shutdown_grace), s.log.format, s.log.level.as_str()),
        (10_000, LogFormat::Text, "info")
    );
    assert_eq!(loaded.warnings, []);
}

#[test]
fn every_error_is_reported_at_once_with_file_line_key_value_and_allowed() {
    let all = errors(
        "peer.lost=3\nconsumer.priority=128\nmode=both\nnotify.port=x\nbroker.heartbeat=1500ms\nbad=\\u00zz\nfoo.bar=1\n",
    );
    assert_eq!(all.len(), 7, "{all:#?}");
    for (error, (line, needle)) in all.iter().zip([
        (
            4,
            "peer.lost = 3: a duration needs a unit (allowed: a whole number with a unit",
        ),
        (
            5,
            "consumer.priority = 128: out of range (allowed: a whole number, 0 to 127)",
        ),
        (6, "mode = both"),
        (7, "notify.port = x"),
        (8, "broker.heartbeat = 1500ms: not whole seconds"),
        (9, "cannot be read"),
        (10, "foo.bar = 1: unknown key"),
    ]) {
        assert!(
            error.contains(&format!("site.properties:{line}: ")) && error.contains(needle),
            "{error}"
        );
    }
}

#[test]
fn unknown_keys_get_the_nearest_key_and_hide_what_may_be_a_password() {
    let error = one_error("broker.pasword=hunter2\n");
    assert!(
        error.contains("did you mean broker.password?") && !error.contains("hunter2"),
        "{error}"
    );
    let error = one_error("admin.tokn=hunter2\n");
    assert!(
        error.contains("did you mean admin.token") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn a_brokers_address_without_its_host_does_not_show_the_password() {
    let error = one_error("broker.url.3=amqp://u:hunter2\n");
    assert!(
        error.contains("broker.url.3 = amqp://u:[redacted]") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn a_key_given_twice_with_different_values_names_both() {
    let error = one_error("broker.timeout=5s\nActiveMq_Timeout=10000\n");
    assert!(
        error.contains("broker.timeout") && error.contains("ActiveMq_Timeout"),
        "{error}"
    );
    assert!(
        error.contains("site.properties:4") && error.contains("site.properties:5"),
        "{error}"
    );
    let error = one_error(
        "control.key=6b1d9f3e07a84c52b6e8d4013f97ac25\nCONTROL.KEY=7b1d9f3e07a84c52b6e8d4013f97ac25\n",
    );
    assert!(
        error.contains("control.key") && !error.contains("b1d9f3e07a"),
        "{error}"
    );
    assert_eq!(
        good("broker.timeout=10s\nActiveMq_Timeout=10000\n")
            .settings
            .broker
            .timeout,
        Duration::from_secs(10)
    );
}

#[test]
fn aliases_take_the_originals_units() {
    let loaded = good(
        "ACTIVEMQ_TIMEOUT=30000\nFINESSE_REQUEST_TIMEOUT=3000\nfinesse_heartbeat_sleep=7\nAGENT_XMPP_SUBS_TIME=9000\n\
         XMPP_PING_INTERVAL=4\nMAKE_AGENT_READY=True\nLOGLEVEL=ALL\nMESSAGE_FORMAT=DEFAULT\nPREFETCH_SIZE=20000\n\
         AGENT_STATES_PUBLISHER_DURATION=6000\nSupervisor_initiated_NotReadyReasonCode=19\nDEFAULT_LOGOUT_REASON=70\nByPass_SSL=false\n",
    );
    let s = &loaded.settings;
    assert_eq!(
        (s.broker.timeout, s.downstream.probe_interval),
        (Duration::from_secs(30), Duration::from_secs(7))
    );
    assert_eq!(
        (s.downstream.request_timeout, s.notify.connect_timeout),
        (Duration::from_secs(3), Duration::from_secs(9))
    );
    assert_eq!(
        (s.notify.ping_interval, s.agent.states_interval),
        (Duration::from_secs(4), Duration::from_secs(6))
    );
    assert!(
        s.agent.make_ready && s.downstream.tls_verify && s.message_format == MessageFormat::Default
    );
    assert_eq!(
        (s.log.level.as_str(), s.consumer.prefetch),
        ("trace", 20_000)
    );
    assert_eq!(s.agent.supervisor_not_ready_reason.as_deref(), Some("19"));
    assert_eq!(s.agent.logout_reason.as_deref(), Some("70"));
    assert!(one_error("ActiveMq_Timeout=10s\n").contains("milliseconds"));
    assert!(one_error("MESSAGE_FORMAT=XML\n").contains("XML events are not supported"));
    assert!(one_error("log.format=xml\n").contains("not one of the possible words"));
}

#[test]
fn the_originals_table_prints_its_first_broker_twice() {
    let table = |second: &str| {
        format!(
            "instance.id=gc-1\nACTIVEMQ1=b1:5672\nActiveMQ1=b2:5672\n{second}Finesse_1=http://f/finesse/api\n\
             ByPass_SSL=ture\n"
        )
    };
    let loaded = load_with(&table(""), &[]).unwrap();
    let urls = loaded.settings.broker.urls.iter();
    let hosts: Vec<_> = urls.map(|url| url.label.as_str()).collect();
    assert_eq!(hosts, ["b1:5672", "b2:5672"]);
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    let words = "ActiveMQ1 = b2:5672: given twice, as in the original's table";
    assert!(warnings.iter().any(|w| w.contains(words)), "{warnings:#?}");
    // What the file says, not what it means here.
    let words = "ByPass_SSL = ture: certificates are not checked";
    assert!(warnings.iter().any(|w| w.contains(words)), "{warnings:#?}");
    assert!(!loaded.settings.downstream.tls_verify);

    let findings = load_with(&table("ACTIVEMQ2=b3:5672\n"), &[]).unwrap_err();
    assert!(
        findings.to_string().contains("was already given"),
        "{findings}"
    );
}

#[test]
fn a_variable_that_looks_like_a_key_and_is_none_is_warned_of() {
    let warnings = |names: &[(&str, &str)]| -> Vec<String> {
        let given = names
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let findings = source::unknown_variables(given);
        assert!(findings.iter().all(|finding| !finding.is_error()));
        findings.iter().map(ToString::to_string).collect()
    };
    let said = warnings(&[("TANDEM_BROKER_PASWORD", "x")]);
    assert!(
        said[0].contains("did you mean TANDEM_BROKER_PASSWORD?"),
        "{said:?}"
    );
    for known in [
        "TANDEM_BROKER_PASSWORD",
        "TANDEM_BROKER_PASSWORD_FILE",
        "TANDEM_BROKER_URL_2",
        "TANDEM_ACTIVEMQ1",
        "TANDEM_GROUP_NIGHT_QUEUES",
        "TANDEM_NOTIFY_PORT",
        "TANDEM_FAILPOINT",
        "PATH",
    ] {
        assert!(warnings(&[(known, "x")]).is_empty(), "{known}");
    }
    for (none, allowed) in [
        ("TANDEM_BROKER_URL_17", "broker.url.N with N from 1 to 16"),
        ("TANDEM_BROKER_URL_0", "broker.url.N with N from 1 to 16"),
        ("TANDEM_BROKER_URL_01", "broker.url.N with N from 1 to 16"),
        ("TANDEM_BROKER_URL_99999999", "broker.url.N with N from 1"),
        ("TANDEM_FINESSE_3", "Finesse_N with N from 1 to 2"),
        ("TANDEM_GROUP_AGENTS_QUEUES", "group.NAME.queues with NAME"),
        ("TANDEM_GROUP_night_PRIORITY", "group.NAME.priority with"),
    ] {
        let said = warnings(&[(none, "x")]);
        let ours = format!("{none}: this variable is no key and not used");
        assert!(said[0].contains(&ours), "{said:?}");
        assert!(said[0].contains(allowed), "{said:?}");
    }
}

/// What a container gets in a namespace with Services `tandem`, `tandem-notify` and
/// `tandem-broker-url`.
const SERVICES: [(&str, &str); 12] = [
    ("TANDEM_NOTIFY_PORT", "tcp://10.0.0.7:5223"),
    ("TANDEM_NOTIFY_PORT_5223_TCP", "tcp://10.0.0.7:5223"),
    ("TANDEM_NOTIFY_PORT_5223_TCP_ADDR", "10.0.0.7"),
    ("TANDEM_NOTIFY_PORT_5223_TCP_PORT", "5223"),
    ("TANDEM_NOTIFY_PORT_5223_TCP_PROTO", "tcp"),
    ("TANDEM_NOTIFY_SERVICE_HOST", "10.0.0.7"),
    ("TANDEM_NOTIFY_SERVICE_PORT", "5223"),
    ("TANDEM_NOTIFY_SERVICE_PORT_XMPP", "5223"),
    ("TANDEM_BROKER_URL_PORT", "sctp://[fd00::7]:5672"),
    ("TANDEM_PORT", "udp://10.0.0.8:9601"),
    ("TANDEM_SERVICE_HOST", "10.0.0.8"),
    ("TANDEM_SERVICE_PORT", "9601"),
];

#[test]
fn variables_that_kubernetes_makes_for_services_are_no_settings() {
    let loaded = load_with(LEAST, &SERVICES).unwrap();
    assert_eq!(loaded.settings.notify.port, 5223);
    assert_eq!(origin(&loaded, "notify.port").1, "default");
    let said: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    let passed = |said: &&String| said.contains("TANDEM_NOTIFY_PORT: made by Kubernetes");
    assert_eq!(said.iter().filter(passed).count(), 1, "{said:?}");
    // What the file says counts.
    let loaded = load_with(&format!("{LEAST}notify.port=5222\n"), &SERVICES).unwrap();
    assert_eq!(loaded.settings.notify.port, 5222);
    let given = load_with(LEAST, &[("TANDEM_NOTIFY_PORT", "5222")]).unwrap();
    assert_eq!(given.settings.notify.port, 5222);

    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let all = source::unknown_variables(SERVICES.iter().map(text));
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    let begin = "warning: TANDEM_BROKER_URL_PORT, TANDEM_NOTIFY_PORT_5223_TCP, \
                 TANDEM_NOTIFY_PORT_5223_TCP_ADDR and 8 more: made by Kubernetes";
    assert!(all[0].starts_with(begin), "{all:?}");
}

#[test]
fn keys_without_meaning_are_accepted_with_a_warning_that_names_them() {
    let loaded = good(
        "GC_HEARTBEAT_SLEEP=10000\nUSE_ENCRYPTED_PASSWORDS=true\nUSE_ENCRYPTED_PASSWORDS=false\nREDIS_PASSWORD=hunter2\n",
    );
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 4);
    assert!(warnings[0].contains("GC_HEARTBEAT_SLEEP") && warnings[0].contains("peer.heartbeat"));
    assert!(!warnings.concat().contains("hunter2"));
    assert_eq!(loaded.settings.peer.heartbeat, Duration::from_millis(500));
    for ignored in alias::IGNORED {
        assert!(
            good(&format!("{}=1\n", ignored.name.to_lowercase())).warnings[0]
                .key
                .is_some()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_file_makes_loading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let files = Files::new();
        prop_assert!(load(&files.write("x", &bytes), &|_| None).is_err());
    }

    #[test]
    fn no_value_of_any_key_makes_loading_panic_or_show_a_secret(at in 0..SCHEMA.len(), value in "[ -~ä\\\\]{0,40}") {
        let name = SCHEMA[at].name.replace(".N", ".1").replace("NAME", "x");
        let files = Files::new();
        let text = format!("{name}=SENTINEL{value}\n");
        let result = load(&files.write("x", &text), &|_| None);
        let shown = match result { Ok(loaded) => format!("{loaded:?}"), Err(findings) => format!("{findings:?}") };
        prop_assert!(!SCHEMA[at].kind.is_secret() || !shown.contains("SENTINEL"));
    }
}
