//! Bytes to types and back: commands (both forms), events (both forms), replies, peer messages.
//!
//! No I/O, and nothing waits. Two things come from the machine: the random numbers of a sealed
//! message ([`control`]) and the local time zone, in which events tell times ([`event`]). Neither
//! has a say in a decision.

pub mod command;
pub mod control;
pub mod errors;
pub mod event;
pub mod http_call;
pub mod message;
pub mod peer;
pub mod reply;

use tandem_model::{self as model, catalogue};
