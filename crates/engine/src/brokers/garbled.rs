//! What cannot be read: messages of the own control queue, and links on which nothing can be.

use std::sync::Arc;

use crate::api::command::Outbound;
use crate::api::ids::LinkEpoch;
use crate::jobs::life::Tag;
use crate::wire::command::UNREADABLE;
use crate::wire::message::RawMessage;
use crate::{Engine, Event, limits};

impl Engine {
    /// A message of the own control queue whose properties cannot be read goes to the dead
    /// letters. Its delivery is acknowledged by the shell: what is put there holds nobody up.
    pub(crate) fn on_unreadable(&mut self, raw: RawMessage) {
        let unreadable = raw.unreadable.as_ref();
        let detail = unreadable.map_or_else(String::new, |why| why.detail.clone());
        self.out.tell(Event::DeadLettered {
            tag: Arc::new(Tag::of(&raw, None, None)),
            reason: UNREADABLE,
            detail: detail.clone(),
        });
        // Without a delivery that waits for it, nothing else bounds them.
        if self.outbox.len() >= limits::STRAY_LETTERS {
            return;
        }
        let letter = Outbound::DeadLetter {
            raw: Arc::new(raw),
            reason: UNREADABLE,
            detail,
        };
        self.post(letter, None);
    }

    /// What came on a link could not be read. That it is down is told next.
    pub(crate) fn on_link_garbled(&mut self, link: LinkEpoch, problem: String) {
        let Some((broker, times)) = self.links.on_garbled(self.now, link, &problem) else {
            self.stale("link");
            return;
        };
        self.out.tell(Event::LinkGarbled {
            broker: self.links.label(broker).to_owned(),
            problem,
            times,
        });
    }

    /// One sentence for each broker that is left alone for a while.
    pub(crate) fn garbled_warnings(&self) -> impl Iterator<Item = String> {
        (0..self.links.len()).filter_map(|broker| {
            let (problem, times) = self.links.garbled(self.now, broker)?;
            if times < limits::GARBLED_TIMES {
                return None;
            }
            let label = self.links.label(broker);
            Some(format!(
                "what broker {label} sends could not be read {times} times in a row ({problem}): \
                 it is used again after a pause that grows"
            ))
        })
    }
}
