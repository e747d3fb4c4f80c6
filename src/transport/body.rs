//! The body of a request that takes a token, read whole before anything is done with it.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::Extensions;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;

use super::budget::Charge;
use crate::reason::{Reason, Refusal};

/// How much of a body that is too large is read and dropped. A caller over HTTP/1 that is still
/// sending when the connection ends would not see the answer.
const DRAINED: usize = 1 << 20;

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is a fault of the request: too large, cut off or malformed.
    Invalid(&'static str),
    /// The caller is too slow, or the server has no room.
    Refused(Refusal),
}

/// Reads a body of at most `most` bytes, until the request's deadline has passed.
pub(super) async fn read(
    body: Body,
    most: usize,
    extensions: &Extensions,
    expired: &CancellationToken,
) -> Result<Bytes, Unread> {
    expired.run_until_cancelled(collect(body, most, extensions.get())).await.unwrap_or_else(|| {
        let slow = Refusal::new(Reason::Deadline, "deadline exceeded");
        Err(Unread::Refused(slow.because("the body of the request did not arrive in time")))
    })
}

async fn collect(mut body: Body, most: usize, charge: Option<&Charge>) -> Result<Bytes, Unread> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Unread::Invalid("the body cannot be read")) };
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else { continue };
        if read.len().saturating_add(data.len()) > most {
            drop(read);
            drain(body).await;
            return Err(Unread::Invalid("the body is too large"));
        }
        if charge.is_some_and(|charge| !charge.body(data.len())) {
            return Err(Unread::Refused(overloaded()));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

async fn drain(mut body: Body) {
    let mut drained = 0;
    while let Some(Ok(frame)) = body.frame().await {
        drained += frame.data_ref().map_or(0, Bytes::len);
        if drained > DRAINED {
            return;
        }
    }
}

/// The answer when the bytes of requests in progress are used up.
pub(super) fn overloaded() -> Refusal {
    let refusal = Refusal::new(Reason::Overloaded, "too many bytes of requests in progress");
    refusal.retry_after(std::time::Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_of(bytes: usize, most: usize) -> Result<usize, String> {
        let body = Body::from(vec![0; bytes]);
        let read = read(body, most, &Extensions::new(), &CancellationToken::new()).await;
        read.map(|body| body.len()).map_err(|unread| match unread {
            Unread::Invalid(message) => message.to_owned(),
            Unread::Refused(refusal) => refusal.reason.to_string(),
        })
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_not_read_to_its_end() {
        assert_eq!(read_of(10, 10).await, Ok(10));
        assert_eq!(read_of(11, 10).await, Err("the body is too large".to_owned()));
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_ends_with_the_deadline() {
        let body =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let expired = CancellationToken::new();
        expired.cancel();
        let read = read(body, 10, &Extensions::new(), &expired).await;
        assert!(
            matches!(read, Err(Unread::Refused(refusal)) if refusal.reason == Reason::Deadline)
        );
    }
}
