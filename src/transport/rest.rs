//! The REST wire: `/sts/exchange`, `/sts/check` and `/sts/exchange_refresh_token`.
//!
//! Methods are distinguished here and not by the router, which would answer a HEAD by running GET:
//! HEAD must never mint.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use bytes::Bytes;
use http::{Method, header, request::Parts};
use secrecy::ExposeSecret;

use super::{
    Serving,
    bearer::bearer,
    begun::{self, Begun},
    body::{self, Unread},
    caller,
    parameters::{BodyKind, read_form, read_json},
    reply,
    request::{self, Fields},
};
use crate::{
    audit::record::Operation,
    exchange::Attempt,
    reason::{Reason, Refusal},
};

/// Where tokens are exchanged; GET and POST.
pub(super) const EXCHANGE: &str = "/sts/exchange";
/// The path of checks; POST.
pub(super) const CHECK: &str = "/sts/check";
/// Where they would be refreshed; POST.
pub(super) const EXCHANGE_REFRESH_TOKEN: &str = "/sts/exchange_refresh_token";

/// The routes of this wire.
pub(super) fn routes(app: Arc<Serving>) -> Router {
    Router::new()
        .route(EXCHANGE, any(exchange))
        .route(CHECK, any(check))
        .route(EXCHANGE_REFRESH_TOKEN, any(exchange_refresh_token))
        .with_state(app)
}

async fn exchange(State(app): State<Arc<Serving>>, request: Request) -> Response {
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

async fn exchange_token(
    app: &Arc<Serving>,
    request: Request,
    with_oauth_names: bool,
) -> Result<Response, Refusal> {
    let attempt = attempt(app, request).await?;
    let (token, expires_at) = app.exchange.exchange(attempt).await?.hand_over();
    let now = with_oauth_names.then(|| app.clock.now());
    Ok(reply::rest_token(token.expose_secret(), expires_at, now))
}

async fn check(State(app): State<Arc<Serving>>, request: Request) -> Response {
    if *request.method() != Method::POST {
        return reply::method_not_allowed("POST");
    }
    let checked = async { app.exchange.check(attempt(&app, request).await?).await };
    match checked.await {
        Ok(checked) => reply::rest_check(checked),
        Err(refusal) => reply::rest(&refusal),
    }
}

/// What a request attempts, if it attempts anything.
pub(super) fn operation(method: &Method, path: &str) -> Option<Operation> {
    match (method, path) {
        (&Method::GET | &Method::POST, EXCHANGE) => Some(Operation::Exchange),
        (&Method::POST, CHECK) => Some(Operation::Check),
        _ => None,
    }
}

/// The attempt that a request comes to, well formed or not.
async fn attempt(app: &Arc<Serving>, request: Request) -> Result<Attempt, Refusal> {
    let (head, body) = request.into_parts();
    let caller = caller(&head.extensions)?;
    let mut begun = Begun::of(app, &head.method, head.uri.path(), &head.extensions);
    let read = async {
        begun::charge(&head.headers, &head.extensions).map_err(Unread::Refused)?;
        match head.method {
            Method::POST => {
                body::read(body, app.settings.body_bytes, &head.extensions, &caller.expired).await
            }
            _ => Ok(Bytes::new()),
        }
    };
    let (body, refused) = match read.await {
        Ok(body) => (Ok(body), None),
        Err(Unread::Invalid(fault)) => (Err(fault), None),
        Err(Unread::Refused(refusal)) => (Ok(Bytes::new()), Some(refusal)),
    };
    begun.iter_mut().for_each(Begun::arrived);
    let token = bearer(&head.headers).and_then(|bearer| app.exchange.read_token(bearer));
    let attempt = request::attempt(caller, token, &fields(&head, body));
    Ok(match refused {
        Some(refusal) => Attempt { asked: Err(refusal), ..attempt },
        None => attempt,
    })
}

/// The parameters of query and body together.
pub(super) fn fields(head: &Parts, body: Result<Bytes, &'static str>) -> Fields {
    let mut fields = Fields::default();
    read_form(head.uri.query().unwrap_or_default().as_bytes(), &mut fields);
    match body {
        Err(message) => fields.fault(message),
        Ok(body) if body.is_empty() => {}
        Ok(body) => {
            match BodyKind::of(head.headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes()))
            {
                BodyKind::Form => read_form(&body, &mut fields),
                BodyKind::Json => read_json(&body, &mut fields),
                // Ignored by gateways, so that callers hear of a missing scope that they did send.
                BodyKind::Other => fields.fault("the body is neither JSON nor a form"),
            }
        }
    }
    fields
}

async fn exchange_refresh_token(request: Request) -> Response {
    if *request.method() == Method::POST {
        reply::rest(&refresh_refused())
    } else {
        reply::method_not_allowed("POST")
    }
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
        fields.parse().map(|asked| asked.to_string()).map_err(|refusal| refusal.reason)
    }

    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");
    const JSON: Option<&str> = Some("application/json");

    #[test]
    fn parameters_come_from_query_and_body_together() {
        assert_eq!(asked("/sts/exchange?scope=o&identity=i", None, b"").unwrap(), "o i");
        assert_eq!(asked("/sts/exchange?scope=o", FORM, b"identity=i").unwrap(), "o i");
        assert_eq!(asked("/sts/exchange?identity=i", JSON, br#"{"scopes":["o"]}"#).unwrap(), "o i");
        assert_eq!(
            asked("/sts/exchange", None, br#"{"scopes":["o"],"identity":"i"}"#).unwrap(),
            "o i"
        );
    }

    #[test]
    fn a_body_of_another_type_is_not_silently_dropped() {
        let text = Some("text/plain");
        assert_eq!(
            asked("/sts/exchange?scope=o&identity=i", text, b"scope=o"),
            Err(Reason::RequestInvalid)
        );
        assert_eq!(asked("/sts/exchange?scope=o&identity=i", text, b"").unwrap(), "o i");
    }
}
