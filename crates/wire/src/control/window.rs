//! Replay window: which of the newest sequence numbers were seen.

/// Sequence numbers that may still arrive late.
pub(super) const WIDTH: u64 = 1024;
const WORDS: usize = 16;

/// The newest number and, behind it, one bit each for the last [`WIDTH`].
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    highest: u64,
    seen: [u64; WORDS],
    /// When a message was last checked here, in the opener's own count.
    pub(super) last_heard: u64,
}

impl Window {
    /// Notes `sequence` (from 1); false where it was seen before or lies behind the window.
    pub(super) fn accept(&mut self, sequence: u64) -> bool {
        if sequence == 0 {
            return false;
        }
        if sequence > self.highest {
            self.forget_between(sequence);
            self.highest = sequence;
        } else if self.highest - sequence >= WIDTH {
            return false;
        }
        let (word, bit) = place(sequence);
        let fresh = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        fresh
    }

    /// The bits are a ring: those of the numbers skipped over belong to old ones and are cleared.
    fn forget_between(&mut self, sequence: u64) {
        if sequence - self.highest >= WIDTH {
            self.seen = [0; WORDS];
            return;
        }
        for number in self.highest + 1..=sequence {
            let (word, bit) = place(number);
            self.seen[word] &= !bit;
        }
    }
}

fn place(sequence: u64) -> (usize, u64) {
    let index = sequence % WIDTH;
    // Below 16, as the index is below 1024.
    ((index / 64) as usize, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_accepted_once_in_any_order() {
        let mut window = Window::default();
        for sequence in [5, 3, 4, 1, 2, 1000, 999] {
            assert!(window.accept(sequence), "{sequence}");
            assert!(!window.accept(sequence), "{sequence} twice");
        }
    }

    #[test]
    fn what_lies_behind_the_window_is_refused() {
        let mut window = Window::default();
        assert!(window.accept(WIDTH + 10));
        assert!(!window.accept(10));
        assert!(window.accept(11));
        assert!(!window.accept(0));
    }

    #[test]
    fn a_jump_clears_the_ring() {
        let mut window = Window::default();
        assert!(window.accept(7));
        assert!(window.accept(7 + WIDTH));
        assert!(window.accept(7 + 5 * WIDTH));
        assert!(window.accept(u64::MAX));
        assert!(!window.accept(u64::MAX));
    }
}
