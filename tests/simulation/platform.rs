//! What the platform remembers: calls that were made. Asked for an agent's calls it shows those
//! that are not over, as an instance in doubt wants to know.

use std::collections::BTreeMap;

use tandem_model::{Dialog, Participant};

/// The time of day of the wall clock's zero (`WALL`), seconds.
const ZERO_OF_DAY_S: u64 = 80_000;

/// A call.
#[derive(Debug)]
struct Made {
    number: u64,
    from: String,
    to: String,
    at: u64,
    over: u64,
}

/// The platform behind all downstream nodes.
#[derive(Debug, Default)]
pub struct Platform {
    /// By agent.
    calls: BTreeMap<String, Vec<Made>>,
    count: u64,
}

impl Platform {
    /// A call is made, and lasts.
    pub fn call(&mut self, agent: &str, from: &str, to: &str, at: u64, millis: u64) {
        self.count += 1;
        self.calls.entry(agent.to_owned()).or_default().push(Made {
            number: self.count,
            from: from.to_owned(),
            to: to.to_owned(),
            at,
            over: at + millis,
        });
    }

    /// The calls that an agent has now.
    pub fn dialogs(&self, agent: &str, now: u64) -> Vec<Dialog> {
        let calls = self.calls.get(agent).into_iter().flatten();
        let lasting = calls.filter(|call| call.over > now);
        lasting.map(Made::dialog).collect()
    }
}

impl Made {
    fn dialog(&self) -> Dialog {
        Dialog {
            id: self.number.to_string(),
            from_address: self.from.clone(),
            to_address: self.to.clone(),
            state: "ACTIVE".into(),
            media_type: "Voice".into(),
            participants: vec![Participant {
                media_address: self.from.clone(),
                state: "ACTIVE".into(),
                start_time: time(self.at),
                ..Participant::default()
            }],
            ..Dialog::default()
        }
    }
}

/// A time as the platform writes it; runs are shorter than the rest of that day.
fn time(now: u64) -> String {
    let (seconds, millis) = (ZERO_OF_DAY_S + now / 1_000, now % 1_000);
    let (hour, minute) = (seconds / 3_600, seconds / 60 % 60);
    format!(
        "2023-11-14T{hour:02}:{minute:02}:{:02}.{millis:03}Z",
        seconds % 60
    )
}
