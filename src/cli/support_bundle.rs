//! `tandem support-bundle`: one archive for those who help, without secrets.

mod scrub;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::client::{Admin, ClientError, Target};
use super::{block_on, exit, output};
use crate::engine::View;
use crate::journal::JournalError;
use crate::settings::{self, Loaded, Settings};
use crate::{admin, data_dir, doctor, journal};

use scrub::Scrub;

/// Last bytes of a log file that are taken.
const LOG: u64 = 2 * 1024 * 1024;
/// What is asked of each instance.
const ASKED: [&str; 4] = ["status", "groups", "history", "network"];

/// Arguments of `tandem support-bundle`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Holds the configuration as `tandem check` shows it, status, groups, history, network, metrics and
last log lines of the instance and of its peers, the doctor's report, what is known of the journal,
of a stopped instance the history in its data.dir, and the end of further log files that --log
names. Peers are found by the addresses that they tell (admin.page-url), and by --peer; one that is
found is shown the token over https or on this machine only, and where the cluster has a
control.key. Every file is searched for each secret of the configuration, which is replaced. What
cannot be had is said in its place. Agents' ids may be in log and history: look before you send it.
Exit codes: 0 written; 1 it cannot be written; 64 usage",
group(clap::ArgGroup::new("site").args(["config"]).required(true)))]
pub struct Args {
    /// Which site; its property file is needed.
    #[command(flatten)]
    pub target: Target,
    /// Admin address of a peer that is not found, or is to be shown the token; again for each
    #[arg(long, value_name = "URL")]
    pub peer: Vec<String>,
    /// Log file whose end is taken; again for each
    #[arg(long, value_name = "FILE")]
    pub log: Vec<PathBuf>,
    /// New file [default: tandem-support-<instance.id>.tar]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Leave the doctor out, who takes some seconds and sends probes
    #[arg(long)]
    pub no_doctor: bool,
}

/// One file of the archive.
type Part = (String, String);

/// Writes it and says where.
#[must_use]
pub fn run(args: Args, json: bool) -> ExitCode {
    // The definition demands it.
    let file = args.target.config.clone().unwrap_or_default();
    block_on(async move {
        let (parts, scrub, id) = match settings::load_from_process(&file) {
            Ok(loaded) => {
                let parts = collect(&args, &loaded).await;
                let scrub = Scrub::of(&loaded.settings);
                (parts, scrub, loaded.settings.instance.id)
            }
            // That is why help is wanted.
            Err(findings) => {
                let parts = vec![("config.txt".to_owned(), findings.to_string())];
                (parts, Scrub::default(), "unknown".to_owned())
            }
        };
        let name = PathBuf::from(format!("tandem-support-{id}.tar"));
        let out = args.out.clone().unwrap_or(name);
        match write(&out, &parts, &scrub) {
            Ok(()) => {
                let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
                output::print(&match json {
                    true => format!("{:#}\n", json!({ "file": out, "holds": names })),
                    false => format!("{}: {}\n", out.display(), names.join(", ")),
                });
                exit::DONE
            }
            Err(error) => {
                complain!("tandem: {}: {error}", out.display());
                exit::FAILED
            }
        }
    })
}

fn write(out: &Path, parts: &[Part], scrub: &Scrub) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(data_dir::new_file(out)?);
    let now = chrono::Utc::now().timestamp();
    for (name, text) in parts {
        let text = scrub.clean(text);
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now).unwrap_or_default());
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    archive.into_inner()?.sync_all()
}

async fn collect(args: &Args, loaded: &Loaded) -> Vec<Part> {
    let mut parts = vec![
        ("about.txt".to_owned(), about(loaded)),
        ("config.txt".to_owned(), config(loaded)),
    ];
    let settings = &loaded.settings;
    let own = args.target.place_of(settings).and_then(Admin::at);
    let mut view = None;
    match &own {
        Ok(admin) => {
            instance(admin, "instance", &mut parts).await;
            view = admin.status().await.ok();
        }
        Err(error) => parts.push(("instance/error.txt".to_owned(), error.to_string())),
    }
    let found = view.as_ref().map(|view| others(view, &args.peer));
    if found.is_none() {
        parts.push(("history.jsonl".to_owned(), kept_history(settings)));
    }
    let given = args.peer.iter().map(|url| (url.clone(), true));
    let found = found.unwrap_or_default().into_iter();
    let found = found.map(|url| (url, false));
    for (n, (url, given)) in (1..).zip(given.chain(found)) {
        let folder = format!("peer-{n}");
        match peer(args, settings, url, given) {
            Ok(admin) => instance(&admin, &folder, &mut parts).await,
            Err(error) => parts.push((format!("{folder}/error.txt"), error.to_string())),
        }
    }
    if let (Ok(admin), false) = (&own, args.no_doctor) {
        let report = doctor::examine(settings, admin, doctor::PATIENCE).await;
        let text = match report {
            Ok(report) => format!("{:#}", json!(report.findings)),
            Err(error) => error.to_string(),
        };
        parts.push(("doctor.json".to_owned(), text));
    }
    parts.push((
        "journal.txt".to_owned(),
        journal_summary(&settings.data_dir, &parts),
    ));
    for (n, log) in (1..).zip(&args.log) {
        let text = tail(log).unwrap_or_else(|error| format!("{}: {error}", log.display()));
        parts.push((format!("log-{n}.txt"), text));
    }
    parts
}

fn about(loaded: &Loaded) -> String {
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    format!(
        "tandem {} on {} {}\nwritten {now}\nproperty file {}\ninstance {}\n",
        crate::VERSION,
        std::env::consts::OS,
        std::env::consts::ARCH,
        loaded.path.display(),
        loaded.settings.instance.id
    )
}

fn config(loaded: &Loaded) -> String {
    let mut text = String::new();
    for line in &loaded.effective {
        text += &format!("{} = {}    # {}\n", line.key, line.value, line.origin);
    }
    for warning in &loaded.warnings {
        text += &format!("{warning}\n");
    }
    text
}

/// What one instance tells.
async fn instance(admin: &Admin, folder: &str, parts: &mut Vec<Part>) {
    for what in ASKED {
        let told: Result<Value, _> = admin.get(&[what]).await;
        let text = match told {
            Ok(value) => format!("{value:#}\n"),
            Err(error) => format!("{error}\n"),
        };
        parts.push((format!("{folder}/{what}.json"), text));
    }
    let log: Result<Vec<String>, _> = admin.get(&["log"]).await;
    let text = log.map_or_else(|error| format!("{error}\n"), |lines| lines.concat());
    parts.push((format!("{folder}/log.txt"), text));
    let metrics = admin.metrics().await;
    let text = metrics.unwrap_or_else(|error| error.to_string());
    parts.push((format!("{folder}/metrics.txt"), text));
}

/// Addresses that present peers tell of themselves, those aside that are given by hand.
fn others(view: &View, given: &[String]) -> Vec<String> {
    let plain = |url: &str| url.trim_end_matches('/').to_owned();
    let given: Vec<String> = given.iter().map(|url| plain(url)).collect();
    let pages = view.peers.iter().map(|peer| plain(&peer.standing.page));
    let mut found: Vec<String> = pages
        .filter(|page| !page.is_empty() && *page != plain(&view.page))
        .filter(|page| !given.contains(page))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// A peer by its address. One that nobody has named here is shown the token only where it has
/// proved who it is, and where nobody on the way can read it.
fn peer(args: &Args, settings: &Settings, url: String, given: bool) -> Result<Admin, ClientError> {
    let target = Target {
        url: Some(url),
        ..args.target.clone()
    };
    let mut place = target.place_of(settings)?;
    let host = place.url.host_str().unwrap_or_default();
    let ip: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    let near = ip.is_ok_and(|ip| ip.is_loopback());
    let proved = settings.control.key.is_some() && place.url.scheme() == "https";
    if !given && !near && !proved {
        place.token = None;
    }
    Admin::at(place)
}

/// What a stopped instance has written down, one row a line.
fn kept_history(settings: &Settings) -> String {
    match admin::read_history(&settings.data_dir) {
        Ok((rows, _)) => rows.iter().map(|row| format!("{}\n", json!(row))).collect(),
        Err(error) => format!("{error}\n"),
    }
}

/// Metrics that tell of the journal and of what it is for.
const TELLING: [&str; 5] = [
    "tandem_journal_failures_total",
    "tandem_journal_fsync_seconds_count",
    "tandem_in_doubt_total",
    "tandem_double_effects_total",
    "tandem_ledger_overflows_total",
];

fn journal_summary(dir: &Path, parts: &[Part]) -> String {
    match journal::read(dir) {
        // It keeps the file to itself, and tells this much.
        Err(JournalError::InUse { .. }) => {
            let metrics = parts
                .iter()
                .find(|(name, _)| name == "instance/metrics.txt");
            let lines = metrics.map_or("", |(_, text)| text).lines();
            let told = lines.filter(|line| TELLING.iter().any(|name| line.starts_with(name)));
            let told: String = told.map(|line| format!("{line}\n")).collect();
            format!("in use by the running instance, which counts since its start:\n{told}")
        }
        Ok(kept) => format!(
            "{} calls that may have been made, {} outcomes, {} members\n",
            kept.intents.len(),
            kept.outcomes.len(),
            kept.members.len()
        ),
        Err(error) => format!("{error}\n"),
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG)))?;
    let mut bytes = Vec::new();
    file.take(LOG).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::Fixture;

    const SECRETS: [&str; 9] = [
        "broker-pw-hunter2",
        "url/pw@hunter3",
        "0123456789abcdef0123456789abcdef",
        "fedcba9876543210fedcba9876543210",
        "admin-hunter4",
        "finesse-hunter5",
        "entrance-hunter6",
        "callback-hunter7",
        "fedcba98765432100123456789abcdef",
    ];

    fn file(folder: &Path) -> PathBuf {
        let path = folder.join("site.properties");
        let text = format!(
            "instance.id=gc-1\nbroker.url.1=localhost:1\n\
             broker.url.2=amqp://me:url%2Fpw%40hunter3@localhost:2\n\
             broker.management-url.1=http://me:{0}@localhost:3\n\
             broker.password={0}\ncontrol.key={1}\ncontrol.previous-key={2}\n\
             admin.listen=127.0.0.1:1\nadmin.token={3}\n\
             downstream.url.1=http://localhost:8080/finesse/api\n\
             downstream.admin-user=a\ndownstream.admin-password={4}\n\
             rest.listen=127.0.0.1:4\nrest.token={5}\n\
             rest.callback.allow.1=http://localhost:5/\n\
             rest.callback.token={6}\nrest.callback.sign-key={7}\n\
             data.dir={8}\n",
            SECRETS[0],
            SECRETS[2],
            SECRETS[3],
            SECRETS[4],
            SECRETS[5],
            SECRETS[6],
            SECRETS[7],
            SECRETS[8],
            folder.join("data").display()
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn no_secret_of_the_configuration_is_anywhere_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(
            &log,
            format!("{}\nurl%2Fpw%40hunter3\n", SECRETS.join("\n")),
        )
        .unwrap();
        let out = folder.path().join("out.tar");
        let args = || Args {
            target: Target {
                config: Some(file(folder.path())),
                ..Target::default()
            },
            peer: vec!["http://127.0.0.1:1".to_owned()],
            log: vec![log.clone()],
            out: Some(out.clone()),
            no_doctor: true,
        };
        assert_eq!(run(args(), true), ExitCode::from(exit::DONE));
        let bytes = std::fs::read(&out).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for secret in SECRETS.iter().chain(&["url%2Fpw%40hunter3", "hunter"]) {
            assert!(!text.contains(secret), "{secret}");
        }
        for part in [
            "about.txt",
            "config.txt",
            "instance/status.json",
            "peer-1/metrics.txt",
            "instance/log.txt",
            "journal.txt",
            "log-1.txt",
            "broker.url.1 = localhost:1",
        ] {
            assert!(text.contains(part), "{part}");
        }
        assert_eq!(bytes.len() % 512, 0);
        // Not over another one.
        assert_eq!(run(args(), true), ExitCode::from(exit::FAILED));
        let listed = std::process::Command::new("tar")
            .arg("-tf")
            .arg(&out)
            .output();
        if let Ok(listed) = listed {
            assert!(listed.status.success());
            let names = String::from_utf8_lossy(&listed.stdout);
            assert!(names.contains("instance/history.json\n"), "{names}");
        }
    }

    fn args(config: PathBuf) -> Args {
        Args {
            target: Target {
                config: Some(config),
                ..Target::default()
            },
            peer: Vec::new(),
            log: Vec::new(),
            out: None,
            no_doctor: true,
        }
    }

    fn part<'a>(parts: &'a [Part], name: &str) -> &'a str {
        let found = parts.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("{name} in {parts:#?}"), |(_, text)| text)
    }

    fn site(folder: &Path, listen: &str) -> Loaded {
        let text = format!(
            "instance.id=gc-1\nbroker.url.1=localhost:1\nadmin.listen={listen}\n\
             downstream.url.1=http://localhost:8080/finesse/api\ndata.dir={}\n",
            folder.display()
        );
        let path = folder.join("own.properties");
        std::fs::write(&path, text).unwrap();
        settings::load(&path, &|_| None).unwrap()
    }

    #[tokio::test]
    async fn peers_are_found_by_what_they_tell_and_a_running_ones_journal_by_its_metrics() {
        let folder = tempfile::tempdir().unwrap();
        let own = Fixture::start("127.0.0.1:0", None).await;
        let other = Fixture::start("127.0.0.1:0", None).await;
        let mut view = crate::testing::view();
        view.peers[0].standing.page = format!("{}/", other.base);
        own.views.send_replace(std::sync::Arc::new(view.clone()));
        let listen = own.base.strip_prefix("http://").unwrap();
        let loaded = site(folder.path(), listen);
        let open = journal::Journal::open(folder.path(), false, 1, Box::new(|_, _, _| {}));
        let parts = collect(&args(loaded.path.clone()), &loaded).await;
        assert!(part(&parts, "peer-1/status.json").contains("\"gc-1\""));
        assert!(part(&parts, "journal.txt").starts_with("in use by the running instance"));
        assert!(parts.iter().all(|(name, _)| name != "history.jsonl"));
        drop(open);
        // Once, where it is named as well; and not this instance itself.
        assert_eq!(others(&view, std::slice::from_ref(&other.base)).len(), 0);
        view.peers[0].standing.page.clone_from(&view.page);
        assert_eq!(others(&view, &[]).len(), 0);
    }

    #[tokio::test]
    async fn a_stopped_instances_history_is_read_from_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let row = r#"{"id":1,"at":"2026-11-21T17:02:43.012Z","kind":"role","subject":"agents","to":"leader"}"#;
        std::fs::write(folder.path().join("history.jsonl"), format!("{row}\n")).unwrap();
        let loaded = site(folder.path(), "127.0.0.1:1");
        let parts = collect(&args(loaded.path.clone()), &loaded).await;
        let kept = part(&parts, "history.jsonl");
        assert!(kept.contains("2026-11-21T17:02:43.012Z"), "{kept}");
    }

    #[test]
    fn a_found_peer_is_shown_the_token_only_where_it_is_safe() {
        let folder = tempfile::tempdir().unwrap();
        let loaded = settings::load(&file(folder.path()), &|_| None).unwrap();
        let mut settings = loaded.settings;
        let args = args(loaded.path);
        let shown = |settings: &Settings, url: &str, given| {
            let admin = peer(&args, settings, url.to_owned(), given).unwrap();
            admin.has_token()
        };
        assert!(shown(&settings, "http://gc-2.example:9601", true));
        assert!(!shown(&settings, "http://gc-2.example:9601", false));
        assert!(shown(&settings, "https://gc-2.example:9601", false));
        assert!(shown(&settings, "http://127.0.0.1:9602", false));
        settings.control.key = None;
        assert!(!shown(&settings, "https://gc-2.example:9601", false));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("site.properties");
        std::fs::write(&config, "broker.pasword=hunter2\n").unwrap();
        let out = folder.path().join("out.tar");
        let args = Args {
            target: Target {
                config: Some(config),
                ..Target::default()
            },
            peer: Vec::new(),
            log: Vec::new(),
            out: Some(out.clone()),
            no_doctor: true,
        };
        assert_eq!(run(args, false), ExitCode::from(exit::DONE));
        let text = String::from_utf8_lossy(&std::fs::read(&out).unwrap()).into_owned();
        assert!(text.contains("did you mean broker.password") && !text.contains("hunter2"));
    }
}
