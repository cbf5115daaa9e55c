//! Broker shell.

pub mod management;
pub mod topology;
