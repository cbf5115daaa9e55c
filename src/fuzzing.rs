//! Entry points for fuzzing: bytes in, no panic out, and what must hold of whatever was understood.
//!
//! Driven by `tests/fuzz.rs` (bounded and seeded, on stable Rust) and by hand with `scripts/fuzz`.
//! Not part of the interface.

use std::cell::RefCell;
use std::io::Write;

use bytes::Bytes;

use crate::catalogue::{self, Step};
use crate::engine::ids::BootId;
use crate::engine::peer::PeerMessage;
use crate::finesse::{self, api_error, system_info, update};
use crate::model::{Action, AgentId, InstanceId, ReasonCategory, Secret};
use crate::wire::command::{Defaults, MAX_DEADLINE_AHEAD_MS, parse, redacted_body};
use crate::wire::control::{Keys, Opener, Sealer};
use crate::wire::http_call;
use crate::wire::message::RawMessage;

/// A target: its name and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. Each has a folder of its name under `tests/data/fuzz`.
pub const TARGETS: [Target; 6] = [
    ("amqp", amqp),
    ("command", command),
    ("properties", properties),
    ("xml", xml),
    ("xmpp", xmpp),
    ("control", control),
];

/// The clock of the targets, milliseconds since the epoch.
const NOW: u64 = 1_900_000_000_000;

/// What a broker sends: through the guard, then the AMQP library's parser.
pub fn amqp(data: &[u8]) {
    crate::broker::guard::fuzz::amqp(data);
}

/// A command: the first byte chooses the form, the first line is the type, the rest the body.
pub fn command(data: &[u8]) {
    let (flags, data) = data.split_first().map_or((0, data), |(f, rest)| (*f, rest));
    let at = data.iter().position(|b| *b == b'\n').unwrap_or(0);
    let (kind, body) = data.split_at(at);
    let kind = String::from_utf8_lossy(kind).into_owned();
    let raw = RawMessage {
        kind: (flags & 1 == 0).then_some(kind),
        body: Bytes::copy_from_slice(body),
        content_type: (flags & 2 != 0).then(|| "application/json".to_owned()),
        reply_to: (flags & 4 != 0).then(|| String::from_utf8_lossy(body).into_owned()),
        message_id: (flags & 8 != 0).then(|| "m-1".to_owned()),
        deadline: (flags & 16 != 0).then_some(i64::from(flags) - 100),
        ..RawMessage::default()
    };
    let defaults = Defaults {
        max_age_ms: 30_000,
        cluster_name: "tandem".to_owned(),
        generate_traces: false,
        command_queues: vec!["Connector1".to_owned()],
    };
    match parse(&raw, &defaults, NOW) {
        Ok(command) => {
            assert!(command.deadline_ms <= NOW + MAX_DEADLINE_AHEAD_MS);
            for arg in command.spec.args {
                assert!(arg.missing.is_none() || command.args.get(arg.name).is_some());
            }
            plan(&command.args, command.spec);
        }
        Err(malformed) => assert!(malformed.id.chars().count() <= 200),
    }
    // What is shown of it never is a password.
    assert!(redacted_body(&raw).len() <= raw.body.len().max(200));
}

fn plan(args: &catalogue::Args, spec: &catalogue::CommandSpec) {
    let subject = catalogue::Subject {
        extension: Some("7001"),
        ..catalogue::Subject::default()
    };
    let agent = AgentId::new("1001").ok();
    let actions = match spec.step {
        Step::SignIn(plan) | Step::Request(plan) => plan(&subject, args).map(|one| vec![one]),
        Step::Sequence(plan) | Step::Requests(plan) | Step::Query(plan) => plan(&subject, args),
        Step::Http => {
            if let Ok(call) = http_call::parse(args) {
                // The one form of a path is the form that it has already.
                assert_eq!(http_call::normalise(&call.path), Some(call.path.clone()));
                assert!(!call.path.contains("/../") && !call.path.contains("//"));
            }
            return;
        }
        _ => return,
    };
    for action in actions.unwrap_or_default() {
        if let Some(agent) = &agent
            && let Ok(request) = finesse::request::build(agent, &action)
        {
            assert!(request.path.starts_with('/') && !request.path.contains("/../"));
            assert!(request.path.is_ascii());
        }
    }
}

thread_local! {
    static FILE: RefCell<Option<tempfile::NamedTempFile>> = const { RefCell::new(None) };
}

/// A property file, all the way to settings or findings.
pub fn properties(data: &[u8]) {
    FILE.with(|file| {
        let mut file = file.borrow_mut();
        if file.is_none() {
            *file = tempfile::NamedTempFile::new().ok();
        }
        let Some(file) = file.as_mut() else { return };
        let written = std::fs::File::create(file.path()).and_then(|mut file| file.write_all(data));
        if written.is_ok()
            && let Err(findings) = crate::settings::load(file.path(), &|_| None)
        {
            assert!(!findings.to_string().is_empty());
        }
    });
}

/// Answers of the platform's REST interface.
pub fn xml(data: &[u8]) {
    let _ = api_error::document(data);
    let _ = system_info::document(data);
    for action in [
        Action::ReadUser,
        Action::ReadDialogs,
        Action::ReadDialog {
            dialog: "1".to_owned(),
        },
        Action::ReadReasons(ReasonCategory::NotReady),
        Action::ReadUsers,
        Action::ReadTeam {
            team: "1".to_owned(),
        },
        Action::ReadQueues,
        Action::ReadPhoneBooks { team: None },
        Action::ReadContacts {
            book: "1".to_owned(),
        },
    ] {
        let _ = finesse::answer(&action, data);
    }
}

/// Notifications: what the service sends over a stream, and the payload inside.
pub fn xmpp(data: &[u8]) {
    for node in [
        "/finesse/api/User/1001",
        "/finesse/api/User/1001/Dialogs",
        "/finesse/api/Team/1/Users",
        "/finesse/api/SystemInfo",
    ] {
        let _ = update::parse(node, Some("i"), data);
    }
    // However it is cut, it says the same.
    crate::notify::read_stream(data);
}

/// Peer messages: sealed bytes from anybody, and messages of a peer that has the key.
pub fn control(data: &[u8]) {
    let secret = Secret::new("k".repeat(32));
    let keys = |name: &str| {
        let instance = InstanceId::new(name).ok()?;
        Some(Keys::new(
            Some(&secret),
            None,
            "tandem",
            instance,
            BootId(7),
        ))
    };
    let (Some(own), Some(other)) = (keys("gc-1"), keys("gc-2")) else {
        return;
    };
    let mut opener = Opener::new(own);
    let _ = opener.open(data);
    if let Ok(message) = serde_json::from_slice::<PeerMessage>(data)
        && let Ok(sealed) = Sealer::new(other).seal(None, &message)
        && let Ok((from, _, opened)) = opener.open(&sealed)
    {
        assert_eq!(from.as_str(), "gc-2");
        assert_eq!(opened, message);
    }
}
