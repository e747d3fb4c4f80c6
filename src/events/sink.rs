//! The way of one event to the sink: attempts, credentials, and what is repeated.

use std::{sync::Mutex, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use secrecy::ExposeSecret;

use super::Event;
use crate::{
    clock::UnixTime,
    cloud::{Access, IdentityToken},
    egress::{self, AddressRule, BoundedClient, Egress},
};

/// Attempts after the first.
const RETRIES: usize = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// For one attempt.
const ATTEMPT: Duration = Duration::from_secs(8);
/// For all attempts of one event.
const DELIVERY: Duration = Duration::from_secs(30);
/// How long a token is used. Google's live for an hour.
const TOKEN_LIFE: Duration = Duration::from_secs(30 * 60);
/// How long after none could be had another attempt is made.
const TOKEN_RETRY: Duration = Duration::from_secs(5 * 60);
/// What must be escaped in an attribute's value (CloudEvents HTTP binding 1.0, section 3.1.3.2):
/// all but printable ASCII, and of that the space, the double quote and the percent sign.
const ATTRIBUTE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Why the sink does not have an event.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    #[error("the sink gave no answer: {0}")]
    Unanswered(egress::Error),
    #[error("the sink answered {0}")]
    Refused(StatusCode),
    #[error("an attribute is not the value of a header")]
    Attribute,
    #[error("the sink took too long")]
    TimedOut,
}

impl SinkError {
    fn is_repeatable(&self) -> bool {
        match self {
            Self::Unanswered(_) => true,
            Self::Refused(status) => matches!(status.as_u16(), 404 | 413 | 425 | 429 | 502..=504),
            Self::Attribute | Self::TimedOut => false,
        }
    }
}

/// Where events go.
pub(super) struct Sink {
    uri: Uri,
    client: BoundedClient,
    access: Access,
    /// The token, if one could be had, and until when that counts.
    token: Mutex<Option<(Option<IdentityToken>, UnixTime)>>,
}

impl Sink {
    pub(super) fn new(uri: Uri, egress: &Egress, access: Access) -> Self {
        let client = BoundedClient::new(egress, AddressRule::Sink).within(ATTEMPT);
        Self { uri, client, access, token: Mutex::default() }
    }

    /// Sends an event that happened at a time, again if that may help.
    pub(super) async fn deliver(&self, event: &Event, at: UnixTime) -> Result<(), SinkError> {
        let id = uuid::Uuid::new_v4().to_string();
        let backoff = ExponentialBuilder::new()
            .with_min_delay(FIRST_BACKOFF)
            .with_factor(4.0)
            .with_max_times(RETRIES)
            .with_jitter();
        let deliver =
            (|| self.attempt(event, &id, at)).retry(backoff).when(SinkError::is_repeatable);
        tokio::time::timeout(DELIVERY, deliver).await.unwrap_or(Err(SinkError::TimedOut))
    }

    async fn attempt(&self, event: &Event, id: &str, at: UnixTime) -> Result<(), SinkError> {
        let mut request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(event.data.clone()))
            .map_err(|_| SinkError::Attribute)?;
        let (time, own) = (at.rfc3339_millis(), &event.extensions);
        let attributes = [
            ("specversion", "1.0"),
            ("type", event.kind),
            ("source", &event.source),
            ("subject", &event.subject),
            ("id", id),
            ("time", &time),
        ];
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in attributes.into_iter().chain(own) {
            let name =
                HeaderName::try_from(format!("ce-{name}")).map_err(|_| SinkError::Attribute)?;
            let value = utf8_percent_encode(value, ATTRIBUTE).to_string();
            let value = HeaderValue::try_from(value).map_err(|_| SinkError::Attribute)?;
            request.headers_mut().insert(name, value);
        }
        if let Some(token) = self.token().await {
            let value = format!("Bearer {}", token.expose_secret());
            let mut value = HeaderValue::try_from(value).map_err(|_| SinkError::Attribute)?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let answer = self.client.send(request).await.map_err(SinkError::Unanswered)?;
        if answer.status.is_success() { Ok(()) } else { Err(SinkError::Refused(answer.status)) }
    }

    /// A Google identity token for the sink, where one can be had. It is sent over TLS only.
    async fn token(&self) -> Option<IdentityToken> {
        if self.uri.scheme_str() != Some("https") {
            return None;
        }
        let now = self.access.network.clock.now();
        let known = self.lock().clone();
        if let Some((token, _)) = known.filter(|(_, until)| now < *until) {
            return token;
        }
        let token = match self.identity().await {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(%error, "events are sent without a Google identity token");
                None
            }
        };
        let life = if token.is_some() { TOKEN_LIFE } else { TOKEN_RETRY };
        *self.lock() = Some((token.clone(), now.plus(life)));
        token
    }

    #[cfg(feature = "kms-gcp")]
    async fn identity(&self) -> Result<Option<IdentityToken>, crate::cloud::Error> {
        self.access.google_identity(&self.uri.to_string()).await
    }

    #[cfg(not(feature = "kms-gcp"))]
    #[expect(clippy::unused_async, reason = "the other build waits here")]
    async fn identity(&self) -> Result<Option<IdentityToken>, crate::cloud::Error> {
        Ok(None)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Option<IdentityToken>, UnixTime)>> {
        self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
