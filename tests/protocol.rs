//! The protocol, command by command and sequence by sequence, in both formats: text arguments with
//! `#` events, JSON arguments with JSON events. Each scenario is written once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::time::{Duration, Instant};

use support::pair::{SUPERVISOR, extension};
use support::{Desk, LIMIT, Pair, PairOptions, Shared, run, until};
use tandem::catalogue;
use tandem::client::{Command, Message};
use tandem::simulator::Deployment;

/// How a client writes commands and the connector events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

fn options(form: Form) -> PairOptions {
    let options = PairOptions::default()
        .instances(1)
        .set("downstream.admin-user", "admin")
        .set("downstream.admin-password", "admin")
        .set("agent.states-interval", "500ms");
    match form {
        Form::Json => options,
        Form::Text => options.set("message.format", "default"),
    }
}

/// The pair that all scenarios of a form share; each uses agents of its own.
async fn pair(shared: &mut Shared, form: Form) -> &mut Pair {
    let name = match form {
        Form::Text => "text",
        Form::Json => "json",
    };
    shared.named(name, options(form)).await
}

/// A client of one form.
struct Talk {
    desk: Desk,
    form: Form,
}

impl Talk {
    async fn open(pair: &Pair, form: Form, destination: &str) -> Self {
        Self {
            desk: pair.desk(destination, 0).await,
            form,
        }
    }

    /// Connects and signs in.
    async fn sign_in(&self, agents: &[u32]) {
        for agent in agents {
            let (password, desk) = (format!("pw-{agent}"), self.desk.destination.clone());
            self.does(&format!("Connect#{agent}"), &[&desk, &password])
                .await;
            let extension = extension(*agent).to_string();
            self.does(&format!("Login#{agent}"), &[&password, &extension])
                .await;
            self.sees(&format!("{agent} DialogStatus")).await;
        }
    }

    fn command(&self, kind: &str, args: &[&str]) -> Command {
        let spec = catalogue::find(kind.split('#').next().unwrap()).expect("a command");
        let mut command = Command::new(kind, args.join(","));
        if self.form == Form::Json {
            let named = spec.args.iter().zip(args);
            let object: serde_json::Map<_, _> = named
                .map(|(spec, value)| (spec.name.to_owned(), (*value).into()))
                .collect();
            command.body = serde_json::Value::Object(object).to_string();
            command.json = true;
        }
        command
    }

    async fn ask(&self, kind: &str, args: &[&str]) -> Message {
        let id = self.desk.send_command(self.command(kind, args)).await;
        self.desk.reply(&id).await
    }

    /// Sends a command that is to be taken.
    async fn does(&self, kind: &str, args: &[&str]) {
        let reply = self.ask(kind, args).await;
        let outcome = reply.field("outcome");
        assert!(
            matches!(outcome, "OK" | "ACCEPTED"),
            "{kind}: {}",
            reply.text
        );
    }

    /// Sends a command that is refused with this code, in the reply and in an event.
    async fn fails(&self, kind: &str, args: &[&str], outcome: &str, code: &str) {
        let reply = self.ask(kind, args).await;
        assert_eq!(reply.field("outcome"), outcome, "{kind}: {}", reply.text);
        assert_eq!(reply.error_code(), code, "{kind}: {}", reply.text);
        let agent = kind.split('#').nth(1).unwrap();
        self.sees(&format!("{agent} Error {code}")).await;
    }

    /// Waits for the first event of this line.
    async fn sees(&self, line: &str) -> Message {
        let fits = |message: &Message| short(message) == line;
        self.desk.event(line, fits).await
    }

    /// Waits until the events hold these lines in this order, others between them.
    async fn sees_in_order(&self, lines: &[&str]) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let seen: Vec<String> = self.desk.events().iter().map(short).collect();
            let mut wanted = lines.iter();
            let mut next = wanted.next();
            for line in &seen {
                if next == Some(&line.as_str()) {
                    next = wanted.next();
                }
            }
            let Some(missing) = next else { return };
            assert!(
                Instant::now() < deadline,
                "{missing} of {lines:?} is missing in {seen:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn count(&self, line: &str) -> usize {
        self.desk
            .events()
            .iter()
            .filter(|m| short(m) == line)
            .count()
    }

    fn forget(&self) {
        self.desk.clear_events();
    }
}

/// `<agent> <type> <state>` of an event of either form, in the words of the text form's types and
/// JSON's states.
fn short(message: &Message) -> String {
    let words = if message.json.is_null() {
        short_text(&message.text)
    } else {
        short_json(message)
    };
    words.join(" ").trim_end().to_owned()
}

fn short_text(text: &str) -> Vec<&str> {
    let fields: Vec<&str> = text.split('#').collect();
    let field = |at: usize| fields.get(at).copied().unwrap_or_default();
    let state = match field(2) {
        "HOLD" if field(1) != "State" => "HELD",
        "DROP" => "DROPPED",
        state => state,
    };
    match field(1) {
        "State" | "InboundCall" | "ConsultCall" | "DialogState" | "Error" => {
            vec![field(0), field(1), state]
        }
        kind => vec![field(0), kind],
    }
}

fn short_json(message: &Message) -> Vec<&str> {
    let first = message.json.get(0).unwrap_or(&message.json);
    let field = |name: &str| first[name].as_str().unwrap_or_default();
    let kind = match field("type") {
        "Agents" => "AgentsList",
        "TeamAgents" => "TeamUsersList",
        "PhoneBook" => "Phonebooks",
        "TeamPhoneBook" => "TeamPhoneBooks",
        "phoneBookContacts" => "PhonebookContacts",
        "QueueStats" => "QueueList",
        "callback" | "CALLBACK" | "no_data_found" => field("title"),
        "Error" => return vec![field("agentId"), "Error", field("errorType")],
        kind => kind,
    };
    vec![field("agentId"), kind, field("state")]
}

/// The id of the call that an event is about.
fn dialog_of(message: &Message) -> String {
    if message.json.is_null() {
        let (_, rest) = message.text.split_once("DialogID:").expect("a dialog id");
        return rest.split('#').next().unwrap().to_owned();
    }
    let id = ["dialogId", "assDialogId"].map(|name| message.field(name).to_owned());
    id.into_iter()
        .find(|id| !id.is_empty())
        .expect("a dialog id")
}

fn field<'a>(form: Form, json: &'a str, text: &'a str) -> &'a str {
    if form == Form::Json { json } else { text }
}

/// A call of the first agent to the second, active on both sides; its dialog.
async fn in_call(talk: &Talk, from: u32, to: u32) -> String {
    talk.forget();
    talk.does(&format!("MakeCall#{from}"), &[&extension(to).to_string()])
        .await;
    let offered = talk.sees(&format!("{to} NewInboundCall")).await;
    let dialog = dialog_of(&offered);
    talk.does(&format!("AnswerCall#{to}"), &[&dialog]).await;
    talk.sees(&format!("{from} InboundCall ACTIVE")).await;
    talk.sees(&format!("{to} InboundCall ACTIVE")).await;
    dialog
}

// ---- session and state ------------------------------------------------------------------------

async fn session(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-session").await;
    talk.does("Hello#desk-session", &[]).await;
    let system = field(
        form,
        r#"{"type":"System","status":"IN_SERVICE"}"#,
        "System#IN_SERVICE",
    );
    talk.desk.event("System", |m| m.text == system).await;
    talk.forget();
    talk.does("Beat#desk-session", &[]).await;
    talk.desk.event("System", |m| m.text == system).await;
    let unknown = talk.ask("MakeReady#1001", &[]).await;
    assert_eq!(unknown.error_code(), "RE_LOGIN", "{}", unknown.text);
    talk.sign_in(&[1001]).await;
    if form == Form::Json {
        talk.desk
            .event("ConnectStatus", |m| m.field("status") == "ConnectSuccess")
            .await;
    }
    talk.sees_in_order(&[
        "1001 AgentInfo",
        "1001 State NOT_READY",
        "1001 DialogStatus",
    ])
    .await;
    talk.fails(
        "Login#1001",
        &["pw-1001", "70o1"],
        "REJECTED",
        "WRONG_EXTENSION",
    )
    .await;
    talk.does("MakeReady#1001", &[]).await;
    talk.sees("1001 State READY").await;
    talk.forget();
    talk.does("GetState#1001", &[]).await;
    talk.sees("1001 State READY").await;
    talk.does("MakeNotReady#1001", &[]).await;
    talk.sees("1001 State NOT_READY").await;
    talk.forget();
    talk.does("MakeNotReadyWithReason#1001", &["2"]).await;
    let label = |m: &Message| m.text.contains("Lunch");
    talk.desk.event("the reason", label).await;
    talk.fails(
        "logoutwithreason#1001",
        &[],
        "REJECTED",
        "MISSING_REASON_CODE",
    )
    .await;
    talk.forget();
    talk.does("refresh#1001", &[]).await;
    talk.sees_in_order(&["1001 State NOT_READY", "1001 DialogStatus"])
        .await;
    talk.does("logoutwithreason#1001", &["21"]).await;
    talk.sees("1001 State LOGOUT").await;
    // Signed out: Connect and Login again, then out without a reason, then by force.
    talk.forget();
    talk.sign_in(&[1001]).await;
    talk.does("Logout#1001", &[]).await;
    talk.sees("1001 State LOGOUT").await;
    talk.forget();
    talk.sign_in(&[1001]).await;
    talk.does("MakeReady#1001", &[]).await;
    talk.does("force_logout#1001", &[]).await;
    talk.sees("1001 State LOGOUT").await;
    assert_eq!(pair.state(1001), "LOGOUT");
}

/// The original's clients learn of a takeover and of an unknown client by events.
async fn takeover(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let old = Talk::open(pair, form, "desk-old").await;
    old.sign_in(&[1002]).await;
    let new = Talk::open(pair, form, "desk-new").await;
    old.does("Beat#desk-unknown", &[]).await;
    old.forget();
    new.does("Connect#1002", &["desk-new", "pw-1002"]).await;
    old.sees_in_order(&["1002 Error SESSION_INVALIDATED", "1002 State LOGOUT"])
        .await;
    new.does("Login#1002", &["pw-1002", "7002"]).await;
    new.sees("1002 DialogStatus").await;
    assert_eq!(pair.state(1002), "NOT_READY");
    let wrong = new.ask("Connect#1003", &["desk-new", "wrong"]).await;
    assert_eq!(wrong.error_code(), "SUBSCRIPTION_FAILED", "{}", wrong.text);
    new.sees("1003 Error SUBSCRIPTION_FAILED").await;
    let unknown = Talk::open(pair, form, "desk-beat").await;
    unknown.does("Beat#desk-beat", &[]).await;
    let reconnect = field(
        form,
        r#"{"type":"DESTINATION","destination":"desk-beat","status":"RECONNECT"}"#,
        "DESTINATION#desk-beat#RECONNECT",
    );
    unknown
        .desk
        .event("RECONNECT", |m| m.text == reconnect)
        .await;
}

async fn mobile(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-mobile").await;
    talk.does("Connect#1004", &["desk-mobile", "pw-1004"]).await;
    let number = "0041790001122";
    talk.does(
        "MobileAgentLogin#1004",
        &["pw-1004", "7004", number, "true"],
    )
    .await;
    talk.sees("1004 DialogStatus").await;
    let agent = pair.simulator.world().agent("1004").unwrap().clone();
    let mobile = agent.state.lock().unwrap().mobile.clone().unwrap();
    assert_eq!(
        (mobile.mode.as_str(), mobile.dial_number.as_str()),
        ("CALL_BY_CALL", number)
    );
    talk.does("GETAGENTEXTENSION#1004", &["1004"]).await;
    talk.desk
        .event("the extension", |m| {
            m.text.contains("agentExtension") && m.text.contains(number)
        })
        .await;
}

// ---- calls ------------------------------------------------------------------------------------

async fn calls(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-calls").await;
    talk.sign_in(&[1005, 1006]).await;
    let dialog = in_call(&talk, 1005, 1006).await;
    talk.sees_in_order(&[
        "1005 InboundCall INITIATING",
        "1005 InboundCall INITIATED",
        "1005 InboundCall ALERTING",
        "1005 InboundCall ACTIVE",
    ])
    .await;
    talk.sees("1005 State TALKING").await;
    talk.does("HoldCall#1005", &[&dialog]).await;
    talk.sees("1005 InboundCall HELD").await;
    talk.sees("1005 State HOLD").await;
    talk.does("GetDialogState#1005", &[&dialog]).await;
    talk.sees("1005 DialogState HELD").await;
    talk.forget();
    talk.does("getdialogstatecontrols#1005", &[&dialog]).await;
    let controls = |m: &Message| m.text.contains("DialogState") && m.text.contains(&dialog);
    talk.desk.event("the state with its kind", controls).await;
    talk.does("getDialogParticipants#1005", &[&dialog]).await;
    talk.desk
        .event("the parties", |m| {
            let both = m.text.contains("7005") && m.text.contains("7006");
            m.text.contains("ConferenceParticipants") && both
        })
        .await;
    talk.does("RetrieveCall#1005", &[&dialog]).await;
    talk.sees("1005 InboundCall ACTIVE").await;
    talk.forget();
    talk.does(
        "update_call_variable#1005",
        &[&dialog, "callVariable1=gold|callVariable2=a=b"],
    )
    .await;
    let variables = field(
        form,
        r#"{"callVariable1":"gold"},{"callVariable2":"a=b"}"#,
        "callVariable1=gold|callVariable2=a=b",
    );
    talk.desk
        .event("the variables", |m| m.text.contains(variables))
        .await;
    talk.fails(
        "update_call_variable#1005",
        &[&dialog, "gold"],
        "REJECTED",
        "INVALID_CALL_DATA",
    )
    .await;
    talk.fails("HoldCall#1005", &[], "REJECTED", "MISSING_DIALOG_ID")
        .await;
    talk.fails("MakeCall#1005", &[], "REJECTED", "MISSING_NUMBER")
        .await;
    talk.fails("ReleaseCall#1005", &["424242"], "FAILED", "NO_DIALOG_ID")
        .await;
    talk.fails(
        "ZOOMPauseRecording#1005",
        &[],
        "REJECTED",
        "NOT_IMPLEMENTED",
    )
    .await;
    talk.fails(
        "ZOOMResumeRecording#1006",
        &[],
        "REJECTED",
        "NOT_IMPLEMENTED",
    )
    .await;
    talk.does("ReleaseCall#1005", &[&dialog]).await;
    for agent in [1005, 1006] {
        talk.sees(&format!("{agent} InboundCall DROPPED")).await;
        talk.sees(&format!("{agent} State NOT_READY")).await;
        // Told once, by the change or by the removal.
        assert_eq!(talk.count(&format!("{agent} InboundCall DROPPED")), 1);
    }
    talk.forget();
    talk.does("MakeCall#1005", &["99912"]).await;
    talk.sees("1005 InboundCall FAILED").await;
    talk.sees("1005 InboundCall DROPPED").await;
    let failed = talk.desk.events();
    let cause = |m: &&Message| form == Form::Json || m.text.contains("#BAD_DESTINATION#");
    assert!(
        failed
            .iter()
            .filter(|m| short(m) == "1005 InboundCall FAILED")
            .all(|m| cause(&m))
    );
}

/// Consultation, then its three ends: transfer, conference, release.
async fn consult(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-consult").await;
    talk.sign_in(&[1007, 1008, 1009]).await;
    let main = in_call(&talk, 1007, 1008).await;
    let leg = consult_call(&talk, &main).await;
    talk.forget();
    talk.does("TransferCall#1007", &["7009", &main]).await;
    talk.sees("1007 InboundCall DROPPED").await;
    talk.sees("1007 ConsultCall DROPPED").await;
    talk.sees("1007 State NOT_READY").await;
    talk.sees_in_order(&["1009 InboundCall DROPPED", "1009 InboundCall ACTIVE"])
        .await;
    talk.does("ReleaseCall#1009", &[&main]).await;
    talk.sees("1008 InboundCall DROPPED").await;

    let main = in_call(&talk, 1007, 1008).await;
    let second = consult_call(&talk, &main).await;
    assert_ne!(second, leg);
    talk.forget();
    talk.does("Conferencecall#1007", &["7009", &main]).await;
    let three = |m: &Message| {
        let parties = [7007, 7008, 7009]
            .iter()
            .all(|n| m.text.contains(&n.to_string()));
        short(m) == "1007 InboundCall ACTIVE" && parties
    };
    talk.desk.event("three parties", three).await;
    talk.sees("1007 ConsultCall DROPPED").await;
    // Taken, and refused later: nobody of that number is in the call.
    talk.does("dropparticipant#1007", &["7099", &main]).await;
    talk.sees("1007 Error CF_INVALID_OBJECT_STATE").await;
    talk.does("ReleaseCall#1008", &[&main]).await;
    talk.sees("1008 InboundCall DROPPED").await;
    talk.does("ReleaseCall#1009", &[&main]).await;
    talk.sees("1007 InboundCall DROPPED").await;

    let main = in_call(&talk, 1007, 1008).await;
    let third = consult_call(&talk, &main).await;
    talk.forget();
    talk.does("ReleaseCall#1007", &[&third]).await;
    talk.sees("1007 ConsultCall DROPPED").await;
    talk.does("GetDialogState#1007", &[&main]).await;
    talk.sees("1007 DialogState HELD").await;
    talk.does("RetrieveCall#1007", &[&main]).await;
    talk.sees("1007 InboundCall ACTIVE").await;
    talk.does("ReleaseCall#1007", &[&main]).await;
    talk.sees("1008 InboundCall DROPPED").await;
}

/// 1007 consults 1009 about a call; the consultation's dialog.
async fn consult_call(talk: &Talk, main: &str) -> String {
    talk.forget();
    talk.does("ConsultCall#1007", &["7009", main]).await;
    talk.sees("1007 InboundCall HELD").await;
    let offered = talk.sees("1009 NewInboundCall").await;
    let leg = dialog_of(&offered);
    assert_ne!(leg, main);
    talk.does("AnswerCall#1009", &[&leg]).await;
    talk.sees_in_order(&[
        "1007 InboundCall HELD",
        "1007 ConsultCall INITIATING",
        "1007 ConsultCall INITIATED",
        "1007 ConsultCall ALERTING",
        "1007 ConsultCall ACTIVE",
    ])
    .await;
    talk.sees("1009 InboundCall ACTIVE").await;
    leg
}

async fn blind_transfer(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-blind").await;
    talk.sign_in(&[1010, 1011, 1012]).await;
    let dialog = in_call(&talk, 1010, 1011).await;
    talk.forget();
    talk.does("Transfer_sst#1010", &["7012", &dialog]).await;
    talk.sees("1010 InboundCall DROPPED").await;
    talk.sees("1010 State NOT_READY").await;
    talk.sees("1012 NewInboundCall").await;
    talk.does("AnswerCall#1012", &[&dialog]).await;
    talk.sees("1012 InboundCall ACTIVE").await;
    talk.does("ReleaseCall#1012", &[&dialog]).await;
    talk.sees("1011 InboundCall DROPPED").await;
}

async fn wrap_up(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-wrap-up").await;
    talk.sign_in(&[1013, 1014]).await;
    let dialog = in_call(&talk, 1013, 1014).await;
    talk.forget();
    talk.does("MakeWorkReady#1013", &[]).await;
    let pending = field(
        form,
        r#""pendingState":"WORK_READY""#,
        "#TALKING###WORK_READY#",
    );
    talk.desk
        .event("the pending state", |m| m.text.contains(pending))
        .await;
    talk.does("MakeWorkNotReady#1014", &[]).await;
    talk.does("ReleaseCall#1013", &[&dialog]).await;
    talk.sees("1013 State WORK_READY").await;
    talk.sees("1014 State WORK").await;
    talk.sees("1013 InboundCall DROPPED").await;
    talk.does("wrapupreasoncode#1013", &[]).await;
    talk.sees("1013 ReasonCodes").await;
    talk.does("wrapup#1013", &["Question, answered", &dialog])
        .await;
    {
        let calls = pair.simulator.world().calls.lock().unwrap();
        let call = calls
            .map
            .get(&dialog.parse().unwrap())
            .expect("kept for wrap-up");
        assert_eq!(call.wrap_up, "Question, answered");
    }
    talk.forget();
    talk.does("MakeReady#1013", &[]).await;
    talk.sees("1013 State READY").await;
    talk.does("MakeNotReadyWithReason#1014", &["2"]).await;
    talk.sees("1014 State NOT_READY").await;
    until("the call is gone", async || {
        !pair
            .simulator
            .world()
            .calls
            .lock()
            .unwrap()
            .map
            .contains_key(&dialog.parse().unwrap())
    })
    .await;
    talk.fails("wrapup#1013", &["Sold", &dialog], "FAILED", "NO_DIALOG_ID")
        .await;
}

// ---- lists ------------------------------------------------------------------------------------

async fn lists(shared: &mut Shared, form: Form) {
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
async fn agent_states(shared: &mut Shared, form: Form) {
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

// ---- supervisor -------------------------------------------------------------------------------

async fn supervisor(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-supervisor").await;
    talk.sign_in(&[1018, 1019, SUPERVISOR]).await;
    if form == Form::Text {
        talk.sees_in_order(&[
            "9001 AgentInfo",
            "9001 TeamInfoIDs",
            "9001 TeamInfoNames",
            "9001 State NOT_READY",
        ])
        .await;
    }
    talk.does("getteamusers#9001", &["1", "true"]).await;
    let team = talk.sees("9001 TeamUsersList").await;
    assert!(
        team.text.contains("1018") && team.text.contains("Pervisor"),
        "{}",
        team.text
    );
    until("the team is watched", async || {
        pair.simulator.world().team_watch_count() >= 1
    })
    .await;
    talk.forget();
    talk.does("MakeReady#1018", &[]).await;
    let copy = talk.sees("9001 State READY").await;
    let member = field(form, r#""teamAgentId":"1018""#, "#1018#7018#");
    assert!(copy.text.contains(member), "{}", copy.text);
    talk.does("getteamuserstate#9001", &["1018"]).await;
    let told = field(
        form,
        r#""teamAgentId":"1018""#,
        "9001#TeamMemberStateChanged#1#READY",
    );
    talk.desk
        .event("the member's state", |m| m.text.contains(told))
        .await;
    // With a session of the agent the supervisor's command is the agent's own.
    talk.does("MakeNotReady#1018", &[]).await;
    talk.sees("1018 State NOT_READY").await;

    let main = in_call(&talk, 1018, 1019).await;
    talk.forget();
    talk.does("silentmonitor#9001", &["7018"]).await;
    talk.sees_in_order(&[
        "9001 InboundCall INITIATING",
        "9001 InboundCall INITIATED",
        "9001 InboundCall ACTIVE",
    ])
    .await;
    let passive = talk.sees("1018 NewInboundCall").await;
    assert!(
        passive.text.contains("SUPERVISOR_MONITOR"),
        "{}",
        passive.text
    );
    talk.sees("1018 InboundCall ACTIVE").await;
    let monitor = dialog_of(&passive);
    talk.does("endsilentmonitor#9001", &[&monitor]).await;
    talk.sees("9001 InboundCall DROPPED").await;
    talk.sees("1018 InboundCall DROPPED").await;

    talk.forget();
    talk.does("silentmonitor#9001", &["7018"]).await;
    let monitor = dialog_of(&talk.sees("9001 InboundCall ACTIVE").await);
    talk.forget();
    talk.does("bargein#9001", &["7018", &monitor]).await;
    talk.sees_in_order(&[
        "9001 InboundCall DROPPED",
        "9001 NewInboundCall",
        "9001 InboundCall ACTIVE",
    ])
    .await;
    talk.forget();
    talk.does("dropparticipant#9001", &["7019", &main]).await;
    talk.sees("9001 Control").await;
    talk.sees("1019 InboundCall DROPPED").await;
    talk.does("ReleaseCall#9001", &[&main]).await;
    talk.sees("1018 InboundCall DROPPED").await;
    let kinds: Vec<_> = pair.effects(SUPERVISOR).iter().map(|e| e.kind).collect();
    assert_eq!(
        kinds,
        [
            "LOGIN",
            "SILENT_MONITOR",
            "DROP",
            "SILENT_MONITOR",
            "BARGE_CALL",
            "PARTICIPANT_DROP",
            "DROP"
        ]
    );
}

/// A member without a session here: the platform is asked as the supervisor, who is known by the
/// address that the reply goes to.
async fn supervisor_of_a_stranger(shared: &mut Shared) {
    let options = options(Form::Json);
    let pair = shared.pair(options).await;
    let mut wire = support::Wire::open(&pair, 0).await;
    let talk = Talk::open(&pair, Form::Json, "desk-boss").await;
    talk.sign_in(&[SUPERVISOR]).await;
    let world = pair.simulator.world().clone();
    let stranger = world.agent("1020").unwrap().clone();
    stranger
        .state
        .lock()
        .unwrap()
        .rest(tandem::simulator::agent::State::Ready, None);
    let command = |kind, id| support::wire::command(kind, id).with_reply_to("desk-boss".into());
    wire.publish(command("MakeNotReady#1020", "boss-1"), b"")
        .await;
    until("the member is not ready", async || {
        pair.state(1020) == "NOT_READY"
    })
    .await;
    wire.publish(command("Logout#1020", "boss-2"), b"").await;
    until("the member is out", async || pair.state(1020) == "LOGOUT").await;
    // Nobody's client: who asks is not known.
    let queue = wire.exclusive_queue().await;
    let foreign =
        support::wire::command("Logout#1020", "boss-3").with_reply_to(queue.as_str().into());
    wire.publish(foreign, b"").await;
    assert_eq!(wire.next(&queue).await.json()["error"]["code"], "RE_LOGIN");
    assert_eq!(wire.other_dead_letters().await.len(), 0);
}

// ---- outbound ---------------------------------------------------------------------------------

async fn outbound(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-outbound").await;
    talk.sign_in(&[1021]).await;
    talk.does("MakeReady#1021", &[]).await;
    talk.sees("1021 State READY").await;
    let world = pair.simulator.world().clone();
    for (command, word) in [
        ("RejectOutboundPreview", "REJECT"),
        ("CloseOutboundPreview", "CLOSE"),
    ] {
        talk.forget();
        let offer = world.offer_preview("0612", "7021").unwrap().to_string();
        talk.sees("1021 NewOutboundPreviewCall").await;
        talk.sees("1021 State RESERVED_OUTBOUND_PREVIEW").await;
        talk.fails(
            &format!("{command}#1021"),
            &[&offer, "ACCEPT"],
            "REJECTED",
            "PLEASE_RETRY",
        )
        .await;
        talk.does(&format!("{command}#1021"), &[&offer, word]).await;
        talk.sees("1021 InboundCall DROPPED").await;
        talk.sees("1021 State READY").await;
    }
    talk.forget();
    let offer = world.offer_preview("0612", "7021").unwrap().to_string();
    talk.sees("1021 NewOutboundPreviewCall").await;
    talk.does("AcceptOutboundPreview#1021", &[&offer, "ACCEPT"])
        .await;
    talk.sees_in_order(&[
        "1021 InboundCall ACCEPTED",
        "1021 InboundCall DROPPED",
        "1021 InboundCall INITIATING",
        "1021 InboundCall INITIATED",
        "1021 InboundCall ACTIVE",
    ])
    .await;
    let active = talk.sees("1021 InboundCall ACTIVE").await;
    let call = dialog_of(&active);
    assert_ne!(call, offer);
    let when = "2031-04-09T15:30";
    for command in ["SHCEDULECALLBACK", "UPDATECALLBACK"] {
        talk.forget();
        talk.does(&format!("{command}#1021"), &["7021", &call, when, "0699"])
            .await;
        talk.sees("1021 CallBack").await;
        talk.sees("1021 Control").await;
        let calls = world.calls.lock().unwrap();
        let kept = calls.map[&call.parse::<u64>().unwrap()].callback.clone();
        assert_eq!(kept, Some((when.to_owned(), "0699".to_owned())));
    }
    talk.forget();
    talk.does("CANCELSHCEDULECALLBACK#1021", &["7021", &call])
        .await;
    talk.sees("1021 CallBack").await;
    talk.does("RECLASSIFYCALL#1021", &["7021", &call, "FAX"])
        .await;
    talk.sees("1021 RECLASSIFY").await;
    let calls = world.calls.lock().unwrap().map[&call.parse::<u64>().unwrap()]
        .classification
        .clone();
    assert_eq!(calls, "FAX");
    talk.does("ReleaseCall#1021", &[&call]).await;
    talk.sees("1021 InboundCall DROPPED").await;
    // The dialer's own call: its first, incomplete packet is not told.
    talk.does("MakeReady#1021", &[]).await;
    until("ready again", async || pair.state(1021) == "READY").await;
    talk.forget();
    let dialed = world.dialed("0613", "7021").unwrap().to_string();
    talk.sees("1021 NewOutboundCall").await;
    talk.sees("1021 State RESERVED_OUTBOUND").await;
    talk.does("AnswerCall#1021", &[&dialed]).await;
    talk.sees("1021 InboundCall ACTIVE").await;
    assert_eq!(talk.count("1021 NewInboundCall"), 0);
    talk.does("ReleaseCall#1021", &[&dialed]).await;
    talk.sees("1021 InboundCall DROPPED").await;
}

/// What the other product does differently: no hold state, one pending change, no mobile agents,
/// no queues, no dropping of participants.
#[test]
fn the_other_product_refuses_what_it_lacks() {
    run(async |shared| {
        let mut options = options(Form::Json);
        options.deployment = Deployment::Uccx;
        let pair = shared.pair(options).await;
        let talk = Talk::open(&pair, Form::Json, "desk-ccx").await;
        talk.sign_in(&[1001, 1002, SUPERVISOR]).await;
        let dialog = in_call(&talk, 1001, 1002).await;
        talk.does("HoldCall#1001", &[&dialog]).await;
        talk.sees("1001 InboundCall HELD").await;
        talk.does("MakeNotReady#1002", &[]).await;
        talk.does("MakeNotReady#1002", &[]).await;
        talk.sees("1002 Error CF_INVALID_AGENT_WORKMODE").await;
        talk.fails(
            "dropparticipant#1001",
            &["7002", &dialog],
            "FAILED",
            "CF_GENERIC_UNSPECIFIED",
        )
        .await;
        talk.fails("getqueuelist#9001", &[], "FAILED", "CF_OBJECT_NOT_KNOWN")
            .await;
        talk.does("Connect#1003", &["desk-ccx", "pw-1003"]).await;
        talk.does(
            "MobileAgentLogin#1003",
            &["pw-1003", "7003", "0699", "false"],
        )
        .await;
        talk.sees("1003 Error CF_GENERIC_UNSPECIFIED").await;
        assert_eq!(talk.count("1001 State HOLD"), 0);
        // Signing out from READY is allowed here.
        talk.does("ReleaseCall#1001", &[&dialog]).await;
        talk.does("MakeReady#9001", &[]).await;
        talk.does("logoutwithreason#9001", &["21"]).await;
        talk.sees("9001 State LOGOUT").await;
    });
}

#[test]
fn a_supervisor_acts_on_a_member_without_a_session() {
    run(async |shared| supervisor_of_a_stranger(shared).await);
}

/// Two tests a scenario, one a form.
macro_rules! both_forms {
    ($($scenario:ident: $text:ident, $json:ident;)*) => {$(
        #[test]
        fn $text() {
            run(async |shared| $scenario(shared, Form::Text).await);
        }

        #[test]
        fn $json() {
            run(async |shared| $scenario(shared, Form::Json).await);
        }
    )*};
}

both_forms! {
    session: session_text, session_json;
    takeover: takeover_text, takeover_json;
    mobile: mobile_text, mobile_json;
    calls: calls_text, calls_json;
    consult: consult_text, consult_json;
    blind_transfer: blind_transfer_text, blind_transfer_json;
    wrap_up: wrap_up_text, wrap_up_json;
    lists: lists_text, lists_json;
    agent_states: agent_states_text, agent_states_json;
    supervisor: supervisor_text, supervisor_json;
    outbound: outbound_text, outbound_json;
}
