//! The gRPC wire: the token service, health and reflection.

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

use super::{App, bearer::bearer, caller, reply, request, rest};
use crate::proto::{
    DESCRIPTORS,
    oidc::{
        ExchangeRefreshTokenRequest, ExchangeRequest, RawToken, TokenPair,
        security_token_service_server::{SERVICE_NAME, SecurityTokenService, SecurityTokenServiceServer},
    },
};

/// How often a watcher of the health is told of a change.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The token service's routes.
pub(super) fn token_service(app: Arc<App>) -> Router {
    let most = app.settings.body_bytes;
    let service = SecurityTokenServiceServer::new(TokenService(app))
        .max_decoding_message_size(most)
        .max_encoding_message_size(most);
    Routes::from(Router::new()).add_service(service).into_axum_router()
}

/// The routes of health and reflection.
///
/// # Errors
/// The descriptors do not decode, which is a fault of the build.
pub(super) fn companions(app: Arc<App>) -> io::Result<Router> {
    let configured = || {
        reflection::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let most = app.settings.body_bytes;
    let v1 = configured().build_v1().map_err(io::Error::other)?.max_decoding_message_size(most);
    let v1alpha = configured().build_v1alpha().map_err(io::Error::other)?.max_decoding_message_size(most);
    let health = HealthServer::new(HealthService(app)).max_decoding_message_size(most);
    let routes = Routes::from(Router::new()).add_service(health).add_service(v1).add_service(v1alpha);
    Ok(routes.into_axum_router())
}

struct TokenService(Arc<App>);

#[tonic::async_trait]
impl SecurityTokenService for TokenService {
    async fn exchange(&self, request: Request<ExchangeRequest>) -> Result<Response<RawToken>, Status> {
        let Self(app) = self;
        let (metadata, extensions, message) = request.into_parts();
        let caller = caller(&extensions).map_err(|refusal| reply::grpc(&refusal))?;
        let headers = metadata.into_headers();
        let token = bearer(&headers).and_then(|bearer| app.exchange.read_token(bearer));
        let attempt = request::attempt(caller, token, &message.into());
        let issued = app.exchange.exchange(attempt).await.map_err(|refusal| reply::grpc(&refusal))?;
        let (token, expires_at) = issued.hand_over();
        Ok(Response::new(reply::grpc_token(token.expose_secret(), expires_at)))
    }

    async fn exchange_refresh_token(
        &self,
        _: Request<ExchangeRefreshTokenRequest>,
    ) -> Result<Response<TokenPair>, Status> {
        Err(reply::grpc(&rest::refresh_refused()))
    }
}

/// Health as it is when asked. A reporter that is told of changes would have to be told.
struct HealthService(Arc<App>);

impl HealthService {
    /// The state of a service; the empty name is the server's own.
    fn status(app: &App, service: &str) -> Option<ServingStatus> {
        matches!(service, "" | SERVICE_NAME)
            .then(|| if app.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing })
    }
}

fn health(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let status = Self::status(&self.0, &request.get_ref().service);
        status.map(|status| Response::new(health(status))).ok_or_else(|| Status::not_found("unknown service"))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    /// The state now and after each change. The server's end ends the stream, so that it does
    /// not hold up the drain.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let changes = stream::unfold((Arc::clone(&self.0), None), move |(app, told)| {
            let service = service.clone();
            async move {
                loop {
                    let status = Self::status(&app, &service).unwrap_or(ServingStatus::ServiceUnknown);
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
