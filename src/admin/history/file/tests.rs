use super::*;
use crate::admin::History;

fn rows(dir: &Path) -> Vec<String> {
    let (rows, _) = read(dir).unwrap();
    rows.into_iter().map(|row| row.to).collect()
}

/// As many as wanted, each with its number.
fn fill(dir: &Path, number: usize) {
    let history = History::open(dir);
    for n in 0..number {
        history.reloaded(&format!("{n}"), "SIGHUP");
        if n % 500 == 499 {
            // What does not find room in the queue is not in the file.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    history.close();
}

#[test]
fn what_was_told_is_there_after_a_restart_and_numbers_rise() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 3);
    assert_eq!(rows(dir.path()), ["0", "1", "2"]);
    let history = History::open(dir.path());
    assert_eq!(history.entries().len(), 3);
    history.reloaded("again", "");
    let entries = history.entries();
    assert!(entries[0].id > entries[1].id);
    history.close();
    assert_eq!(rows(dir.path()), ["0", "1", "2", "again"]);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(dir.path().join(NAME)).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_torn_line_is_passed_over_and_the_next_one_stands_alone() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 2);
    let path = dir.path().join(NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 20);
    bytes.extend(b"\xff{");
    std::fs::write(&path, bytes).unwrap();
    fill(dir.path(), 1);
    assert_eq!(rows(dir.path()), ["0", "0"]);
    assert_eq!(read(dir.path()).unwrap().1, 1);
}

#[test]
fn two_files_of_a_bounded_size() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(250);
    let mut page = Page::new(dir.path());
    let line = |n: u64| {
        let mut entry = super::super::make("reload", "settings", &long);
        entry.id = n;
        serde_json::to_string(&entry).unwrap()
    };
    for n in 0..20_000 {
        page.waiting.push_back(line(n));
        if page.waiting.len() == 100 {
            page.write();
        }
    }
    page.write();
    for name in [NAME, FORMER] {
        let size = std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size <= LARGEST, "{name}: {size}");
    }
    let (rows, unreadable) = read(dir.path()).unwrap();
    assert_eq!((rows.last().unwrap().id, unreadable), (19_999, 0));
    assert!(rows.len() > 5_000, "{}", rows.len());
}

#[test]
fn a_file_that_cannot_be_written_stops_nothing_and_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    // Root writes where it may not; into a folder nobody does.
    let path = dir.path().join(NAME);
    std::fs::create_dir(&path).unwrap();
    let history = History::open(dir.path());
    history.reloaded("a", "");
    assert_eq!(history.entries().len(), 1);
    history.close();
    let mut page = Page::new(dir.path());
    page.waiting.push_back("{}".to_owned());
    page.write();
    assert!(page.failed);
    std::fs::remove_dir(&path).unwrap();
    page.write();
    assert!(!page.failed && page.waiting.is_empty());
}

/// What a rotation from outside does: moved away, removed, cut short.
#[test]
fn a_file_that_is_taken_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    let history = History::open(dir.path());
    let tell = |word: &str| {
        history.reloaded(word, "");
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !std::fs::read_to_string(&path).is_ok_and(|text| text.contains(word)) {
            assert!(
                std::time::Instant::now() < deadline,
                "{word} is not in the file"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::read_to_string(&path).unwrap()
    };
    tell("first");
    let away = dir.path().join("history.jsonl-20260101");
    std::fs::rename(&path, &away).unwrap();
    assert!(!tell("second").contains("first"));
    assert!(std::fs::read_to_string(&away).unwrap().contains("first"));
    std::fs::remove_file(&path).unwrap();
    assert!(!tell("third").contains("second"));
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    let cut = tell("fourth");
    assert!(cut.starts_with('{') && !cut.contains("third"), "{cut:?}");
    assert_eq!(history.entries().len(), 4);
    history.close();
    assert_eq!(rows(dir.path()), ["fourth"]);
}

#[test]
fn a_full_disk_leaves_a_torn_line_and_then_goes_on() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 1);
    let mut page = Page::new(dir.path());
    page.file = Some(full);
    let entry = super::super::make("reload", "settings", "late");
    let mut entry = serde_json::to_value(entry).unwrap();
    entry["id"] = u64::MAX.into();
    page.waiting.push_back(entry.to_string());
    page.write();
    assert!(page.failed && page.waiting.len() == 1);
    page.write();
    assert_eq!(rows(dir.path()), ["0", "late"]);
}
