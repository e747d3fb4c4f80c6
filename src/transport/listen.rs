//! Connections: accepted, bounded, served, drained.
//!
//! The loop is our own since every ready-made one leaves a hole for slow clients: telling HTTP/1
//! from HTTP/2 by the first bytes has no timer of its own, and an HTTP/2 connection that never
//! asks for anything has none either. Hence the deadlines for the first byte and for the first
//! request here, beside those of hyper.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use http::Request;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::{App, Settings, layers::Peer, tls};

/// How long to wait after an accept failed: most likely there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection's bytes, in the clear or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What every connection needs.
struct Server {
    app: Arc<App>,
    router: Router,
    http: Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
}

/// Accepts and serves until the server is told to stop, then drains.
pub(super) async fn accept(listener: TcpListener, router: Router, app: &Arc<App>) -> io::Result<()> {
    let (tls, watcher) = match &app.settings.tls {
        Some(files) => {
            let certificate = tls::Certificate::read(files)?;
            let watcher = Arc::clone(&certificate).watch(files.clone(), Arc::clone(&app.clock));
            (Some(tls::acceptor(certificate)?), Some(watcher))
        }
        None => (None, None),
    };
    let tasks = TaskTracker::new();
    if let Some(watcher) = watcher {
        let stop = app.stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(watcher).await });
    }
    let server = Arc::new(Server { app: Arc::clone(app), router, http: http(&app.settings), tls });
    let slots = Arc::new(Semaphore::new(app.settings.max_connections));
    let accepting = async {
        // A full house leaves newcomers in the kernel's queue.
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let (socket, peer) = next(&listener).await;
            let server = Arc::clone(&server);
            tasks.spawn(async move {
                server.connection(socket, peer).await;
                drop(slot);
            });
        }
    };
    app.stop.run_until_cancelled(accepting).await;
    drop(listener);
    tasks.close();
    // Each connection ends by its own drain; the second is for the tasks to be scheduled.
    if timeout(app.settings.drain + Duration::from_secs(1), tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "connections were still open when the drain ended");
    }
    Ok(())
}

async fn next(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// hyper with every limit set. It panics where a timeout is configured without a timer.
fn http(settings: &Settings) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_headers(100)
        .max_buf_size(usize::try_from(settings.header_bytes).unwrap_or(usize::MAX).max(8 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams)
        .max_header_list_size(settings.header_bytes)
        // What a peer sends and nobody reads yet waits within this much.
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10)
        // A peer that resets what it asked for (rapid reset), or provokes resets, is cut off.
        .max_pending_accept_reset_streams(32)
        .max_local_error_reset_streams(256)
        // Replies are small; what a peer does not read waits within this much for each stream.
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

impl Server {
    async fn connection(&self, socket: TcpStream, peer: SocketAddr) {
        let settings = &self.app.settings;
        // Without it, delayed acknowledgements cost a caller 40 ms.
        if socket.set_nodelay(true).is_err() {
            return;
        }
        let opened = timeout(settings.first_request, self.open(socket));
        let stream = match self.app.stop.run_until_cancelled(opened).await {
            Some(Ok(Ok(stream))) => stream,
            Some(Ok(Err(error))) => return tracing::debug!(%peer, %error, "no connection came about"),
            Some(Err(_)) | None => return,
        };
        if let Err(error) = self.requests(stream, peer).await {
            tracing::debug!(%peer, error, "a connection ended badly");
        }
    }

    /// Waits for the first byte, and for TLS.
    async fn open(&self, socket: TcpStream) -> io::Result<Pin<Box<dyn Stream>>> {
        let peeked = timeout(self.app.settings.first_byte, socket.peek(&mut [0])).await??;
        if peeked == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(match &self.tls {
            Some(tls) => Box::pin(tls.accept(socket).await?),
            None => Box::pin(socket),
        })
    }

    /// Serves requests until the peer is done, the connection is too old, or the server stops.
    async fn requests(&self, stream: Pin<Box<dyn Stream>>, peer: SocketAddr) -> Result<(), String> {
        let settings = &self.app.settings;
        let asked = Arc::new(AtomicBool::new(false));
        let service = TowerToHyperService::new(self.router.clone().map_request({
            let asked = Arc::clone(&asked);
            move |mut request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(Peer(peer));
                request.map(Body::new)
            }
        }));
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        let silent = async {
            sleep(settings.first_request).await;
            if asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
            () = silent => return Err("no request in time".to_owned()),
            () = self.app.stop.cancelled() => {}
            () = sleep(settings.max_connection_age) => {}
        }
        // HTTP/1: `connection: close` on the next reply; HTTP/2: GOAWAY.
        connection.as_mut().graceful_shutdown();
        match timeout(settings.drain, connection).await {
            Ok(ended) => ended.map_err(|error| error.to_string()),
            Err(_) => Err("requests were still running when the drain ended".to_owned()),
        }
    }
}
