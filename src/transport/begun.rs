//! An attempt from the moment when its request's headers have been read, until the core takes over.
//!
//! The core records an attempt whose request is complete. Until then it is recorded here: a request
//! that is refused as it comes in, and one whose caller goes away before its body is complete.

use std::sync::Arc;

use http::{Extensions, HeaderMap, Method};

use super::{Serving, Settings, bearer::bearer, body, budget::Charge, caller, grpc, rest};
use crate::{
    audit::record::Operation,
    exchange::{Attempt, Caller},
    reason::{Reason, Refusal},
};

/// The most header fields of a request.
const MAX_HEADERS: usize = 100;

/// What each header field counts for beside its name and value.
const HEADER_OVERHEAD: usize = 32;

/// An attempt that has not reached the core.
pub(super) struct Begun {
    app: Arc<Serving>,
    caller: Caller,
    operation: Operation,
    is_pending: bool,
}

impl Begun {
    /// The attempt that a request is, if it is one.
    pub(super) fn of(
        app: &Arc<Serving>,
        method: &Method,
        path: &str,
        extensions: &Extensions,
    ) -> Option<Self> {
        let operation = grpc::operation(path).or_else(|| rest::operation(method, path))?;
        let caller = caller(extensions).ok()?;
        Some(Self { app: Arc::clone(app), caller, operation, is_pending: true })
    }

    /// Who calls.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The request is complete: what becomes of it is the core's to record.
    pub(super) fn arrived(&mut self) {
        self.is_pending = false;
    }

    /// Records that the request is refused; the refusal that the caller gets.
    pub(super) async fn refuse(&mut self, refusal: Refusal) -> Refusal {
        self.is_pending = false;
        let attempt = self.attempt(refusal.clone());
        let recorded = match self.operation {
            Operation::Exchange => self.app.exchange.exchange(attempt).await.err(),
            Operation::Check => self.app.exchange.check(attempt).await.err(),
        };
        recorded.unwrap_or(refusal)
    }

    /// As [`Self::refuse`], for a fault of the request: a fault of its credential is reported
    /// first.
    pub(super) async fn refuse_request(&mut self, headers: &HeaderMap, fault: Refusal) -> Refusal {
        let token = bearer(headers).and_then(|bearer| self.app.exchange.read_token(bearer));
        self.refuse(token.err().unwrap_or(fault)).await
    }

    /// As [`Self::refuse`], for headers that are too large. If the token alone exceeds its limit,
    /// that is the reason.
    pub(super) async fn refuse_oversized(
        &mut self,
        headers: &HeaderMap,
        fault: Refusal,
    ) -> Refusal {
        let token = bearer(headers).and_then(|bearer| self.app.exchange.read_token(bearer));
        let too_large = token.err().filter(|refusal| refusal.reason == Reason::TokenTooLarge);
        self.refuse(too_large.unwrap_or(fault)).await
    }

    fn attempt(&self, refusal: Refusal) -> Attempt {
        Attempt {
            caller: self.caller.clone(),
            scope: None,
            identity: None,
            cap: None,
            asked: Err(refusal),
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.is_pending {
            let gone = Refusal::new(Reason::RequestInvalid, "the request was not sent to its end");
            self.app.exchange.abandoned(&self.attempt(gone), self.operation);
        }
    }
}

/// Whether the header list is larger than the server accepts. hyper accepts more, so that the
/// refusal is ours and is recorded.
pub(super) fn oversized(headers: &HeaderMap, settings: &Settings) -> Option<Refusal> {
    let max_bytes = usize::try_from(settings.header_bytes).unwrap_or(usize::MAX);
    let fits = headers.len() <= MAX_HEADERS && size(headers) <= max_bytes;
    (!fits)
        .then(|| Refusal::new(Reason::RequestInvalid, "the headers of the request are too large"))
}

/// As HTTP/2 counts a header list (RFC 9113, section 6.5.2).
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD).sum()
}

/// Takes the bytes of the request's headers from the budget.
pub(super) fn charge(headers: &HeaderMap, extensions: &Extensions) -> Result<(), Refusal> {
    let fits = extensions.get::<Charge>().is_none_or(|charge| charge.headers(size(headers)));
    fits.then_some(()).ok_or_else(body::overloaded)
}
