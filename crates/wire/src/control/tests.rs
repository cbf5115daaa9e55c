use super::*;
use crate::model::{AgentId, Destination};
use crate::peer::{IntentRecord, SessionRecord, Version};

const PASSWORD: &str = "planted-Passw0rd";

fn id(text: &str) -> InstanceId {
    InstanceId::new(text).unwrap()
}

fn secret(byte: char) -> Secret {
    Secret::new(byte.to_string().repeat(32))
}

fn keys(current: Option<char>, previous: Option<char>, instance: &str) -> Keys {
    let (current, previous) = (current.map(secret), previous.map(secret));
    Keys::new(
        current.as_ref(),
        previous.as_ref(),
        "tandem",
        id(instance),
        BootId(7),
    )
}

fn sealer(key: Option<char>) -> Sealer {
    Sealer::new(keys(key, None, "gc-1"))
}

fn opener(key: Option<char>) -> Opener {
    Opener::new(keys(key, None, "gc-2"))
}

fn delta() -> PeerMessage {
    PeerMessage::Delta {
        sessions: vec![SessionRecord {
            agent: AgentId::new("1001").unwrap(),
            version: Version {
                epoch: 3,
                rank: 0,
                owner: id("gc-1"),
                counter: 4,
            },
            destination: Destination::new("crm-1").unwrap(),
            extension: Some("5001".into()),
            password: Secret::new(PASSWORD),
            mobile: None,
            watched: Vec::new(),
            signed_in: true,
            user: None,
            tombstone: false,
            group: String::new(),
            newest_change: None,
            node: None,
        }],
        destinations: Vec::new(),
        outcomes: Vec::new(),
    }
}

fn reason(result: Result<(InstanceId, BootId, PeerMessage), Rejected>) -> &'static str {
    result.unwrap_err().reason
}

/// Seals a JSON text as a message of another version of the product would be.
fn seal_text(sealer: &mut Sealer, json: &str) -> Vec<u8> {
    sealer.sequence += 1;
    let header = Header {
        keyed: true,
        key_id: sealer.keys.current().id,
        cluster: "tandem",
        sender: "gc-1",
        recipient: "",
        boot: 7,
        sequence: sealer.sequence,
        nonce: random_nonce().unwrap(),
    };
    let mut sealed = header.write();
    let cipher = sealer
        .keys
        .cipher(sealer.keys.current(), Purpose::Message, "gc-1");
    let body = keys::encrypt(&cipher, &header.nonce, json.as_bytes(), &sealed).unwrap();
    sealed.extend_from_slice(&body);
    sealed
}

#[test]
fn a_message_arrives_as_it_was_sent() {
    let sealed = sealer(Some('k')).seal(None, &delta()).unwrap();
    let (from, boot, message) = opener(Some('k')).open(&sealed).unwrap();
    assert_eq!((from, boot), (id("gc-1"), BootId(7)));
    assert_eq!(message, delta());
}

#[test]
fn the_password_is_not_in_the_bytes_and_is_sealed_inside_too() {
    let mut sealer = sealer(Some('k'));
    let sealed = sealer.seal(None, &delta()).unwrap();
    let planted = PASSWORD.as_bytes();
    assert!(!sealed.windows(planted.len()).any(|part| part == planted));

    let (header, bytes, body) = Header::read(&sealed).unwrap();
    let cipher = sealer
        .keys
        .cipher(sealer.keys.current(), Purpose::Message, "gc-1");
    let plain = keys::decrypt(&cipher, &header.nonce, body, bytes).unwrap();
    let text = std::str::from_utf8(&plain).unwrap();
    assert!(text.contains("1001"));
    assert!(!text.contains(PASSWORD));
}

#[test]
fn any_changed_byte_is_noticed() {
    let sealed = sealer(Some('k')).seal(None, &PeerMessage::Hello).unwrap();
    for index in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[index] ^= 1;
        assert!(opener(Some('k')).open(&changed).is_err(), "byte {index}");
    }
    for length in 0..sealed.len() {
        assert!(opener(Some('k')).open(&sealed[..length]).is_err());
    }
}

#[test]
fn a_message_is_accepted_once() {
    let sealed = sealer(Some('k')).seal(None, &PeerMessage::Hello).unwrap();
    let mut opener = opener(Some('k'));
    opener.open(&sealed).unwrap();
    let rejected = opener.open(&sealed).unwrap_err();
    assert_eq!(rejected.reason, "replayed");
    assert_eq!(rejected.claimed, Some(id("gc-1")));
}

#[test]
fn messages_may_overtake_each_other_within_the_window() {
    let mut sealer = sealer(Some('k'));
    let mut seal = || sealer.seal(None, &PeerMessage::Hello).unwrap();
    let sealed: Vec<_> = (0..=window::WIDTH).map(|_| seal()).collect();
    let mut opener = opener(Some('k'));
    assert!(opener.open(sealed.last().unwrap()).is_ok());
    // The first lies just behind the window, the second just within.
    assert_eq!(reason(opener.open(&sealed[0])), "replayed");
    assert!(opener.open(&sealed[1]).is_ok());
    assert_eq!(reason(opener.open(&sealed[1])), "replayed");
}

#[test]
fn what_is_refused_does_not_use_up_its_number() {
    let mut sealer = sealer(Some('k'));
    let sealed = sealer.seal(None, &PeerMessage::Hello).unwrap();
    let mut forged = sealed.clone();
    *forged.last_mut().unwrap() ^= 1;
    let mut opener = opener(Some('k'));
    assert_eq!(reason(opener.open(&forged)), "wrong_key");
    assert!(opener.open(&sealed).is_ok());
}

#[test]
fn another_boot_counts_anew() {
    let from = |boot| {
        let key = secret('k');
        let keys = Keys::new(Some(&key), None, "tandem", id("gc-1"), BootId(boot));
        Sealer::new(keys).seal(None, &PeerMessage::Hello).unwrap()
    };
    let (first, second) = (from(7), from(8));
    let mut opener = opener(Some('k'));
    for sealed in [&first, &second] {
        assert!(opener.open(sealed).is_ok());
    }
    for sealed in [&first, &second] {
        assert_eq!(reason(opener.open(sealed)), "replayed");
    }
}

#[test]
fn another_clusters_message_is_refused() {
    let key = secret('k');
    let other = Keys::new(Some(&key), None, "other", id("gc-1"), BootId(7));
    let mut sealed = Sealer::new(other).seal(None, &PeerMessage::Hello).unwrap();
    assert_eq!(reason(opener(Some('k')).open(&sealed)), "wrong_key");
    // Nor when it says that it is of this one: the key follows from the cluster's name.
    let name = sealed.windows(6).position(|part| part == b"\x05other");
    let at = name.unwrap();
    sealed.splice(at..at + 6, b"\x06tandem".iter().copied());
    let (header, ..) = Header::read(&sealed).unwrap();
    assert_eq!(header.cluster, "tandem");
    assert_eq!(reason(opener(Some('k')).open(&sealed)), "wrong_key");
}

#[test]
fn another_key_is_refused_and_the_previous_one_accepted() {
    let sealed = sealer(Some('k')).seal(None, &delta()).unwrap();
    assert_eq!(reason(opener(Some('x')).open(&sealed)), "wrong_key");
    let mut rotated = Opener::new(keys(Some('n'), Some('k'), "gc-2"));
    assert_eq!(rotated.open(&sealed).unwrap().2, delta());
}

#[test]
fn keyed_and_unkeyed_instances_refuse_each_other() {
    let keyed = sealer(Some('k')).seal(None, &PeerMessage::Hello).unwrap();
    let unkeyed = sealer(None).seal(None, &PeerMessage::Hello).unwrap();
    assert_eq!(reason(opener(None).open(&keyed)), "wrong_key");
    assert_eq!(reason(opener(Some('k')).open(&unkeyed)), "wrong_key");
    assert!(opener(None).open(&unkeyed).is_ok());
}

#[test]
fn without_a_key_passwords_do_not_travel() {
    let sealed = sealer(None).seal(None, &delta()).unwrap();
    let (_, _, message) = opener(None).open(&sealed).unwrap();
    let PeerMessage::Delta { sessions, .. } = message else {
        panic!("another message");
    };
    assert_eq!(sessions[0].password.expose(), "");
    assert_eq!(sessions[0].agent.as_str(), "1001");
}

#[test]
fn a_message_for_another_instance_is_refused() {
    let mut sealer = sealer(Some('k'));
    let for_us = sealer.seal(Some(&id("gc-2")), &PeerMessage::Hello).unwrap();
    let for_other = sealer.seal(Some(&id("gc-3")), &PeerMessage::Hello).unwrap();
    let mut opener = opener(Some('k'));
    assert!(opener.open(&for_us).is_ok());
    assert_eq!(reason(opener.open(&for_other)), "malformed");
}

#[test]
fn unknown_kinds_and_fields_are_tolerated() {
    let (mut sealer, mut opener) = (sealer(Some('k')), opener(Some('k')));
    let unknown = seal_text(&mut sealer, r#"{"kind":"teleport","to":{"x":[1]}}"#);
    assert_eq!(opener.open(&unknown).unwrap().2, PeerMessage::Unknown);
    let more = seal_text(
        &mut sealer,
        r#"{"kind":"claim","group":"agents","term":4,"mood":"good"}"#,
    );
    let claim = PeerMessage::Claim {
        group: "agents".into(),
        term: 4,
    };
    assert_eq!(opener.open(&more).unwrap().2, claim);
    let broken = seal_text(&mut sealer, "{");
    assert_eq!(reason(opener.open(&broken)), "malformed");
}

#[test]
fn another_version_is_told_from_garbage() {
    let mut sealed = sealer(Some('k')).seal(None, &PeerMessage::Hello).unwrap();
    sealed[4] = 9;
    assert_eq!(reason(opener(Some('k')).open(&sealed)), "version");
    assert_eq!(reason(opener(Some('k')).open(b"hello")), "malformed");
}

#[test]
fn too_large_a_message_is_not_sealed() {
    let message = PeerMessage::Claim {
        group: "g".repeat(MAX_SEALED),
        term: 1,
    };
    assert_eq!(
        sealer(Some('k')).seal(None, &message),
        Err(SealError::TooLarge)
    );
}

#[test]
fn the_memory_of_boots_is_bounded() {
    let mut opener = opener(Some('k'));
    for boot in 0..2 * MAX_WINDOWS as u64 {
        assert!(opener.fresh(&id("gc-1"), BootId(boot), 1));
    }
    assert_eq!(opener.windows.len(), MAX_WINDOWS);
}

#[test]
fn stored_bytes_open_for_the_same_purpose_only() {
    let keys_1 = keys(Some('k'), None, "gc-1");
    let sealed = keys_1.seal_bytes("sessions", PASSWORD.as_bytes()).unwrap();
    let open = |keys: &Keys, purpose| keys.open_bytes(purpose, &sealed).map(|b| b.to_vec());
    assert_eq!(open(&keys_1, "sessions"), Some(PASSWORD.into()));
    assert_eq!(open(&keys_1, "journal"), None);
    assert_eq!(open(&keys(Some('k'), None, "gc-2"), "sessions"), None);
    let rotated = keys(Some('n'), Some('k'), "gc-1");
    assert_eq!(open(&rotated, "sessions"), Some(PASSWORD.into()));
    assert_eq!(
        keys(None, None, "gc-1").seal_bytes("sessions", b"x"),
        Err(SealError::NoKey)
    );
}

#[test]
fn an_intent_of_a_key_that_is_no_agent_id_arrives() {
    let intent = IntentRecord {
        key: [1; 16],
        body: [2; 8],
        until: 10,
        agent: AgentId::key("order:42 \u{fc}").unwrap(),
        command: "Call".into(),
        epoch: 0,
        by: id("gc-1"),
        boot: BootId(7),
        at: 5,
        alone: false,
    };
    let message = PeerMessage::Journal {
        intents: vec![intent],
        outcomes: Vec::new(),
        withdrawn: Vec::new(),
        withdrawn_made: Vec::new(),
        history: false,
    };
    let sealed = sealer(Some('a')).seal(None, &message).unwrap();
    assert_eq!(opener(Some('a')).open(&sealed).unwrap().2, message);
}
