//! Every attempt leaves one record, and it has the reason that the caller got.
//!
//! An attempt begins when the headers of its request have been read.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use octo_sts::emulator::{Fault, RouteKind};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{count, once, same, setup, until};
use crate::harness::World;

const EXCHANGE: &str = "/chainguard.platform.oidc.SecurityTokenService/Exchange";
const CHECK: &str = "/octosts.v1.CheckService/Check";

/// What a caller sends of its body.
#[derive(Clone)]
enum Sent {
    All(Vec<u8>),
    /// This, and nothing after it.
    Part(Vec<u8>),
}

/// One gRPC request, sent as it stands; the gRPC status, if there is a reply.
async fn grpc(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    sent: Sent,
) -> Option<String> {
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut request =
        Request::post(format!("http://sts{path}")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (bytes, rest) = match sent {
        Sent::All(bytes) => (bytes, futures_util::stream::empty().boxed()),
        Sent::Part(bytes) => (bytes, futures_util::stream::pending().boxed()),
    };
    let first = futures_util::stream::once(async {
        Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(bytes)))
    });
    let reply = sender
        .send_request(request.body(StreamBody::new(first.chain(rest).boxed())).unwrap())
        .await
        .ok()?;
    let in_headers = reply.headers().get("grpc-status").cloned();
    let trailers = match in_headers {
        Some(_) => None,
        None => reply.into_body().collect().await.ok()?.trailers().cloned(),
    };
    let status = in_headers.or_else(|| trailers?.get("grpc-status").cloned());
    status.map(|status| status.to_str().unwrap().to_owned())
}

/// A message of a few bytes as it is on the wire.
fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

/// One HTTP/1.1 request, sent as it stands; what the server sends until it closes.
async fn http1(address: SocketAddr, text: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(text).await.unwrap();
    let mut reply = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut reply))
        .await
        .unwrap()
        .ok();
    String::from_utf8_lossy(&reply).into_owned()
}

async fn quick() -> World {
    let mut setup = setup().await;
    setup.settings.transport.deadline = Duration::from_millis(500);
    setup.start().await
}

/// The only record, once the server has ended.
async fn only_record(world: World) -> Value {
    world.audit.at_least(1).await;
    let records = world.stop().await.at_least(1).await;
    assert_eq!(records.len(), 1, "{records:#?}");
    records[0].clone()
}

fn is(record: &Value, operation: &str, result: &str, reason: &str) {
    assert_eq!(
        (&record["operation"], &record["result"]),
        (&json!(operation), &json!(result)),
        "{record}"
    );
    assert_eq!(record["reason"].as_str().unwrap_or(""), reason, "{record}");
}

/// What is wrong, the headers, what is sent, the gRPC code and the reason.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Sent, &'a str, &'a str);

#[tokio::test]
async fn over_grpc() {
    let large = vec![0; 70 << 10];
    let headers: Vec<(String, String)> =
        (0..150).map(|n| (format!("x-{n}"), "y".to_owned())).collect();
    let many: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let long = "x".repeat(100 << 10);
    let token = format!("Bearer {long}");
    // A message that announces ten bytes.
    let part = Sent::Part(vec![0, 0, 0, 0, 10, 1]);
    let whole = |bytes: &[u8]| Sent::All(message(bytes));
    let cases: [Case; 9] = [
        ("too slow", &[], part.clone(), "4", "DEADLINE"),
        ("its own deadline", &[("grpc-timeout", "100m")], part, "4", "DEADLINE"),
        ("compressed", &[("grpc-encoding", "gzip")], whole(b""), "16", "CREDENTIAL_MISSING"),
        ("too large", &[], Sent::All(large), "16", "CREDENTIAL_MISSING"),
        ("not protobuf", &[], whole(&[0xff; 8]), "16", "CREDENTIAL_MISSING"),
        ("cut off", &[], Sent::All(vec![0, 0, 0, 0, 10, 1]), "16", "CREDENTIAL_MISSING"),
        ("many headers", &many, whole(b""), "3", "REQUEST_INVALID"),
        ("long headers", &[("x-long", &long)], whole(b""), "3", "REQUEST_INVALID"),
        ("long token", &[("authorization", &token)], whole(b""), "3", "TOKEN_TOO_LARGE"),
    ];
    for (path, operation) in [(EXCHANGE, "exchange"), (CHECK, "check")] {
        for (case, headers, sent, status, reason) in &cases {
            let world = quick().await;
            let token = format!("Bearer {}", world.token(json!({})));
            let answer = grpc(world.address, path, headers, sent.clone()).await;
            assert_eq!(answer.as_deref(), Some(*status), "{case}");
            is(&only_record(world).await, operation, "denied", reason);
            if *reason != "CREDENTIAL_MISSING" {
                continue;
            }
            let world = quick().await;
            let headers = [&[("authorization", token.as_str())][..], *headers].concat();
            let (status, reason) = if *case == "compressed" {
                ("12", "UNIMPLEMENTED")
            } else {
                ("3", "REQUEST_INVALID")
            };
            let answer = grpc(world.address, path, &headers, sent.clone()).await;
            assert_eq!(answer.as_deref(), Some(status), "{case}");
            is(&only_record(world).await, operation, "denied", reason);
        }
    }
}

#[tokio::test]
async fn over_rest() {
    let head = "HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let many: String = (0..150).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = "x".repeat(100 << 10);
    for (path, operation) in [("/sts/exchange", "exchange"), ("/sts/check", "check")] {
        let post = format!("POST {path} {head}");
        let cases = [
            ("too slow", format!("{post}content-length: 10\r\n\r\nscop"), 504, "DEADLINE"),
            (
                "its own deadline",
                format!("{post}grpc-timeout: 100m\r\ncontent-length: 10\r\n\r\nsc"),
                504,
                "DEADLINE",
            ),
            (
                "not chunks",
                format!("{post}transfer-encoding: chunked\r\n\r\nXYZ\r\n"),
                401,
                "CREDENTIAL_MISSING",
            ),
            (
                "too large",
                format!("{post}content-length: 65540\r\n\r\n{}", "x".repeat(65_540)),
                401,
                "CREDENTIAL_MISSING",
            ),
            ("many headers", format!("{post}{many}\r\n"), 431, "REQUEST_INVALID"),
            ("long headers", format!("{post}a: {long}\r\n\r\n"), 431, "REQUEST_INVALID"),
            (
                "long token",
                format!("{post}authorization: Bearer {long}\r\n\r\n"),
                400,
                "TOKEN_TOO_LARGE",
            ),
        ];
        for (case, text, status, reason) in cases {
            let world = quick().await;
            let reply = http1(world.address, text.as_bytes()).await;
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{case}: {reply}");
            assert!(reply.contains(reason), "{case}: {reply}");
            is(&only_record(world).await, operation, "denied", reason);
        }
    }
}

/// A caller that goes away in the middle of its request was never answered.
#[tokio::test]
async fn of_a_caller_that_goes_away_before_its_body_is_complete() {
    for path in [EXCHANGE, CHECK] {
        let world = setup().await.start().await;
        let sent = grpc(world.address, path, &[], Sent::Part(vec![0, 0]));
        tokio::time::timeout(Duration::from_millis(300), sent).await.unwrap_err();
        let record = only_record(world).await;
        assert_eq!(
            (record["protocol"].as_str(), record["token"].is_null()),
            (Some("grpc"), true),
            "{record}"
        );
        assert_ne!(record["result"], "granted");
    }
    let world = setup().await.start().await;
    let mut socket = TcpStream::connect(world.address).await.unwrap();
    socket
        .write_all(b"POST /sts/exchange HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nscop")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(socket);
    assert_ne!(only_record(world).await["result"], "granted");
}

#[tokio::test]
async fn of_a_caller_whose_deadline_ends_during_the_mint() {
    for wire in ["grpc", "rest"] {
        let world = setup().await.start().await;
        same(&once(&world).await, super::GRANTED);
        let before = count(&world, RouteKind::Mint);
        world.github.fault(Fault::on(RouteKind::Mint).stall());
        let token = format!("Bearer {}", world.token(json!({})));
        if wire == "grpc" {
            let message = message(b"\x12\x0eocto-org/hello\x22\x02ci");
            let headers = [("authorization", token.as_str()), ("grpc-timeout", "700m")];
            let answer = grpc(world.address, EXCHANGE, &headers, Sent::All(message)).await;
            assert_eq!(answer.as_deref(), Some("4"));
        } else {
            let headers = [("authorization", token.as_str()), ("grpc-timeout", "700m")];
            let path = "/sts/exchange?scope=octo-org/hello&identity=ci";
            assert_eq!(world.client.send(Method::GET, path, &headers, "").await.status, 504);
        }
        assert_eq!(
            count(&world, RouteKind::Mint),
            before + 1,
            "{wire}: it did not come to the mint"
        );
        let records = world.audit.at_least(2).await;
        is(&records[1], "exchange", "denied", "DEADLINE");
        assert_eq!(records[1]["verified"], true);
        world.github.release();
        until("the token is revoked", || {
            world.issued().iter().filter(|token| token.revoked).count() == 1
        })
        .await;
        assert_eq!(world.stop().await.at_least(2).await.len(), 2);
    }
}
