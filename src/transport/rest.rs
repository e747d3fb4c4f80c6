//! The REST wire: `/sts/exchange`, `/sts/check` and `/sts/exchange_refresh_token`.
//!
//! Methods are told apart here and not by the router, which would answer a HEAD by running GET:
//! HEAD must never mint.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use bytes::Bytes;
use http::{Method, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use secrecy::ExposeSecret;

use super::{
    App,
    bearer::bearer,
    caller,
    parameters::{BodyKind, read_form, read_json},
    reply,
    request::{self, Fields},
};
use crate::{
    exchange::Attempt,
    reason::{Reason, Refusal},
};

/// Where tokens are exchanged; GET and POST.
pub(super) const EXCHANGE: &str = "/sts/exchange";
/// Where it is asked whether a token would be issued; POST.
pub(super) const CHECK: &str = "/sts/check";
/// Where they would be refreshed; POST.
pub(super) const EXCHANGE_REFRESH_TOKEN: &str = "/sts/exchange_refresh_token";

/// The routes of this wire.
pub(super) fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route(EXCHANGE, any(exchange))
        .route(CHECK, any(check))
        .route(EXCHANGE_REFRESH_TOKEN, any(exchange_refresh_token))
        .with_state(app)
}

async fn exchange(State(app): State<Arc<App>>, request: Request) -> Response {
    let with_oauth_names = match *request.method() {
        Method::GET => true,
        Method::POST => false,
        _ => return reply::method_not_allowed("GET, POST"),
    };
    match exchange_token(&app, request, with_oauth_names).await {
        Ok(response) => response,
        Err(refusal) => reply::rest(&refusal),
    }
}

async fn exchange_token(app: &App, request: Request, with_oauth_names: bool) -> Result<Response, Refusal> {
    let attempt = attempt(app, request).await?;
    let (token, expires_at) = app.exchange.exchange(attempt).await?.hand_over();
    let now = with_oauth_names.then(|| app.clock.now());
    Ok(reply::rest_token(token.expose_secret(), expires_at, now))
}

async fn check(State(app): State<Arc<App>>, request: Request) -> Response {
    if *request.method() != Method::POST {
        return reply::method_not_allowed("POST");
    }
    let checked = async { app.exchange.check(attempt(&app, request).await?).await };
    match checked.await {
        Ok(checked) => reply::rest_check(checked),
        Err(refusal) => reply::rest(&refusal),
    }
}

/// The attempt that a request comes to, well formed or not.
async fn attempt(app: &App, request: Request) -> Result<Attempt, Refusal> {
    let (head, body) = request.into_parts();
    let body =
        if head.method == Method::POST { read_body(body, app.settings.body_bytes).await } else { Ok(Bytes::new()) };
    let token = bearer(&head.headers).and_then(|bearer| app.exchange.read_token(bearer));
    Ok(request::attempt(caller(&head.extensions)?, token, &fields(&head, body)))
}

/// The parameters of query and body together.
pub(super) fn fields(head: &Parts, body: Result<Bytes, &'static str>) -> Fields {
    let mut fields = Fields::default();
    read_form(head.uri.query().unwrap_or_default().as_bytes(), &mut fields);
    match body {
        Err(message) => fields.fault(message),
        Ok(body) if body.is_empty() => {}
        Ok(body) => match BodyKind::of(head.headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes())) {
            BodyKind::Form => read_form(&body, &mut fields),
            BodyKind::Json => read_json(&body, &mut fields),
            // Ignored by gateways, so that callers hear of a missing scope that they did send.
            BodyKind::Other => fields.fault("the body is neither JSON nor a form"),
        },
    }
    fields
}

async fn read_body(body: Body, most: usize) -> Result<Bytes, &'static str> {
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err("the body is too large"),
        Err(_) => Err("the body cannot be read"),
    }
}

async fn exchange_refresh_token(request: Request) -> Response {
    if *request.method() == Method::POST { reply::rest(&refresh_refused()) } else { reply::method_not_allowed("POST") }
}

/// The answer of either wire to a refresh.
pub(super) fn refresh_refused() -> Refusal {
    Refusal::new(Reason::Unimplemented, "refresh tokens are not issued")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(uri: &str, content_type: Option<&str>, body: &'static [u8]) -> Result<String, Reason> {
        let mut request = http::Request::post(uri);
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let fields = fields(&head, Ok(Bytes::from_static(body)));
        fields.parse().map(|(scope, identity)| format!("{scope} {identity}")).map_err(|refusal| refusal.reason)
    }

    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");
    const JSON: Option<&str> = Some("application/json");

    #[test]
    fn parameters_come_from_query_and_body_together() {
        assert_eq!(asked("/sts/exchange?scope=o&identity=i", None, b"").unwrap(), "o i");
        assert_eq!(asked("/sts/exchange?scope=o", FORM, b"identity=i").unwrap(), "o i");
        assert_eq!(asked("/sts/exchange?identity=i", JSON, br#"{"scopes":["o"]}"#).unwrap(), "o i");
        assert_eq!(asked("/sts/exchange", None, br#"{"scopes":["o"],"identity":"i"}"#).unwrap(), "o i");
    }

    #[test]
    fn a_body_of_another_type_is_not_silently_dropped() {
        let text = Some("text/plain");
        assert_eq!(asked("/sts/exchange?scope=o&identity=i", text, b"scope=o"), Err(Reason::RequestInvalid));
        assert_eq!(asked("/sts/exchange?scope=o&identity=i", text, b"").unwrap(), "o i");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_not_read_to_its_end() {
        assert_eq!(read_body(Body::from(vec![0; 10]), 10).await.unwrap().len(), 10);
        assert_eq!(read_body(Body::from(vec![0; 11]), 10).await, Err("the body is too large"));
    }
}
