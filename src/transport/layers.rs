//! What every request goes through: identity and log, deadline, panics, and what a wire demands.
//!
//! The wires have layers of their own: an error in the other's form is noise to a client (a JSON
//! body reads as a broken gRPC frame).

use std::{
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body_util::Limited;
use tokio::time::timeout;
use tonic::Code;
use tracing::{Instrument, info_span};

use super::{App, bearer::bearer, client_address::client_address, grpc, is_grpc, reply};
use crate::{
    exchange::{Attempt, Caller},
    name::RequestId,
    reason::{Reason, Refusal},
};

/// The name of the request id on either wire.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The other end of the connection, as the listener put it into the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Outermost: says who calls, gives the request its id, logs how it ended.
///
/// The query and the authorization header are never logged; what was asked for stands in the
/// audit record.
pub(super) async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let began = app.clock.now();
    let request_id = RequestId::random();
    let caller = caller_of(&request, request_id, app.settings.trusted_proxy_hops);
    mark_sensitive(request.headers_mut());
    // A path that is not ours may hold anything.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let is_sts = is_token_path(request.uri().path());
    let span = info_span!("request", request_id = %request_id, client.address = %caller.address);
    let method = request.method().clone();
    request.extensions_mut().insert(caller);

    let mut response = next.run(request).instrument(span.clone()).await;
    if let Ok(id) = HeaderValue::from_str(&request_id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    if is_sts {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    span.in_scope(|| log(&method, &route, &response, app.clock.now().since(began)));
    response
}

/// Whether what is answered there may be a token, or tell of one.
fn is_token_path(path: &str) -> bool {
    path.starts_with("/sts/") || grpc::takes_tokens(path)
}

/// Keeps credentials out of whatever prints headers, the libraries' own logs included.
fn mark_sensitive(headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        if *name == header::AUTHORIZATION {
            value.set_sensitive(true);
        }
    }
}

fn caller_of(request: &Request, request_id: RequestId, hops: usize) -> Caller {
    let headers = request.headers();
    let unspecified = IpAddr::from([0, 0, 0, 0]);
    let peer = request.extensions().get::<Peer>().map_or(unspecified, |Peer(address)| address.ip());
    let user_agent = headers.get(header::USER_AGENT);
    Caller {
        request_id,
        address: client_address(headers, peer, hops),
        user_agent: user_agent.map(|value| reply::cut(&String::from_utf8_lossy(value.as_bytes()))),
        protocol: if is_grpc(headers) { "grpc" } else { "rest" },
    }
}

/// One line per request. The level follows who must act: nobody for a caller's fault.
fn log(method: &Method, route: &str, response: &Response, duration: Duration) {
    let status = response.status().as_u16();
    let refused = reply::Refused::in_response(response);
    let (reason, cause) = (refused.map(|refused| refused.reason), refused.and_then(|refused| refused.cause.as_deref()));
    let reason_word = reason.map(Reason::as_str);
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match reason.map(reply::code) {
        Some(Code::Internal) => {
            tracing::error!(%method, route, status, duration_ms = ms, reason = reason_word, cause, "request failed");
        }
        Some(Code::Unavailable | Code::DeadlineExceeded) => {
            tracing::warn!(%method, route, status, duration_ms = ms, reason = reason_word, cause, "request failed");
        }
        Some(_) => {
            tracing::info!(%method, route, status, duration_ms = ms, reason = reason_word, cause, "request refused");
        }
        // Probes come every few seconds, and each grant has its audit record.
        None => tracing::debug!(%method, route, status, duration_ms = ms, "request served"),
    }
}

/// Around every gRPC service: gRPC requests only, and their bodies bounded. The machinery below
/// checks neither method nor content type.
pub(super) async fn grpc_only(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if *request.method() != Method::POST {
        return reply::method_not_allowed("POST");
    }
    if !is_grpc(request.headers()) {
        return reply::not_grpc();
    }
    // The prefix of five bytes that a message has on the wire comes on top.
    let most = app.settings.body_bytes.saturating_add(5);
    next.run(request.map(|body| Body::new(Limited::new(body, most)))).await
}

/// Around the services that take tokens: a deadline, and every fault in this wire's form.
pub(super) async fn grpc_bounds(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let limit = deadline(request.headers(), app.settings.deadline);
    let attempted = Attempted::of(&request);
    match bounded(limit, next.run(request)).await {
        Ok(response) => match reply::unreadable(response.headers()) {
            Some(unreadable) => reply::grpc(&attempted.refuse(&app, unreadable).await).into_http(),
            None => response,
        },
        Err(refusal) => reply::grpc(&refusal).into_http(),
    }
}

/// What is known of a gRPC request without its message.
struct Attempted {
    method: grpc::Method,
    caller: Result<Caller, Refusal>,
    credentials: Vec<HeaderValue>,
}

impl Attempted {
    fn of(request: &Request) -> Self {
        Self {
            method: grpc::Method::of(request.uri().path()),
            caller: super::caller(request.extensions()),
            credentials: request.headers().get_all(header::AUTHORIZATION).iter().cloned().collect(),
        }
    }

    /// An exchange or a check whose message nobody could read is an attempt too: it is recorded, and a
    /// fault of its credential is told first.
    async fn refuse(self, app: &App, unreadable: Refusal) -> Refusal {
        let (true, Ok(caller)) = (self.method != grpc::Method::Other, self.caller) else { return unreadable };
        let headers: HeaderMap =
            self.credentials.into_iter().map(|credential| (header::AUTHORIZATION, credential)).collect();
        let token = bearer(&headers).and_then(|bearer| app.exchange.read_token(bearer));
        let refusal = token.err().unwrap_or(unreadable);
        let attempt = Attempt { caller, scope: None, identity: None, asked: Err(refusal.clone()) };
        let recorded = match self.method {
            grpc::Method::Check => app.exchange.check(attempt).await.err(),
            grpc::Method::Exchange | grpc::Method::Other => app.exchange.exchange(attempt).await.err(),
        };
        recorded.unwrap_or(refusal)
    }
}

/// Around REST and the pages: a deadline, and every fault in this wire's form.
pub(super) async fn rest_bounds(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let limit = deadline(request.headers(), app.settings.deadline);
    bounded(limit, next.run(request)).await.unwrap_or_else(|refusal| reply::rest(&refusal))
}

/// Runs a handler for so long at most. A panic ends the request, not the connection.
async fn bounded(limit: Duration, run: impl Future<Output = Response>) -> Result<Response, Refusal> {
    match timeout(limit, AssertUnwindSafe(run).catch_unwind()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_)) => Err(Refusal::new(Reason::Internal, "internal error").because("the handler panicked")),
        Err(_) => {
            Err(Refusal::new(Reason::Deadline, "deadline exceeded").because("the deadline of the request passed"))
        }
    }
}

/// The caller's own deadline (`grpc-timeout`, which gateways honour too), if it is the shorter.
fn deadline(headers: &HeaderMap, most: Duration) -> Duration {
    let asked = headers.get("grpc-timeout").and_then(|value| grpc_timeout(value.as_bytes()));
    asked.map_or(most, |asked| asked.min(most))
}

/// At most eight digits and a unit; anything else counts as no deadline.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let valid = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let count: u64 = valid.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_can_shorten_the_deadline_but_not_lengthen_it() {
        let most = Duration::from_secs(15);
        for (asked, waited) in [
            ("200m", Duration::from_millis(200)),
            ("1S", Duration::from_secs(1)),
            ("7000000u", Duration::from_secs(7)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("0S", Duration::ZERO),
            ("1M", most),
            ("99999999H", most),
            ("999999999S", most),
            ("-1S", most),
            ("+1S", most),
            ("S", most),
            ("", most),
            ("1x", most),
            ("1", most),
        ] {
            let headers = [(HeaderName::from_static("grpc-timeout"), HeaderValue::from_str(asked).unwrap())];
            assert_eq!(deadline(&headers.into_iter().collect(), most), waited, "{asked}");
        }
        assert_eq!(deadline(&HeaderMap::new(), most), most);
    }

    #[test]
    fn a_credential_does_not_print() {
        let mut headers = HeaderMap::new();
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        mark_sensitive(&mut headers);
        assert!(!format!("{headers:?}").contains("secret"));
    }
}
