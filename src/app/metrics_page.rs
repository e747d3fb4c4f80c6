//! The page that Prometheus reads, on a port of its own so that it need not be public. Who has no
//! other port for them, as the agent, has the probes of an orchestrator answered beside it.

use std::{sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, telemetry::Metrics};

/// How often samples are folded together, whether anybody reads the page or not.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Says whether `/readyz` answers 200.
pub(crate) type Readiness = Box<dyn Fn() -> bool + Send + Sync>;

/// Serves `/metrics` until `stop`, and with a readiness `/livez` and `/readyz` too.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Option<Readiness>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let kept = metrics.clone();
    let upkeep = async move {
        loop {
            clock.sleep(UPKEEP_EVERY).await;
            kept.upkeep();
        }
    };
    let mut page = Router::new().route("/metrics", get(move || async move { metrics.render() }));
    if let Some(readiness) = readiness {
        page = page.merge(probes(readiness));
    }
    let serving = async {
        if let Err(error) = axum::serve(listener, page).with_graceful_shutdown(stop.clone().cancelled_owned()).await {
            tracing::error!(%error, "metrics are not served any more");
        }
    };
    tokio::join!(serving, stop.run_until_cancelled(upkeep));
}

fn probes(readiness: Readiness) -> Router {
    let readiness: Arc<dyn Fn() -> bool + Send + Sync> = readiness.into();
    let ready = move || async move {
        if readiness() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
    };
    Router::new().route("/livez", get(async || "alive\n")).route("/readyz", get(ready))
}
