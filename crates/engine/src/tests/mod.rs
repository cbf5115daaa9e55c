//! Behaviour of the engine, one file a subject. [`support::Rig`] drives one engine by hand.

mod aside;
mod calls;
mod clients;
mod commands;
mod downstream;
mod ending;
mod garbled;
mod grey;
mod http;
mod journal;
mod keep;
mod late;
mod merge;
mod moving;
mod peers;
mod promises;
mod random;
mod replies;
mod shortage;
mod strangers;
mod support;
mod trace;
mod verbs;
