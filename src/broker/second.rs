//! The second channel of deliveries: expired commands have one of their own, as a broker that
//! refuses them closes it. Their tags are marked, with the number of their channel, so that one tag
//! of a link names one delivery.

use std::sync::Mutex;

use lapin::Channel;

use super::lock;

/// Marks the tags of the second channel.
const MARK: u64 = 1 << 63;
/// Where the number of that channel stands, and how many numbers there are.
const NUMBER_SHIFT: u32 = 48;
const NUMBERS: u64 = 1 << 15;

/// The channel of expired commands; a new one after each refusal.
#[derive(Default)]
pub(super) struct Second(Mutex<(u64, Option<Channel>)>);

impl Second {
    /// Takes a new channel; gives back what marks its tags.
    pub(super) fn replace(&self, channel: Channel) -> Marker {
        let mut second = lock(&self.0);
        second.0 = (second.0 + 1) % NUMBERS;
        second.1 = Some(channel);
        Marker(MARK | (second.0 << NUMBER_SHIFT))
    }

    /// The channel that a marked tag is of, and its tag there. What was delivered on an earlier
    /// channel went back to its queue with that.
    pub(super) fn find(&self, tag: u64) -> Option<(Channel, u64)> {
        let second = lock(&self.0);
        let (number, own) = unmarked(tag);
        let channel = second.1.clone().filter(|_| number == second.0)?;
        Some((channel, own))
    }
}

/// Marks tags; the default one leaves them as they are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marker(u64);

impl Marker {
    pub(super) fn mark(self, tag: u64) -> u64 {
        self.0 | tag
    }
}

/// Whether a tag is one of the second channel.
pub(super) fn is_marked(tag: u64) -> bool {
    tag & MARK != 0
}

/// Number of the channel, and tag on it.
fn unmarked(tag: u64) -> (u64, u64) {
    let number = (tag & !MARK) >> NUMBER_SHIFT;
    (number, tag & ((1 << NUMBER_SHIFT) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_tag_keeps_channel_and_tag_apart() {
        let marker = Marker(MARK | (7 << NUMBER_SHIFT));
        let tag = marker.mark(12_345);
        assert_ne!(tag & MARK, 0);
        assert_eq!(unmarked(tag), (7, 12_345));
        assert_eq!(Marker::default().mark(9), 9);
    }
}
