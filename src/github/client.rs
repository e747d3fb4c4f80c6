//! One call to GitHub's API: the stack, the headers, the attempts.
//!
//! octocrab builds on a tower service that is ours: headers outermost, then the cap on the body,
//! then the pooled client. The timeout of one attempt covers the body too. Retries are outside of
//! it all, so that each attempt is counted and has its own timeout. A call that mints is retried
//! less than others: see [`MintCalls`].
//!
//! Every address is put together here from the configured root and a path, and nothing follows a
//! redirect, so a credential never leaves for another host.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use http_body_util::{BodyExt, Full, Limited};
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use tower::{BoxError, ServiceBuilder};

use super::{error::Error, failure::Failure, mint_calls::MintCalls};
use crate::{
    egress::{AddressRule, Egress},
    telemetry::{label, metric},
};

/// The version of GitHub's REST API that this module is written against.
const API_VERSION: HeaderValue = HeaderValue::from_static("2022-11-28");
const API_VERSION_HEADER: HeaderName = HeaderName::from_static("x-github-api-version");
const ACCEPT: HeaderValue = HeaderValue::from_static("application/vnd.github+json");
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("octo-sts/", env!("CARGO_PKG_VERSION")));

/// A longer `Retry-After` is returned to the caller, not waited for.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Attempts after the first.
const RETRIES: usize = 2;
/// The same for a call that mints.
const MINT_RETRIES: usize = 1;
/// How long a mint call may take. It is not repeated after a timeout, so it gets far longer than
/// its exchange waits: what GitHub returns late can only be revoked if somebody still reads it.
const MINT_TIMEOUT: Duration = Duration::from_secs(120);

/// What a call is for: the `kind` of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    App,
    Installation,
    Mint,
    ReadMint,
    Contents,
    Repository,
    Check,
    Hook,
    Revoke,
}

impl Endpoint {
    fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Installation => "installation",
            Self::Mint => "mint",
            Self::ReadMint => "read_mint",
            Self::Contents => "contents",
            Self::Repository => "repository",
            Self::Check => "check",
            Self::Hook => "hook",
            Self::Revoke => "revoke",
        }
    }
}

/// One call, in a form that can be repeated.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) endpoint: Endpoint,
    pub(super) method: Method,
    /// Below the API's root, starting with `/`, escaped.
    pub(super) path: String,
    pub(super) authorization: HeaderValue,
    /// `If-None-Match`.
    pub(super) etag: Option<HeaderValue>,
    /// JSON.
    pub(super) body: Option<String>,
    /// Counts the attempts of a call that mints, and bounds them.
    pub(super) mint: Option<MintCalls>,
}

impl Call {
    pub(super) fn get(endpoint: Endpoint, path: String, authorization: HeaderValue) -> Self {
        Self {
            endpoint,
            method: Method::GET,
            path,
            authorization,
            etag: None,
            body: None,
            mint: None,
        }
    }
}

/// A success, or a 304 to a conditional call.
#[derive(Debug)]
pub(super) struct ApiReply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl ApiReply {
    /// The body's JSON. What it holds is not repeated in the error: it may be a token.
    pub(super) fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|e| {
            Error::Unexpected(
                format!(
                    "the reply is not what it should be ({:?} error at byte {})",
                    e.classify(),
                    e.column()
                )
                .into(),
            )
        })
    }
}

/// The API's root, without a slash at its end.
#[derive(Debug, Clone)]
struct Root(String);

impl Root {
    fn new(api: &Uri) -> Option<Self> {
        let (scheme, authority) = (api.scheme_str()?, api.authority()?);
        Some(Self(format!("{scheme}://{authority}{}", api.path().trim_end_matches('/'))))
    }
}

/// Makes calls.
#[derive(Clone)]
pub(super) struct Client {
    octocrab: Octocrab,
    root: Root,
    limits: Limits,
}

/// What bounds a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For one attempt, from the connection to the end of the body.
    pub(super) attempt_timeout: Duration,
    /// Before the second attempt; about twice that before the third.
    pub(super) first_backoff: Duration,
    /// The largest body that is read, in bytes.
    pub(super) max_body: usize,
}

impl Client {
    /// Builds the stack; `None` if `api` is not an absolute URI. octocrab keeps its own task, so
    /// this must run within a tokio runtime.
    pub(super) fn new(api: &Uri, limits: Limits, egress: &Egress) -> Option<Self> {
        let root = Root::new(api)?;
        let service = ServiceBuilder::new()
            .map_request(with_our_headers)
            .and_then(move |response| read_body(response, limits.max_body))
            .service(egress.client::<OctoBody>(AddressRule::Any));
        let built =
            OctocrabBuilder::new_empty().with_service(service).with_auth(AuthState::None).build();
        let octocrab = match built {
            Ok(octocrab) => octocrab,
            Err(never) => match never {},
        };
        Some(Self { octocrab, root, limits })
    }

    /// The wait before a second attempt.
    pub(super) fn first_backoff(&self) -> Duration {
        self.limits.first_backoff
    }

    /// How long one attempt may take, and a caller waits for a token to read with.
    pub(super) fn attempt_timeout(&self) -> Duration {
        self.limits.attempt_timeout
    }

    /// Makes the call: up to three attempts, repeated after a connection that fails, an attempt
    /// that takes too long, or an answer of 500 to 504. A mint has two attempts, and is not
    /// repeated after a timeout.
    pub(super) async fn call(&self, call: &Call) -> Result<ApiReply, Failure> {
        let retries = if call.mint.is_some() { MINT_RETRIES } else { RETRIES };
        let backoff = ExponentialBuilder::new()
            .with_min_delay(self.limits.first_backoff)
            .with_factor(2.0)
            .with_max_times(retries)
            .with_jitter();
        let is_repeatable = |failure: &Failure| match &call.mint {
            Some(mint) => mint.may_repeat_after(failure),
            None => failure.is_repeatable(),
        };
        (|| self.attempt(call))
            .retry(backoff)
            .when(is_repeatable)
            .adjust(backoff_or_server_wait)
            .await
    }

    async fn attempt(&self, call: &Call) -> Result<ApiReply, Failure> {
        let counted = call.mint.as_ref().map(MintCalls::begin);
        let timeout = if call.mint.is_some() { MINT_TIMEOUT } else { self.limits.attempt_timeout };
        let outcome =
            tokio::time::timeout(timeout, self.send(call)).await.unwrap_or(Err(Failure::TimedOut));
        if let Some(counted) = counted {
            counted.end(&outcome);
        }
        let status = match &outcome {
            Ok(reply) => Some(reply.status),
            Err(failure) => failure.status(),
        };
        let status = status.map_or_else(|| "none".to_owned(), |status| status.as_str().to_owned());
        metrics::counter!(metric::GITHUB_REQUESTS, label::KIND => call.endpoint.as_str(), label::STATUS => status)
            .increment(1);
        outcome
    }

    async fn send(&self, call: &Call) -> Result<ApiReply, Failure> {
        let mut request =
            Request::new(call.body.clone().map_or_else(OctoBody::empty, OctoBody::from));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = format!("{}{}", self.root.0, call.path)
            .parse()
            .map_err(|_| Failure::Unexpected("the path is not a URI".into()))?;
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, call.authorization.clone());
        if let Some(etag) = &call.etag {
            headers.insert(header::IF_NONE_MATCH, etag.clone());
        }
        if call.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let response = self.octocrab.execute(request).await?;
        let unchanged = response.status() == StatusCode::NOT_MODIFIED && call.etag.is_some();
        let response =
            if unchanged { response } else { octocrab::map_github_error(response).await? };
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(ApiReply { status: head.status, headers: head.headers, body })
    }
}

fn with_our_headers(mut request: Request<OctoBody>) -> Request<OctoBody> {
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, USER_AGENT);
    headers.insert(header::ACCEPT, ACCEPT);
    headers.insert(API_VERSION_HEADER, API_VERSION);
    request
}

/// Reads the body to its end, or to the cap.
async fn read_body(
    response: Response<hyper::body::Incoming>,
    max: usize,
) -> Result<Response<Full<Bytes>>, BoxError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, max).collect().await?.to_bytes();
    Ok(Response::from_parts(head, Full::new(body)))
}

/// The wait before the next attempt: the one that GitHub requests, or else ours; `None` ends the attempts.
fn backoff_or_server_wait(failure: &Failure, ours: Option<Duration>) -> Option<Duration> {
    match (ours, failure.server_wait()) {
        (Some(ours), Some(server)) => (server <= MAX_WAIT).then_some(server.max(ours)),
        (ours, _) => ours,
    }
}
