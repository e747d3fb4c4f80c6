//! One call to GitHub's API: the stack, the headers, the tries.
//!
//! octocrab builds on a tower service that is ours: headers outermost, then the deadline of one
//! try, which covers the body too, then the cap on the body, then the pooled client. Retries are
//! outside of it all, so that each try is counted and has its own deadline.
//!
//! Every address is put together here from the configured root and a path, and nothing follows a
//! redirect, so a credential never leaves for another host.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use tower::{BoxError, ServiceBuilder};

use super::error::Failure;
use crate::{
    egress::{AddressRule, Egress},
    telemetry::{label, metric},
};

/// The version of GitHub's REST API that this module is written against.
const API_VERSION: HeaderValue = HeaderValue::from_static("2022-11-28");
const API_VERSION_HEADER: HeaderName = HeaderName::from_static("x-github-api-version");
const ACCEPT: HeaderValue = HeaderValue::from_static("application/vnd.github+json");
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("octo-sts/", env!("CARGO_PKG_VERSION")));

/// A longer `Retry-After` is handed on, not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Tries after the first.
const RETRIES: usize = 2;

/// What a call is for: the `kind` of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    App,
    Installation,
    Mint,
    ReadMint,
    Contents,
    Repository,
    Revoke,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Installation => "installation",
            Self::Mint => "mint",
            Self::ReadMint => "read_mint",
            Self::Contents => "contents",
            Self::Repository => "repository",
            Self::Revoke => "revoke",
        }
    }
}

/// One call, in a form that can be tried again.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) kind: Kind,
    pub(super) method: Method,
    /// Below the API's root, starting with `/`, escaped.
    pub(super) path: String,
    pub(super) authorization: HeaderValue,
    /// `If-None-Match`.
    pub(super) etag: Option<HeaderValue>,
    /// JSON.
    pub(super) body: Option<String>,
}

impl Call {
    pub(super) fn get(kind: Kind, path: String, authorization: HeaderValue) -> Self {
        Self { kind, method: Method::GET, path, authorization, etag: None, body: None }
    }
}

/// A success, or a 304 to a conditional call.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// The body's JSON. What it holds is not repeated in the error: it may be a token.
    pub(super) fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|e| {
            Failure::odd(format!(
                "the reply is not what it should be ({:?} error at byte {})",
                e.classify(),
                e.column()
            ))
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
    first_backoff: Duration,
}

/// How patient a client is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For one try, from the connection to the end of the body.
    pub(super) each_try: Duration,
    /// Before the second try; about twice that before the third.
    pub(super) first_backoff: Duration,
    /// The largest body that is read, in bytes.
    pub(super) max_body: usize,
}

impl Client {
    /// Builds the stack; `None` if `api` is no absolute URI. octocrab keeps a task of its own, so
    /// this must run within a tokio runtime.
    pub(super) fn new(api: &Uri, patience: Patience, egress: &Egress) -> Option<Self> {
        let root = Root::new(api)?;
        let service = ServiceBuilder::new()
            .map_request(with_our_headers)
            .timeout(patience.each_try)
            .and_then(move |response| read_body(response, patience.max_body))
            .service(egress.client::<OctoBody>(AddressRule::Any));
        let built = OctocrabBuilder::new_empty().with_service(service).with_auth(AuthState::None).build();
        let octocrab = match built {
            Ok(octocrab) => octocrab,
            Err(never) => match never {},
        };
        Some(Self { octocrab, root, first_backoff: patience.first_backoff })
    }

    /// The wait before a second try.
    pub(super) fn first_backoff(&self) -> Duration {
        self.first_backoff
    }

    /// Makes the call: three tries, on a connection that fails, a try that takes too long, or an
    /// answer of 500 to 504.
    pub(super) async fn call(&self, call: &Call) -> Result<Reply, Failure> {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(self.first_backoff)
            .with_factor(2.0)
            .with_max_times(RETRIES)
            .with_jitter();
        (|| self.try_once(call)).retry(backoff).when(is_worth_another_try).adjust(wait_as_told).await
    }

    async fn try_once(&self, call: &Call) -> Result<Reply, Failure> {
        let outcome = self.send(call).await;
        let status = match &outcome {
            Ok(reply) => Some(reply.status),
            Err(failure) => failure.status(),
        };
        let status = status.map_or_else(|| "none".to_owned(), |status| status.as_str().to_owned());
        metrics::counter!(metric::GITHUB_REQUESTS, label::KIND => call.kind.as_str(), label::STATUS => status)
            .increment(1);
        outcome
    }

    async fn send(&self, call: &Call) -> Result<Reply, Failure> {
        let mut request = Request::new(call.body.clone().map_or_else(OctoBody::empty, OctoBody::from));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() =
            format!("{}{}", self.root.0, call.path).parse().map_err(|_| Failure::odd("the path is no URI"))?;
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
        let response = if unchanged { response } else { octocrab::map_github_error(response).await? };
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Reply { status: head.status, headers: head.headers, body })
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
async fn read_body(response: Response<hyper::body::Incoming>, max: usize) -> Result<Response<Full<Bytes>>, BoxError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, max).collect().await?.to_bytes();
    Ok(Response::from_parts(head, Full::new(body)))
}

fn is_worth_another_try(failure: &Failure) -> bool {
    match failure {
        Failure::Unanswered { again, .. } => *again,
        Failure::Answered(answer) => (500..=504).contains(&answer.status.as_u16()),
        Failure::Limited(_) => false,
    }
}

/// The wait before the next try: what GitHub says, or else ours; `None` ends the tries.
fn wait_as_told(failure: &Failure, ours: Option<Duration>) -> Option<Duration> {
    let told = match failure {
        Failure::Answered(answer) => answer.retry_after.map(Duration::from_secs),
        Failure::Limited(_) | Failure::Unanswered { .. } => None,
    };
    match (ours, told) {
        (Some(ours), Some(told)) => (told <= LONGEST_WAIT).then_some(told.max(ours)),
        (ours, _) => ours,
    }
}
