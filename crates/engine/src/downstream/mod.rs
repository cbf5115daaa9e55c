//! The downstream: which node is used, whether there is service, requests to a generic HTTP one, and
//! what this machine has no room for.

pub(crate) mod calls;
pub(crate) mod http;
pub(crate) mod route;
mod service;
pub(crate) mod shortage;
