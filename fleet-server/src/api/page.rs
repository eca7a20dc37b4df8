//! The page and the description of the API, both part of the program.

use std::sync::LazyLock;

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

/// The page with its style and script inside: one answer, and no other thing that the page may load.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    // In this order: each may use what stands before it.
    let script = [
        include_str!("../web/base.js"),
        include_str!("../web/fleet.js"),
        include_str!("../web/watch.js"),
        include_str!("../web/drift.js"),
        include_str!("../web/review.js"),
        include_str!("../web/live.js"),
    ];
    include_str!("../web/page.html")
        .replace("__STYLE__", include_str!("../web/style.css"))
        .replace("__SCRIPT__", &script.join("\n"))
});
const OPENAPI: &str = include_str!("../../openapi.yaml");

/// Stands in the page where the number goes that lets its own script and style run.
const NONCE: &str = "__NONCE__";

pub(super) async fn page() -> Response {
    let mut random = [0; 16];
    if getrandom::fill(&mut random).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let nonce = hex::encode(random);
    // Nothing but this server is spoken to, and nothing but the page's own script and style runs.
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(PAGE.replace(NONCE, &nonce))).into_response()
}

pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml; charset=utf-8")], OPENAPI)
}
