//! New tokens take a moment to spread over GitHub.
//!
//! Until then a 401 means that the token, and a 403 that its permissions have not arrived. While a
//! token is young, such refusals are tried again before they count. (A 404 can mean the same in a
//! private repository; only the caller knows what it means.)

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};

use super::{
    client::{ApiReply, Call},
    limits::{Gate, LimitKey},
    meaning::Meaning,
};
use crate::clock::UnixTime;

/// How long GitHub may take.
const YOUNG: Duration = Duration::from_secs(10);
/// Tries after the first: about two seconds of waiting.
const RETRIES: usize = 4;

/// Whether a token that was minted at `issued_at` may still be spreading.
pub(super) fn is_young(gate: &Gate, issued_at: UnixTime) -> bool {
    gate.clock.now().since(issued_at) < YOUNG
}

/// A call with a token that was minted at `issued_at`.
pub(super) async fn call(
    gate: &Gate,
    key: LimitKey,
    call: &Call,
    issued_at: UnixTime,
) -> Result<ApiReply, Meaning> {
    let backoff = ExponentialBuilder::new()
        .with_min_delay(gate.client.first_backoff())
        .with_factor(2.0)
        .with_max_times(RETRIES)
        .with_jitter();
    let may_be_replication =
        |meaning: &Meaning| meaning.may_be_replication() && is_young(gate, issued_at);
    (|| gate.call(key, call)).retry(backoff).when(may_be_replication).await
}
