//! What the platform's lists hold besides users.

/// A queue with its statistics, as the platform writes them: `-1` stands for not available.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue {
    /// Display name.
    pub name: String,
    /// `agentsNotReady`.
    pub agents_not_ready: String,
    /// `agentsReady`.
    pub agents_ready: String,
    /// `agentsTalkingInbound`.
    pub agents_talking_inbound: String,
    /// `agentsTalkingInternal`.
    pub agents_talking_internal: String,
    /// `agentsTalkingOutbound`.
    pub agents_talking_outbound: String,
    /// `agentsWrapUpNotReady`.
    pub agents_wrap_up_not_ready: String,
    /// `agentsWrapUpReady`.
    pub agents_wrap_up_ready: String,
    /// `callsInQueue`.
    pub calls_in_queue: String,
    /// `startTimeOfLongestCallInQueue`, UTC.
    pub start_time_of_longest_call: String,
}

/// A phone book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PhoneBook {
    /// Last segment of its `uri`.
    pub id: String,
    /// Display name.
    pub name: String,
    /// `GLOBAL` or `TEAM`.
    pub kind: String,
}

/// One entry of a phone book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contact {
    /// Last segment of its `uri`.
    pub id: String,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// Number.
    pub phone_number: String,
    /// Free text.
    pub description: String,
}
