//! Exit codes, the same for every command.

/// Done.
pub const DONE: u8 = 0;
/// What was asked for failed, or the answer is "no".
pub const FAILED: u8 = 1;
/// Usage or configuration error (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// Broker, peer or admin API unreachable (`EX_UNAVAILABLE`).
pub const UNREACHABLE: u8 = 69;
/// Internal error (`EX_SOFTWARE`).
pub const INTERNAL: u8 = 70;
