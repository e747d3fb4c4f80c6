//! What is not an exchange: the front page, the description of the HTTP routes, the probes, and
//! paths that are not there.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tonic::Status;

use super::{Serving, is_grpc, reply};
use crate::reason::{Reason, Refusal};

const PAGE: &str = include_str!("pages/index.html");
/// OpenAPI 3.1, written by hand; tests hold it against the routes and the table of reasons.
pub(super) const OPENAPI: &str = include_str!("pages/openapi.json");
const MESSAGE: &str = r#"{"msg": "a Security Token Service for GitHub: GET /sts/exchange?scope=OWNER/REPO&identity=NAME with an OIDC token as bearer"}"#;
/// What these routes allow.
pub(super) const METHODS: &str = "GET, HEAD";
const JSON: (HeaderName, HeaderValue) =
    (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

/// The routes of these pages.
pub(super) fn routes(app: Arc<Serving>) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/openapi.json", get(async || ([JSON], OPENAPI)))
        .route("/livez", get(live))
        .route("/healthcheck", get(live))
        .route("/readyz", get(ready))
        .method_not_allowed_fallback(async || reply::method_not_allowed(METHODS))
        .with_state(app)
}

/// A page where the caller says that it shows HTML, JSON for everybody else.
async fn front(headers: HeaderMap) -> Response {
    let vary = (header::VARY, HeaderValue::from_static("accept"));
    if !accepts_html(&headers) {
        return ([JSON, vary], MESSAGE).into_response();
    }
    let policy = (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    ([vary, policy], Html(PAGE)).into_response()
}

fn accepts_html(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT);
    accepts.iter().any(|value| {
        value.as_bytes().windows(9).any(|part| part.eq_ignore_ascii_case(b"text/html"))
    })
}

/// The process answers: restarting it would not help.
pub(super) async fn live() -> Response {
    ([JSON], r#"{"msg": "ok"}"#).into_response()
}

/// Exchanges can be served: send callers here.
async fn ready(State(app): State<Arc<Serving>>) -> Response {
    readiness(app.is_ready())
}

pub(super) fn readiness(is_ready: bool) -> Response {
    if is_ready {
        ([JSON], r#"{"msg": "ready"}"#).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, [JSON], r#"{"msg": "not ready"}"#).into_response()
    }
}

/// A path that is not there, told in the words of the wire it came by.
pub(super) async fn not_found(request: Request) -> Response {
    if is_grpc(request.headers()) {
        let status: Status = reply::grpc(&Refusal::new(Reason::Unimplemented, "no such service"));
        return status.into_http();
    }
    reply::no_such_path()
}
