//! The page that Prometheus reads, on a port of its own so that it need not be public.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, telemetry::Metrics};

/// How often samples are folded together, whether anybody reads the page or not.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Serves `/metrics` until `stop`.
pub(super) async fn serve(listener: TcpListener, metrics: Metrics, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let kept = metrics.clone();
    let upkeep = async move {
        loop {
            clock.sleep(UPKEEP_EVERY).await;
            kept.upkeep();
        }
    };
    let page = Router::new().route("/metrics", get(move || async move { metrics.render() }));
    let serving = async {
        if let Err(error) = axum::serve(listener, page).with_graceful_shutdown(stop.clone().cancelled_owned()).await {
            tracing::error!(%error, "metrics are not served any more");
        }
    };
    tokio::join!(serving, stop.run_until_cancelled(upkeep));
}
