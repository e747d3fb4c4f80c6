//! The page that Prometheus reads, on a port of its own so that it need not be public. The probes
//! of an orchestrator are answered there too, whatever callers do to the main port.

use std::{sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, telemetry::Metrics, transport};

/// How often samples are folded together, whether anybody reads the page or not.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Says whether `/readyz` answers 200.
pub(crate) type Readiness = Box<dyn Fn() -> bool + Send + Sync>;

/// Serves `/metrics`, `/livez`, `/healthcheck` and `/readyz` for as long as the process lives.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Readiness,
    clock: Arc<dyn Clock>,
) {
    let upkeep = {
        let (metrics, clock) = (metrics.clone(), Arc::clone(&clock));
        async move {
            loop {
                clock.sleep(UPKEEP_EVERY).await;
                metrics.upkeep();
            }
        }
    };
    let serving = async {
        let (page, limits, never) = (page(metrics, readiness), limits(), CancellationToken::new());
        if let Err(error) = transport::serve_router(listener, page, &limits, clock, never).await {
            tracing::error!(%error, "metrics are not served any more");
        }
    };
    tokio::join!(serving, upkeep);
}

/// The connection handling of the main port, for the few who read this page.
fn limits() -> transport::Settings {
    transport::Settings {
        max_connections: 32,
        progress_bytes: 1 << 20,
        header_bytes: 16 << 10,
        max_streams: 16,
        ..transport::Settings::default()
    }
}

fn page(metrics: Metrics, readiness: Readiness) -> Router {
    let readiness: Arc<dyn Fn() -> bool + Send + Sync> = readiness.into();
    let ready = move || async move {
        if readiness() {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
    };
    Router::new()
        .route("/metrics", get(move || async move { metrics.render() }))
        .route("/livez", get(async || "alive\n"))
        .route("/healthcheck", get(async || "alive\n"))
        .route("/readyz", get(ready))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };

    use super::*;
    use crate::clock::SystemClock;

    /// What the server sends until it closes.
    async fn answer(address: std::net::SocketAddr, path: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let text = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(text.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        timeout(Duration::from_secs(10), socket.read_to_end(&mut read)).await.unwrap().unwrap();
        String::from_utf8(read).unwrap()
    }

    #[tokio::test]
    async fn probes_and_metrics_are_answered_whatever_is_left_half_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_recorder, metrics) = Metrics::recorder().unwrap();
        tokio::spawn(serve(listener, metrics, Box::new(|| false), Arc::new(SystemClock)));
        let mut half_sent = Vec::new();
        for _ in 0..100 {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(b"GET /metrics HTTP/1.1\r\nhos").await.unwrap();
            half_sent.push(socket);
        }
        for (path, status) in [
            ("/livez", 200),
            ("/healthcheck", 200),
            ("/readyz", 503),
            ("/metrics", 200),
            ("/", 404),
        ] {
            let answer = answer(address, path).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        }
    }
}
