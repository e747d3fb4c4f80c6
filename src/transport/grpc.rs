//! The gRPC wire: the token service, the check, health and reflection.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use futures_util::stream::{self, BoxStream, StreamExt};
use secrecy::ExposeSecret;
use tonic::{Request, Response, Status, service::Routes};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};
use tonic_reflection::server as reflection;

use super::{Serving, bearer::bearer, caller, reply, request, rest};
use crate::{
    audit::record::Operation,
    exchange::Attempt,
    proto::{
        DESCRIPTORS,
        octosts::v1::{
            CheckRequest, CheckResponse,
            check_service_server::{CheckService, CheckServiceServer, SERVICE_NAME as CHECKS},
        },
        oidc::{
            ExchangeRefreshTokenRequest, ExchangeRequest, RawToken, TokenPair,
            security_token_service_server::{
                SERVICE_NAME as TOKENS, SecurityTokenService, SecurityTokenServiceServer,
            },
        },
    },
    reason::Refusal,
};

/// How often watchers of the health get changes.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The most bytes of a check's reply: all conditions of a policy, each text cut, its repositories,
/// and as much again.
const CHECK_BYTES: usize = 256 << 10;

/// The most bytes of a request about health or reflection. The decoder reserves what a message
/// announces, before it arrives.
const SMALL: usize = 4 << 10;

/// What a path of [`token_services`] attempts, if it attempts anything.
pub(super) fn operation(path: &str) -> Option<Operation> {
    match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
        Some((TOKENS, "Exchange")) => Some(Operation::Exchange),
        Some((CHECKS, "Check")) => Some(Operation::Check),
        _ => None,
    }
}

/// Whether a path is of a stream that may stay open while nothing happens.
pub(super) fn only_watches(path: &str) -> bool {
    path.starts_with("/grpc.reflection.") || path == "/grpc.health.v1.Health/Watch"
}

/// Whether a path is of one of the services that take tokens.
pub(super) fn takes_tokens(path: &str) -> bool {
    let path = path.strip_prefix('/').unwrap_or_default();
    [TOKENS, CHECKS].iter().any(|service| path.starts_with(service))
}

/// The routes of the services that take tokens.
pub(super) fn token_services(app: Arc<Serving>) -> Router {
    let most = app.settings.body_bytes;
    let tokens = SecurityTokenServiceServer::new(TokenService(Arc::clone(&app)))
        .max_decoding_message_size(most)
        .max_encoding_message_size(most);
    let checks = CheckServiceServer::new(TokenService(app))
        .max_decoding_message_size(most)
        .max_encoding_message_size(CHECK_BYTES);
    Routes::from(Router::new()).add_service(tokens).add_service(checks).into_axum_router()
}

/// The routes of health and reflection.
///
/// # Errors
/// The descriptors do not decode, which is a fault of the build.
pub(super) fn companions(app: Arc<Serving>) -> io::Result<Router> {
    let configured = || {
        reflection::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = configured().build_v1().map_err(io::Error::other)?.max_decoding_message_size(SMALL);
    let v1alpha =
        configured().build_v1alpha().map_err(io::Error::other)?.max_decoding_message_size(SMALL);
    let health = HealthServer::new(HealthService(app)).max_decoding_message_size(SMALL);
    let routes =
        Routes::from(Router::new()).add_service(health).add_service(v1).add_service(v1alpha);
    Ok(routes.into_axum_router())
}

struct TokenService(Arc<Serving>);

impl TokenService {
    /// The attempt that a request comes to, well formed or not.
    fn attempt<M: Into<request::Fields>>(&self, request: Request<M>) -> Result<Attempt, Refusal> {
        let Self(app) = self;
        let (metadata, extensions, message) = request.into_parts();
        let headers = metadata.into_headers();
        let token = bearer(&headers).and_then(|bearer| app.exchange.read_token(bearer));
        Ok(request::attempt(caller(&extensions)?, token, &message.into()))
    }

    async fn exchanged(&self, request: Request<ExchangeRequest>) -> Result<RawToken, Refusal> {
        let (token, expires_at) =
            self.0.exchange.exchange(self.attempt(request)?).await?.hand_over();
        Ok(reply::grpc_token(token.expose_secret(), expires_at))
    }

    async fn checked(&self, request: Request<CheckRequest>) -> Result<CheckResponse, Refusal> {
        Ok(reply::grpc_check(self.0.exchange.check(self.attempt(request)?).await?))
    }
}

#[tonic::async_trait]
impl CheckService for TokenService {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        self.checked(request).await.map(Response::new).map_err(|refusal| reply::grpc(&refusal))
    }
}

#[tonic::async_trait]
impl SecurityTokenService for TokenService {
    async fn exchange(
        &self,
        request: Request<ExchangeRequest>,
    ) -> Result<Response<RawToken>, Status> {
        self.exchanged(request).await.map(Response::new).map_err(|refusal| reply::grpc(&refusal))
    }

    async fn exchange_refresh_token(
        &self,
        _: Request<ExchangeRefreshTokenRequest>,
    ) -> Result<Response<TokenPair>, Status> {
        Err(reply::grpc(&rest::refresh_refused()))
    }
}

/// Health at the time of the request; nothing has to report changes.
struct HealthService(Arc<Serving>);

impl HealthService {
    /// The state of a service; the empty name is the server's own.
    fn status(app: &Serving, service: &str) -> Option<ServingStatus> {
        matches!(service, "" | TOKENS | CHECKS).then(|| {
            if app.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing }
        })
    }
}

fn health(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = Self::status(&self.0, &request.get_ref().service);
        status
            .map(|status| Response::new(health(status)))
            .ok_or_else(|| Status::not_found("unknown service"))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    /// The state now and after each change. The server's end ends the stream, so that it does
    /// not hold up the drain.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let changes = stream::unfold((Arc::clone(&self.0), None), move |(app, told)| {
            let service = service.clone();
            async move {
                loop {
                    let status =
                        Self::status(&app, &service).unwrap_or(ServingStatus::ServiceUnknown);
                    if told != Some(status) {
                        return Some((Ok(health(status)), (app, Some(status))));
                    }
                    if app.stop.is_cancelled() {
                        return None;
                    }
                    app.stop.run_until_cancelled(app.clock.sleep(WATCH_EVERY)).await;
                }
            }
        });
        Ok(Response::new(changes.boxed()))
    }
}
