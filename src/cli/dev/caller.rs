//! Calls as a workload makes them: to the server over REST and gRPC, and to GitHub with the token.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::proto::oidc::{
    ExchangeRequest, RawToken, security_token_service_client::SecurityTokenServiceClient as Service,
};

/// An answer over HTTP.
pub(super) struct ServerReply {
    pub(super) status: StatusCode,
    /// Null if the body is not JSON.
    pub(super) body: Value,
}

impl ServerReply {
    /// A text of the body, by its JSON pointer; empty if there is none.
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

/// One workload.
pub(super) struct Caller {
    http: Client<HttpConnector, Full<Bytes>>,
    grpc: Client<HttpConnector, tonic::body::Body>,
}

impl Caller {
    pub(super) fn new() -> Self {
        Self {
            http: Client::builder(TokioExecutor::new()).build_http(),
            grpc: Client::builder(TokioExecutor::new()).http2_only(true).build_http(),
        }
    }

    /// An exchange over REST.
    pub(super) async fn rest(
        &self,
        server: &str,
        token: &str,
        scope: &str,
        identity: &str,
    ) -> Result<ServerReply, String> {
        self.call(Method::GET, &format!("{server}{}", rest_path(scope, identity)), token, None)
            .await
    }

    /// Any call with a bearer token.
    pub(super) async fn call(
        &self,
        method: Method,
        url: &str,
        token: &str,
        body: Option<Value>,
    ) -> Result<ServerReply, String> {
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::USER_AGENT, concat!("octo-sts-dev/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.map(|body| body.to_string()).unwrap_or_default()))
            .map_err(|error| error.to_string())?;
        let reply = self.http.request(request).await.map_err(|error| error.to_string())?;
        let status = reply.status();
        let body = reply.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(ServerReply { status, body: serde_json::from_slice(&body).unwrap_or_default() })
    }

    /// An exchange over gRPC. An error is its code and message.
    pub(super) async fn grpc(
        &self,
        server: &str,
        token: &str,
        scope: &str,
        identity: &str,
    ) -> Result<RawToken, String> {
        let origin = server.parse().map_err(|_| "the server's address is not a URL".to_owned())?;
        let message = ExchangeRequest {
            scopes: vec![scope.to_owned()],
            identity: identity.to_owned(),
            ..Default::default()
        };
        let mut request = tonic::Request::new(message);
        let bearer = format!("Bearer {token}")
            .parse()
            .map_err(|_| "the token is not a valid header value".to_owned())?;
        request.metadata_mut().insert("authorization", bearer);
        let reply = Service::with_origin(self.grpc.clone(), origin).exchange(request).await;
        reply
            .map(tonic::Response::into_inner)
            .map_err(|status| format!("{:?}: {}", status.code(), status.message()))
    }
}

/// The path of an exchange over REST. Scopes and identities of policies that were found need no
/// escapes.
pub(super) fn rest_path(scope: &str, identity: &str) -> String {
    format!("/sts/exchange?scope={scope}&identity={identity}")
}
