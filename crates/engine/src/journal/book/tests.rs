use super::*;

#[test]
fn an_entry_that_gives_way_to_newer_ones_is_owed_to_nobody() {
    let mut book = Book::default();
    let member = InstanceId::new("gc-2").unwrap();
    let outcome = |until| OutcomeRecord {
        resolved: false,
        key: [1; 16],
        body: [0; 8],
        until,
        reply: crate::wire::reply::Reply {
            command: CALL.into(),
            id: "1001".into(),
            outcome: Outcome::Accepted,
            status: None,
            instance: "gc-2".into(),
            downstream: None,
            error: None,
            retry_after_ms: None,
            body: None,
        },
    };
    book.change([1; 16], |entry| entry.outcome = Some(outcome(1)));
    let owed = Owed {
        keys: BTreeSet::from([[1; 16]]),
        under_way: BTreeSet::from([[1; 16]]),
        sent_at: 0,
    };
    book.owed.insert(member.clone(), owed);
    for n in 0..limits::JOURNAL_ENTRIES as u128 {
        let later = OutcomeRecord {
            key: n.to_be_bytes(),
            ..outcome(2)
        };
        book.change(later.key, |entry| entry.outcome = Some(later));
    }
    assert_eq!(book.entries.len(), limits::JOURNAL_ENTRIES);
    assert_eq!(book.calls.len(), limits::JOURNAL_ENTRIES);
    assert!(book.is_settled(&member));
    assert!(book.owed[&member].under_way.is_empty());
    book.sweep(Now { mono: 0, wall: 2 });
    assert!(book.entries.is_empty() && book.calls.is_empty());
}

#[test]
fn names_that_come_and_go_are_bounded_and_who_is_there_stays() {
    let mut book = Book::default();
    let id = |n| InstanceId::new(&format!("gc-{n}")).unwrap();
    for n in 0..2 * limits::KNOWN_MEMBERS {
        book.restore_member(id(n), n as u64 + 1, Now { mono: 1, wall: 9 });
    }
    book.note_heard(&id(0), Now { mono: 2, wall: 9 });
    assert_eq!(book.known_members().count(), limits::KNOWN_MEMBERS);
    assert!(book.knows_member(&id(0)) && book.knows_member(&id(2 * limits::KNOWN_MEMBERS - 1)));
}
