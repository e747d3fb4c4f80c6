//! The log: its format, its filter, and its way to stderr.
//!
//! Lines pass a queue, so that a line never waits for its reader.

use std::{
    io::{self, IsTerminal},
    sync::OnceLock,
    time::Duration,
};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt};

use super::{TelemetryError, log_queue::LogQueue};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl LogFormat {
    /// For people if stderr is a terminal, else for programs.
    pub fn of_stderr() -> Self {
        if io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Which log lines are written: directives in the manner of `RUST_LOG`, known to parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// Reads directives such as `info,octo_sts=debug`; `None` if they do not parse.
    pub fn parse(directives: &str) -> Option<Self> {
        EnvFilter::try_new(directives).is_ok().then(|| Self(directives.to_owned()))
    }

    fn to_env_filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

/// The queue of the installed log. A subscriber is the process's own too.
static LOG: OnceLock<LogQueue> = OnceLock::new();

/// Sends the log of the whole process to stderr.
///
/// # Errors
/// [`TelemetryError::LogInstalled`] if something did so before; [`TelemetryError::LogThread`].
pub fn install_log(filter: &LogFilter, format: LogFormat) -> Result<(), TelemetryError> {
    let queue = LogQueue::start(io::stderr()).map_err(TelemetryError::LogThread)?;
    subscriber(filter, format, queue.clone())
        .try_init()
        .map_err(|_| TelemetryError::LogInstalled)?;
    LOG.set(queue).map_err(|_| TelemetryError::LogInstalled)
}

/// Waits until the installed log is written, or for `within`: at the end of the process.
pub fn flush_log(within: Duration) {
    if let Some(queue) = LOG.get() {
        queue.flush(within);
    }
}

/// Tells panics in the log, by their place alone. What a panic says may hold what it stumbled over,
/// a token for one, and the standard hook prints it.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "a fault in the program");
    }));
}

/// A subscriber that writes to `writer`. A line that cannot be written is lost in silence: to
/// complain on a stderr that is gone would panic.
pub(super) fn subscriber<W>(
    filter: &LogFilter,
    format: LogFormat,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).log_internal_errors(false);
    let base = registry().with(filter.to_env_filter());
    match format {
        LogFormat::Json => {
            Box::new(base.with(lines.json().flatten_event(true).with_span_list(false)))
        }
        LogFormat::Text => Box::new(base.with(lines.with_ansi(io::stderr().is_terminal()))),
    }
}
