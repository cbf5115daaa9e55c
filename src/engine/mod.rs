//! (to come)

pub mod command;
pub mod ids;
pub mod input;
pub mod peer;

pub use command::Command;
pub use input::Input;
