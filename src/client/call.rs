//! One request and its answer: within a time and a size, no redirect followed, nothing kept.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use secrecy::{ExposeSecret, SecretString};

use super::Error;
use crate::egress::{self, AddressRule, Connector, Egress};

/// How long a request may take, from the look-up of the name to the last byte of the answer.
pub(super) const TIME: Duration = Duration::from_secs(20);
/// No answer that we read is larger.
pub(super) const MAX_BYTES: usize = 256 << 10;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("octo-sts/", env!("CARGO_PKG_VERSION")));

/// An answer, whatever its status. It may hold a token: it is not shown.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as text, if it is.
    pub(super) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }
}

/// Sends requests under one address rule.
#[derive(Clone)]
pub(super) struct Caller {
    client: Client<Connector, Full<Bytes>>,
    time: Duration,
}

impl Caller {
    pub(super) fn new(egress: &Egress, rule: AddressRule) -> Self {
        Self { client: egress.client(rule), time: TIME }
    }

    /// The same with another limit in time.
    #[must_use]
    pub(super) fn within(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// The answer to `request`, whatever its status.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Answer, egress::Error> {
        let mut request = request.map(Full::new);
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        tokio::time::timeout(self.time, self.exchange(request))
            .await
            .unwrap_or(Err(egress::Error::Timeout))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, egress::Error> {
        let response =
            self.client.request(request).await.map_err(|error| egress::Error::of(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BYTES)
            .collect()
            .await
            .map_err(|error| egress::Error::of(error.as_ref()))?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }
}

/// The value of an `authorization` header, marked so that nothing on its way shows it.
pub(super) fn bearer(scheme: &str, token: &SecretString) -> Result<HeaderValue, Error> {
    let value = zeroize::Zeroizing::new(format!("{scheme} {}", token.expose_secret()));
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| Error::usage("the token is no token: it is not plain text"))?;
    value.set_sensitive(true);
    Ok(value)
}
