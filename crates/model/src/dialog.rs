//! A call as one agent sees it.

/// One party of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Participant {
    /// Extension or number.
    pub media_address: String,
    /// `AGENT_DEVICE` or empty.
    pub media_address_type: String,
    /// Participant state, e.g. `ALERTING`.
    pub state: String,
    /// Cause of a failure, e.g. `BUSY`.
    pub state_cause: String,
    /// UTC start of the participation.
    pub start_time: String,
    /// UTC time of the last change.
    pub state_change_time: String,
    /// What this party may do now.
    pub actions: Vec<String>,
}

/// The platform's `Dialog` object. Missing elements are empty texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dialog {
    /// Call id, shared by all parties.
    pub id: String,
    /// Id of the call that was merged away by a transfer or conference.
    pub secondary_id: String,
    /// Id of the related dialog (last segment of `associatedDialogUri`).
    pub associated_dialog_id: String,
    /// Who started the original call.
    pub from_address: String,
    /// Dialled number of the original call.
    pub to_address: String,
    /// Dialog state, e.g. `ACTIVE`.
    pub state: String,
    /// `Voice` for calls.
    pub media_type: String,
    /// Call type, e.g. `ACD_IN`; may be empty after a failover.
    pub call_type: String,
    /// Queue the call came through.
    pub queue_name: String,
    /// Dialled number id.
    pub dnis: String,
    /// Wrap-up label.
    pub wrap_up_reason: String,
    /// Call variables in document order.
    pub call_variables: Vec<(String, String)>,
    /// Parties.
    pub participants: Vec<Participant>,
}

impl Dialog {
    /// The party whose address is `extension`.
    #[must_use]
    pub fn participant(&self, extension: &str) -> Option<&Participant> {
        self.participants
            .iter()
            .find(|party| party.media_address == extension)
    }

    /// When the party at `extension` came in, milliseconds since the epoch by the platform's
    /// clock: for the one who called, when the call was made.
    #[must_use]
    pub fn created_ms(&self, extension: &str) -> Option<u64> {
        let text = &self.participant(extension)?.start_time;
        let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
        u64::try_from(time.timestamp_millis()).ok()
    }

    /// Whether the call is over.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.state.as_str(), "DROPPED" | "FAILED")
    }
}
