//! What goes in, what comes out, and how it is configured: read this first.

pub mod command;
pub mod config;
pub mod event;
pub mod ids;
pub mod input;
pub mod limits;
pub mod way;
