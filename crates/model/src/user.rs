//! An agent as the platform shows it.

use serde::{Deserialize, Serialize};

/// A team.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Team {
    /// Platform id.
    pub id: String,
    /// Display name.
    pub name: String,
}

/// The phone of an agent who works without a device of the platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mobile {
    /// `CALL_BY_CALL` or `NAILED_CONNECTION`.
    pub mode: String,
    /// The phone's number.
    pub dial_number: String,
}

/// The platform's `User` object. Missing elements are empty texts, as the platform treats them alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// Agent id (`loginId`).
    pub login_id: String,
    /// Login name.
    pub login_name: String,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// Extension of the signed-in device.
    pub extension: String,
    /// Agent state, e.g. `NOT_READY`; upper case.
    pub state: String,
    /// State to be entered when the call ends; empty otherwise.
    pub pending_state: String,
    /// Database id of the reason; `-1` or empty when none.
    pub reason_code_id: String,
    /// Label of the reason.
    pub reason_label: String,
    /// The reason's code as reports show it: `255` where the platform itself changed the state.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason_code: String,
    /// UTC, as the platform writes it: `YYYY-MM-DDThh:mm:ss.SSSZ`; may be empty.
    pub state_change_time: String,
    /// Whether `Supervisor` is among the roles.
    pub supervisor: bool,
    /// Wrap-up mode on incoming calls.
    pub wrap_up_on_incoming: String,
    /// The team the user belongs to.
    pub team: Team,
    /// Teams that a supervisor supervises.
    pub teams: Vec<Team>,
    /// Media type; `1` is voice.
    pub media_type: String,
    /// Set while signed in as a mobile agent.
    pub mobile: Option<Mobile>,
}

impl User {
    /// Whether the platform did not say which state it is: the last one known stands.
    #[must_use]
    pub fn state_unknown(&self) -> bool {
        matches!(self.state.as_str(), "" | "UNKNOWN")
    }

    /// First and last name, blank-separated.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{} {}", self.first_name, self.last_name)
            .trim()
            .to_owned()
    }

    /// Takes over what an account leaves out and was known before: notifications may hold the state
    /// alone. What changes with the state (reason, time, mobile phone) is not taken over, and a
    /// signed-out user has no extension.
    pub fn complete_with(&mut self, known: &Self) {
        let signed_in = self.signed_in();
        self.supervisor |= known.supervisor;
        let fill = |mine: &mut String, theirs: &String| {
            if mine.is_empty() {
                mine.clone_from(theirs);
            }
        };
        // Both or none: a changed name may have lost one of its parts.
        if self.first_name.is_empty() && self.last_name.is_empty() {
            fill(&mut self.first_name, &known.first_name);
            fill(&mut self.last_name, &known.last_name);
        }
        fill(&mut self.login_id, &known.login_id);
        fill(&mut self.login_name, &known.login_name);
        fill(&mut self.media_type, &known.media_type);
        fill(&mut self.wrap_up_on_incoming, &known.wrap_up_on_incoming);
        if signed_in {
            fill(&mut self.extension, &known.extension);
        }
        if self.team == Team::default() {
            self.team.clone_from(&known.team);
        }
        if self.teams.is_empty() {
            self.teams.clone_from(&known.teams);
        }
    }

    /// Whether the platform counts the user as signed in.
    #[must_use]
    pub fn signed_in(&self) -> bool {
        !matches!(self.state.as_str(), "" | "LOGOUT" | "UNKNOWN")
    }
}
