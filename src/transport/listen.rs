//! Connections: accepted, bounded, served, drained.
//!
//! The loop is our own since every ready-made one leaves a hole for slow clients: telling HTTP/1
//! from HTTP/2 by the first bytes has no timer of its own, and an HTTP/2 connection that never
//! asks for anything has none either. Hence the deadlines for the first byte and for the first
//! request here, beside those of hyper. Who may hold a connection is decided in `slots`.

use std::{convert::Infallible, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{HeaderValue, Request, Version, header};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    Settings,
    budget::{Charge, Meter, Metered},
    counted::Counted,
    grpc,
    layers::Peer,
    shutdown::Shutdown,
    slots::{NoSlot, Slot, Slots},
    tls,
};
use crate::{
    clock::Clock,
    telemetry::{label, metric},
};

/// How long to wait after an accept failed: most likely there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a peer may take to close a connection on which nothing runs any more.
const LINGER: Duration = Duration::from_secs(1);

/// How much longer than what we accept a header list may be so that it is refused by us, with a
/// record, and not by hyper.
const HEADER_ROOM: u32 = 4;

/// Header fields that hyper accepts; `layers` accepts fewer.
const MAX_HEADERS: usize = 1000;

/// A connection's bytes, in the clear or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What every connection needs.
struct Server {
    settings: Settings,
    router: Router,
    http: Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    shutdown: Shutdown,
}

/// Accepts and serves until the shutdown closes the port, then drains until it cuts off what still
/// runs.
pub(super) async fn accept(
    listener: TcpListener,
    router: Router,
    settings: &Settings,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
) -> io::Result<()> {
    let (tls, watcher) = match &settings.tls {
        Some(files) => {
            let certificate = tls::Certificate::read(files)?;
            let watcher = Arc::clone(&certificate).watch(files.clone(), clock);
            (Some(tls::acceptor(certificate)?), Some(watcher))
        }
        None => (None, None),
    };
    let tasks = TaskTracker::new();
    if let Some(watcher) = watcher {
        let stop = shutdown.begun.clone();
        tasks.spawn(async move { stop.run_until_cancelled(watcher).await });
    }
    let slots = Slots::new(
        settings.max_connections,
        settings.progress_bytes,
        settings.trusted_proxy_hops == 0,
    );
    let (http, settings) = (http(settings), settings.clone());
    let server = Arc::new(Server { settings, router, http, tls, shutdown: shutdown.clone() });
    shutdown.closed.run_until_cancelled(accept_all(&listener, &slots, &server, &tasks)).await;
    drop(listener);
    tasks.close();
    let cut = async {
        shutdown.cut.cancelled().await;
        // Each connection ends by itself; the tasks have yet to be scheduled.
        sleep(ACCEPT_PAUSE).await;
    };
    tokio::select! {
        () = tasks.wait() => {}
        () = cut => tracing::warn!(left = tasks.len(), "requests were still running when the drain ended"),
    }
    Ok(())
}

async fn accept_all(
    listener: &TcpListener,
    slots: &Slots,
    server: &Arc<Server>,
    tasks: &TaskTracker,
) {
    loop {
        let (socket, peer) = next(listener, slots).await;
        let Some(slot) = slot(slots, peer).await else { continue };
        let server = Arc::clone(server);
        tasks.spawn(async move { server.connection(socket, peer, slot).await });
    }
}

async fn next(listener: &TcpListener, slots: &Slots) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                slots.make_room();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits for a slot; meanwhile, newcomers wait in the kernel's queue. `None` if the peer has too
/// many.
async fn slot(slots: &Slots, peer: SocketAddr) -> Option<Slot> {
    loop {
        match slots.take(peer.ip()) {
            Ok(slot) => return Some(slot),
            Err(NoSlot::Wait) => slots.freed().await,
            Err(NoSlot::AddressFull) => {
                tracing::debug!(%peer, "one address holds a quarter of the connections");
                metrics::counter!(metric::CONNECTIONS_ENDED, label::CAUSE => "address")
                    .increment(1);
                return None;
            }
        }
    }
}

/// hyper with every limit set. It panics where a timeout is configured without a timer.
fn http(settings: &Settings) -> Builder<TokioExecutor> {
    let header_bytes = settings.header_bytes.saturating_mul(HEADER_ROOM);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(usize::try_from(header_bytes).unwrap_or(usize::MAX).max(8 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams)
        .max_header_list_size(header_bytes)
        // What a peer sends and nobody reads yet waits within this much.
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(128 << 10)
        // A peer that resets what it asked for (rapid reset), or provokes resets, is cut off.
        .max_pending_accept_reset_streams(32)
        .max_local_error_reset_streams(256)
        // Replies are small; what a peer does not read waits within this much for each stream.
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Why a connection is closed.
enum Leave {
    /// It has been open for long enough, or the server stops.
    Gracefully,
    /// It requested nothing in time.
    Silent,
}

impl Server {
    async fn connection(&self, socket: TcpStream, peer: SocketAddr, slot: Slot) {
        // Without it, delayed acknowledgements cost a caller 40 ms.
        if socket.set_nodelay(true).is_err() {
            return;
        }
        let opened = tokio::select! {
            opened = timeout(self.settings.first_request, self.open(socket)) => opened,
            () = self.shutdown.closed.cancelled() => return,
            () = slot.gives_way() => return,
        };
        let stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "no connection came about"),
            Err(_) => return,
        };
        if let Err(error) = self.requests(stream, peer, &Arc::new(slot)).await {
            tracing::debug!(%peer, error, "a connection ended badly");
        }
    }

    /// Waits for the first byte, and for TLS.
    async fn open(&self, socket: TcpStream) -> io::Result<Pin<Box<dyn Stream>>> {
        let peeked = timeout(self.settings.first_byte, socket.peek(&mut [0])).await??;
        if peeked == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(match &self.tls {
            Some(tls) => Box::pin(tls.accept(socket).await?),
            None => Box::pin(socket),
        })
    }

    /// Serves requests until the peer is done, the connection is too old or gives way, or the
    /// server stops.
    async fn requests(
        &self,
        stream: Pin<Box<dyn Stream>>,
        peer: SocketAddr,
        slot: &Arc<Slot>,
    ) -> Result<(), String> {
        let buffered = self.settings.header_bytes.saturating_mul(HEADER_ROOM);
        let meter = Meter::new(slot.purse(), usize::try_from(buffered).unwrap_or(usize::MAX));
        let requested = CancellationToken::new();
        let service = hyper::service::service_fn({
            let (router, slot, meter) = (self.router.clone(), Arc::clone(slot), Arc::clone(&meter));
            let (requested, begun) = (requested.clone(), self.shutdown.begun.clone());
            move |mut request: Request<Incoming>| {
                requested.cancel();
                meter.request();
                // A stream that only watches keeps no connection from ending.
                let running = (!grpc::only_watches(request.uri().path())).then(|| slot.runs());
                request.extensions_mut().insert(Peer(peer));
                request.extensions_mut().insert(Charge::new(Arc::clone(&meter)));
                let closes = begun.is_cancelled() && request.version() <= Version::HTTP_11;
                let replied = router.clone().oneshot(request.map(Body::new));
                async move {
                    let mut reply = replied.await?;
                    if closes {
                        reply
                            .headers_mut()
                            .insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(reply.map(|body| Counted { body, _running: running }))
                }
            }
        });
        let mut connection = std::pin::pin!(
            self.http.serve_connection(TokioIo::new(Metered { stream, meter }), service)
        );
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
            () = slot.gives_way() => return Ok(()),
            leave = self.leave(&requested) => match leave {
                Leave::Gracefully => {}
                Leave::Silent => return Err("no request in time".to_owned()),
            },
        }
        // HTTP/1: `connection: close` on the next reply; HTTP/2: GOAWAY.
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => ended.map_err(|error| error.to_string()),
            () = slot.gives_way() => Ok(()),
            () = idle_for(slot, LINGER) => Ok(()),
            () = self.shutdown.cut.cancelled() => Err("a request was still running when the drain ended".to_owned()),
        }
    }

    /// Waits for a reason to end a connection that works.
    async fn leave(&self, requested: &CancellationToken) -> Leave {
        let settings = &self.settings;
        let stops = async {
            self.shutdown.begun.cancelled().await;
            // A connection that was only just opened may make its first request until the port
            // closes.
            tokio::select! {
                () = requested.cancelled() => {}
                () = self.shutdown.closed.cancelled() => {}
            }
        };
        let silent = async {
            sleep(settings.first_request).await;
            if requested.is_cancelled() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = stops => Leave::Gracefully,
            () = sleep(with_jitter(settings.max_connection_age)) => Leave::Gracefully,
            () = silent => Leave::Silent,
        }
    }
}

/// Ends when no request has run on the connection for so long.
async fn idle_for(slot: &Slot, wait: Duration) {
    loop {
        slot.idle().await;
        sleep(wait).await;
        if slot.is_idle() {
            return;
        }
    }
}

/// Within a tenth, so that connections that were opened together do not end together.
fn with_jitter(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * fastrand::f64())
}
