//! Commands on their way: which are unconfirmed, which wait for their reply, which to send again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Command;

/// How much longer than after a lost connection a reply is waited for on one that stands.
const ON_THIS_LINK: u32 = 10;

/// A command as [`super::Client::send`] hands it over.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) id: String,
    confirmed: Option<oneshot::Sender<()>>,
    /// Given back when the command is forgotten.
    _room: OwnedSemaphorePermit,
}

impl Request {
    pub(super) fn new(
        command: Command,
        id: String,
        confirmed: oneshot::Sender<()>,
        room: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            command,
            id,
            confirmed: Some(confirmed),
            _room: room,
        }
    }
}

#[derive(Debug)]
struct Entry {
    request: Request,
    first: Instant,
    /// Copies published.
    copies: u32,
    /// Connection of the last copy, counted from 1; zero before the first.
    link: u64,
    sent: Instant,
    confirmed: bool,
}

/// All commands that are not done with, by the order of their sending.
#[derive(Debug, Default)]
pub(super) struct Pending {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    by_id: HashMap<String, Vec<u64>>,
}

/// One copy to publish.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    pub(super) command: Command,
    pub(super) id: String,
    pub(super) attempt: u32,
}

impl Pending {
    pub(super) fn add(&mut self, request: Request, now: Instant) -> u64 {
        self.next += 1;
        let key = self.next;
        self.by_id.entry(request.id.clone()).or_default().push(key);
        let entry = Entry {
            request,
            first: now,
            copies: 0,
            link: 0,
            sent: now,
            confirmed: false,
        };
        self.entries.insert(key, entry);
        key
    }

    /// The next copy of a command, noted as sent over `link`.
    pub(super) fn copy(&mut self, key: u64, link: u64, now: Instant) -> Option<Copy> {
        let entry = self.entries.get_mut(&key)?;
        let attempt = entry.request.command.attempt.saturating_add(entry.copies);
        entry.copies += 1;
        entry.link = link;
        entry.sent = now;
        Some(Copy {
            command: entry.request.command.clone(),
            id: entry.request.id.clone(),
            attempt,
        })
    }

    /// The broker has it.
    pub(super) fn confirmed(&mut self, key: u64) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.confirmed = true;
        if let Some(told) = entry.request.confirmed.take() {
            let _ = told.send(());
        }
        if !entry.request.command.reply {
            self.remove(key);
        }
    }

    /// A reply to `id` came.
    pub(super) fn answered(&mut self, id: &str) {
        for key in self.by_id.remove(id).unwrap_or_default() {
            if let Some(entry) = self.entries.remove(&key)
                && let Some(told) = entry.request.confirmed
            {
                let _ = told.send(());
            }
        }
    }

    /// Commands without confirm of any copy, oldest first.
    pub(super) fn unconfirmed(&self) -> Vec<u64> {
        let waiting = self.entries.iter().filter(|(_, entry)| !entry.confirmed);
        waiting.map(|(key, _)| *key).collect()
    }

    /// Commands whose last copy went over an older connection and has no reply after `patience`;
    /// over this one, after [`ON_THIS_LINK`] times that: a reply that came before the other brokers
    /// knew of this connection's queue found none.
    pub(super) fn stale(&self, link: u64, patience: Duration, now: Instant) -> Vec<u64> {
        let old = self.entries.iter().filter(|(_, entry)| {
            let patience = match entry.link == link {
                true => ON_THIS_LINK * patience,
                false => patience,
            };
            entry.confirmed && now.saturating_duration_since(entry.sent) >= patience
        });
        old.map(|(key, _)| *key).collect()
    }

    /// Forgets what is older than `limit`.
    pub(super) fn forget(&mut self, limit: Duration, now: Instant) {
        let old = |entry: &Entry| now.saturating_duration_since(entry.first) >= limit;
        let keys: Vec<u64> = self
            .entries
            .iter()
            .take_while(|(_, entry)| old(entry))
            .filter(|(_, entry)| entry.confirmed)
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: u64) {
        let Some(entry) = self.entries.remove(&key) else {
            return;
        };
        if let Some(keys) = self.by_id.get_mut(&entry.request.id) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_id.remove(&entry.request.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn add(pending: &mut Pending, id: &str, now: Instant) -> (u64, oneshot::Receiver<()>) {
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (confirmed, confirm) = oneshot::channel();
        let command = Command::new("GetState#1", "");
        let request = Request::new(command, id.to_owned(), confirmed, room);
        (pending.add(request, now), confirm)
    }

    #[test]
    fn unconfirmed_copies_go_out_again_with_a_higher_attempt() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let (key, mut confirm) = add(&mut pending, "a", now);
        assert_eq!(pending.copy(key, 1, now).unwrap().attempt, 1);
        assert_eq!(pending.unconfirmed(), [key]);
        assert_eq!(pending.copy(key, 2, now).unwrap().attempt, 2);
        pending.confirmed(key);
        assert!(confirm.try_recv().is_ok());
        assert!(pending.unconfirmed().is_empty());
    }

    #[test]
    fn confirmed_commands_become_stale_on_older_connections_first() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let (key, _confirm) = add(&mut pending, "a", now);
        pending.copy(key, 1, now);
        pending.confirmed(key);
        assert!(pending.stale(1, SECOND, now + 9 * SECOND).is_empty());
        assert_eq!(pending.stale(1, SECOND, now + 10 * SECOND), [key]);
        assert!(pending.stale(2, 3 * SECOND, now + SECOND).is_empty());
        assert_eq!(pending.stale(2, 3 * SECOND, now + 3 * SECOND), [key]);
        pending.answered("a");
        assert!(pending.stale(2, 3 * SECOND, now + 3 * SECOND).is_empty());
    }

    #[test]
    fn a_reply_ends_every_copy_and_old_commands_are_forgotten() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let (_first, mut first_told) = add(&mut pending, "a", now);
        let (second, _second_told) = add(&mut pending, "a", now);
        pending.confirmed(second);
        pending.answered("a");
        assert!(first_told.try_recv().is_ok());
        assert!(pending.entries.is_empty() && pending.by_id.is_empty());
        let (third, _told) = add(&mut pending, "b", now);
        pending.forget(SECOND, now + SECOND);
        assert_eq!(pending.unconfirmed(), [third], "unconfirmed ones are kept");
        pending.confirmed(third);
        pending.forget(SECOND, now + SECOND);
        assert!(pending.entries.is_empty() && pending.by_id.is_empty());
    }
}
