//! Deliveries of GitHub's webhook, on the main port or on one of their own.
//!
//! Existing Apps have any path in their settings, so a delivery is a POST with `X-GitHub-Event` on
//! `/webhook`, on `/`, or wherever no other route is. Its body may have 25 MB, far more than any
//! other request, and comes from anyone until its signature is checked. So these bodies have a
//! budget of their own, in bytes as they arrive, and only one may be large at a time.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    begun,
    budget::{Budget, Charge, Taken},
    client_address::client_address,
    layers::{self, Peer},
    pages, reply,
};
use crate::{
    reason::{Reason, Refusal},
    webhook::{EVENT, Head, MAX_BODY, NotADelivery, Received, Webhook},
};

/// The documented path. Others work too.
pub(super) const PATH: &str = "/webhook";
/// The bodies of deliveries that are being read or verified, in bytes, of all senders together.
const BODIES: usize = 32 << 20;
/// A body that is larger is read alone.
const LARGE: usize = 1 << 20;
/// How long a delivery may take to arrive: GitHub gives up after this.
const DEADLINE: Duration = Duration::from_secs(10);

/// What takes deliveries.
pub(super) struct Hooks {
    webhook: Webhook,
    trusted_proxy_hops: usize,
    bodies: Budget,
    large: Arc<Semaphore>,
}

impl Hooks {
    pub(super) fn new(webhook: Webhook, trusted_proxy_hops: usize) -> Arc<Self> {
        let large = Arc::new(Semaphore::new(1));
        Arc::new(Self { webhook, trusted_proxy_hops, bodies: Budget::new(BODIES), large })
    }
}

/// The routes that a port with other routes gets.
pub(super) fn routes(hooks: Arc<Hooks>) -> Router {
    Router::new().route(PATH, post(deliver)).route("/", post(front)).with_state(hooks)
}

/// Every route of a port that takes nothing but deliveries; `ready` says whether they should be
/// sent here.
pub(super) fn alone(
    hooks: Arc<Hooks>,
    ready: impl Fn() -> bool + Clone + Send + Sync + 'static,
) -> Router {
    Router::new()
        .route("/livez", get(pages::live))
        .route("/healthcheck", get(pages::live))
        .route("/readyz", get(async move || pages::readiness(ready())))
        .fallback(unrouted)
        .with_state(hooks)
}

/// The front page takes deliveries, and no other POST.
async fn front(State(hooks): State<Arc<Hooks>>, request: Request) -> Response {
    if is_delivery(&request) {
        deliver(State(hooks), request).await
    } else {
        reply::method_not_allowed(pages::METHODS)
    }
}

fn is_delivery(request: &Request) -> bool {
    *request.method() == Method::POST && request.headers().contains_key(EVENT)
}

/// A path without a route: a delivery all the same, or not found.
pub(super) async fn unrouted(State(hooks): State<Arc<Hooks>>, request: Request) -> Response {
    if is_delivery(&request) || request.uri().path() == PATH {
        deliver(State(hooks), request).await
    } else {
        pages::not_found(request).await
    }
}

async fn deliver(State(hooks): State<Arc<Hooks>>, request: Request) -> Response {
    if *request.method() != Method::POST {
        return reply::method_not_allowed("POST");
    }
    let received = async {
        match hooks.receive(request).await {
            Ok(received) => answer(received),
            Err(response) => response,
        }
    };
    let received = layers::bounded(DEADLINE, &CancellationToken::new(), received).await;
    received.unwrap_or_else(|refusal| reply::rest(&refusal))
}

impl Hooks {
    async fn receive(&self, request: Request) -> Result<Received, Response> {
        let (head, body) = request.into_parts();
        let delivery = Head::read(&head.headers).map_err(refused)?;
        let address = self.address(&head);
        begun::charge(&head.headers, &head.extensions).map_err(|refusal| reply::rest(&refusal))?;
        let (body, _held) = self.read(body, head.extensions.get()).await?;
        self.webhook.receive(delivery, body, address.to_string()).await.map_err(refused)
    }

    fn address(&self, head: &Parts) -> IpAddr {
        let unknown = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let peer = head.extensions.get::<Peer>().map_or(unknown, |Peer(address)| address.ip());
        client_address(&head.headers, peer, self.trusted_proxy_hops)
    }

    /// Reads a body within the budgets. What was taken from them comes back when it is dropped.
    async fn read(
        &self,
        mut body: Body,
        charge: Option<&Charge>,
    ) -> Result<(Bytes, (Taken, Option<OwnedSemaphorePermit>)), Response> {
        let (mut read, mut taken, mut large) = (BytesMut::new(), Taken::default(), None);
        while let Some(frame) = body.frame().await {
            let cut =
                |_| reply::rest(&Refusal::new(Reason::RequestInvalid, "the body cannot be read"));
            let Ok(data) = frame.map_err(cut)?.into_data() else { continue };
            let length = read.len().saturating_add(data.len());
            if length > MAX_BODY {
                return Err(refused(NotADelivery::TooLarge));
            }
            if let Some(charge) = charge {
                charge.passed_on(data.len());
            }
            if length > LARGE && large.is_none() {
                large = Arc::clone(&self.large).acquire_owned().await.ok();
                // All of it, in place of growing to twice its length.
                read.reserve(MAX_BODY.saturating_sub(read.len()));
            }
            taken.add(self.bodies.take_all(data.len()).ok_or_else(overloaded)?);
            read.extend_from_slice(&data);
        }
        Ok((read.freeze(), (taken, large)))
    }
}

fn overloaded() -> Response {
    reply::rest(&super::body::overloaded())
}

fn answer(received: Received) -> Response {
    let status = match received {
        Received::Accepted | Received::Replayed | Received::Filtered => StatusCode::OK,
        Received::Ignored => StatusCode::ACCEPTED,
        Received::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    message(status, received.as_str())
}

/// The Go service answers 400 to everything that it does not take for a delivery.
fn refused(why: NotADelivery) -> Response {
    let is_too_large = why == NotADelivery::TooLarge;
    let status = if is_too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
    message(status, &why.to_string())
}

fn message(status: StatusCode, text: &str) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    (status, headers, serde_json::json!({ "msg": text }).to_string()).into_response()
}
