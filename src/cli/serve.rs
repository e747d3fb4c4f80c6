//! `octo-sts serve`: configuration, logging, signals, and then the server until a signal comes.

use tokio_util::sync::CancellationToken;

use super::{Exit, block_on, say};
use crate::{
    app,
    config::{Config, Environment},
    telemetry,
};

/// Serves until SIGTERM or Ctrl-C.
pub(super) fn serve(environment: &Environment) -> Exit {
    let config = match Config::read(environment) {
        Ok(config) => config,
        Err(errors) => {
            say(format_args!("octo-sts: {errors}\nAll variables: octo-sts serve --help"));
            return Exit::Usage;
        }
    };
    if let Err(error) = telemetry::install_log(&config.log.filter, config.log.format) {
        say(format_args!("octo-sts: {error}"));
        return Exit::Internal;
    }
    telemetry::install_panic_hook();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    block_on(async {
        match app::run(config, stop_on_signal()).await {
            Ok(()) => Exit::Done,
            Err(error) => {
                tracing::error!({ telemetry::field::CAUSE } = %error, "the server ended");
                if matches!(error, app::AppError::Listen { .. }) {
                    Exit::Usage
                } else {
                    Exit::Internal
                }
            }
        }
    })
}

/// A token that is cancelled by the first SIGTERM or Ctrl-C. The second one ends the process. Must
/// be called on a runtime.
pub(super) fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        let mut terminations = Terminations::new();
        let signal = terminations.next().await;
        tracing::info!(signal, "stopping");
        on_signal.cancel();
        let signal = terminations.next().await;
        tracing::warn!(signal, "ending immediately");
        telemetry::flush_log(super::LOG_FLUSH);
        std::process::exit(Exit::Internal.code().into());
    });
    stop
}

/// SIGTERM and Ctrl-C. Both are awaited from the start, so that none is lost between two calls.
struct Terminations {
    #[cfg(unix)]
    terminate: Option<tokio::signal::unix::Signal>,
}

impl Terminations {
    #[cfg(unix)]
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = signal(SignalKind::terminate());
        Self { terminate: terminate.map_err(|error| unheard("SIGTERM", &error)).ok() }
    }

    #[cfg(not(unix))]
    fn new() -> Self {
        Self {}
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            name = interrupted() => name,
            name = self.terminated() => name,
        }
    }

    #[cfg(unix)]
    async fn terminated(&mut self) -> &'static str {
        match &mut self.terminate {
            Some(signals) => {
                signals.recv().await;
                "SIGTERM"
            }
            None => std::future::pending().await,
        }
    }

    #[cfg(not(unix))]
    async fn terminated(&mut self) -> &'static str {
        std::future::pending().await
    }
}

async fn interrupted() -> &'static str {
    match tokio::signal::ctrl_c().await {
        Ok(()) => "SIGINT",
        Err(error) => {
            unheard("SIGINT", &error);
            std::future::pending().await
        }
    }
}

/// A signal that cannot be listened for; the others still stop the server.
fn unheard(signal: &'static str, error: &std::io::Error) {
    tracing::warn!(signal, { telemetry::field::CAUSE } = %error, "this signal will not stop the server");
}
