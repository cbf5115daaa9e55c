//! A client that speaks one of the forms, and what it sees in the words that both forms share.

use std::time::{Duration, Instant};

use tandem::catalogue;
use tandem::client::{Command, Message};

use crate::support::pair::extension;
use crate::support::{Desk, LIMIT, Pair, PairOptions, Shared};

/// How a client writes commands and the connector events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    Json,
}

pub fn options(form: Form) -> PairOptions {
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
pub async fn pair(shared: &mut Shared, form: Form) -> &mut Pair {
    let name = match form {
        Form::Text => "text",
        Form::Json => "json",
    };
    shared.named(name, options(form)).await
}

/// A client of one form.
pub struct Talk {
    pub desk: Desk,
    pub form: Form,
}

impl Talk {
    pub async fn open(pair: &Pair, form: Form, destination: &str) -> Self {
        Self {
            desk: pair.desk(destination, 0).await,
            form,
        }
    }

    /// Connects and signs in.
    pub async fn sign_in(&self, agents: &[u32]) {
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

    pub fn command(&self, kind: &str, args: &[&str]) -> Command {
        let spec = catalogue::find(kind.split('#').next().unwrap()).expect("a command");
        let mut command = Command::new(kind, args.join(","));
        if self.form == Form::Json {
            let named = spec.args.iter().zip(args);
            let object: serde_json::Map<_, _> = named
                // By the name that the original's documents print, where it is another.
                .map(|(spec, value)| {
                    let name = spec.aliases.first().unwrap_or(&spec.name);
                    ((*name).to_owned(), (*value).into())
                })
                .collect();
            command.body = serde_json::Value::Object(object).to_string();
            command.json = true;
        }
        command
    }

    pub async fn ask(&self, kind: &str, args: &[&str]) -> Message {
        let id = self.desk.send_command(self.command(kind, args)).await;
        self.desk.reply(&id).await
    }

    /// Sends a command that is to be taken.
    pub async fn does(&self, kind: &str, args: &[&str]) {
        let reply = self.ask(kind, args).await;
        let outcome = reply.field("outcome");
        assert!(
            matches!(outcome, "OK" | "ACCEPTED"),
            "{kind}: {}",
            reply.text
        );
    }

    /// Sends a command that is refused with this code, in the reply and in an event.
    pub async fn fails(&self, kind: &str, args: &[&str], outcome: &str, code: &str) {
        let reply = self.ask(kind, args).await;
        assert_eq!(reply.field("outcome"), outcome, "{kind}: {}", reply.text);
        assert_eq!(reply.error_code(), code, "{kind}: {}", reply.text);
        let agent = kind.split('#').nth(1).unwrap();
        self.sees(&format!("{agent} Error {code}")).await;
    }

    /// Waits for the first event of this line.
    pub async fn sees(&self, line: &str) -> Message {
        let fits = |message: &Message| short(message) == line;
        self.desk.event(line, fits).await
    }

    /// Waits until the events hold these lines in this order, others between them.
    pub async fn sees_in_order(&self, lines: &[&str]) {
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

    pub fn count(&self, line: &str) -> usize {
        self.desk
            .events()
            .iter()
            .filter(|m| short(m) == line)
            .count()
    }

    pub fn forget(&self) {
        self.desk.clear_events();
    }
}

/// `<agent> <type> <state>` of an event of either form, in the words of the text form's types and
/// JSON's states.
pub fn short(message: &Message) -> String {
    let words = if message.json.is_null() {
        short_text(&message.text)
    } else {
        short_json(message)
    };
    words.join(" ").trim_end().to_owned()
}

pub fn short_text(text: &str) -> Vec<&str> {
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

pub fn short_json(message: &Message) -> Vec<&str> {
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
pub fn dialog_of(message: &Message) -> String {
    if message.json.is_null() {
        let (_, rest) = message.text.split_once("DialogID:").expect("a dialog id");
        return rest.split('#').next().unwrap().to_owned();
    }
    let id = ["dialogId", "assDialogId"].map(|name| message.field(name).to_owned());
    id.into_iter()
        .find(|id| !id.is_empty())
        .expect("a dialog id")
}

pub fn field<'a>(form: Form, json: &'a str, text: &'a str) -> &'a str {
    if form == Form::Json { json } else { text }
}

/// A call of the first agent to the second, active on both sides; its dialog.
pub async fn in_call(talk: &Talk, from: u32, to: u32) -> String {
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
