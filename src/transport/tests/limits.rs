//! Strangers' bytes: slow, many, too large.

use super::*;

/// What an HTTP/2 client sends first: the preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The header block `:method GET, :scheme http, :path /, :authority x`.
const HEADER_BLOCK: &[u8] = b"\x82\x86\x84\x41\x01x";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The frames in what a server sent: kind, flags, payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let Some(payload) = bytes.get(9..9 + length) else { break };
        frames.push((bytes[3], bytes[4], payload.to_vec()));
        bytes = &bytes[9 + length..];
    }
    frames
}

fn impatient() -> Settings {
    Settings {
        first_byte: Duration::from_millis(200),
        first_request: Duration::from_millis(400),
        header_timeout: Duration::from_millis(300),
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed() {
    let server = Server::start(impatient()).await;
    for sent in [&b""[..], b"G", b"PRI * HT", b"GET / HTTP/1.1\r\nho", PREFACE] {
        let mut socket = server.connect().await;
        socket.write_all(sent).await.unwrap();
        let reply = read_to_end(&mut socket).await;
        assert!(!reply.starts_with(b"HTTP/1.1 2"), "{sent:?}");
    }
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed_sooner() {
    let first_byte = Duration::from_millis(200);
    let server =
        Server::start(Settings { first_byte, first_request: 2 * PATIENCE, ..Settings::default() })
            .await;
    assert!(read_to_end(&mut server.connect().await).await.is_empty());
}

#[tokio::test]
async fn a_header_that_trickles_in_is_cut_off() {
    let server = Server::start(impatient()).await;
    let mut socket = server.connect().await;
    socket.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let trickle = async {
        while socket.write_all(b"a: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, trickle).await.expect("the connection stays open");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Server::start(impatient()).await;
    let mut socket = server.connect().await;
    socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(Reply::parse(&read_to_end(&mut socket).await).status, 200);
}

#[tokio::test]
async fn a_body_that_trickles_in_ends_with_the_deadline() {
    let settings = Settings { deadline: Duration::from_millis(300), ..Settings::default() };
    let server = Server::start(settings).await;
    let mut socket = server.connect().await;
    let head = b"POST /sts/exchange HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\nscope=";
    socket.write_all(head).await.unwrap();
    assert_eq!(Reply::parse(&read_to_end(&mut socket).await).error(), error(504, 4, "DEADLINE"));
}

#[tokio::test]
async fn headers_are_bounded_at_64_kib() {
    let server = Server::start(Settings::default()).await;
    let header = |bytes: usize| format!("GET /livez\nauthorization: Bearer {}", "x".repeat(bytes));
    assert_eq!(server.http1(&header(48 << 10), "").await.status, 200);
    assert_eq!(server.http1(&header(80 << 10), "").await.status, 431);
    // The library refuses what is much larger, and may hang up before it has read all.
    let mut socket = server.connect().await;
    let _ = socket
        .write_all(
            format!("GET /livez HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "x".repeat(300 << 10))
                .as_bytes(),
        )
        .await;
    let reply = read_to_end(&mut socket).await;
    assert!(
        reply.is_empty() || Reply::parse(&reply).status == 431,
        "{:?}",
        String::from_utf8_lossy(&reply)
    );
    let many: String = (0..200).map(|n| format!("\nx-{n}: y")).collect();
    assert_eq!(server.http1(&format!("GET /livez{many}"), "").await.status, 431);
}

#[tokio::test]
async fn header_lists_over_http2_are_bounded_too() {
    let server = Server::start(Settings::default()).await;
    let mut client = tonic_health::pb::health_client::HealthClient::new(server.channel().await);
    for (bytes, fits) in [(48 << 10, true), (80 << 10, false)] {
        let mut request = tonic::Request::new(tonic_health::pb::HealthCheckRequest::default());
        request.metadata_mut().insert("authorization", "x".repeat(bytes).parse().unwrap());
        assert_eq!(client.check(request).await.is_ok(), fits, "{bytes}");
    }
}

/// Writes `part` over and over until the server hangs up; how many bytes that took, and what it
/// said.
async fn flood(
    server: &Server,
    opening: &[u8],
    mut part: impl FnMut(u32) -> Vec<u8>,
) -> (usize, Vec<u8>) {
    let (mut reader, mut writer) = server.connect().await.into_split();
    writer.write_all(opening).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut said = Vec::new();
        let _ = reader.read_to_end(&mut said).await;
        said
    });
    let mut sent = 0;
    for n in 0.. {
        let part = part(n);
        if writer.write_all(&part).await.is_err() || reading.is_finished() {
            break;
        }
        sent += part.len();
        assert!(sent < 32 << 20, "the server takes everything");
    }
    (sent, timeout(PATIENCE, reading).await.unwrap().unwrap())
}

#[tokio::test]
async fn a_flood_of_continuation_frames_ends_the_connection() {
    let server = Server::start(Settings::default()).await;
    let opening = [PREFACE, &frame(1, 0, 1, HEADER_BLOCK)].concat();
    // Literal header fields without indexing, never the end of the headers.
    let field = [&b"\x00\x01a\x7f\x81\x7c"[..], &[b'x'; 16_000]].concat();
    let (sent, _) = flood(&server, &opening, |_| frame(9, 0, 1, &field)).await;
    assert!(sent < 8 << 20, "{sent}");
    let (_, said) = flood(&server, &opening, |_| frame(9, 0, 1, b"")).await;
    assert!(frames(&said).iter().any(|(kind, ..)| *kind == 7), "no GOAWAY");
    assert_eq!(server.http1("GET /livez", "").await.status, 200);
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let server = Server::start(Settings::default()).await;
    let (_, said) = flood(&server, PREFACE, |n| {
        let stream = 2 * n + 1;
        [frame(1, 5, stream, HEADER_BLOCK), frame(3, 0, stream, &8u32.to_be_bytes())].concat()
    })
    .await;
    // GOAWAY with ENHANCE_YOUR_CALM.
    let calm = frames(&said)
        .into_iter()
        .any(|(kind, _, payload)| kind == 7 && payload[4..8] == [0, 0, 0, 11]);
    assert!(calm, "{:?}", frames(&said).last());
    assert_eq!(server.http1("GET /livez", "").await.status, 200);
}

#[tokio::test]
async fn provoked_resets_end_the_connection() {
    let server = Server::start(Settings::default()).await;
    // A window beyond the largest is an error of its stream, which the server resets.
    let (_, said) = flood(&server, PREFACE, |n| {
        let stream = 2 * n + 1;
        [frame(1, 4, stream, HEADER_BLOCK), frame(8, 0, stream, &i32::MAX.to_be_bytes())].concat()
    })
    .await;
    let calm = frames(&said)
        .into_iter()
        .any(|(kind, _, payload)| kind == 7 && payload[4..8] == [0, 0, 0, 11]);
    assert!(calm, "{:?}", frames(&said).last());
}

#[tokio::test]
async fn settings_announce_the_limits_of_a_connection() {
    let server = Server::start(impatient()).await;
    let mut socket = server.connect().await;
    socket.write_all(PREFACE).await.unwrap();
    let said = read_to_end(&mut socket).await;
    let (_, _, settings) =
        frames(&said).into_iter().find(|(kind, flags, _)| (*kind, *flags) == (4, 0)).unwrap();
    let announced = |id: u8| {
        let of_id = settings.chunks(6).find(|entry| entry[..2] == [0, id]);
        of_id.map(|entry| u32::from_be_bytes(entry[2..].try_into().unwrap()))
    };
    assert_eq!(announced(3), Some(128), "streams");
    // More than is accepted: what is refused is to be recorded.
    assert_eq!(announced(6), Some(256 << 10), "header list");
}

/// Keeps the connection open after a reply.
const KEEP_ALIVE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

/// Reads until a reply's body has ended.
async fn reply_of_livez(socket: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(br#"{"msg": "ok"}"#) {
        let mut part = [0; 1024];
        let n = timeout(PATIENCE, socket.read(&mut part)).await.unwrap().unwrap();
        assert!(n > 0, "the connection ended");
        read.extend_from_slice(&part[..n]);
    }
}

#[tokio::test]
async fn idle_connections_give_way_whatever_they_did_before() {
    let settings = Settings { max_connections: 4, trusted_proxy_hops: 1, ..Settings::default() };
    let server = Server::start(settings).await;
    let mut idle = Vec::new();
    for sent in [&b""[..], KEEP_ALIVE, PREFACE, b"GET / HTTP/1.1\r\nhos"] {
        let mut socket = server.connect().await;
        socket.write_all(sent).await.unwrap();
        if sent == KEEP_ALIVE {
            reply_of_livez(&mut socket).await;
        }
        idle.push(socket);
    }
    for _ in 0..20 {
        assert_eq!(timeout(PATIENCE, server.http1("GET /livez", "")).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_connection_on_which_a_request_runs_gives_way_to_none() {
    let settings = Settings { max_connections: 2, trusted_proxy_hops: 1, ..Settings::default() };
    let server = Server::start(settings).await;
    let (mut one, _other) = (running_request(&server).await, running_request(&server).await);
    let waiting = server.http1("GET /livez", "");
    tokio::pin!(waiting);
    assert!(
        timeout(Duration::from_millis(200), &mut waiting).await.is_err(),
        "a third connection is served"
    );
    one.write_all(b"{\"a\": 12}").await.unwrap();
    assert_eq!(timeout(PATIENCE, waiting).await.unwrap().status, 200);
    assert_eq!(
        Reply::parse(&one_reply(&mut one).await).error(),
        error(401, 16, "CREDENTIAL_MISSING")
    );
}

/// One reply on a connection that may stay open.
async fn one_reply(socket: &mut TcpStream) -> Vec<u8> {
    let mut part = [0; 4096];
    let n = timeout(PATIENCE, socket.read(&mut part)).await.unwrap().unwrap();
    part[..n].to_vec()
}

#[tokio::test]
async fn one_address_holds_a_quarter_of_the_connections_at_most() {
    let server = Server::start(Settings { max_connections: 8, ..Settings::default() }).await;
    let _running = (running_request(&server).await, running_request(&server).await);
    assert!(
        read_to_end(&mut server.connect().await).await.is_empty(),
        "a third connection is served"
    );
}

/// As many requests as fit on one HTTP/2 connection, each half sent.
async fn half_sent_bodies(server: &Server, streams: u32) -> TcpStream {
    let mut socket = server.connect().await;
    // `:method POST`, `:scheme http`, `:path /sts/exchange` and `:authority x`.
    let block = [&b"\x83\x86\x04\x0d/sts/exchange\x41\x01x"[..]].concat();
    socket.write_all(PREFACE).await.unwrap();
    for n in 0..streams {
        let stream = 2 * n + 1;
        socket
            .write_all(&[frame(1, 4, stream, &block), frame(0, 0, stream, &[b'x'; 600])].concat())
            .await
            .unwrap();
    }
    socket
}

#[tokio::test]
async fn the_bytes_of_requests_in_progress_are_bounded_for_all_connections_together() {
    let settings =
        Settings { progress_bytes: 40 << 10, trusted_proxy_hops: 1, ..Settings::default() };
    let server = Server::start(settings).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(half_sent_bodies(&server, 20).await);
    }
    // Whatever is left is less than these headers take.
    let refused = async {
        loop {
            let head = format!("POST /sts/exchange\nx: {}", "x".repeat(7 << 10));
            let reply = server.http1(&head, "").await;
            if reply.status == 429 {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reply = timeout(PATIENCE, refused).await.expect("the budget is never used up");
    assert_eq!(reply.error(), error(429, 8, "OVERLOADED"));
    assert_eq!(server.http1("GET /livez", "").await.status, 200);
    drop(held);
    let recovered = async { while server.http1("POST /sts/exchange", "{}").await.status != 401 {} };
    timeout(PATIENCE, recovered).await.expect("the bytes do not come back");
}

#[tokio::test]
async fn headers_that_do_not_end_count_too() {
    let settings =
        Settings { progress_bytes: 64 << 10, trusted_proxy_hops: 1, ..Settings::default() };
    let server = Server::start(settings).await;
    let mut ended = 0;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut socket = server.connect().await;
        let _ = socket
            .write_all(format!("GET / HTTP/1.1\r\na: {}", "x".repeat(30 << 10)).as_bytes())
            .await;
        held.push(socket);
    }
    for mut socket in held {
        if timeout(Duration::from_millis(100), socket.read(&mut [0])).await.is_ok() {
            ended += 1;
        }
    }
    assert!(ended >= 5, "{ended}");
}

#[tokio::test]
async fn an_old_connection_is_asked_to_end() {
    let settings =
        Settings { max_connection_age: Duration::from_millis(100), ..Settings::default() };
    let server = Server::start(settings).await;
    let mut socket = server.connect().await;
    socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(Reply::parse(&read_to_end(&mut socket).await).status, 200);
}

/// A request whose body is still to come, known to have reached its handler.
async fn running_request(server: &Server) -> TcpStream {
    let mut socket = server.connect().await;
    let head = b"POST /sts/exchange HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    socket.write_all(head).await.unwrap();
    let mut interim = [0; 25];
    timeout(PATIENCE, socket.read_exact(&mut interim)).await.unwrap().unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket
}

/// The stages of a shutdown, in milliseconds.
fn stages(drain_delay: u64, requests: u64) -> Stages {
    Stages {
        drain_delay: Duration::from_millis(drain_delay),
        requests: Duration::from_millis(requests),
    }
}

#[tokio::test]
async fn without_a_delay_the_port_closes_immediately_and_requests_finish() {
    let server = Server::start(Settings::default()).await;
    let (mut running, mut idle) = (running_request(&server).await, server.connect().await);
    server.stop.cancel();
    let refused = async { while TcpStream::connect(server.address).await.is_ok() {} };
    timeout(PATIENCE, refused).await.expect("the port stays open");
    assert!(read_to_end(&mut idle).await.is_empty());
    assert!(!server.served.is_finished());
    running.write_all(b"{\"a\": 12}").await.unwrap();
    let reply = Reply::parse(&read_to_end(&mut running).await);
    assert_eq!(
        (reply.error(), reply.header("connection")),
        (error(401, 16, "CREDENTIAL_MISSING"), "close")
    );
    timeout(PATIENCE, server.served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn during_the_delay_new_connections_are_served_once_and_then_refused() {
    let server =
        Server::start(Settings { stages: stages(1000, 20_000), ..Settings::default() }).await;
    let mut idle = server.connect().await;
    idle.write_all(KEEP_ALIVE).await.unwrap();
    reply_of_livez(&mut idle).await;
    let (mut fresh, mut late) = (server.connect().await, server.connect().await);
    server.stop.cancel();
    assert!(read_to_end(&mut idle).await.is_empty(), "an idle connection ends immediately");
    assert_eq!(server.http1("GET /readyz", "").await.status, 503);
    let mut newcomer = server.connect().await;
    for socket in [&mut fresh, &mut newcomer] {
        socket.write_all(KEEP_ALIVE).await.unwrap();
        let reply = Reply::parse(&read_to_end(socket).await);
        assert_eq!((reply.status, reply.header("connection")), (200, "close"));
    }
    assert!(!server.served.is_finished());
    let refused = async { while TcpStream::connect(server.address).await.is_ok() {} };
    timeout(PATIENCE, refused).await.expect("the port stays open");
    assert!(read_to_end(&mut late).await.is_empty());
    timeout(PATIENCE, server.served).await.unwrap().unwrap().unwrap();
}

/// Idle HTTP/2 connections and open streams, of peers that answer nothing.
#[tokio::test]
async fn what_only_watches_does_not_hold_up_the_end() {
    let server = Server::start(Settings::default()).await;
    let mut silent = server.connect().await;
    silent.write_all(&[PREFACE, &frame(1, 5, 1, HEADER_BLOCK)].concat()).await.unwrap();
    let mut reflection =
        tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(
            server.channel().await,
        );
    let requests = futures_util::stream::pending();
    let mut reflected = reflection.server_reflection_info(requests).await.unwrap().into_inner();
    let mut health = tonic_health::pb::health_client::HealthClient::new(server.channel().await);
    let mut watched =
        health.watch(tonic_health::pb::HealthCheckRequest::default()).await.unwrap().into_inner();
    // The silent peer's request has been served.
    timeout(PATIENCE, silent.read(&mut [0; 64])).await.unwrap().unwrap();
    server.stop.cancel();
    timeout(Duration::from_secs(5), server.served)
        .await
        .expect("the server ends")
        .unwrap()
        .unwrap();
    assert!(reflected.message().await.unwrap().is_none(), "the stream ends without an error");
    let mut states = Vec::new();
    while let Some(state) = watched.message().await.unwrap() {
        states.push(state.status);
    }
    assert_eq!(states, [1, 2]);
}

#[tokio::test]
async fn a_drain_ends_in_time_whatever_still_runs() {
    let server = Server::start(Settings { stages: stages(0, 200), ..Settings::default() }).await;
    let mut running = running_request(&server).await;
    server.stop.cancel();
    timeout(Duration::from_secs(3), server.served).await.unwrap().unwrap().unwrap();
    assert!(read_to_end(&mut running).await.is_empty());
}

/// Tells when it is dropped.
struct OnDrop(CancellationToken);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Sends what makes a request, then what takes it back, and waits for its handler to be dropped.
async fn handler_ends(request: &[u8], cancel: impl AsyncFnOnce(TcpStream) -> Option<TcpStream>) {
    let (began, ended) = (CancellationToken::new(), CancellationToken::new());
    let handler = {
        let (began, ended) = (began.clone(), ended.clone());
        async move || {
            let _guard = OnDrop(ended.clone());
            began.cancel();
            std::future::pending::<()>().await;
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let router = Router::new().route("/", axum::routing::any(handler));
    let clock = Arc::new(ManualClock::at(UnixTime::from_secs(0)));
    tokio::spawn(async move {
        serve_router(listener, router, &Settings::default(), clock, CancellationToken::new()).await
    });
    socket.write_all(request).await.unwrap();
    timeout(PATIENCE, began.cancelled()).await.unwrap();
    assert!(!ended.is_cancelled());
    let _socket = cancel(socket).await;
    timeout(PATIENCE, ended.cancelled()).await.expect("the request runs on");
}

#[tokio::test]
async fn a_caller_that_hangs_up_ends_its_request() {
    let http2 = [PREFACE, &frame(1, 5, 1, HEADER_BLOCK)].concat();
    handler_ends(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", async |_| None).await;
    handler_ends(&http2, async |_| None).await;
    let reset = async |mut socket: TcpStream| {
        socket.write_all(&frame(3, 0, 1, &8u32.to_be_bytes())).await.unwrap();
        Some(socket)
    };
    handler_ends(&http2, reset).await;
}
