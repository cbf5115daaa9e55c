//! The file, its thread, and what becomes of both when the disk fails.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use super::file::File;
use super::*;
use crate::database::testing::flaky;
use crate::engine::ids::BootId;
use crate::engine::peer::{IntentRecord, OutcomeRecord};
use crate::model::{AgentId, InstanceId};
use crate::wire::reply::{Outcome, Reply};

const WALL: u64 = 1_700_000_000_000;

fn intent(n: u8, until: u64) -> IntentRecord {
    IntentRecord {
        key: [n; 16],
        body: [n; 8],
        until,
        agent: AgentId::new("1001").unwrap(),
        command: "MakeCall".into(),
        epoch: 3,
        by: InstanceId::new("gc-1").unwrap(),
        boot: BootId(7),
        at: WALL,
        alone: false,
    }
}

fn outcome(n: u8, until: u64) -> OutcomeRecord {
    OutcomeRecord {
        resolved: false,
        key: [n; 16],
        body: [n; 8],
        until,
        reply: Reply {
            command: "MakeCall".into(),
            id: "1001".into(),
            outcome: Outcome::Accepted,
            status: Some(202),
            instance: "gc-1".into(),
            downstream: None,
            error: None,
            retry_after_ms: None,
            body: Some(serde_json::json!("planted-secret").into()),
        },
    }
}

type Heard = Receiver<(Vec<JournalId>, Option<String>)>;

fn open(dir: &Path, accept_loss: bool) -> Result<(Journal, Restored, Heard), JournalError> {
    let (tell, heard) = channel();
    let told: Told = Box::new(move |ids, failure, _| {
        let _ = tell.send((ids, failure));
    });
    let (journal, restored) = Journal::open(dir, accept_loss, WALL, told)?;
    Ok((journal, restored, heard))
}

/// Waits until that many writes are answered; the first failure.
fn answered(heard: &Heard, mut count: usize) -> Option<String> {
    let mut first = None;
    while count > 0 {
        let (ids, failure) = heard.recv().unwrap();
        count -= ids.len();
        first = first.or(failure);
    }
    first
}

const LATE: u64 = u64::MAX / 2;

#[test]
fn what_was_answered_is_there_after_reopening_and_holds_no_body() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, restored, heard) = open(dir.path(), false).unwrap();
    assert!(restored.intents.is_empty());
    let member = InstanceId::new("gc-2").unwrap();
    let writes = [
        JournalWrite::Intent(intent(1, LATE)),
        JournalWrite::Intent(intent(2, LATE)),
        JournalWrite::Intent(intent(3, LATE)),
        JournalWrite::Outcome(outcome(2, LATE)),
        JournalWrite::Withdraw([3; 16]),
        JournalWrite::Member(member.clone(), 5),
    ];
    for (n, write) in writes.into_iter().enumerate() {
        journal.submit(JournalId(n as u64), write).unwrap();
    }
    assert_eq!(answered(&heard, 6), None);
    drop(journal);
    let file = std::fs::metadata(dir.path().join(FILE)).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let bytes = std::fs::read(dir.path().join(FILE)).unwrap();
    let planted = b"planted-secret";
    assert!(!bytes.windows(planted.len()).any(|part| part == planted));
    let kept = read(dir.path()).unwrap();
    assert_eq!(kept.intents, [intent(1, LATE), intent(2, LATE)]);
    assert_eq!(kept.outcomes.len(), 1);
    assert_eq!(kept.outcomes[0].reply.outcome, Outcome::Accepted);
    assert_eq!(kept.members, [(member, 5)]);
    let summary = check(dir.path()).unwrap();
    assert_eq!((summary.open, summary.finished), (1, 1));
    assert!(!summary.mended);
}

#[test]
fn what_is_past_its_time_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _, heard) = open(dir.path(), false).unwrap();
    for (n, write) in [
        JournalWrite::Intent(intent(1, 1)),
        JournalWrite::Intent(intent(2, 2)),
        JournalWrite::Outcome(outcome(2, LATE)),
    ]
    .into_iter()
    .enumerate()
    {
        journal.submit(JournalId(n as u64), write).unwrap();
    }
    assert_eq!(answered(&heard, 3), None);
    let write = JournalWrite::Intent(intent(3, LATE));
    journal.submit(JournalId(9), write).unwrap();
    assert_eq!(answered(&heard, 1), None);
    drop(journal);
    let kept = read(dir.path()).unwrap();
    let keys: Vec<u8> = kept.intents.iter().map(|intent| intent.key[0]).collect();
    assert_eq!(keys, [3]);
    assert_eq!(kept.outcomes.len(), 1, "it lasts longer than its intent");
}

#[test]
fn an_open_journal_is_in_use_and_a_missing_one_missing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        read(dir.path()),
        Err(JournalError::Missing { .. })
    ));
    let journal = open(dir.path(), false).unwrap();
    assert!(matches!(read(dir.path()), Err(JournalError::InUse { .. })));
    let again = open(dir.path(), true).map(|_| ());
    assert!(matches!(again, Err(JournalError::InUse { .. })));
    drop(journal);
    assert!(read(dir.path()).is_ok());
}

#[test]
fn a_damaged_file_is_refused_until_its_loss_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE), "not a journal at all").unwrap();
    let error = open(dir.path(), false).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("--accept-journal-loss"), "{error}");
    let (journal, restored, heard) = open(dir.path(), true).unwrap();
    assert!(restored.lost_until > WALL);
    let write = JournalWrite::Intent(intent(1, LATE));
    journal.submit(JournalId(1), write).unwrap();
    assert_eq!(answered(&heard, 1), None);
    drop(journal);
    let kept = read(dir.path()).unwrap();
    assert_eq!(kept.lost_until, restored.lost_until, "also after a restart");
    let aside = dir.path().join(format!("journal.lost-{WALL}"));
    assert_eq!(std::fs::read(aside).unwrap(), b"not a journal at all");
}

#[test]
fn a_torn_tail_is_mended_or_refused_but_never_taken_for_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _, heard) = open(dir.path(), false).unwrap();
    for n in 0..200 {
        let write = JournalWrite::Intent(intent(n, LATE));
        journal.submit(JournalId(u64::from(n)), write).unwrap();
        assert_eq!(answered(&heard, 1), None);
    }
    drop(journal);
    let path = dir.path().join(FILE);
    let whole = std::fs::read(&path).unwrap();
    for cut in [whole.len() / 3, whole.len() / 2, whole.len() - 4_096] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        match open(dir.path(), false) {
            Ok((_, restored, _)) => assert_eq!(restored.intents.len(), 200, "cut at {cut}"),
            Err(error) => assert!(error.to_string().contains("--accept-journal-loss")),
        }
    }
}

#[test]
fn after_a_failed_sync_the_handle_is_never_used_again_and_a_copy_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let opened = Arc::default();
    let (mut file, _) = File::open(dir.path(), false, WALL, flaky(&fails, &opened)).unwrap();
    let first = JournalWrite::Intent(intent(1, LATE));
    file.write(&[&first], WALL).unwrap();
    fails.store(true, Ordering::SeqCst);
    let second = JournalWrite::Intent(intent(2, LATE));
    assert!(file.write(&[&second], WALL).is_err());
    assert!(
        file.write(&[&second], WALL).is_err(),
        "the copy fails as well"
    );
    fails.store(false, Ordering::SeqCst);
    let before = opened.load(Ordering::SeqCst);
    let third = JournalWrite::Intent(intent(3, LATE));
    file.write(&[&third], WALL).unwrap();
    assert_eq!(opened.load(Ordering::SeqCst), before + 1);
    drop(file);
    let kept = read(dir.path()).unwrap();
    let keys: Vec<u8> = kept.intents.iter().map(|intent| intent.key[0]).collect();
    assert!(keys.contains(&1) && keys.contains(&3), "{keys:?}");
}

#[test]
fn a_file_that_cannot_be_made_smaller_is_read_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _, heard) = open(dir.path(), false).unwrap();
    let write = JournalWrite::Intent(intent(1, LATE));
    journal.submit(JournalId(1), write).unwrap();
    assert_eq!(answered(&heard, 1), None);
    drop(journal);
    let fails = Arc::new(AtomicBool::new(false));
    let opened = Arc::default();
    let inner = flaky(&fails, &opened);
    let times = opened.clone();
    // The disk is full once the file is open, and until it is opened again.
    let opener: database::Opener = Box::new(move |path| {
        fails.store(false, Ordering::SeqCst);
        let db = inner(path)?;
        fails.store(times.load(Ordering::SeqCst) == 1, Ordering::SeqCst);
        Ok(db)
    });
    let path = dir.path().join(FILE);
    let (_, restored) = super::file::open_and_read(&path, &opener, 0).unwrap();
    assert_eq!(restored.intents, [intent(1, LATE)]);
    assert_eq!(opened.load(Ordering::SeqCst), 2, "it was not made smaller");
}

#[test]
fn a_queue_that_is_full_is_told_from_one_that_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, disk) = testing::on_a_hung_disk(dir.path());
    let submit = |n: u64| journal.submit(JournalId(n), JournalWrite::Withdraw([1; 16]));
    let taken = (0..).take_while(|n| submit(*n).is_ok()).count();
    assert_eq!((taken, submit(0)), (QUEUE, Err(NotTaken::Full)));
    drop(disk);
    drop(journal);
    let (queue, waiting) = sync_channel(1);
    drop(waiting);
    let (queue, thread) = (Some(queue), None);
    let journal = Journal { queue, thread };
    let write = JournalWrite::Withdraw([1; 16]);
    assert_eq!(journal.submit(JournalId(1), write), Err(NotTaken::Ended));
}

#[test]
fn a_full_disk_fails_writes_and_room_brings_them_back() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(true));
    let opened = Arc::default();
    fails.store(false, Ordering::SeqCst);
    let (file, _) = File::open(dir.path(), false, WALL, flaky(&fails, &opened)).unwrap();
    let (queue, waiting) = std::sync::mpsc::sync_channel(8);
    let (tell, heard) = channel();
    let told: Told = Box::new(move |ids, failure, _| {
        let _ = tell.send((ids, failure));
    });
    let thread = std::thread::spawn(move || writer::run(file, &waiting, &told));
    let write = |n: u8| {
        let write = JournalWrite::Intent(intent(n, LATE));
        queue.send((JournalId(u64::from(n)), write)).unwrap();
        answered(&heard, 1)
    };
    assert_eq!(write(1), None);
    fails.store(true, Ordering::SeqCst);
    assert!(write(2).is_some());
    assert!(write(3).is_some(), "while it rests, at once");
    fails.store(false, Ordering::SeqCst);
    let mut n = 4;
    while write(n).is_some() {
        n += 1;
        std::thread::sleep(Duration::from_millis(50));
        assert!(n < 200, "it never comes back");
    }
    drop(queue);
    thread.join().unwrap();
    let kept = read(dir.path()).unwrap();
    let keys: Vec<u8> = kept.intents.iter().map(|intent| intent.key[0]).collect();
    assert!(keys.contains(&1) && keys.contains(&n), "{keys:?}");
}
