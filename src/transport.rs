//! One port for gRPC and REST, up to the core and back.
//!
//! A connection passes `listen` (and `tls`), a request the `layers`, then `grpc` or `rest` read it
//! into an [`Attempt`](crate::exchange::Attempt) by the pure functions of `bearer`, `request` and
//! `parameters`, and `reply` writes the answer. Everything an unverified caller sends is bounded on that
//! way in size, number and time, by [`Settings`]. No type of the wire goes further down than this.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, middleware::from_fn_with_state};
use http::{Extensions, HeaderMap, header};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, UnixTime},
    exchange::{Caller, Exchange},
    reason::{Reason, Refusal},
    webhook::Webhook,
};

mod bearer;
mod begun;
mod body;
mod budget;
mod client_address;
mod counted;
mod grpc;
mod hooks;
mod layers;
mod listen;
mod pages;
mod parameters;
pub mod reply;
mod request;
mod rest;
mod shutdown;
mod slots;
mod tls;

use client_address::UntrustedProxy;
use hooks::Hooks;
use shutdown::Shutdown;
pub use shutdown::Stages;

/// Every limit of the server. The defaults are the contract's.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Connections at a time. Idle ones give way to new ones; if there is none, these wait to be
    /// accepted.
    pub max_connections: usize,
    /// The bytes of requests in progress, of all connections together.
    pub progress_bytes: usize,
    /// HTTP/2 streams at a time on one connection.
    pub max_streams: u32,
    /// The bytes of a request's header list, continuation frames included.
    pub header_bytes: u32,
    /// The bytes of a request's body, or of a gRPC message.
    pub body_bytes: usize,
    /// How long a new connection may take for its first byte.
    pub first_byte: Duration,
    /// How long a new connection may take for its first whole request header, TLS included.
    pub first_request: Duration,
    /// How long an HTTP/1 connection may take for each request header, which is also how long it
    /// may stay idle. Longer than the minute after which common load balancers give up an idle
    /// connection: the side that hangs up first must be theirs, or a request may meet a closed
    /// door.
    pub header_timeout: Duration,
    /// The approximate age at which a client is asked to close a connection, so that load balancers spread the load
    /// anew.
    pub max_connection_age: Duration,
    /// How the server ends.
    pub stages: Stages,
    /// How long a request may take, its body included.
    pub deadline: Duration,
    /// How many proxies in front append to `X-Forwarded-For` and are believed.
    pub trusted_proxy_hops: usize,
    /// Serve TLS only, with these files.
    pub tls: Option<TlsFiles>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            progress_bytes: 32 << 20,
            max_streams: 128,
            header_bytes: 64 << 10,
            body_bytes: 64 << 10,
            first_byte: Duration::from_secs(5),
            first_request: Duration::from_secs(10),
            header_timeout: Duration::from_secs(75),
            max_connection_age: Duration::from_secs(300),
            stages: Stages { drain_delay: Duration::ZERO, requests: Duration::from_secs(20) },
            deadline: Duration::from_secs(15),
            trusted_proxy_hops: 0,
            tls: None,
        }
    }
}

/// The PEM files of the server's certificate. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// The private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Whether the files can be used, to report errors before serving.
    ///
    /// # Errors
    /// A file cannot be read, is not PEM of its kind, or the key is not the certificate's.
    pub fn check(&self) -> io::Result<()> {
        tls::Certificate::read(self).map(drop)
    }

    /// When the server's own certificate ends.
    ///
    /// # Errors
    /// As [`TlsFiles::check`].
    pub fn ends_at(&self) -> io::Result<UnixTime> {
        tls::ends_at(self)
    }
}

/// What the handlers share.
struct Serving {
    exchange: Arc<Exchange>,
    hooks: Option<Arc<Hooks>>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    untrusted_proxy: UntrustedProxy,
}

impl Serving {
    /// Whether callers should be sent here: not after the signal to stop.
    fn is_ready(&self) -> bool {
        !self.stop.is_cancelled() && self.exchange.ready()
    }
}

/// Serves exchanges, and deliveries if there is a webhook, until `stop`. Then it drains by
/// [`Settings::stages`]: running requests finish, what is idle ends, and then this returns.
///
/// # Errors
/// The TLS files cannot be read or do not fit each other.
pub async fn serve(
    listener: TcpListener,
    (exchange, webhook): (Arc<Exchange>, Option<Webhook>),
    settings: Settings,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> io::Result<()> {
    let hops = settings.trusted_proxy_hops;
    let app = Serving {
        exchange,
        hooks: webhook.map(|webhook| Hooks::new(webhook, hops)),
        settings,
        clock: Arc::clone(&clock),
        stop: stop.clone(),
        untrusted_proxy: Default::default(),
    };
    let app = Arc::new(app);
    let router = router(&app)?;
    serve_router(listener, router, &app.settings, clock, stop).await
}

/// Serves deliveries and nothing else until `stop`; `ready` says whether they should be sent here.
///
/// # Errors
/// As [`serve`].
pub async fn serve_webhook(
    listener: TcpListener,
    webhook: Webhook,
    settings: &Settings,
    ready: impl Fn() -> bool + Clone + Send + Sync + 'static,
    (clock, stop): (Arc<dyn Clock>, CancellationToken),
) -> io::Result<()> {
    let hooks = Hooks::new(webhook, settings.trusted_proxy_hops);
    serve_router(listener, hooks::alone(hooks, ready), settings, clock, stop).await
}

/// Serves any routes with the connection handling of the main port.
///
/// # Errors
/// As [`serve`].
pub(crate) async fn serve_router(
    listener: TcpListener,
    router: Router,
    settings: &Settings,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> io::Result<()> {
    let shutdown = Shutdown::new(stop);
    tokio::select! {
        served = listen::accept(listener, router, settings, clock, shutdown.clone()) => served,
        () = shutdown.run(settings.stages) => Ok(()),
    }
}

/// Both wires. Layers stand in the order in which a request meets them last to first.
fn router(app: &Arc<Serving>) -> io::Result<Router> {
    let state = || Arc::clone(app);
    let grpc = grpc::token_services(state())
        .layer(from_fn_with_state(state(), layers::grpc_bounds))
        .merge(grpc::companions(state())?.layer(from_fn_with_state(state(), layers::grpc_watches)))
        .layer(from_fn_with_state(state(), layers::grpc_only));
    let rest = rest::routes(state())
        .merge(pages::routes(state()))
        .layer(from_fn_with_state(state(), layers::rest_bounds));
    let all = match &app.hooks {
        Some(hooks) => {
            let unrouted = axum::routing::any(hooks::unrouted).with_state(Arc::clone(hooks));
            let routes = hooks::routes(Arc::clone(hooks));
            grpc.merge(rest).merge(routes).fallback_service(unrouted)
        }
        None => grpc.merge(rest).fallback(pages::not_found),
    };
    Ok(all.layer(from_fn_with_state(state(), layers::observe)))
}

/// Whether a request is gRPC with protobuf messages, by its content type.
fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type =
        headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(b"application/grpc")
        || essence.eq_ignore_ascii_case(b"application/grpc+proto")
}

/// Who calls, as `layers::observe` found out.
fn caller(extensions: &Extensions) -> Result<Caller, Refusal> {
    let unseen = || {
        Refusal::new(Reason::Internal, "internal error")
            .because("a request passed by the outer layer")
    };
    extensions.get::<Caller>().cloned().ok_or_else(unseen)
}

/// What is read of a request, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    use std::net::IpAddr;

    use bytes::Bytes;
    use http::{HeaderMap, request::Parts};

    use super::{request::Fields, rest as wire};
    use crate::{
        name::{PolicyName, Scope},
        proto::oidc::ExchangeRequest,
        reason::Refusal,
    };

    /// The credential.
    pub fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
        super::bearer::bearer(headers)
    }

    /// The client's address behind so many trusted proxies.
    pub fn client_address(headers: &HeaderMap, peer: IpAddr, hops: usize) -> IpAddr {
        super::client_address::client_address(headers, peer, hops)
    }

    /// What a REST request is for.
    pub fn rest(head: &Parts, body: Bytes) -> Result<(Scope, PolicyName), Refusal> {
        wire::fields(head, Ok(body)).parse()
    }

    /// What a gRPC request is for.
    pub fn grpc(message: ExchangeRequest) -> Result<(Scope, PolicyName), Refusal> {
        Fields::from(message).parse()
    }
}

#[cfg(test)]
mod tests;
