//! The server over real sockets, on paths that end before the core.

use std::net::SocketAddr;

use http_body_util::BodyExt;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::clock::{ManualClock, UnixTime};

mod contract;
mod description;
mod encryption;
mod limits;
mod logs;
mod wires;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(10);

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    clock: ManualClock,
    served: JoinHandle<io::Result<()>>,
}

impl Server {
    async fn start(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, clock) =
            (CancellationToken::new(), ManualClock::at(UnixTime::from_secs(1_767_222_000)));
        let served = serve(
            listener,
            (Exchange::for_test(), None),
            settings,
            Arc::new(clock.clone()),
            stop.clone(),
        );
        Self { address, stop, clock, served: tokio::spawn(served) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    /// One HTTP/1.1 request, sent as it stands, on a connection of its own.
    async fn http1(&self, head: &str, body: &str) -> Reply {
        let mut socket = self.connect().await;
        let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
        let headers: String = headers.lines().map(|header| format!("{header}\r\n")).collect();
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let text = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{length}{headers}\r\n{body}"
        );
        socket.write_all(text.as_bytes()).await.unwrap();
        Reply::parse(&read_to_end(&mut socket).await)
    }
}

/// An HTTP/1.1 reply.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) =
            text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply in {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers =
            headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Self { status, headers, body: body.to_owned() }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// The error's HTTP status, gRPC code and reason.
    fn error(&self) -> (u16, i64, String) {
        let json = self.json();
        (
            self.status,
            json["code"].as_i64().unwrap(),
            json["details"][0]["reason"].as_str().unwrap_or("").to_owned(),
        )
    }
}

/// What the peer sends until it closes, by end of stream or reset.
async fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ =
        timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("the connection stays open");
    bytes
}

fn error(status: u16, code: i64, reason: &str) -> (u16, i64, String) {
    (status, code, reason.to_owned())
}

/// An app that no listener serves, to run its router without sockets.
fn app(stop: CancellationToken) -> Arc<Serving> {
    let clock = Arc::new(ManualClock::at(UnixTime::from_secs(0)));
    let (exchange, settings) = (Exchange::for_test(), Settings::default());
    let untrusted_proxy = Default::default();
    Arc::new(Serving { exchange, hooks: None, settings, clock, stop, untrusted_proxy })
}
