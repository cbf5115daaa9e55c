//! Jitter. Not for secrets.

/// Next number of a xorshift sequence; the state must not be 0.
#[must_use]
pub fn next(state: u64) -> u64 {
    let mut x = state | 1;
    x ^= x << 13;
    x ^= x >> 7;
    x ^ (x << 17)
}
