//! The page that Prometheus reads, on a port of its own so that it need not be public.

use axum::{Router, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Metrics;

/// Serves `/metrics` until `stop`.
pub(super) async fn serve(listener: TcpListener, metrics: Metrics, stop: CancellationToken) {
    let page = Router::new().route("/metrics", get(move || async move { metrics.render() }));
    let served = axum::serve(listener, page).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "metrics are not served any more");
    }
}
