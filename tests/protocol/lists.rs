//! Lists, and the states of all agents.

use crate::support::Shared;
use crate::talk::{Form, Talk, pair};

pub async fn lists(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-lists").await;
    talk.sign_in(&[1015]).await;
    let holds = async |line: &str, words: &[&str]| {
        let message = talk.sees(line).await;
        for word in words {
            assert!(message.text.contains(word), "{word}: {}", message.text);
        }
    };
    for (command, args, line, words) in [
        (
            "reasoncodenotready",
            &[][..],
            "1015 ReasonCodes",
            &["Lunch", "NOT_READY"][..],
        ),
        (
            "reasoncodelogout",
            &[],
            "1015 ReasonCodes",
            &["End of shift", "LOGOUT"],
        ),
        ("wrapupreasoncode", &[], "1015 ReasonCodes", &["Call back"]),
        ("getallagents", &[], "1015 AgentsList", &["7015"]),
        (
            "GetPhonebooks",
            &[],
            "1015 Phonebooks",
            &["Branches", "Partners"],
        ),
        (
            "GetTeamPhonebooks",
            &["1"],
            "1015 TeamPhoneBooks",
            &["Partners"],
        ),
        (
            "GetTeamPhonebooks",
            &["3"],
            "1015 TeamPhoneBooks",
            &["NoTeamPhoneBookFound"],
        ),
        (
            "GetPhonebookContacts",
            &["4"],
            "1015 PhonebookContacts",
            &["4100", "Basel"],
        ),
        (
            "GetPhonebookContacts",
            &["6"],
            "1015 PhonebookContacts",
            &["NoContactFound"],
        ),
        (
            "getqueuelist",
            &[],
            "1015 QueueList",
            &["Claims_Queue", "2031-04-09T08:19:40Z"],
        ),
        (
            "GETSKILLGROUP",
            &["ALL", "0", "0"],
            "1015 skillGroup",
            &["Claims_Queue", "Sales_Queue"],
        ),
        (
            "GETSKILLGROUP",
            &["INDEXING", "2", "2"],
            "1015 skillGroup",
            &["Sales_Queue"],
        ),
        (
            "GETSUPERVISOR",
            &[],
            "1015 supervisors",
            &["Sue Pervisor", "9001"],
        ),
    ] {
        talk.forget();
        talk.does(&format!("{command}#1015"), args).await;
        holds(line, words).await;
    }
    talk.fails(
        "GetPhonebookContacts#1015",
        &["99"],
        "FAILED",
        "CF_OBJECT_NOT_KNOWN",
    )
    .await;
    talk.fails("GETSKILLGROUP#1015", &["SOME"], "REJECTED", "PLEASE_RETRY")
        .await;
    talk.fails(
        "GETAGENTEXTENSION#1015",
        &["nobody"],
        "FAILED",
        "USER_NOT_FOUND",
    )
    .await;
}

/// The states of all agents at an interval, to anybody who binds a queue.
pub async fn agent_states(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-states").await;
    talk.sign_in(&[1016, 1017]).await;
    let all = Talk::open(pair, form, "AgentStates").await;
    for agent in [1016, 1017] {
        all.sees(&format!("{agent} State NOT_READY")).await;
    }
    talk.does("MakeReady#1016", &[]).await;
    all.sees("1016 State READY").await;
    all.forget();
    all.sees("1016 State READY").await;
    all.sees("1017 State NOT_READY").await;
}
