//! The operator's own command, run whenever a file holds a new token.
//!
//! It is a program and its arguments, no shell. It gets the file's path in its environment and
//! never the token. Its outcome is logged and counted, and has no effect on the token.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use tokio::process;

use crate::{
    client::Target,
    clock::{Clock, UnixTime},
    telemetry::{label, metric},
};

/// A command that takes longer is killed.
const LIMIT: Duration = Duration::from_secs(60);

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    program: String,
    arguments: Vec<String>,
}

/// An empty list, or an empty name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a command is a list: the program, then its arguments")]
pub struct CommandError;

impl Command {
    /// The program's name or path first; a name is looked for in `PATH`.
    ///
    /// # Errors
    /// The program does not exist.
    pub fn new(words: impl IntoIterator<Item = String>) -> Result<Self, CommandError> {
        let mut words = words.into_iter();
        let program = words.next().filter(|program| !program.is_empty()).ok_or(CommandError)?;
        Ok(Self { program, arguments: words.collect() })
    }
}

/// What the command learns about the token, from environment variables.
pub(super) struct Renewed<'a> {
    pub(super) file: &'a Path,
    pub(super) target: &'a Target,
    pub(super) ends_at: UnixTime,
}

/// How a command ended.
#[derive(Debug)]
enum Ended {
    Well,
    Badly(String),
    NotInTime,
}

/// Starts the command. Whoever drops the future kills it; what it started itself is its own
/// business.
pub(super) fn run(
    command: &Command,
    renewed: &Renewed<'_>,
    clock: Arc<dyn Clock>,
) -> impl Future<Output = ()> + use<> {
    let mut process = process::Command::new(&command.program);
    process
        .args(&command.arguments)
        .env("OCTO_STS_TOKEN_FILE", renewed.file)
        .env("OCTO_STS_SCOPE", renewed.target.scope().to_string())
        .env("OCTO_STS_IDENTITY", renewed.target.identity().as_str())
        .env("OCTO_STS_EXPIRES_AT", renewed.ends_at.rfc3339())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let program = command.program.clone();
    async move {
        let ended = tokio::select! {
            ended = process.status() => match ended {
                Ok(status) if status.success() => Ended::Well,
                Ok(status) => Ended::Badly(status.to_string()),
                Err(error) => Ended::Badly(error.to_string()),
            },
            () = clock.sleep(LIMIT) => Ended::NotInTime,
        };
        let outcome = match &ended {
            Ended::Well => "done",
            Ended::Badly(_) => "failed",
            Ended::NotInTime => "timed_out",
        };
        metrics::counter!(metric::AGENT_COMMANDS, label::OUTCOME => outcome).increment(1);
        match ended {
            Ended::Well => tracing::info!(program, "the command on renewal has run"),
            Ended::Badly(how) => tracing::warn!(program, how, "the command on renewal failed"),
            Ended::NotInTime => {
                tracing::warn!(
                    program,
                    "the command on renewal took longer than {} s and was killed",
                    LIMIT.as_secs()
                );
            }
        }
    }
}
