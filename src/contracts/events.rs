//! Events in JSON: `tandem_wire::event` writes them, these say their shapes. Adding an event is
//! adding a row here and one to `tests/data/events.golden`: the tests hold the two together.

use serde_json::{Map, Value, json};

use crate::openapi::shape::{
    Field, field, flag, list, maybe, object, one_of, or_null, refers, text, word,
};
use crate::wire::reply::Outcome;

/// One event.
pub(crate) struct EventSpec {
    /// `type`; unique.
    pub(crate) name: &'static str,
    /// When it is told.
    pub(crate) about: &'static str,
    fields: fn() -> Vec<Field>,
    /// The original has this one inside an array.
    in_list: bool,
}

const fn event(name: &'static str, about: &'static str, fields: fn() -> Vec<Field>) -> EventSpec {
    EventSpec {
        name,
        about,
        fields,
        in_list: false,
    }
}

/// All events, in the order of docs/protocol.md.
pub(crate) static EVENTS: &[EventSpec] = &[
    event(
        "System",
        "The answer to Hello and Beat; also told on change.",
        || {
            vec![field(
                "status",
                one_of(["IN_SERVICE", "OUT_OF_SERVICE"]),
                "",
            )]
        },
    ),
    event(
        "DESTINATION",
        "The client must connect and sign in every agent on its list.",
        || {
            vec![
                field("destination", text(), "The client's destination."),
                field("status", word("RECONNECT"), ""),
            ]
        },
    ),
    event("ConnectStatus", "Connect succeeded.", || {
        vec![field("status", word("ConnectSuccess"), "")]
    }),
    event("AgentInfo", "Who the agent is, after sign-in.", || {
        vec![
            field("firstName", text(), ""),
            field("lastName", text(), ""),
            field("supervisor", flag(), ""),
            field(
                "wrapUpOnIncoming",
                text(),
                "Wrap-up mode on incoming calls.",
            ),
            field(
                "totalNumberOfTeams",
                text(),
                "Figures; empty for who is no supervisor.",
            ),
            field(
                "teams",
                list(refers("team")),
                "Teams that a supervisor supervises.",
            ),
            field("team", refers("team"), "The agent's own team."),
            agent(),
        ]
    }),
    event(
        "State",
        "Any change of an agent's state; RE_LOGIN asks for Connect and Login.",
        || {
            vec![
                agent(),
                field("state", text(), "As the platform names it, or RE_LOGIN."),
                field(
                    "reasonCode",
                    text(),
                    "Id of the reason; -1 where there is none.",
                ),
                field(
                    "stateChangeTimeString",
                    text(),
                    "Part of the format, always empty.",
                ),
                field(
                    "pendingState",
                    text(),
                    "State to be entered when the call ends.",
                ),
                field("stateChangeTime", text(), TIME),
                field("fullName", text(), ""),
                field("extension", text(), ""),
                field("label", text(), "Label of the reason."),
                maybe(
                    "teamAgentId",
                    text(),
                    "The member whose state this is, told to its supervisor.",
                ),
            ]
        },
    ),
    event(
        "DialogStatus",
        "All calls of the agent: after sign-in, takeover, a lost subscription.",
        || vec![agent(), field("dialogs", list(refers("InboundCall")), "")],
    ),
    event("NewInboundCall", "A call alerts.", new_call),
    event("NewOutboundCall", "A campaign's call alerts.", new_call),
    event(
        "NewOutboundPreviewCall",
        "A campaign's call is offered.",
        new_call,
    ),
    event(
        "InboundCall",
        "A call changed. Its end (DROPPED) has fewer members.",
        || {
            let mut fields = vec![
                field("state", text(), CALL_STATE),
                maybe("startTime", text(), TIME),
                field(
                    "associatedDialogId",
                    or_null(text()),
                    "Id of the related call.",
                ),
                maybe("fromAddress", text(), "Who called."),
                maybe("callVariables", refers("callVariables"), ""),
            ];
            fields.extend(call());
            fields
        },
    ),
    event(
        "ConsultCall",
        "A consultation changed, told to who consults.",
        || {
            vec![
                field("state", text(), CALL_STATE),
                field("assDialogId", text(), "The consultation's id."),
                field("fromAddress", text(), "Who called."),
                field("toAddress", text(), "Who was called."),
                field("startTime", text(), TIME),
                field("callVariables", refers("callVariables"), ""),
                field("participants", list(refers("participant")), ""),
                field("callType", text(), ""),
                field("queueName", text(), ""),
                agent(),
            ]
        },
    ),
    event(
        "DialogState",
        "The state of a call that was asked for.",
        || {
            vec![
                field("dialogId", text(), ""),
                field(
                    "state",
                    text(),
                    "As the platform names it, HELD where the agent holds it, or NOT_FOUND.",
                ),
                agent(),
            ]
        },
    ),
    event("ReasonCodes", "A list of reasons.", || {
        let reason = [field("code", text(), "Its id."), field("label", text(), "")];
        vec![
            field("category", one_of(["NOT_READY", "LOGOUT", "WrapUp"]), ""),
            field("reasonCodes", list(object("", reason)), ""),
            agent(),
        ]
    }),
    event("ConferenceParticipants", "The parties of a call.", || {
        vec![
            field("dialogId", text(), ""),
            field("participants", list(refers("participant")), ""),
            agent(),
        ]
    }),
    event("Agents", "Agents who are signed in.", || {
        vec![field("users", list(object("", user())), ""), agent()]
    }),
    event("TeamAgents", "Members of a team.", || {
        let mut member = user();
        member.extend([
            field("loginId", text(), "The member's id."),
            field("state", text(), ""),
            field("pendingState", text(), ""),
            field("mediaType", text(), "1 is voice."),
            field("stateChangeTime", text(), TIME),
            field("label", text(), "Label of the reason."),
        ]);
        vec![field("users", list(object("", member)), ""), agent()]
    }),
    EventSpec {
        in_list: true,
        ..event("QueueStats", "Queues with their statistics.", || {
            vec![field("queue", list(object("", queue())), ""), agent()]
        })
    },
    event(
        "PhoneBook",
        "Phone books that the agent may use.",
        phone_books,
    ),
    event("TeamPhoneBook", "Phone books of one team.", phone_books),
    event("phoneBookContacts", "Contacts of a phone book.", || {
        let names = ["description", "firstName", "lastName", "phoneNumber", "id"];
        vec![
            field("contact", list(object("", texts(names))), ""),
            agent(),
        ]
    }),
    event(
        "skillGroup",
        "Names of skill groups: skill_1, skill_2, …",
        || {
            let names = json!({ "type": "object", "additionalProperties": text() });
            vec![field("skillGroups", names, ""), agent()]
        },
    ),
    event("supervisors", "Users with the role Supervisor.", || {
        let names = [
            "supervisorName",
            "supervisorId",
            "supervisorExtension",
            "supervisorState",
        ];
        vec![
            field("supervisorList", list(object("", texts(names))), ""),
            agent(),
        ]
    }),
    event(
        "agentExtension",
        "Where an agent can be called. A number keeps its digits: one with a leading zero is a text.",
        || {
            let number = || json!({ "type": ["integer", "string"] });
            vec![
                field("port", number(), "Extension."),
                field(
                    "dialNumber",
                    number(),
                    "A mobile agent's phone, else the extension.",
                ),
            ]
        },
    ),
    event("no_data_found", "In place of a list that is empty.", titled),
    event(
        "Control",
        "For the status bar: a text, or the participant that was dropped from a call.",
        || {
            vec![
                maybe("location", word("statusbar"), ""),
                maybe("message", text(), ""),
                maybe("participantDropped", text(), "Its extension."),
                agent(),
            ]
        },
    ),
    event(
        "callback",
        "A callback was scheduled, updated or canceled.",
        titled,
    ),
    event("CALLBACK", "A campaign's call was classified anew.", titled),
    event(
        "Resolved",
        "What became of a command that was in doubt.",
        || {
            vec![
                field("command", text(), "Its name."),
                field("id", text(), "Its message_id."),
                field("outcome", one_of(Outcome::ALL.map(Outcome::as_str)), ""),
                agent(),
            ]
        },
    ),
    event("Error", "Something went wrong.", || {
        vec![
            maybe("agentId", text(), "Whom it is about, where that is known."),
            field(
                "errorType",
                text(),
                "A code of docs/protocol.md, or a constant of the platform.",
            ),
            field("errorMessage", text(), "For a person."),
        ]
    }),
];

const TIME: &str = "YYYY-MM-DD hh:mm:ss in the zone of the connector's host; may be empty.";
const CALL_STATE: &str = "As the platform names it, or HELD where the agent holds the call.";

fn agent() -> Field {
    field("agentId", text(), "Whom it is for.")
}

fn texts<const N: usize>(names: [&'static str; N]) -> [Field; N] {
    names.map(|name| field(name, text(), ""))
}

fn user() -> Vec<Field> {
    texts(["firstName", "lastName", "extension"]).into()
}

fn titled() -> Vec<Field> {
    vec![
        field("title", text(), ""),
        field("data", text(), ""),
        agent(),
    ]
}

fn phone_books() -> Vec<Field> {
    let books = list(object("", texts(["name", "type", "id"])));
    vec![field("phoneBook", books, ""), agent()]
}

fn queue() -> Vec<Field> {
    let mut fields: Vec<Field> = texts([
        "queueName",
        "agentsNotReady",
        "agentsReady",
        "agentsTalkingInbound",
        "agentsTalkingInternal",
        "agentsTalkingOutbound",
        "agentsWrapUpNotReady",
        "agentsWrapUpReady",
        "callsInQueue",
    ])
    .into();
    let name = "startTimeOfLongestCallInQueue";
    fields.push(field(name, text(), "UTC, as the platform has it."));
    fields
}

fn call() -> [Field; 5] {
    [
        field("dialogId", text(), "The call's id."),
        field("participants", list(refers("participant")), ""),
        field(
            "callType",
            text(),
            "As the platform names it; may be empty.",
        ),
        field("queueName", text(), ""),
        agent(),
    ]
}

fn new_call() -> Vec<Field> {
    let mut fields = vec![
        field("fromAddress", text(), "Who calls."),
        field("callVariables", refers("callVariables"), ""),
    ];
    fields.extend(call());
    fields
}

/// All events by name, and what they are made of.
pub(crate) fn definitions() -> Map<String, Value> {
    let mut all = Map::new();
    for spec in EVENTS {
        let kind = field("type", word(spec.name), "");
        let fields = std::iter::once(kind).chain((spec.fields)());
        let shape = object(spec.about, fields);
        let shape = match spec.in_list {
            true => {
                json!({ "type": "array", "minItems": 1, "maxItems": 1, "items": shape, "description": spec.about })
            }
            false => shape,
        };
        all.insert(spec.name.to_owned(), shape);
    }
    let variable = json!({ "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": text() });
    let mut variables = list(variable);
    variables["description"] =
        "One object a variable, name and value; last comes ani, the calling number.".into();
    all.insert("callVariables".to_owned(), variables);
    let mut party: Vec<Field> =
        texts(["mediaAddress", "state", "addressType", "stateCause"]).into();
    party.push(field("stateChangeTime", text(), TIME));
    all.insert(
        "participant".to_owned(),
        object("A party of a call.", party),
    );
    let team = object("A team.", texts(["id", "name"]));
    all.insert("team".to_owned(), team);
    all
}

/// The file `docs/api/events.schema.json`.
pub(crate) fn schema() -> Value {
    let all: Vec<Value> = EVENTS.iter().map(|spec| refers(spec.name)).collect();
    json!({
        "$schema": super::DIALECT,
        "title": "Events of tandem in JSON",
        "description": "One message of the exchange tandem.events is one of these. Further versions may add members and events.",
        "anyOf": all,
        "$defs": definitions(),
    })
}
