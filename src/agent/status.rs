//! The state of the files, for probes, and for tests that move the clock.

use std::sync::Arc;

use tokio::sync::watch;

use super::file::TokenFile;
use crate::clock::{Clock, UnixTime};

/// What a keeper is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// What is due.
    #[default]
    Busy,
    /// Nothing, but for a look at the clock and the file now and then.
    Waiting {
        /// When there is something to do, by the agent's clock.
        until: UnixTime,
        /// When it looks next, at the latest then.
        looks_at: UnixTime,
    },
    /// Nothing any more.
    Ended,
}

/// How one token's file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// What its keeper is doing.
    pub phase: Phase,
    /// Until when the file stays with the token that it holds, if it holds one.
    pub file_ends_at: Option<UnixTime>,
    /// Failures in a row.
    pub failures: u32,
}

/// Looks at an agent that runs elsewhere.
#[derive(Clone)]
pub struct Watch {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) views: Vec<(TokenFile, watch::Receiver<Status>)>,
}

impl Watch {
    /// Whether every file is there and holds a token that lives.
    pub fn is_ready(&self) -> bool {
        let now = self.clock.now();
        self.views.iter().all(|(file, status)| {
            status.borrow().file_ends_at.is_some_and(|ends_at| ends_at > now) && file.is_there()
        })
    }

    /// How each file stands, in the order of the settings.
    pub fn statuses(&self) -> Vec<Status> {
        self.views.iter().map(|(_, status)| *status.borrow()).collect()
    }
}
