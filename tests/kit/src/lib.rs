//! For tests: certificates of every kind, and addresses that swallow connections.

#![allow(
    clippy::unwrap_used,
    clippy::new_without_default,
    reason = "a test fails by panic"
)]

pub mod certs;
pub mod hole;
