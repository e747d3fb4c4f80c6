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
        Err(mistakes) => {
            say(format_args!("octo-sts: {mistakes}\nAll variables: octo-sts serve --help"));
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
                Exit::Internal
            }
        }
    })
}

/// A token that is cancelled by the first SIGTERM or Ctrl-C. Must be called on a runtime.
pub(super) fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        let signal = tokio::select! {
            name = interrupted() => name,
            name = terminated() => name,
        };
        tracing::info!(signal, "stopping");
        on_signal.cancel();
    });
    stop
}

async fn interrupted() -> &'static str {
    match tokio::signal::ctrl_c().await {
        Ok(()) => "SIGINT",
        Err(error) => never("SIGINT", error).await,
    }
}

#[cfg(unix)]
async fn terminated() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => {
            signals.recv().await;
            "SIGTERM"
        }
        Err(error) => never("SIGTERM", error).await,
    }
}

#[cfg(not(unix))]
async fn terminated() -> &'static str {
    std::future::pending().await
}

/// A signal that cannot be listened for never comes; the others still do.
async fn never(signal: &'static str, error: std::io::Error) -> &'static str {
    tracing::warn!(signal, { telemetry::field::CAUSE } = %error, "this signal will not stop the server");
    std::future::pending().await
}
