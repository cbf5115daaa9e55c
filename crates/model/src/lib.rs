//! Plain words of the telephony world, shared by the engine, the wire formats and the shells.
//!
//! Nothing here does I/O; everything is cheap to clone or held behind an `Arc`.

mod action;
pub mod brokers;
pub mod catalogue;
mod dialog;
mod http;
mod ids;
pub mod json;
mod lists;
mod secret;
mod shortage;
pub mod text;
mod trace;
mod update;
mod user;

pub use action::{
    Action, Answer, ApiError, CallOutcome, CampaignVerb, DialVerb, DialogVerb, ReasonCategory,
    ReasonCode,
};
pub use dialog::{Dialog, Participant};
pub use http::{HttpAnswer, HttpPermission, HttpRequest};
pub use ids::{AgentId, BootId, Destination, IdError, InstanceId};
pub use json::Json;
pub use lists::{Contact, PhoneBook, Queue};
pub use secret::{REDACTED, Secret};
pub use shortage::{Resource, Shortage};
pub use trace::{Cause, Trace};
pub use update::{DialogsVerb, NodeHealth, Update, UpdateBody};
pub use user::{Mobile, Team, User};
