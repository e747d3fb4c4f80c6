//! The listener that the emulated GitHub and the issuers share.
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge on one loopback port. A handler may also end in
//! [`Cut`]: then the connection (in HTTP/2 the stream) breaks off without an answer, as a failing
//! server's does.

use std::{io, net::Ipv4Addr, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream, stream::StreamExt};
use http::{HeaderMap, Method, header::HeaderName, header::HeaderValue};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// The largest request body that is read. GitHub takes more; nothing that is emulated needs it.
const MAX_BODY: usize = 4 << 20;

/// The longest header list: room for tokens of 32 KiB and more.
const MAX_HEADERS: u32 = 128 << 10;

/// A request with its body read.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    /// As sent, not decoded.
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    /// A header as text; `None` if absent or not text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The first query parameter of that name, decoded.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// An answer, before it becomes HTTP.
#[derive(Debug, Clone)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    pub(super) end: End,
}

/// What becomes of a body halfway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum End {
    /// It is sent as a whole.
    #[default]
    Whole,
    /// Half of it is sent; the rest never comes.
    Hangs,
    /// Half of it is sent, then the connection breaks off.
    Breaks,
}

/// The connection breaks off without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was cut")]
pub(super) struct Cut;

/// Answers requests.
pub(super) type Handler =
    Arc<dyn Fn(Request) -> BoxFuture<'static, Result<Response, Cut>> + Send + Sync>;

/// A running listener; it and its connections end when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    _accept: AbortOnDropHandle<()>,
}

impl Server {
    /// Listens on a free loopback port. `handler` makes the handler once the address is known.
    pub(super) async fn start(handler: impl FnOnce(SocketAddr) -> Handler) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accept = tokio::spawn(accept(listener, handler(address)));
        Ok(Self { address, _accept: AbortOnDropHandle::new(accept) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: TcpListener, handler: Handler) {
    // Dropping the set ends the connections with the listener.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => { connections.spawn(serve(socket, handler.clone())); }
                // Out of descriptors, most likely: let some connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(socket: TcpStream, handler: Handler) {
    // Without this, small answers wait for the peer's delayed acknowledgements.
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request: http::Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let request = read(request).await?;
            handler(request).await.map(into_http)
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http2().max_header_list_size(MAX_HEADERS);
    // A broken connection is the peer's business or a fault asked for.
    drop(builder.serve_connection(TokioIo::new(socket), service).await);
}

async fn read(request: http::Request<Incoming>) -> Result<Request, Cut> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Cut)?.to_bytes();
    Ok(Request {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    })
}

fn into_http(response: Response) -> http::Response<BoxBody<Bytes, Cut>> {
    let mut out = http::Response::new(body(response.body, response.end));
    *out.status_mut() = http::StatusCode::from_u16(response.status)
        .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers {
        // A value that HTTP cannot carry is left out: it can only come from a fault or a file name.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            out.headers_mut().append(name, value);
        }
    }
    out
}

fn body(bytes: Bytes, end: End) -> BoxBody<Bytes, Cut> {
    let half = stream::iter([Ok(Frame::data(bytes.slice(..bytes.len() / 2)))]);
    match end {
        End::Whole => BoxBody::new(Full::new(bytes).map_err(|never| match never {})),
        End::Hangs => BoxBody::new(StreamBody::new(half.chain(stream::pending()))),
        End::Breaks => BoxBody::new(StreamBody::new(half.chain(stream::iter([Err(Cut)])))),
    }
}
