//! A command's trace goes with all that it causes; its life is told stage by stage.

use super::support::*;
use crate::api::command::Outbound;
use crate::model::Trace;
use crate::peer::{PeerMessage, Role, TraceRow};
use crate::wire::message::RawMessage;
use crate::{Event, Input};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn traced(kind: &str, body: &str, id: &str) -> RawMessage {
    RawMessage {
        trace: Trace::read(PARENT, Some("vendor=1")),
        ..message(kind, body, id)
    }
}

fn stages(rig: &Rig, id: &str) -> Vec<&'static str> {
    let told = rig.events.iter().filter_map(|event| match event {
        Event::Stage { tag, stage } if tag.is_known_by(id) => Some(stage.word()),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_trace_goes_with_the_request_the_reply_and_the_event_and_none_is_made_up() {
    for (raw, wanted) in [
        (traced("MakeReady#1001", "", "a1"), Some(PARENT.to_owned())),
        (message("MakeReady#1001", "", "a1"), None),
    ] {
        let mut rig = Rig::with_agent();
        rig.forget_published();
        rig.deliver(raw);
        let call = rig.calls.last().unwrap();
        let parent = |trace: &std::sync::Arc<Trace>| trace.parent().to_owned();
        assert_eq!(call.trace.as_ref().map(parent), wanted);
        let request = call.request_id.clone();
        rig.notify_state("1001", "READY", Some(&request));
        assert_eq!(rig.told_traces("desk"), std::slice::from_ref(&wanted));
        let reply = rig
            .published
            .iter()
            .find_map(|(_, _, message)| match message {
                Outbound::Reply { cause, .. } => Some(cause.trace.as_ref().map(parent)),
                _ => None,
            });
        assert_eq!(reply, Some(wanted));
    }
}

#[test]
fn a_forwarded_command_takes_its_trace_along_also_one_that_was_made_here() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.deliver(traced("MakeReady#1001", "", "a1"));
    rig.advance_with_peer(500, &mut seq, Role::Leader, 127);
    let (_, _, raw) = rig.forwards().first().cloned().unwrap();
    assert_eq!(raw.trace.unwrap().parent(), PARENT);
}

#[test]
fn one_that_is_made_follows_from_the_commands_id() {
    let mut config = config();
    config.parse.generate_traces = true;
    let trace = |id: &str, at: u64| {
        let raw = message("MakeReady#1001", "", id);
        let command = crate::wire::command::parse(&raw, &config.parse, at).unwrap();
        command.trace.unwrap().parent().to_owned()
    };
    assert_eq!(trace("a1", 1), trace("a1", 2));
    assert_ne!(trace("a1", 1), trace("a2", 1));
    let given = traced("MakeReady#1001", "", "a1");
    let command = crate::wire::command::parse(&given, &config.parse, 1).unwrap();
    assert_eq!(command.trace.unwrap().parent(), PARENT);
}

#[test]
fn the_life_of_a_command_is_told_in_order_and_its_end_says_all() {
    let mut rig = Rig::with_agent();
    rig.deliver(traced("MakeCall#1001", "5000", "m1"));
    rig.confirm_all();
    assert_eq!(
        stages(&rig, "m1"),
        [
            "received",
            "intent",
            "calling",
            "called",
            "finished",
            "reply",
            "acknowledged"
        ]
    );
    assert_eq!(stages(&rig, "corr-m1").len(), 7);
    let finished = rig.events.iter().find_map(|event| match event {
        Event::CommandFinished {
            tag,
            downstream,
            status,
            request_id,
            ..
        } if tag.command_id.as_deref() == Some("m1") => Some((
            tag.addressee.clone(),
            downstream.is_some(),
            *status,
            request_id.clone(),
        )),
        _ => None,
    });
    let wanted = ("1001".to_owned(), true, Some(202), Some("m1".to_owned()));
    assert_eq!(finished, Some(wanted));
}

#[test]
fn a_member_that_asks_is_told_and_the_journal_is_found_by_the_id_alone() {
    let mut rig = Rig::with_agent();
    let mut seq = 0;
    rig.hear(&mut seq);
    rig.deliver(message("MakeCall#1001", "5000", "m1"));
    rig.forget_published();
    let ask = PeerMessage::TraceAsk {
        number: 7,
        id: "m1".to_owned(),
    };
    rig.peer("gc-2", ask);
    let (to, number, id, journal) = rig.trace_tells.pop().unwrap();
    assert_eq!((to, number, id.as_str()), (Some(instance("gc-2")), 7, "m1"));
    let words: Vec<&str> = journal.iter().map(|row| row.stage.as_str()).collect();
    assert!(words.contains(&"journal-intent"), "{words:?}");
    assert_eq!(journal[0].addressee, "1001");
    let rows: Vec<TraceRow> = journal;
    let told = Input::TraceTold {
        to: instance("gc-2"),
        number: 7,
        rows: rows.clone(),
    };
    rig.input(told);
    let answered = rig
        .said
        .iter()
        .any(|(_, message)| matches!(message, PeerMessage::TraceAnswer { number: 7, .. }));
    assert!(answered);
    rig.peer("gc-2", PeerMessage::TraceAnswer { number: 9, rows });
    assert_eq!(rig.traced[0].1, 9);
    let long = PeerMessage::TraceAsk {
        number: 8,
        id: "x".repeat(256),
    };
    rig.peer("gc-2", long);
    assert!(rig.trace_tells.is_empty());
}
