//! Fetches small documents from places that may mean harm.
//!
//! One GET, within a time and a size. No redirect is followed, and nothing of what the other side
//! wrote gets into an error. An answer without encoding is requested; gzip is accepted too, because
//! some servers compress every answer, and its content is bounded by the same size.

use std::{io::Read, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode, Uri,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, USER_AGENT},
};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;

use super::{Connector, Error};

/// The largest document that is accepted, before and after decompression.
const MAX_BYTES: usize = 256 << 10;

/// The media types of the documents. An API server of Kubernetes answers 406 to whoever does not
/// name that of its keys.
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

    /// Fetches `url`, all within `time`, with a credential where there is one. Whoever gives one
    /// sees to it that the URL is a place that may have it.
    ///
    /// # Errors
    /// Every way in which it can fail; an answer other than 200 is [`Error::Status`].
    pub async fn get(
        &self,
        url: &str,
        bearer: Option<&HeaderValue>,
        time: Duration,
    ) -> Result<Document, Error> {
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
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("octo-sts/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(bearer) = bearer {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        let response = self.client.request(request).await.map_err(|error| Error::of(&error))?;
        if response.status() != StatusCode::OK {
            return Err(Error::Status(response.status().as_u16()));
        }
        let (head, body) = response.into_parts();
        let is_gzip = is_gzip(&head.headers)?;
        if body.size_hint().lower() > MAX_BYTES as u64 {
            return Err(Error::TooLarge);
        }
        let body = Limited::new(body, MAX_BYTES)
            .collect()
            .await
            .map_err(|error| Error::of(error.as_ref()))?;
        let cache_control = head
            .headers
            .get(CACHE_CONTROL)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = if is_gzip { decompress(&body.to_bytes())? } else { body.to_bytes() };
        Ok(Document { body, cache_control })
    }
}

/// Whether the body is compressed with gzip. An empty encoding, or `identity`, is none.
fn is_gzip(headers: &HeaderMap) -> Result<bool, Error> {
    let lines = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let mut encodings = lines
        .map(<[u8]>::trim_ascii)
        .filter(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity"));
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(false),
        (Some(one), None)
            if one.eq_ignore_ascii_case(b"gzip") || one.eq_ignore_ascii_case(b"x-gzip") =>
        {
            Ok(true)
        }
        (Some(_), _) => Err(Error::Encoding),
    }
}

fn decompress(body: &[u8]) -> Result<Bytes, Error> {
    let mut content = Vec::new();
    let limit = MAX_BYTES as u64 + 1;
    flate2::read::MultiGzDecoder::new(body)
        .take(limit)
        .read_to_end(&mut content)
        .map_err(|_| Error::Encoding)?;
    if content.len() > MAX_BYTES {
        return Err(Error::TooLarge);
    }
    Ok(content.into())
}
