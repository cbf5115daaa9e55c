//! Bytes to types and back: commands (both forms), events (both forms), replies, peer messages.
//!
//! Pure: no I/O, no clock.

pub mod command;
pub mod control;
pub mod errors;
pub mod event;
pub mod http_call;
pub mod message;
pub mod peer;
pub mod reply;

use tandem_model::{self as model, catalogue};
