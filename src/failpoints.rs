//! Places where an instance can be made to die, for the tests that show what becomes of a command
//! then. Compiled only with the feature `failpoints`; without the environment variable
//! `TANDEM_FAILPOINT=name[:count]` they do nothing. The process ends as by kill -9 when the named
//! point is reached for the `count`-th time (1 if not given) by a non-idempotent command.
//!
//! | name | dies |
//! | --- | --- |
//! | `delivered` | when the command was delivered, before anything is decided |
//! | `intent-here` | when its intent is on this disk, before any member heard of it |
//! | `intent-both` | when every member has acknowledged the intent, before the call |
//! | `sent` | when the request has left, before its answer |
//! | `answered` | when the answer is there, before the outcome is written |
//! | `outcome-here` | when the outcome is on this disk, before any member heard of it |
//! | `outcome-both` | when every member has the outcome, before the reply |
//! | `confirmed` | when the reply is confirmed, before the acknowledgement |
//!
//! `panic-call`, `panic-session` and `panic-journal` are errors in the program: a panic in the
//! command's request, in an agent's notification session once it stands, in the journal's thread.
//!
//! `stall` does not end the process: its driver stands still when the command is delivered. Nor does
//! `blind-guard`: the guard below the AMQP library lets content headers through unchecked, as if it
//! did not know what the library cannot read.
//!
//! `TANDEM_CLOCK_FILE` names a file that holds by how many milliseconds the wall clock is wrong;
//! no file, no error. So a test can set the clock of one process while it runs.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::catalogue::Repeat;
use crate::engine::command::{
    BrokerCommand, Call, Command, DownstreamCommand, JournalWrite, Outbound, StoreCommand,
};
use crate::engine::ids::DeliveryId;
use crate::engine::input::Input;
use crate::engine::peer::PeerMessage;

/// How long a request is given to leave, where its answer is not waited for.
const LEAVES: Duration = Duration::from_millis(300);

static POINT: LazyLock<Option<(String, u32)>> = LazyLock::new(|| {
    let text = std::env::var("TANDEM_FAILPOINT").ok()?;
    let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
    Some((name.to_owned(), count.parse().unwrap_or(1)))
});

static CLOCK_FILE: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os("TANDEM_CLOCK_FILE").map(PathBuf::from));

/// The wall clock, as wrong as it is to be now; milliseconds.
pub fn skewed(wall: u64) -> u64 {
    let text = CLOCK_FILE
        .as_ref()
        .and_then(|file| std::fs::read_to_string(file).ok());
    let offset: i64 = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    wall.saturating_add_signed(offset)
}

static REACHED: AtomicU32 = AtomicU32::new(0);
/// The record of this instance that the next word of the journal is about.
static WRITTEN: AtomicBool = AtomicBool::new(false);

fn named(name: &str) -> bool {
    POINT.as_ref().is_some_and(|(wanted, _)| wanted == name)
}

/// Whether the guard below the AMQP library knows nothing.
#[must_use]
pub fn blind_guard() -> bool {
    named("blind-guard")
}

/// Whether this is the point, and it is reached often enough.
fn is_reached(name: &str) -> bool {
    POINT.as_ref().is_some_and(|(wanted, count)| {
        wanted == name && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *count
    })
}

/// An error in the program, where this is the point.
///
/// # Panics
/// That is what it is for.
pub fn fail(name: &str) {
    assert!(!is_reached(name), "failpoint {name}");
}

/// Ends the process where this is the point, and it is reached often enough.
fn reach(name: &str) {
    if is_reached(name) {
        tracing::error!(name, "failpoint");
        let own = nix::unistd::getpid();
        let _ = nix::sys::signal::kill(own, nix::sys::signal::Signal::SIGKILL);
        // The signal ends every thread; this one must do nothing meanwhile.
        loop {
            std::thread::park();
        }
    }
}

/// Looks at an input before the engine gets it.
pub fn on_input(input: &Input) {
    match input {
        Input::Delivery(delivery) => {
            let unsafe_one =
                |command: &crate::wire::command::ClientCommand| command.spec.repeat != Repeat::Safe;
            if delivery.command.as_ref().is_ok_and(unsafe_one) {
                note_delivery(delivery.id);
                if named("stall") {
                    loop {
                        std::thread::park();
                    }
                }
                reach("delivered");
            }
        }
        Input::Journaled { failure: None, .. } if WRITTEN.load(Ordering::SeqCst) => {
            reach("intent-here");
            reach("outcome-here");
        }
        _ => {}
    }
}

static DELIVERIES: std::sync::Mutex<Vec<DeliveryId>> = std::sync::Mutex::new(Vec::new());

fn note_delivery(id: DeliveryId) {
    if named("confirmed")
        && let Ok(mut known) = DELIVERIES.lock()
    {
        known.push(id);
    }
}

/// Looks at a command before it is carried out. `false`: it is not carried out.
#[must_use]
pub fn on_command(command: &Command) -> bool {
    match command {
        Command::Store(StoreCommand::Journal { write, .. }) => match write.as_ref() {
            JournalWrite::Intent(_) if named("intent-here") => {
                WRITTEN.store(true, Ordering::SeqCst);
            }
            JournalWrite::Outcome(_) if named("outcome-here") => {
                WRITTEN.store(true, Ordering::SeqCst);
            }
            _ => {}
        },
        Command::Downstream(DownstreamCommand::Call(call)) if !call.action.idempotent() => {
            reach("intent-both")
        }
        Command::Broker(BrokerCommand::Ack(id)) => {
            let known = DELIVERIES.lock();
            if known.is_ok_and(|known| known.contains(id)) {
                reach("confirmed");
            }
        }
        Command::Broker(BrokerCommand::Publish { message, .. }) => match message {
            Outbound::Peer { message, .. } => return heard(message),
            Outbound::Reply { reply, .. } => {
                let spec = crate::catalogue::find(&reply.command);
                if spec.is_some_and(|spec| spec.repeat != Repeat::Safe) {
                    reach("outcome-both");
                }
            }
            _ => {}
        },
        _ => {}
    }
    true
}

/// Members hear nothing of a record that is to be on this disk only.
fn heard(message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Journal {
            intents, outcomes, ..
        } => {
            let intent = named("intent-here") && !intents.is_empty();
            let outcome = named("outcome-here") && !outcomes.is_empty();
            !intent && !outcome
        }
        PeerMessage::Delta { outcomes, .. } => !named("outcome-here") || outcomes.is_empty(),
        _ => true,
    }
}

/// Runs a request, and ends the process when it has left or when its answer is there.
pub async fn around_call<T>(call: &Call, request: impl Future<Output = T>) -> T {
    if call.action.idempotent() {
        return request.await;
    }
    fail("panic-call");
    if !(named("sent") || named("answered")) {
        return request.await;
    }
    tokio::pin!(request);
    if named("sent") {
        tokio::select! {
            answer = &mut request => {
                reach("sent");
                return answer;
            }
            () = tokio::time::sleep(LEAVES) => reach("sent"),
        }
    }
    let answer = request.await;
    reach("answered");
    answer
}
