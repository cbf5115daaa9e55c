//! What is kept on disk beside the journal: sessions, epochs, group states.

pub(crate) mod keep;
