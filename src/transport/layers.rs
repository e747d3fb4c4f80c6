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
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body_util::Limited;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{Instrument, info_span};

use super::{
    Serving,
    begun::{self, Begun},
    body::{self, Unread},
    client_address::client_address,
    grpc, is_grpc, reply,
};
use crate::{
    exchange::Caller,
    name::RequestId,
    reason::{Reason, Refusal},
};

/// The name of the request id on either wire.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long a handler may take to answer after its deadline has passed. It knows of the deadline,
/// so that the record says what the caller gets.
const GRACE: Duration = Duration::from_millis(500);

/// The other end of the connection, as the listener put it into the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Outermost: says who calls, gives the request its id, logs how it ended.
///
/// The query and the authorization header are never logged; the request is in the
/// audit record.
pub(super) async fn observe(
    State(app): State<Arc<Serving>>,
    mut request: Request,
    next: Next,
) -> Response {
    let began = app.clock.monotonic();
    let request_id = RequestId::random();
    let caller = caller_of(&request, request_id, app.settings.trusted_proxy_hops);
    app.untrusted_proxy.notice(request.headers(), app.settings.trusted_proxy_hops, began);
    mark_sensitive(request.headers_mut());
    // A path that is not ours may hold anything.
    let route =
        request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
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
    span.in_scope(|| log(&method, &route, &response, app.clock.monotonic().since(began)));
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
        expired: CancellationToken::new(),
    }
}

/// One line per request. The level follows who must act: nobody for a caller's fault.
fn log(method: &Method, route: &str, response: &Response, duration: Duration) {
    let status = response.status().as_u16();
    let refused = reply::Refused::in_response(response);
    let (reason, cause) = (
        refused.map(|refused| refused.reason),
        refused.and_then(|refused| refused.cause.as_deref()),
    );
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

/// Around every gRPC service: gRPC requests only, and their headers bounded. The machinery
/// below checks neither method nor content type.
pub(super) async fn grpc_only(
    State(app): State<Arc<Serving>>,
    request: Request,
    next: Next,
) -> Response {
    if *request.method() != Method::POST {
        return reply::method_not_allowed("POST");
    }
    if !is_grpc(request.headers()) {
        return reply::not_grpc();
    }
    if let Some(refusal) = begun::oversized(request.headers(), &app.settings) {
        return reply::grpc(&refuse_oversized(&app, request, refusal).await).into_http();
    }
    next.run(request).await
}

/// What a gRPC message has on the wire before its own bytes.
const GRPC_PREFIX: usize = 5;

/// The most bytes of a gRPC request's body.
fn grpc_bytes(app: &Serving) -> usize {
    app.settings.body_bytes.saturating_add(GRPC_PREFIX)
}

/// The refusal of a request whose headers are too large, recorded if the request is an attempt.
async fn refuse_oversized(app: &Arc<Serving>, request: Request, refusal: Refusal) -> Refusal {
    let attempt = begun(app, &request);
    let (head, _) = request.into_parts();
    match attempt {
        Some(mut begun) => begun.refuse_oversized(&head.headers, refusal).await,
        None => refusal,
    }
}

/// The attempt that a request is, if it is one.
fn begun(app: &Arc<Serving>, request: &Request) -> Option<Begun> {
    Begun::of(app, request.method(), request.uri().path(), request.extensions())
}

/// Around the services that take tokens: a deadline, and every fault in this wire's form.
pub(super) async fn grpc_bounds(
    State(app): State<Arc<Serving>>,
    request: Request,
    next: Next,
) -> Response {
    let limit = deadline(request.headers(), app.settings.deadline);
    let expired = expired(&request);
    let answer = bounded(limit, &expired, grpc_attempt(&app, request, next)).await;
    answer.unwrap_or_else(|refusal| reply::grpc(&refusal).into_http())
}

/// Around health and reflection: a deadline for the answer, not for the stream that may follow.
/// What their callers send ends when the server stops, and so do their streams.
pub(super) async fn grpc_watches(
    State(app): State<Arc<Serving>>,
    request: Request,
    next: Next,
) -> Response {
    let expired = expired(&request);
    let stop = app.stop.clone().cancelled_owned();
    let most = grpc_bytes(&app);
    let limited = |body| Body::new(Limited::new(body, most)).into_data_stream();
    let request = request.map(|body| Body::from_stream(limited(body).take_until(stop)));
    let answer = bounded(app.settings.deadline, &expired, next.run(request)).await;
    answer.unwrap_or_else(|refusal| reply::grpc(&refusal).into_http())
}

/// Reads the request whole before it is decoded. An exchange or a check is an attempt from its
/// headers on, whether or not its message arrives and can be read.
async fn grpc_attempt(app: &Arc<Serving>, request: Request, next: Next) -> Response {
    let Some(mut begun) = begun(app, &request) else {
        let response =
            next.run(request.map(|body| Body::new(Limited::new(body, grpc_bytes(app))))).await;
        return match reply::unreadable(response.headers()) {
            Some(unreadable) => reply::grpc(&unreadable).into_http(),
            None => response,
        };
    };
    let (head, body) = request.into_parts();
    let read = async {
        begun::charge(&head.headers, &head.extensions).map_err(Unread::Refused)?;
        body::read(body, grpc_bytes(app), &head.extensions, &begun.caller().expired).await
    };
    let body = match read.await {
        Ok(body) => body,
        Err(Unread::Invalid(fault)) => {
            let fault = Refusal::new(Reason::RequestInvalid, fault);
            return reply::grpc(&begun.refuse_request(&head.headers, fault).await).into_http();
        }
        Err(Unread::Refused(refusal)) => {
            return reply::grpc(&begun.refuse(refusal).await).into_http();
        }
    };
    if is_compressed(&head.headers) {
        let refusal = Refusal::new(Reason::Unimplemented, "compressed messages are not supported");
        return reply::grpc_uncompressed(&begun.refuse_request(&head.headers, refusal).await);
    }
    let headers = head.headers.clone();
    // The handler records the attempt, unless the message cannot be decoded.
    begun.arrived();
    let response = next.run(Request::from_parts(head, Body::from(body))).await;
    match reply::unreadable(response.headers()) {
        Some(unreadable) => {
            reply::grpc(&begun.refuse_request(&headers, unreadable).await).into_http()
        }
        None => response,
    }
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get("grpc-encoding").is_some_and(|encoding| encoding.as_bytes() != b"identity")
}

/// Around REST and the pages: a deadline, and every fault in this wire's form.
pub(super) async fn rest_bounds(
    State(app): State<Arc<Serving>>,
    request: Request,
    next: Next,
) -> Response {
    let limit = deadline(request.headers(), app.settings.deadline);
    let expired = expired(&request);
    let answer = async {
        match begun::oversized(request.headers(), &app.settings) {
            Some(refusal) => {
                reply::headers_too_large(&refuse_oversized(&app, request, refusal).await)
            }
            None => next.run(request).await,
        }
    };
    bounded(limit, &expired, answer).await.unwrap_or_else(|refusal| reply::rest(&refusal))
}

/// Cancelled when the deadline of the request has passed.
fn expired(request: &Request) -> CancellationToken {
    request.extensions().get::<Caller>().map(|caller| caller.expired.clone()).unwrap_or_default()
}

/// Runs a handler for so long at most. A panic ends the request, not the connection.
pub(super) async fn bounded(
    limit: Duration,
    expired: &CancellationToken,
    run: impl Future<Output = Response>,
) -> Result<Response, Refusal> {
    let mut run = std::pin::pin!(AssertUnwindSafe(run).catch_unwind());
    let mut ended = timeout(limit, run.as_mut()).await;
    if ended.is_err() {
        expired.cancel();
        ended = timeout(GRACE, run).await;
    }
    match ended {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_)) => {
            Err(Refusal::new(Reason::Internal, "internal error").because("the handler panicked"))
        }
        Err(_) => Err(Refusal::new(Reason::Deadline, "deadline exceeded")
            .because("the deadline of the request passed")),
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
            let headers =
                [(HeaderName::from_static("grpc-timeout"), HeaderValue::from_str(asked).unwrap())];
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
