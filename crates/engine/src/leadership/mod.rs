//! Who leads which group: roles by rank, handover in order, what operators chose.

pub(crate) mod choice;
pub(crate) mod groups;
pub(crate) mod handover;
pub(crate) mod roles;
