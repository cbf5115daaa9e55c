//! Numbers: those that name what is asked of shells, and jitter. Not for secrets.

/// Next number of a xorshift sequence; the state must not be 0.
#[must_use]
pub fn next(state: u64) -> u64 {
    let mut x = state | 1;
    x ^= x << 13;
    x ^= x >> 7;
    x ^ (x << 17)
}

/// The engine's numbers.
#[derive(Debug)]
pub(crate) struct Numbers {
    rng: u64,
    next_id: u64,
}

impl Numbers {
    /// Peers echo some of these numbers: those of two starts must not meet, hence `boot`.
    pub(crate) fn new(seed: u64, boot: u64) -> Self {
        Self {
            rng: seed,
            next_id: (boot & 0xFF_FFFF) << 40,
        }
    }

    /// One that was not given before.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// One of 0 to `bound`.
    pub(crate) fn jitter(&mut self, bound: u64) -> u64 {
        self.rng = next(self.rng);
        self.rng % (bound + 1)
    }
}
