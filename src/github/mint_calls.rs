//! How many calls to mint an exchange has made, and whether one of them may have left a token
//! behind.
//!
//! Minting is not idempotent: GitHub may create a token and still answer late, with 502, or not at
//! all. So a mint is repeated only after a call that created nothing, or after at most one whose
//! outcome is unknown, and an exchange that fails says whether a token may exist.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use http::StatusCode;

use super::{client::ApiReply, failure::Failure};

/// At most so many mint calls of one exchange may have an unknown outcome.
const MAX_UNKNOWN: u32 = 2;

/// The mint calls of one exchange. Clones share the counts, which go on counting when the exchange
/// has stopped waiting for GitHub.
#[derive(Debug, Clone, Default)]
pub struct MintCalls(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    made: AtomicU32,
    /// Calls in flight included: nobody knows yet.
    unknown: AtomicU32,
    minted: AtomicU32,
}

impl MintCalls {
    /// The number of calls that GitHub may have seen.
    pub fn made(&self) -> u32 {
        self.0.made.load(Ordering::SeqCst)
    }

    /// Whether GitHub may have minted a token that neither the caller nor this server has.
    pub fn may_have_minted(&self) -> bool {
        self.0.unknown.load(Ordering::SeqCst) > 0
    }

    /// Whether it is certain that GitHub has minted nothing so far.
    pub fn minted_nothing(&self) -> bool {
        !self.may_have_minted() && self.0.minted.load(Ordering::SeqCst) == 0
    }

    /// Whether another call may be made.
    pub(super) fn may_begin(&self) -> bool {
        self.0.unknown.load(Ordering::SeqCst) < MAX_UNKNOWN
    }

    /// Whether the call may be repeated that ended so: never after a timeout, since GitHub may
    /// still be at work on it.
    pub(super) fn may_repeat_after(&self, failure: &Failure) -> bool {
        failure.is_repeatable() && !matches!(failure, Failure::TimedOut) && self.may_begin()
    }

    /// Counts a call that is about to be made.
    pub(super) fn begin(&self) -> CallInFlight<'_> {
        self.0.made.fetch_add(1, Ordering::SeqCst);
        self.0.unknown.fetch_add(1, Ordering::SeqCst);
        CallInFlight(self)
    }

    /// GitHub said that it minted, but the token could not be read from its reply.
    pub(super) fn token_lost(&self) {
        self.0.unknown.fetch_add(1, Ordering::SeqCst);
    }
}

/// A call whose outcome is still unknown. It stays so if this is dropped.
pub(super) struct CallInFlight<'a>(&'a MintCalls);

impl CallInFlight<'_> {
    pub(super) fn end(self, outcome: &Result<ApiReply, Failure>) {
        let Counts { made, unknown, minted } = self.0.0.as_ref();
        match outcome {
            Err(Failure::NotSent(_)) => {
                made.fetch_sub(1, Ordering::SeqCst);
                unknown.fetch_sub(1, Ordering::SeqCst);
            }
            // The reply has the token, or its reader reports the loss.
            Ok(_) => {
                minted.fetch_add(1, Ordering::SeqCst);
                unknown.fetch_sub(1, Ordering::SeqCst);
            }
            Err(Failure::Answered(answer)) if created_nothing(answer.status) => {
                unknown.fetch_sub(1, Ordering::SeqCst);
            }
            Err(
                Failure::Answered(_)
                | Failure::NoAnswer(_)
                | Failure::TimedOut
                | Failure::Unexpected(_),
            ) => {}
        }
    }
}

/// Whether an answer with this status proves that nothing was minted. A 408 comes from a gateway
/// that gave up waiting, and any 5xx may come from one that lost the answer.
fn created_nothing(status: StatusCode) -> bool {
    (status.is_redirection() || status.is_client_error()) && status != StatusCode::REQUEST_TIMEOUT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::failure::Answer;

    fn answered(status: u16) -> Failure {
        Failure::Answered(Box::new(Answer::for_test(status, "")))
    }

    fn ended(failure: Failure) -> MintCalls {
        let calls = MintCalls::default();
        calls.begin().end(&Err(failure));
        calls
    }

    #[test]
    fn which_outcomes_are_unknown() {
        for status in [301, 307, 400, 401, 403, 404, 409, 410, 422, 429, 451] {
            let calls = ended(answered(status));
            assert_eq!((calls.made(), calls.may_have_minted()), (1, false), "{status}");
        }
        for status in [408, 500, 502, 503, 504, 505, 520] {
            let calls = ended(answered(status));
            assert_eq!((calls.made(), calls.may_have_minted()), (1, true), "{status}");
        }
        for failure in
            [Failure::NoAnswer("".into()), Failure::TimedOut, Failure::Unexpected("".into())]
        {
            assert!(ended(failure).may_have_minted());
        }
        let unsent = ended(Failure::NotSent("".into()));
        assert_eq!((unsent.made(), unsent.may_have_minted()), (0, false));
    }

    #[test]
    fn a_call_in_flight_may_have_minted() {
        let calls = MintCalls::default();
        {
            let _in_flight = calls.begin();
            assert!(calls.may_have_minted());
        }
        assert!(calls.may_have_minted());
    }

    #[test]
    fn a_second_unknown_outcome_ends_the_calls_and_a_timeout_is_not_repeated() {
        let calls = MintCalls::default();
        calls.begin().end(&Err(answered(404)));
        calls.begin().end(&Err(answered(502)));
        assert!(calls.may_repeat_after(&answered(502)));
        assert!(!calls.may_repeat_after(&Failure::TimedOut));
        calls.begin().end(&Err(Failure::NoAnswer("".into())));
        assert!(!calls.may_repeat_after(&answered(502)) && !calls.may_begin());
        assert_eq!(calls.made(), 3);
    }
}
