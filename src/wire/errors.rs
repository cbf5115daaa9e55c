//! Which error code a client sees for a refusal of the downstream.

use crate::model::ApiError;

/// Code and message for a refusal.
#[must_use]
pub fn code_of(error: &ApiError, status: u16) -> (String, String) {
    let _ = status;
    ("CF_GENERIC_UNSPECIFIED".to_owned(), error.message.clone())
}
