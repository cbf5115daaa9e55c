//! Errors of the benchmark: text for a person, nothing that is told apart.

/// Any error.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// Result with any error.
pub type Result<T> = std::result::Result<T, Error>;
