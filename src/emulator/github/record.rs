//! The requests so far: a log without credentials, counters by operation, and the requests that
//! are not emulated.

use std::collections::{BTreeMap, VecDeque};

use http::Method;

use super::route::RouteKind;
use crate::{
    clock::UnixTime,
    name::{AppId, InstallationId},
};

/// The log holds this many requests; the counters hold all.
const MAX_LOG: usize = 20_000;

/// One request, without its credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// When it came.
    pub at: UnixTime,
    /// Its method.
    pub method: Method,
    /// Its path, as sent, with the query.
    pub path: String,
    /// The operation; `None` if it is not emulated.
    pub kind: Option<RouteKind>,
    /// The status of the answer; `None` while there is none, and if the connection was cut.
    pub status: Option<u16>,
    /// The App that it came from, by its JWT.
    pub app: Option<AppId>,
    /// The installation whose token it came with.
    pub installation: Option<InstallationId>,
}

/// Number of requests by operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls(BTreeMap<Option<RouteKind>, usize>);

impl Calls {
    /// The number of requests of one kind.
    pub fn of(&self, kind: RouteKind) -> usize {
        self.0.get(&Some(kind)).copied().unwrap_or(0)
    }

    /// The number of all requests, unknown ones too.
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// What came between an earlier count and this one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let more = |(kind, count): (&Option<RouteKind>, &usize)| {
            (*kind, count.saturating_sub(earlier.0.get(kind).copied().unwrap_or(0)))
        };
        Self(self.0.iter().map(more).filter(|(_, count)| *count > 0).collect())
    }

    /// Kinds and numbers, without zeros.
    pub fn iter(&self) -> impl Iterator<Item = (Option<RouteKind>, usize)> + '_ {
        self.0.iter().map(|(kind, count)| (*kind, *count))
    }
}

/// The credential that a request was authenticated by.
#[derive(Debug, Clone, Copy)]
pub(super) enum Credential {
    /// A JWT of this App.
    App(AppId),
    /// A token of this installation.
    Token(InstallationId),
}

/// The log and the counters.
#[derive(Debug, Default)]
pub(super) struct Record {
    log: VecDeque<Call>,
    /// How many calls have left the log.
    forgotten: usize,
    pub(super) calls: Calls,
    pub(super) unknown: Vec<String>,
    pub(super) minted: usize,
}

impl Record {
    /// Notes a request before it is answered; the number is for [`Record::answered`].
    pub(super) fn arrived(&mut self, call: Call) -> usize {
        *self.calls.0.entry(call.kind).or_default() += 1;
        if self.log.len() == MAX_LOG {
            self.log.pop_front();
            self.forgotten += 1;
        }
        self.log.push_back(call);
        self.forgotten + self.log.len() - 1
    }

    /// Notes its answer.
    pub(super) fn answered(&mut self, number: usize, credential: Option<Credential>, status: u16) {
        let call = number.checked_sub(self.forgotten).and_then(|at| self.log.get_mut(at));
        let Some(call) = call else { return };
        call.status = Some(status);
        match credential {
            Some(Credential::App(app)) => call.app = Some(app),
            Some(Credential::Token(installation)) => call.installation = Some(installation),
            None => {}
        }
    }

    /// Notes a request that the emulator has no answer to.
    pub(super) fn not_understood(&mut self, method: &Method, path: &str) {
        if self.unknown.len() < MAX_LOG {
            self.unknown.push(format!("{method} {path}"));
        }
    }

    pub(super) fn log(&self) -> Vec<Call> {
        self.log.iter().cloned().collect()
    }
}
