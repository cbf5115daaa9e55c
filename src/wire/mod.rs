//! Bytes to types and back: commands (both forms), events (both forms), replies, peer messages.
//!
//! Pure: no I/O, no clock.

pub mod message;
