//! Values that many entries have in common, each kept once and known by a number.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

#[derive(Debug)]
struct Slot<T> {
    value: Arc<T>,
    users: u32,
}

/// The values, counted by their users: one that nobody uses is forgotten, and its number is given
/// again.
#[derive(Debug)]
pub(super) struct Shared<T> {
    numbers: HashMap<Arc<T>, u32>,
    slots: Vec<Option<Slot<T>>>,
    free: Vec<u32>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T: Eq + Hash + Clone> Shared<T> {
    /// The number of a value; it has one user more, who is to [`Shared::release`] it.
    pub(super) fn take(&mut self, value: &T) -> u32 {
        if let Some(number) = self.numbers.get(value).copied() {
            if let Some(slot) = self.slots[number as usize].as_mut() {
                slot.users += 1;
            }
            return number;
        }
        let value = Arc::new(value.clone());
        let slot = Some(Slot {
            value: Arc::clone(&value),
            users: 1,
        });
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                // As many as there are entries at most: their bound is far below it.
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.numbers.insert(value, number);
        number
    }

    /// The value of a number that has a user.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let slot = self.slots.get(number as usize)?.as_ref()?;
        Some(&slot.value)
    }

    /// One user less.
    pub(super) fn release(&mut self, number: u32) {
        let Some(place) = self.slots.get_mut(number as usize) else {
            return;
        };
        let Some(slot) = place else {
            return;
        };
        slot.users -= 1;
        if slot.users == 0 {
            self.numbers.remove(&slot.value);
            *place = None;
            self.free.push(number);
        }
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}
