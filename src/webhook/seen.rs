//! Which deliveries are being worked on or done, by the digest of their bodies.
//!
//! Headers are not signed, so a replay may come with another id. A delivery is done only when its
//! work is: one whose work failed is taken again when GitHub redelivers it.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Deliveries that are remembered when they are done: GitHub can redeliver for three days.
const MAX_DONE: usize = 16_384;

/// SHA-256 of a body.
pub(super) type Digest = [u8; 32];

#[derive(Debug, Default)]
struct State {
    known: HashSet<Digest>,
    /// Those that are done, oldest first. The others are running.
    done: VecDeque<Digest>,
}

/// The deliveries of the last days.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<State>);

impl Seen {
    /// Marks a delivery as running; false if it is running or done already.
    pub(super) fn begin(&self, digest: Digest) -> bool {
        self.state().known.insert(digest)
    }

    /// The work of a running delivery is finished.
    pub(super) fn finish(&self, digest: Digest) {
        let mut state = self.state();
        state.done.push_back(digest);
        if state.done.len() > MAX_DONE
            && let Some(oldest) = state.done.pop_front()
        {
            state.known.remove(&oldest);
        }
    }

    /// The work of a running delivery failed, or was not accepted.
    pub(super) fn forget(&self, digest: Digest) {
        self.state().known.remove(&digest);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_whose_work_failed_is_taken_again_and_one_that_is_done_is_not() {
        let seen = Seen::default();
        assert!(seen.begin([1; 32]));
        assert!(!seen.begin([1; 32]));
        seen.forget([1; 32]);
        assert!(seen.begin([1; 32]));
        seen.finish([1; 32]);
        assert!(!seen.begin([1; 32]));
    }

    #[test]
    fn the_oldest_of_those_that_are_done_are_forgotten_and_running_ones_are_not() {
        let seen = Seen::default();
        let digest = |n: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_le_bytes());
            digest
        };
        assert!(seen.begin(digest(usize::MAX)));
        for n in 0..=MAX_DONE {
            assert!(seen.begin(digest(n)));
            seen.finish(digest(n));
        }
        assert!(seen.begin(digest(0)));
        assert!(!seen.begin(digest(1)));
        assert!(!seen.begin(digest(usize::MAX)));
    }
}
