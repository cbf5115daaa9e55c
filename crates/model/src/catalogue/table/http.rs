//! The generic HTTP downstream.

use super::agent;
use crate::catalogue::{ArgSpec, CommandSpec, ErrorCode, Repeat, Step, Who};

pub(super) static COMMANDS: &[CommandSpec] = &[agent(
    "Call",
    &[
        ArgSpec::required("method", ErrorCode::PleaseRetry),
        ArgSpec::required("path", ErrorCode::PleaseRetry),
        ArgSpec::optional("headers").any_json(),
        ArgSpec::optional("query").any_json(),
        ArgSpec::optional("body").any_json(),
        ArgSpec::optional("idempotent").any_json(),
    ],
    // Of a POST or PATCH; the other methods are safe, and so is one that says that it is.
    Repeat::Unsafe,
    Step::Http,
)
.by(Who::Client)
.asks("the request, below the base URL (`downstream.kind = http` only)")
.tells(
    "none: the reply carries `status` and `body`",
    "NOT_ALLOWED, HTTP_3xx, HTTP_4xx, HTTP_5xx, NOT_IMPLEMENTED",
)];
