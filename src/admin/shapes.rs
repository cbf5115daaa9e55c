//! What the admin API shows, as JSON Schemas. The types stand in `tandem_engine::view`,
//! `tandem_wire::peer`, [`crate::network`] and beside this file; tests/contracts holds the two
//! together: a member that is shown and stands not here is a failure, and the other way round.

use serde_json::{Map, Value, json};

use crate::engine::peer::Role;
use crate::openapi::shape::{
    Field, count, field, flag, integer, list, maybe, object, one_of, or_null, refers, text,
};

/// Of a time for people.
const TIME: &str = "The same in RFC 3339.";

fn role() -> Field {
    field("role", one_of(Role::ALL.map(Role::as_str)), "")
}

fn status() -> Value {
    object(
        "An instance's picture of itself.",
        [
            field("instance", text(), "Instance id."),
            field("site", text(), ""),
            field("cluster", text(), "Cluster name."),
            field("mode", one_of(["active-passive", "active-active"]), ""),
            field("version", text(), "Product version."),
            field("groups", list(refers("Group")), "Groups of command queues."),
            field("brokers", list(refers("Broker")), "In order of preference."),
            field("downstreams", list(refers("Downstream")), "Primary first."),
            field("peers", list(refers("Peer")), ""),
            field("sessions", refers("SessionCounts"), ""),
            field("inflight", count(), "Commands in work."),
            field(
                "outbox",
                count(),
                "Publications that wait for a broker or its confirm.",
            ),
            field(
                "started",
                count(),
                "When the process started, milliseconds since the epoch.",
            ),
            maybe("startedAt", text(), TIME),
            maybe("page", text(), "Address of its status page."),
            maybe(
                "callbacks",
                list(refers("Callback")),
                "Of the HTTP entrance, where it has any.",
            ),
            field("inService", flag(), "Whether a downstream node is usable."),
            field("attached", flag(), "Whether peers can be heard."),
            field(
                "drain",
                or_null(text()),
                "draining or drained, where that was asked for.",
            ),
            field(
                "finished",
                count(),
                "Commands that got their outcome here since the start.",
            ),
            field(
                "warnings",
                list(text()),
                "For the operator, one sentence each.",
            ),
        ],
    )
}

fn group_fields() -> Vec<Field> {
    vec![
        field("name", text(), ""),
        role(),
        field("queue", text(), "First command queue."),
        field(
            "priority",
            or_null(integer()),
            "x-priority it consumes with.",
        ),
        field("tag", or_null(text()), "Consumer tag."),
        field("broker", or_null(text()), "Broker it consumes on."),
        field(
            "consuming",
            flag(),
            "Whether the broker confirmed the consumer.",
        ),
        field("term", count(), "Leadership term."),
        field(
            "leader",
            or_null(text()),
            "Instance that leads, as far as this one knows.",
        ),
        field(
            "reason",
            text(),
            "Why the role is what it is; may be empty.",
        ),
        field(
            "choice",
            or_null(refers("Choice")),
            "What operators decided last.",
        ),
    ]
}

/// A group as `/api/v1/groups` has it: with the members.
fn led_group() -> Value {
    let mut fields = group_fields();
    let member = object("", [field("instance", text(), ""), role()]);
    fields.push(field(
        "members",
        list(member),
        "Instances that are there, this one first.",
    ));
    object("A group, and who has which role in it.", fields)
}

fn choice() -> Value {
    object(
        "An operator's choice about a group.",
        [
            field(
                "wish",
                one_of(["leader", "failover-off", "priority", "unknown"]),
                "",
            ),
            field(
                "instance",
                or_null(text()),
                "That leads, or on which the group is stopped.",
            ),
            field("by", text(), "The instance that the verb was given to."),
            field("at", count(), "Milliseconds since the epoch."),
            maybe("time", text(), TIME),
        ],
    )
}

fn broker() -> Value {
    object(
        "A broker.",
        [
            field("url", text(), "host:port"),
            field(
                "state",
                text(),
                "connected, dialling, blocked, unfit, down.",
            ),
            maybe(
                "node",
                text(),
                "Which of its nodes the connection leads to.",
            ),
            field("attached", flag(), "Whether this one serves."),
            field("preferred", flag(), "Whether it is the first of the list."),
            maybe(
                "garbled",
                count(),
                "Links lost in a row because what it sent could not be read.",
            ),
            field(
                "unfit",
                flag(),
                "Something is lost there without which commands are not served well.",
            ),
            maybe(
                "problem",
                text(),
                "What it lacks, or why it is not connected.",
            ),
        ],
    )
}

fn downstream() -> Value {
    object(
        "A downstream node.",
        [
            field("url", text(), "Base URL."),
            field(
                "host",
                text(),
                "Host, with its port where the URL has one: as in metrics and replies.",
            ),
            field("state", one_of(["unknown", "up", "down"]), ""),
            field("current", flag(), "Whether requests go there."),
            field("reason", or_null(text()), "Why it is down."),
        ],
    )
}

fn peer_fields() -> Vec<Field> {
    vec![
        field("instance", text(), "Instance id."),
        field("site", text(), ""),
        field("state", text(), "alive, suspect, lost, left, auth-failed."),
        field("lastSeenMs", count(), "Milliseconds since it was heard."),
        field("owned", count(), "Sessions it owns, by its own account."),
        field("broker", text(), "It is attached to, by its own account."),
        field("version", text(), ""),
        field(
            "started",
            count(),
            "When it started, milliseconds since the epoch; 0 where it is not known.",
        ),
        maybe("startedAt", text(), TIME),
        field("rttMs", or_null(count()), "Round trip, milliseconds."),
    ]
}

fn peer() -> Value {
    let role_of = [
        field("name", text(), ""),
        role(),
        field("priority", count(), "Configured priority."),
    ];
    let mut fields = peer_fields();
    fields.push(field(
        "groups",
        list(object("", role_of)),
        "Roles, by its own account.",
    ));
    fields.push(field("standing", refers("Standing"), ""));
    object("Another instance.", fields)
}

fn member() -> Value {
    let role_of = [
        field("name", text(), ""),
        role(),
        maybe("priority", count(), "Of a peer: configured priority."),
    ];
    let mut fields = peer_fields();
    fields.push(field(
        "self",
        flag(),
        "Whether it is the instance that answers.",
    ));
    fields.push(field(
        "groups",
        list(object("", role_of)),
        "Roles, by its own account.",
    ));
    fields.push(maybe("standing", refers("Standing"), "Of a peer."));
    object("An instance of the cluster.", fields)
}

fn standing() -> Value {
    object(
        "How a peer stands, by its own account.",
        [
            maybe("page", text(), "Address of its status page."),
            field("brokers", list(refers("Broker")), ""),
            field("downstreams", list(refers("Downstream")), ""),
            field("groups", list(refers("Group")), ""),
            field("inService", flag(), ""),
            field("inflight", count(), ""),
            field("outbox", count(), ""),
            field(
                "subscribed",
                count(),
                "Owned sessions with an established subscription.",
            ),
            field("finished", count(), ""),
        ],
    )
}

fn session() -> Value {
    object(
        "An agent session, without credentials.",
        [
            field("agent", text(), ""),
            field("owner", text(), "Instance."),
            field("epoch", count(), "Fencing epoch."),
            field("destination", text(), "The client's."),
            field("extension", or_null(text()), ""),
            field("state", text(), "Last known; may be empty."),
            field(
                "subscribed",
                flag(),
                "Whether this instance holds an established subscription.",
            ),
        ],
    )
}

fn history_entry() -> Value {
    object(
        "A change.",
        [
            field("id", count(), "Rises, over restarts too."),
            field("at", text(), "RFC 3339 in UTC, with milliseconds."),
            field(
                "kind",
                text(),
                "role, operator, choice, alarm, broker, consumer, downstream, service, peer, takeover, pause, instance, reload.",
            ),
            field(
                "subject",
                text(),
                "Which group, broker, node, peer or instance.",
            ),
            field("from", or_null(text()), "State before, where it is known."),
            field(
                "to",
                text(),
                "State after; of a verb: which, and what came of it.",
            ),
            field(
                "reason",
                or_null(text()),
                "Why; of a verb: what its giver said.",
            ),
            maybe(
                "count",
                count(),
                "How often it was told without a change in between, where more than once.",
            ),
            maybe("last", text(), "When it was told last, likewise."),
            maybe(
                "token",
                text(),
                "Name of the token that the verb came with.",
            ),
            maybe("address", text(), "Address that the verb came from."),
        ],
    )
}

fn callback() -> Value {
    object(
        "A destination whose events are posted.",
        [
            field("destination", text(), ""),
            field("broker", text(), "Where its events wait."),
            field("to", text(), "Address without query."),
            field("state", text(), ""),
            field("waiting", count(), ""),
            field("posted", count(), ""),
            field("failed", count(), ""),
            field("dropped", count(), ""),
            field(
                "oldestMs",
                count(),
                "Age of the event that is being posted; 0 where none is.",
            ),
            field("lastError", or_null(text()), ""),
        ],
    )
}

fn network() -> Value {
    object(
        "What the brokers' management says of consumers and links.",
        [
            field(
                "brokers",
                list(refers("BrokerProof")),
                "In order of the list.",
            ),
            field("looks", count(), "Looks so far."),
        ],
    )
}

fn broker_proof() -> Value {
    let consumer = [
        field("queue", text(), ""),
        field("tag", text(), "Consumer tag."),
        field("priority", integer(), "x-priority; 0 where it has none."),
        field("prefetch", or_null(count()), ""),
    ];
    object(
        "A broker's word.",
        [
            field("broker", text(), "host:port"),
            field("page", text(), "Address of its management page."),
            field(
                "queued",
                or_null(count()),
                "Messages in the command queues.",
            ),
            field(
                "deadLetters",
                or_null(count()),
                "Messages in the dead letters.",
            ),
            field(
                "problem",
                or_null(text()),
                "Why its management API could not be asked.",
            ),
            field(
                "consumers",
                list(object("", consumer)),
                "Of the command queues, federation links aside.",
            ),
            field("linksRunning", count(), "Federation links that run."),
            field("linksPlanned", count(), "Federation links that should run."),
            field("linksDown", list(text()), "Name and state."),
            field(
                "unplanned",
                or_null(text()),
                "What its objects lack, or have otherwise than planned.",
            ),
        ],
    )
}

fn life() -> Value {
    let step = [
        field(
            "at",
            or_null(count()),
            "Milliseconds since the epoch, by that instance's clock.",
        ),
        maybe("time", text(), TIME),
        field("instance", text(), "Who did it."),
        field("command", text(), ""),
        field("addressee", text(), "Agent or destination."),
        field("commandId", or_null(text()), ""),
        field("correlationId", or_null(text()), ""),
        field("traceId", or_null(text()), ""),
        field("stage", text(), "One of a fixed set of words."),
        field("detail", text(), "More, for people."),
    ];
    object(
        "What happened to a command.",
        [
            field("id", text(), "As asked."),
            field(
                "answered",
                list(text()),
                "Members that told what they know.",
            ),
            field(
                "silent",
                list(text()),
                "Members that did not answer in time.",
            ),
            field(
                "notAsked",
                list(text()),
                "Members that are not there: what they did is not told.",
            ),
            field(
                "since",
                or_null(text()),
                "Time (RFC 3339) of the oldest step that the instance asked still has.",
            ),
            field(
                "steps",
                list(object("", step)),
                "In the order of their times.",
            ),
        ],
    )
}

fn live() -> Value {
    let second = [
        field("done", count(), "Commands that got their outcome."),
        field(
            "notDone",
            count(),
            "Of these, rejected, failed, expired or in doubt.",
        ),
        field("p50Ms", or_null(count()), ""),
        field("p99Ms", or_null(count()), ""),
    ];
    object(
        "What a message of the event stream holds.",
        [
            field("now", count(), "Milliseconds since the epoch."),
            field("status", refers("Status"), ""),
            field(
                "pulse",
                list(object("", second)),
                "One a second, the last minutes.",
            ),
            field(
                "history",
                list(refers("HistoryEntry")),
                "The last changes, the newest first.",
            ),
            field("network", refers("Network"), ""),
            field("needsToken", flag(), "Whether verbs want a token."),
        ],
    )
}

/// All, by name.
pub(super) fn definitions() -> Map<String, Value> {
    let counts = [
        field("total", count(), "Known."),
        field("owned", count(), "Owned by this instance."),
        field(
            "subscribed",
            count(),
            "Owned, with an established subscription.",
        ),
    ];
    let done = object(
        "A verb was taken.",
        [
            field("state", text(), "The new state."),
            maybe("group", text(), ""),
            maybe("instance", text(), ""),
            maybe("to", text(), ""),
        ],
    );
    let shapes = [
        ("Status", status()),
        (
            "Group",
            object("A group of command queues.", group_fields()),
        ),
        ("LedGroup", led_group()),
        ("Choice", choice()),
        ("Broker", broker()),
        ("Downstream", downstream()),
        ("Peer", peer()),
        ("Standing", standing()),
        ("Member", member()),
        ("SessionCounts", object("Agent sessions.", counts)),
        ("Session", session()),
        ("HistoryEntry", history_entry()),
        ("Callback", callback()),
        ("Network", network()),
        ("BrokerProof", broker_proof()),
        ("Life", life()),
        ("Live", live()),
        ("Done", done),
    ];
    let named = shapes.map(|(name, shape)| (name.to_owned(), shape));
    let mut all = Map::from_iter(named);
    all.insert("Target".to_owned(), json!({
        "type": "object", "required": ["to"],
        "properties": { "to": { "type": "string", "minLength": 1, "description": "Instance that shall lead." } },
    }));
    all
}
