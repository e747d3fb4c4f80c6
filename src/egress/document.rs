//! Fetches small documents from places that may mean harm.
//!
//! One GET, within a time and a size, taken as it comes: no redirect, no decompression, and nothing
//! of what the other side wrote gets into an error.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, USER_AGENT},
};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;

use super::{Connector, Error};

/// No document that we fetch is larger.
const MOST_BYTES: usize = 256 << 10;

/// The media types of the documents. An API server of Kubernetes answers 406 to whoever does not name
/// that of its keys.
const ACCEPTED: &str = "application/json, application/jwk-set+json, */*;q=0.1";

/// A document that came with status 200.
#[derive(Debug, Clone)]
pub struct Document {
    /// At most 256 KiB.
    pub body: Bytes,
    /// `Cache-Control`, where there is one in visible ASCII.
    pub cache_control: Option<String>,
}

/// A client for small documents.
#[derive(Debug, Clone)]
pub struct Documents {
    client: Client<Connector, Empty<Bytes>>,
}

impl Documents {
    pub(super) fn new(client: Client<Connector, Empty<Bytes>>) -> Self {
        Self { client }
    }

    /// Fetches `url`, all within `time`, with a credential where there is one. Whoever gives one sees
    /// to it that the URL is a place that may have it.
    ///
    /// # Errors
    /// Every way in which it can fail; an answer other than 200 is [`Error::Status`].
    pub async fn get(&self, url: &str, bearer: Option<&HeaderValue>, time: Duration) -> Result<Document, Error> {
        let uri: Uri = url.parse().map_err(|_| Error::Url)?;
        let fetchable = matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if !fetchable {
            return Err(Error::Url);
        }
        tokio::time::timeout(time, self.fetch(uri, bearer)).await.unwrap_or(Err(Error::Timeout))
    }

    async fn fetch(&self, uri: Uri, bearer: Option<&HeaderValue>) -> Result<Document, Error> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("octo-sts/", env!("CARGO_PKG_VERSION"))));
        if let Some(bearer) = bearer {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        let response = self.client.request(request).await.map_err(|error| Error::of(&error))?;
        if response.status() != StatusCode::OK {
            return Err(Error::Status(response.status().as_u16()));
        }
        let (head, body) = response.into_parts();
        if is_compressed(&head.headers) {
            return Err(Error::Broken);
        }
        if body.size_hint().lower() > MOST_BYTES as u64 {
            return Err(Error::TooLarge);
        }
        let body = Limited::new(body, MOST_BYTES).collect().await.map_err(|error| Error::of(error.as_ref()))?;
        let cache_control = head.headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Document { body: body.to_bytes(), cache_control })
    }
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}
