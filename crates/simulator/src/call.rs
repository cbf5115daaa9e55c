//! One call and the Dialog object made from it (reference section 5.3).

use std::sync::Arc;

use super::agent::Agent;
use super::config::Deployment;
use super::xml::leaf;

/// State of a participant; the dialog's state follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// Starts the call.
    Initiating,
    /// The number is dialled.
    Initiated,
    /// Rings.
    Alerting,
    /// Talks.
    Active,
    /// Holds the others.
    Held,
    /// The call could not be made.
    Failed,
    /// Left; the agent notes what the call was about.
    WrapUp,
    /// Took an offered preview call.
    Accepted,
    /// Left.
    Dropped,
}

impl Party {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initiating => "INITIATING",
            Self::Initiated => "INITIATED",
            Self::Alerting => "ALERTING",
            Self::Active => "ACTIVE",
            Self::Held => "HELD",
            Self::Failed => "FAILED",
            Self::WrapUp => "WRAP_UP",
            Self::Accepted => "ACCEPTED",
            Self::Dropped => "DROPPED",
        }
    }
}

/// One party of a call.
#[derive(Debug, Clone)]
pub struct Participant {
    /// Number or extension.
    pub address: String,
    /// Set for an agent's device.
    pub agent: Option<Arc<Agent>>,
    /// State now.
    pub state: Party,
    /// Why it failed: `BUSY`, `BAD_DESTINATION`, …
    pub cause: &'static str,
    /// When it joined, milliseconds since the epoch.
    pub start: i64,
    /// When its state changed.
    pub changed: i64,
}

impl Participant {
    /// A party that joins now.
    pub fn new(address: &str, agent: Option<Arc<Agent>>, state: Party) -> Self {
        let now = super::now_ms();
        Self {
            address: address.to_owned(),
            agent,
            state,
            cause: "",
            start: now,
            changed: now,
        }
    }

    /// Enters a state now.
    pub fn enter(&mut self, state: Party) {
        if self.state != state {
            self.state = state;
            self.changed = super::now_ms();
        }
    }

    /// Whether it talks no more.
    pub fn over(&self) -> bool {
        matches!(self.state, Party::Dropped | Party::WrapUp)
    }

    /// Whether this is that agent's device.
    pub fn is(&self, agent: &Agent) -> bool {
        self.agent.as_ref().is_some_and(|own| own.id == agent.id)
    }
}

/// One call, shared by all its participants.
#[derive(Debug, Default)]
pub struct Call {
    /// Dialog id.
    pub id: u64,
    /// Who called.
    pub from: String,
    /// Number dialled.
    pub to: String,
    /// `callType`.
    pub kind: &'static str,
    /// Everybody who is in it.
    pub parties: Vec<Participant>,
    /// Agent who started the consultation: only he may complete it.
    pub controller: Option<Arc<str>>,
    /// The other leg of a consultation: main call and consult call name each other.
    pub linked: Option<u64>,
    /// Id of the call merged into this one.
    pub secondary: Option<u64>,
    /// Call variables.
    pub variables: Vec<(String, String)>,
    /// Wrap-up reason label.
    pub wrap_up: String,
    /// The call a supervisor's call is about, or the offer that a campaign call came from.
    pub associated: Option<u64>,
    /// Set for the offer of a preview call: the customer's number.
    pub preview: Option<String>,
    /// What answered, as the agent says.
    pub classification: String,
    /// Time and number of a scheduled callback.
    pub callback: Option<(String, String)>,
}

impl Call {
    /// The dialog's own state.
    pub fn state(&self) -> Party {
        let any = |state: Party| self.parties.iter().any(|party| party.state == state);
        let first = self.parties.first().map_or(Party::Dropped, |p| p.state);
        match first {
            Party::Initiating | Party::Failed => first,
            _ if any(Party::Accepted) => Party::Accepted,
            _ if self.parties.iter().all(|p| p.over()) => Party::Dropped,
            _ if self.talking() >= 2 => Party::Active,
            _ if any(Party::Alerting) => Party::Alerting,
            Party::Initiated => Party::Initiated,
            _ => Party::Active,
        }
    }

    fn talking(&self) -> usize {
        self.parties
            .iter()
            .filter(|party| matches!(party.state, Party::Active | Party::Held))
            .count()
    }

    /// Whether a campaign dialled it.
    pub fn campaign(&self) -> bool {
        self.kind.starts_with("OUTBOUND")
            || self.variables.iter().any(|(name, _)| name == "BAStatus")
    }

    /// Position of an agent's device.
    pub fn position(&self, agent: &Agent) -> Option<usize> {
        self.parties.iter().position(|party| party.is(agent))
    }

    /// Agents in the call, in the order they joined.
    pub fn agents(&self) -> Vec<Arc<Agent>> {
        self.parties
            .iter()
            .filter_map(|party| party.agent.clone())
            .collect()
    }

    fn actions(&self, party: &Participant, deployment: Deployment) -> &'static [&'static str] {
        if party.agent.is_none() {
            return &[];
        }
        match party.state {
            Party::Active if self.preview.is_some() => &["ACCEPT", "REJECT", "CLOSE"],
            Party::WrapUp => &["UPDATE_CALL_DATA"],
            Party::Initiating | Party::Initiated => &["DROP", "UPDATE_CALL_DATA"],
            Party::Alerting => &["ANSWER"],
            Party::Active if deployment == Deployment::Uccx => &[
                "HOLD",
                "CONSULT_CALL",
                "TRANSFER_SST",
                "UPDATE_CALL_DATA",
                "SEND_DTMF",
                "DROP",
                "START_RECORDING",
            ],
            Party::Active => &[
                "HOLD",
                "CONSULT_CALL",
                "TRANSFER_SST",
                "UPDATE_CALL_DATA",
                "SEND_DTMF",
                "DROP",
            ],
            Party::Held if self.linked.is_some() => &[
                "RETRIEVE",
                "DROP",
                "UPDATE_CALL_DATA",
                "TRANSFER",
                "CONFERENCE",
            ],
            Party::Held => &["RETRIEVE", "DROP", "UPDATE_CALL_DATA"],
            Party::Failed => &["DROP"],
            Party::Accepted | Party::Dropped => &[],
        }
    }

    /// Appends the Dialog object; `tag` is `Dialog` or `dialog`.
    pub fn write(&self, out: &mut String, tag: &str, deployment: Deployment) {
        let id = self.id.to_string();
        out.push('<');
        out.push_str(tag);
        out.push('>');
        let associated = self
            .associated
            .map(|id| format!("/finesse/api/Dialog/{id}"))
            .unwrap_or_default();
        leaf(out, "associatedDialogUri", &associated);
        leaf(out, "fromAddress", &self.from);
        leaf(out, "id", &id);
        self.write_media(out);
        leaf(out, "mediaType", "Voice");
        out.push_str("<participants>");
        for party in &self.parties {
            out.push_str("<Participant><actions>");
            for action in self.actions(party, deployment) {
                leaf(out, "action", action);
            }
            out.push_str("</actions>");
            leaf(out, "mediaAddress", &party.address);
            let device = if party.agent.is_some() {
                "AGENT_DEVICE"
            } else {
                ""
            };
            leaf(out, "mediaAddressType", device);
            leaf(out, "startTime", &super::timestamp(party.start));
            leaf(out, "state", party.state.name());
            leaf(out, "stateCause", party.cause);
            leaf(out, "stateChangeTime", &super::timestamp(party.changed));
            out.push_str("</Participant>");
        }
        out.push_str("</participants>");
        if let Some((time, number)) = &self.callback {
            out.push_str("<scheduledCallbackInfo>");
            leaf(out, "callbackTime", time);
            leaf(out, "callbackNumber", number);
            out.push_str("</scheduledCallbackInfo>");
        }
        let secondary = self.secondary.map(|id| id.to_string()).unwrap_or_default();
        leaf(out, "secondaryId", &secondary);
        leaf(out, "state", self.state().name());
        leaf(out, "toAddress", &self.to);
        leaf(out, "uri", &format!("/finesse/api/Dialog/{id}"));
        out.push_str("</");
        out.push_str(tag);
        out.push('>');
    }

    fn write_media(&self, out: &mut String) {
        out.push_str("<mediaProperties>");
        leaf(out, "DNIS", &self.to);
        leaf(out, "callType", self.kind);
        leaf(out, "dialedNumber", &self.to);
        leaf(out, "mediaId", "1");
        leaf(out, "outboundClassification", &self.classification);
        leaf(out, "wrapUpReason", &self.wrap_up);
        out.push_str("<callvariables>");
        for (name, value) in &self.variables {
            out.push_str("<CallVariable>");
            leaf(out, "name", name);
            leaf(out, "value", value);
            out.push_str("</CallVariable>");
        }
        out.push_str("</callvariables></mediaProperties>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(states: &[Party]) -> Call {
        Call {
            id: 7,
            from: "06<12".to_owned(),
            to: "8800".to_owned(),
            kind: "ACD_IN",
            parties: states
                .iter()
                .map(|s| Participant::new("1", None, *s))
                .collect(),
            variables: vec![("callVariable1".to_owned(), "a&b".to_owned())],
            ..Call::default()
        }
    }

    #[test]
    fn the_dialogs_state_follows_from_the_participants() {
        use Party::{Active, Alerting, Dropped, Failed, Held, Initiated, Initiating};
        assert_eq!(call(&[Initiating]).state(), Initiating);
        assert_eq!(call(&[Initiated]).state(), Initiated);
        assert_eq!(call(&[Initiated, Alerting]).state(), Alerting);
        assert_eq!(call(&[Active, Held]).state(), Active);
        assert_eq!(call(&[Failed]).state(), Failed);
        assert_eq!(call(&[Dropped, Dropped]).state(), Dropped);
    }

    #[test]
    fn the_object_is_well_formed_and_escaped() {
        let mut out = String::new();
        call(&[Party::Active, Party::Active]).write(&mut out, "Dialog", Deployment::Ucce);
        let elem = super::super::xml::parse(&out).unwrap();
        assert_eq!(elem.child("fromAddress").unwrap().text, "06<12");
        assert_eq!(elem.child("participants").unwrap().children.len(), 2);
        assert_eq!(elem.child("state").unwrap().text, "ACTIVE");
    }
}
