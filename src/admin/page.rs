//! The status page: one document, two scripts, one style sheet, nothing from elsewhere.

use axum::Router;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;

use super::AdminState;

/// Only what this listener serves, and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn router() -> Router<AdminState> {
    Router::new()
        .route(
            "/",
            get(async || page("text/html", include_str!("page/status.html"))),
        )
        .route(
            "/pair.js",
            get(async || page("text/javascript", include_str!("page/pair.js"))),
        )
        .route(
            "/status.js",
            get(async || page("text/javascript", include_str!("page/status.js"))),
        )
        .route(
            "/glossary.json",
            get(async || page("application/json", include_str!("page/glossary.json"))),
        )
        .route(
            "/status.css",
            get(async || page("text/css", include_str!("page/status.css"))),
        )
}

fn page(kind: &str, text: &'static str) -> impl IntoResponse + use<> {
    let kind = format!("{kind}; charset=utf-8");
    let policy = POLICY.to_owned();
    (
        [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, policy)],
        text,
    )
}
