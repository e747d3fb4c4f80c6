//! One request and its response, bounded in time and size, for services that are called rarely.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;

use super::{AddressRule, Connector, Egress, Error};

/// How long a request may take, from the lookup of the name to the last byte of the response, unless
/// [`BoundedClient::within`] says otherwise.
pub const USUAL_TIME: Duration = Duration::from_secs(20);
/// The largest response that is read, in bytes.
pub const MAX_RESPONSE_BYTES: usize = 256 << 10;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("octo-sts/", env!("CARGO_PKG_VERSION")));

/// A response, whatever its status. It may hold a token, so it has no `Debug`.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, whole.
    pub body: Bytes,
}

impl Answer {
    /// The body, if it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }
}

/// Sends requests under one address rule. Redirects are not followed.
#[derive(Clone)]
pub struct BoundedClient {
    client: Client<Connector, Full<Bytes>>,
    time: Duration,
}

impl BoundedClient {
    /// A client with connections of its own.
    pub fn new(egress: &Egress, rule: AddressRule) -> Self {
        Self { client: egress.client(rule), time: USUAL_TIME }
    }

    /// The same client with another time limit.
    #[must_use]
    pub fn within(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// Sends the request, and returns the response whatever its status.
    ///
    /// # Errors
    /// There is no response within the limits.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Answer, Error> {
        let mut request = request.map(Full::new);
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        tokio::time::timeout(self.time, self.exchange(request)).await.unwrap_or(Err(Error::Timeout))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let response = self.client.request(request).await.map_err(|error| Error::of(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_RESPONSE_BYTES)
            .collect()
            .await
            .map_err(|error| Error::of(error.as_ref()))?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }
}
