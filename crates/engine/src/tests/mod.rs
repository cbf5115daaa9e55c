//! Behaviour of the engine, one file a subject. [`support::Rig`] drives one engine by hand.

mod aside;
mod calls;
mod certain;
mod choices;
mod clients;
mod commands;
mod copies;
mod downstream;
mod ending;
mod garbled;
mod grey;
mod groups;
#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it runs itself under a tool"
)]
mod growth;
mod handover;
mod http;
mod joining;
mod journal;
mod keep;
mod late;
mod leaving;
mod lingering;
mod merge;
mod moving;
mod peers;
mod promises;
mod random;
mod reads;
mod redelivered;
mod remembered;
mod replies;
mod shortage;
mod standing_by;
mod strangers;
mod support;
mod taken_back;
mod trace;
mod unproven;
mod verbs;
