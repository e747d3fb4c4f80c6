//! Keeps files with fresh GitHub tokens, for programs that read a token from a file.
//!
//! Each token has a keeper that renews it at two thirds of its life, keeps the old one while that
//! lives, and removes the file when it does not: what stands in a file is a living token. Keepers
//! know nothing of each other. When to act is decided in `schedule`, which is arithmetic alone;
//! `file` sees to it that no reader finds half a token. A server that is away is waited for,
//! however long.

mod command;
mod file;
mod keeper;
mod schedule;
mod settings;
mod status;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

pub use self::{
    command::{Command, CommandError},
    file::{FileError, Mode, ModeError},
    settings::{File, FileToken},
    status::{Phase, Status, Watch},
};
use self::{keeper::Keeper, schedule::Failure};
use crate::{
    client::{self, Class, Client, Target, ambient::Source},
    clock::{Clock, UnixTime},
    egress::Egress,
};

/// At least so long after an exchange that may have led to a token there is no other.
const AFTER_LOST_TOKEN: Duration = Duration::from_secs(15);

/// One token and where it is kept.
#[derive(Debug, Clone)]
pub struct Token {
    /// What it is for, and how much of that.
    pub target: Target,
    /// Its file.
    pub out: PathBuf,
    /// Who may read the file.
    pub mode: Mode,
    /// Where the workload's own identity comes from.
    pub source: Source,
    /// What that identity is asked to say in `aud`.
    pub audience: String,
    /// What is run when the file holds a new token.
    pub on_renewal: Option<Command>,
}

/// What an agent is to do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The root of GitHub's API, where tokens are revoked.
    pub github: http::Uri,
    /// Leave files and tokens as they are at the end.
    pub keep_on_exit: bool,
    /// The tokens, each with a file of its own.
    pub tokens: Vec<Token>,
}

/// What an agent takes from the world around it.
pub struct Parts {
    /// Asks the server.
    pub client: Client,
    /// The way out, for identities and revocations.
    pub egress: Egress,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What all keepers share.
struct Shared {
    client: Client,
    egress: Egress,
    clock: Arc<dyn Clock>,
    github: http::Uri,
    keep_on_exit: bool,
}

/// Keeps files fresh.
pub struct Agent {
    keepers: Vec<Keeper>,
    clock: Arc<dyn Clock>,
}

impl Agent {
    /// Removes what killed runs left beside the files and proves that their folders take files.
    /// Nobody is asked for anything.
    ///
    /// # Errors
    /// The first file that cannot be kept.
    pub fn new(settings: Settings, parts: Parts) -> Result<Self, FileError> {
        let Parts { client, egress, clock } = parts;
        let Settings { github, keep_on_exit, tokens } = settings;
        let shared =
            Arc::new(Shared { client, egress, clock: Arc::clone(&clock), github, keep_on_exit });
        let keepers = tokens.into_iter().map(|token| Keeper::new(Arc::clone(&shared), token));
        Ok(Self { keepers: keepers.collect::<Result<_, _>>()?, clock })
    }

    /// To look at the agent while it runs.
    pub fn watch(&self) -> Watch {
        let views = self.keepers.iter().map(|keeper| (keeper.file().clone(), keeper.status()));
        Watch { clock: Arc::clone(&self.clock), views: views.collect() }
    }

    /// Keeps the files fresh until `stop`. Then removes them and revokes what was issued, unless it
    /// is to keep them, within ten seconds.
    pub async fn run(self, stop: CancellationToken) {
        let each: Vec<_> =
            self.keepers.into_iter().map(|keeper| keeper.keep(stop.clone())).collect();
        join_all(each).await;
    }

    /// Writes each file once, all that can be written.
    ///
    /// # Errors
    /// The first failure, in the order of the settings; each is logged.
    pub async fn once(self, stop: CancellationToken) -> Result<(), Failed> {
        let each: Vec<_> =
            self.keepers.into_iter().map(|keeper| keeper.once(stop.clone())).collect();
        join_all(each).await.into_iter().collect()
    }
}

/// Why there is no new token in a file. Texts of the server's are as [`client::Error`] has them.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The workload cannot say who it is.
    #[error("the workload's identity: {0}")]
    Identity(client::Error),
    /// There was no token.
    #[error("{0}")]
    Exchange(client::Error),
    /// There was neither token nor refusal in time.
    #[error("no answer in time")]
    Slow,
    /// The token had ended when it came.
    #[error("the token ended at {} and it is {} by this machine's clock: one of the clocks is wrong", told.rfc3339(), now.rfc3339())]
    Clock {
        /// When it ended.
        told: UnixTime,
        /// When it was asked for.
        now: UnixTime,
    },
    /// The token could not be written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// It was time to stop.
    #[error("stopped")]
    Stopped,
}

impl Failed {
    /// What the operator of the agent can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Identity(error) | Self::Exchange(error) => error.class(),
            Self::Slow | Self::Stopped => Class::Unavailable,
            Self::Clock { .. } | Self::File(..) => Class::Internal,
        }
    }

    /// What it means for the next attempt.
    fn kind(&self) -> Failure {
        match self {
            Self::Exchange(error) if is_final(error) => Failure::Refused,
            Self::Clock { .. } => Failure::Refused,
            Self::Identity(_) | Self::Exchange(_) | Self::Slow | Self::File(..) | Self::Stopped => {
                Failure::Unavailable
            }
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            // The next exchange is not made soon: each may leave a token behind.
            Self::Exchange(error) if error.may_have_minted => {
                Some(error.retry_after.unwrap_or_default().max(AFTER_LOST_TOKEN))
            }
            Self::Identity(error) | Self::Exchange(error) => error.retry_after,
            Self::Slow | Self::Clock { .. } | Self::File(..) | Self::Stopped => None,
        }
    }

    /// The word by which it is counted.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Identity(_) => "no_identity",
            Self::Exchange(error) if is_final(error) => "refused",
            Self::Exchange(_) | Self::Slow | Self::Stopped => "unavailable",
            Self::Clock { .. } => "wrong_clock",
            Self::File(..) => "not_written",
        }
    }
}

/// Whether something (the request, the policy, the identity) must be corrected before another
/// answer can be hoped for.
fn is_final(error: &client::Error) -> bool {
    matches!(error.code, 3 | 5 | 7 | 9 | 12 | 16) || error.class() == Class::Usage
}
