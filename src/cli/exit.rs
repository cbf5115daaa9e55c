//! Exit codes, the same for every command.

use crate::client::ClientError;

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

/// That of a failure of the AMQP client.
#[must_use]
pub fn of_client(error: &ClientError) -> u8 {
    match error {
        ClientError::Url { .. } | ClientError::Tls(_) => USAGE,
        ClientError::Unreachable(_) | ClientError::Away { .. } => UNREACHABLE,
        ClientError::Refused { .. } | ClientError::Closed => FAILED,
    }
}
