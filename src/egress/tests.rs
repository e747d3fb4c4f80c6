//! Servers on loopback, and a name server that may lie.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::{BodyExt, Empty};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// A server that counts connections and says `answer` to each.
struct Server {
    address: SocketAddr,
    connects: Arc<AtomicUsize>,
    heard: Arc<Mutex<String>>,
}

impl Server {
    async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        Self::start(answer.into(), false).await
    }

    /// Closes each connection after the answer.
    async fn closing_after(answer: &str) -> Self {
        Self::start(answer.into(), true).await
    }

    async fn start(answer: Vec<u8>, closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            connects: Arc::default(),
            heard: Arc::default(),
        };
        let (connects, heard, answer) =
            (Arc::clone(&server.connects), Arc::clone(&server.heard), answer);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                connects.fetch_add(1, Ordering::SeqCst);
                let (heard, answer) = (Arc::clone(&heard), answer.clone());
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    let read = stream.read(&mut buffer).await.unwrap_or(0);
                    heard.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
                    stream.write_all(&answer).await.ok();
                    if closes {
                        return;
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        server
    }

    async fn with_body(body: &str) -> Self {
        Self::saying(format!(
            "HTTP/1.1 200 OK\r\ncache-control: max-age=7\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn connects(&self) -> usize {
        self.connects.load(Ordering::SeqCst)
    }
}

/// Answers with one list after the other, as a rebinding name server does; the last one stays.
struct Answers(Mutex<Vec<&'static str>>);

impl Resolve for Answers {
    fn resolve(&self, _: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
        Box::pin(async move { Ok(answer.split_whitespace().map(|a| a.parse().unwrap()).collect()) })
    }
}

fn resolving(answers: &[&'static str]) -> Settings {
    Settings {
        resolver: Some(Arc::new(Answers(Mutex::new(answers.to_vec())))),
        ..Settings::default()
    }
}

async fn get(settings: Settings, rule: AddressRule, url: &str) -> Result<Document, Error> {
    Egress::new(settings)
        .unwrap()
        .documents(&Access { proxy: rule == AddressRule::Any, ..Access::by(rule) })
        .get(url, None, SOON)
        .await
}

#[tokio::test]
async fn a_small_document_arrives() {
    let server = Server::with_body("{}").await;
    let document = get(Settings::default(), AddressRule::PrivateToo, &server.url()).await.unwrap();
    assert_eq!(document.body, "{}");
    assert_eq!(document.cache_control.as_deref(), Some("max-age=7"));
    assert!(server.heard.lock().unwrap().contains("user-agent: octo-sts/"));
}

#[tokio::test]
async fn literals_obey_the_rule() {
    let server = Server::with_body("{}").await;
    let port = server.address.port();
    for host in [
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "[::]",
        "[::7f00:1]",
        "[64:ff9b::7f00:1]",
    ] {
        let url = format!("https://{host}:{port}/");
        assert_eq!(
            get(Settings::default(), AddressRule::Public, &url).await.unwrap_err(),
            Error::Refused,
            "{host}"
        );
    }
    for host in [
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
    ] {
        let url = format!("https://{host}:{port}/");
        assert_eq!(
            get(Settings::default(), AddressRule::PrivateToo, &url).await.unwrap_err(),
            Error::Refused,
            "{host}"
        );
    }
    assert_eq!(server.connects(), 0);
}

#[tokio::test]
async fn spellings_that_only_the_system_takes_for_an_address_obey_the_rule() {
    let server = Server::with_body("{}").await;
    for host in
        ["2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "localhost", "LOCALHOST"]
    {
        let url = format!("https://{host}:{}/", server.address.port());
        assert!(get(Settings::default(), AddressRule::Public, &url).await.is_err(), "{host}");
    }
    assert_eq!(server.connects(), 0);
}

#[tokio::test]
async fn names_obey_the_rule_by_the_address_that_is_connected_to() {
    let server = Server::with_body("{}").await;
    let url = format!("https://issuer.example:{}/", server.address.port());
    for answer in [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "64:ff9b::a00:1",
        "fd00::1",
        "2002:7f00:1::",
    ] {
        assert_eq!(
            get(resolving(&[answer]), AddressRule::Public, &url).await.unwrap_err(),
            Error::Refused,
            "{answer}"
        );
    }
    for answer in [
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "168.63.129.16",
        "100.100.100.200",
        "0.0.0.0",
    ] {
        assert_eq!(
            get(resolving(&[answer]), AddressRule::PrivateToo, &url).await.unwrap_err(),
            Error::Refused,
            "{answer}"
        );
    }
    assert_eq!(server.connects(), 0);
}

#[tokio::test]
async fn a_name_that_rebinds_gains_nothing() {
    let server = Server::with_body("{}").await;
    let url = format!("https://issuer.example:{}/", server.address.port());
    let egress =
        Egress::new(resolving(&["127.0.0.1", "169.254.169.254", "::ffff:169.254.169.254 fe80::1"]))
            .unwrap();
    let documents = egress.documents(&Access::by(AddressRule::PrivateToo));
    // The first is allowed and fails for want of TLS; each connection is checked anew.
    assert_eq!(
        documents.get(&url, None, SOON).await.unwrap_err(),
        Error::Connect(ConnectCause::NotTls)
    );
    assert_eq!(documents.get(&url, None, SOON).await.unwrap_err(), Error::Refused);
    assert_eq!(documents.get(&url, None, SOON).await.unwrap_err(), Error::Refused);
    assert_eq!(server.connects(), 1);
}

#[tokio::test]
async fn of_several_addresses_only_the_admitted_are_tried() {
    let server = Server::with_body("{}").await;
    let port = server.address.port();
    let egress = Egress::new(resolving(&["169.254.169.254 fe80::1 127.0.0.9 127.0.0.1"])).unwrap();
    let mut client = egress.client::<Empty<Bytes>>(AddressRule::PrivateToo);
    // TLS then fails on the answer: what matters is who was connected to.
    let request =
        http::Request::get(format!("https://issuer.example:{port}/")).body(Empty::new()).unwrap();
    let error = tower::ServiceExt::oneshot(&mut client, request).await.unwrap_err();
    assert_eq!(Error::of(&error), Error::Connect(ConnectCause::NotTls));
    assert_eq!(server.connects(), 1);
}

#[tokio::test]
async fn a_private_origin_is_one_scheme_host_and_port() {
    let (server, other) = (Server::with_body("{}").await, Server::with_body("{}").await);
    let (port, other_port) = (server.address.port(), other.address.port());
    let private_origin =
        Origin::of(&format!("https://ghes.example:{port}/api/v3").parse().unwrap());
    let access = Access { private_origin, ..Access::by(AddressRule::Public) };
    let get = async |resolved: &'static str, url: String| {
        let documents = Egress::new(resolving(&[resolved])).unwrap().documents(&access);
        documents.get(&url, None, SOON).await.unwrap_err()
    };
    // TLS then fails: what matters is that it was connected to.
    assert_eq!(
        get("127.0.0.1", format!("https://GHES.example:{port}/_services/token")).await,
        Error::Connect(ConnectCause::NotTls)
    );
    assert_eq!(server.connects(), 1);
    for url in [
        format!("https://ghes.example:{other_port}/"),
        format!("https://other.example:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("http://ghes.example:{port}/"),
    ] {
        assert_eq!(get("127.0.0.1", url.clone()).await, Error::Refused, "{url}");
    }
    assert_eq!(
        get("169.254.169.254", format!("https://ghes.example:{port}/")).await,
        Error::Refused
    );
    assert_eq!((server.connects(), other.connects()), (1, 0));
}

#[tokio::test]
async fn plain_http_is_for_loopback() {
    let server = Server::with_body("{}").await;
    let port = server.address.port();
    let loopback = || resolving(&["127.0.0.1"]);
    assert_eq!(
        get(loopback(), AddressRule::Public, &server.url()).await.unwrap_err(),
        Error::Refused
    );
    let (named, local) =
        (format!("http://issuer.example:{port}/"), format!("http://localhost:{port}/"));
    for rule in [AddressRule::PrivateToo, AddressRule::Any] {
        assert_eq!(get(loopback(), rule, &named).await.unwrap_err(), Error::Refused);
        assert_eq!(get(resolving(&["10.0.0.1"]), rule, &local).await.unwrap_err(), Error::Refused);
        assert_eq!(get(loopback(), rule, "http://10.0.0.1/").await.unwrap_err(), Error::Refused);
    }
    assert_eq!(server.connects(), 0);
    assert!(get(loopback(), AddressRule::Any, &local).await.is_ok());
    assert!(get(loopback(), AddressRule::PrivateToo, &local).await.is_ok());
}

#[tokio::test]
async fn redirects_are_answers() {
    let target = Server::with_body("{}").await;
    let answer =
        format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", target.url());
    let server = Server::saying(answer).await;
    assert_eq!(
        get(Settings::default(), AddressRule::PrivateToo, &server.url()).await.unwrap_err(),
        Error::Status(302)
    );
    assert_eq!(target.connects(), 0);
}

#[tokio::test]
async fn sizes_are_capped_told_or_not() {
    let told =
        Server::saying(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1 << 30)).await;
    let untold = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &vec![b'x'; 300 << 10]].concat();
    let untold = Server::saying(untold).await;
    for server in [told, untold] {
        assert_eq!(
            get(Settings::default(), AddressRule::PrivateToo, &server.url()).await.unwrap_err(),
            Error::TooLarge
        );
    }
}

#[tokio::test]
async fn slow_servers_are_left() {
    let documents =
        Egress::new(Settings::default()).unwrap().documents(&Access::by(AddressRule::PrivateToo));
    for begun in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{"] {
        let server = Server::saying(begun).await;
        let answer = documents.get(&server.url(), None, Duration::from_millis(300)).await;
        assert_eq!(answer.unwrap_err(), Error::Timeout);
    }
}

#[tokio::test]
async fn answers_that_are_no_answers_are_told_apart() {
    for (answer, expected) in [
        ("220 smtp.example ESMTP\r\n", Error::Broken),
        ("HTTP/1.1 200 OK\r\n", Error::Closed),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{}", Error::Closed),
        (
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
            Error::Encoding,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\n{}", Error::Encoding),
        (
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip, gzip\r\ncontent-length: 2\r\n\r\n{}",
            Error::Encoding,
        ),
    ] {
        let server = Server::closing_after(answer).await;
        let error =
            get(Settings::default(), AddressRule::PrivateToo, &server.url()).await.unwrap_err();
        assert_eq!(error, expected, "{answer:?}");
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(
        &mut flate2::read::GzEncoder::new(content, flate2::Compression::fast()),
        &mut out,
    )
    .unwrap();
    out
}

#[tokio::test]
async fn a_compressed_answer_is_accepted_under_the_same_cap() {
    let limit = 256 << 10;
    for (encodings, content, expected) in [
        ("content-encoding: gzip", gzip(b"{}"), Ok(2)),
        ("content-encoding: X-GZIP", gzip(b"{}"), Ok(2)),
        ("content-encoding: identity, gzip", gzip(b"{}"), Ok(2)),
        ("content-encoding: gzip", [gzip(b"{"), gzip(b"}")].concat(), Ok(2)),
        ("content-encoding: gzip", gzip(&vec![b' '; limit]), Ok(limit)),
        ("content-encoding: gzip", gzip(&vec![b' '; limit + 1]), Err(Error::TooLarge)),
        ("content-encoding: gzip", gzip(&vec![0; 64 << 20]), Err(Error::TooLarge)),
        ("content-encoding: gzip", gzip(b"{}")[..15].to_vec(), Err(Error::Encoding)),
        ("content-encoding:", b"{}".to_vec(), Ok(2)),
        ("content-encoding: identity", b"{}".to_vec(), Ok(2)),
        ("content-encoding: ,", b"{}".to_vec(), Ok(2)),
    ] {
        let head =
            format!("HTTP/1.1 200 OK\r\n{encodings}\r\ncontent-length: {}\r\n\r\n", content.len());
        let server = Server::saying([head.as_bytes(), &content].concat()).await;
        let answer = get(Settings::default(), AddressRule::PrivateToo, &server.url()).await;
        assert_eq!(
            answer.map(|document| document.body.len()),
            expected,
            "{encodings} {}",
            content.len()
        );
        assert!(server.heard.lock().unwrap().contains("accept-encoding: identity\r\n"));
    }
}

#[tokio::test]
async fn odd_urls_are_refused() {
    for url in [
        "",
        "/x",
        "ftp://a/",
        "https://",
        "http://u@127.0.0.1/",
        "https://u:p@a/",
        "file:///etc/passwd",
        "a b",
    ] {
        assert_eq!(
            get(Settings::default(), AddressRule::PrivateToo, url).await.unwrap_err(),
            Error::Url,
            "{url:?}"
        );
    }
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_name_are_failed_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let failed = get(Settings::default(), AddressRule::PrivateToo, &closed).await.unwrap_err();
    assert_eq!(failed, Error::Connect(ConnectCause::Refused));
    let failed =
        get(resolving(&[""]), AddressRule::Public, "https://a.example/").await.unwrap_err();
    assert_eq!(failed, Error::Connect(ConnectCause::Name));
}

#[tokio::test]
async fn the_proxy_is_for_github_alone() {
    let proxy = Server::saying("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    let settings = |no: &str| Settings {
        https_proxy: Some(format!("http://user:secret@{}", proxy.address)),
        no_proxy: Some(no.to_owned()),
        ..resolving(&["127.0.0.1"])
    };
    let url = format!("https://github.example:{}/x", proxy.address.port());
    assert_eq!(get(settings(""), AddressRule::Public, &url).await.unwrap_err(), Error::Refused);
    assert_eq!(proxy.connects(), 0);
    let failed = get(settings(""), AddressRule::Any, &url).await.unwrap_err();
    assert_eq!(failed, Error::Connect(ConnectCause::ProxyCredentials));
    let heard = proxy.heard.lock().unwrap().clone();
    assert!(
        heard.starts_with(&format!("CONNECT github.example:{} HTTP/1.1\r\n", proxy.address.port())),
        "{heard}"
    );
    assert!(heard.contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ="), "{heard}");
    get(settings("github.example"), AddressRule::Any, &url).await.unwrap_err();
    assert!(!proxy.heard.lock().unwrap()[heard.len()..].starts_with("CONNECT"));
}

/// A TLS server for `issuer.example` that answers with the HTTP version it was asked in. Gives its
/// URL and its certificate in PEM form.
async fn tls_server() -> (String, String) {
    tls_server_with(|_| ()).await
}

/// The same with a certificate of other parameters.
async fn tls_server_with(change: impl FnOnce(&mut rcgen::CertificateParams)) -> (String, String) {
    let mut parameters = rcgen::CertificateParams::new(vec!["issuer.example".to_owned()]).unwrap();
    change(&mut parameters);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut tls = builder
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://issuer.example:{}/", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let version = hyper::service::service_fn(
            |request: http::Request<hyper::body::Incoming>| async move {
                let body =
                    http_body_util::Full::new(Bytes::from(format!("{:?}", request.version())));
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            },
        );
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            server.serve_connection(hyper_util::rt::TokioIo::new(stream), version).await.ok();
        }
    });
    (url, certificate.pem())
}

#[tokio::test]
async fn trust_comes_from_the_given_roots() {
    let (url, certificate) = tls_server().await;
    let directory = std::env::temp_dir().join(format!("octo-sts-egress-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (roots, empty) = (directory.join("roots.pem"), directory.join("empty.pem"));
    std::fs::write(&roots, certificate).unwrap();
    std::fs::write(&empty, "").unwrap();
    let with = |ca_files| Settings { ca_files, ..resolving(&["127.0.0.1"]) };
    let untrusted = get(with(vec![]), AddressRule::PrivateToo, &url).await.unwrap_err();
    assert_eq!(untrusted, Error::Certificate(CertificateCause::UnknownIssuer));
    let answer = get(with(vec![roots.clone()]), AddressRule::PrivateToo, &url).await.unwrap();
    assert_eq!(answer.body, "HTTP/2.0", "the newest that both sides speak");
    let other_name = url.replace("issuer.example", "other.example");
    let other = get(with(vec![roots]), AddressRule::PrivateToo, &other_name).await.unwrap_err();
    assert_eq!(other, Error::Certificate(CertificateCause::WrongHost));
    assert!(Egress::new(with(vec![empty])).unwrap_err().ends_with("no certificate in PEM form"));
    assert!(Egress::new(with(vec![directory.join("absent.pem")])).is_err());
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_proxy_takes_an_issuer_where_its_access_says_so_but_no_address_that_is_refused() {
    let proxy = Server::saying("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    let egress = Egress::new(Settings {
        https_proxy: Some(format!("http://{}", proxy.address)),
        ..Settings::default()
    });
    let documents =
        egress.unwrap().documents(&Access { proxy: true, ..Access::by(AddressRule::Public) });
    let get = async |url: &str| documents.get(url, None, SOON).await.unwrap_err();
    for refused in [
        "https://127.0.0.1/",
        "https://169.254.169.254/",
        "https://[fd00::1]/",
        "http://127.0.0.1/",
    ] {
        assert_eq!(get(refused).await, Error::Refused, "{refused}");
    }
    assert_eq!(proxy.connects(), 0);
    assert_eq!(
        get("https://issuer.example/").await,
        Error::Connect(ConnectCause::ProxyCredentials)
    );
    assert!(proxy.heard.lock().unwrap().starts_with("CONNECT issuer.example:443 HTTP/1.1\r\n"));
}

#[tokio::test]
async fn roots_of_ones_own_are_the_only_ones() {
    let (url, certificate) = tls_server().await;
    let egress = Egress::new(resolving(&["127.0.0.1"])).unwrap();
    let own = Roots::read(certificate.as_bytes()).unwrap();
    let by = |roots| Access { roots, ..Access::by(AddressRule::PrivateToo) };
    egress.documents(&by(Some(own.clone()))).get(&url, None, SOON).await.unwrap();
    let untrusted = egress.documents(&by(None)).get(&url, None, SOON).await.unwrap_err();
    assert_eq!(untrusted, Error::Certificate(CertificateCause::UnknownIssuer));
    let (_, other) = tls_server().await;
    let other = Roots::read(other.as_bytes()).unwrap();
    let untrusted =
        egress.documents(&by(Some(other.clone()))).get(&url, None, SOON).await.unwrap_err();
    assert!(matches!(untrusted, Error::Certificate(_)), "{untrusted}");
    // Even where the machine trusts it, for this access it is the given roots that count.
    let file = crate::tests::Folder::new();
    let trusted = Settings {
        ca_files: vec![file.file("ca.pem", &certificate).into()],
        ..resolving(&["127.0.0.1"])
    };
    let egress = Egress::new(trusted).unwrap();
    egress.documents(&by(None)).get(&url, None, SOON).await.unwrap();
    let untrusted = egress.documents(&by(Some(other))).get(&url, None, SOON).await.unwrap_err();
    assert!(matches!(untrusted, Error::Certificate(_)), "{untrusted}");
    assert!(Roots::read(b"").is_err() && Roots::read(b"junk").is_err());
    assert_eq!(own, Roots::read(certificate.as_bytes()).unwrap());
}

#[tokio::test]
async fn a_credential_is_sent_where_it_is_given() {
    let server = Server::with_body("{}").await;
    let documents =
        Egress::new(Settings::default()).unwrap().documents(&Access::by(AddressRule::PrivateToo));
    documents.get(&server.url(), Some(&HeaderValue::from_static("Bearer x")), SOON).await.unwrap();
    assert!(server.heard.lock().unwrap().contains("authorization: Bearer x\r\n"));
}

#[test]
fn a_proxy_that_cannot_be_used_is_a_mistake() {
    for bad in ["https://proxy:1", "socks5://proxy:1", "http://", "://"] {
        assert!(
            Egress::new(Settings { https_proxy: Some(bad.to_owned()), ..Settings::default() })
                .is_err(),
            "{bad}"
        );
    }
    for good in ["", "proxy:3128", "http://proxy:3128", "http://u:p@proxy:3128/"] {
        assert!(
            Egress::new(Settings { https_proxy: Some(good.to_owned()), ..Settings::default() })
                .is_ok(),
            "{good}"
        );
    }
}

#[tokio::test]
async fn a_connection_has_no_delay() {
    let server = Server::with_body("{}").await;
    let egress = Egress::new(Settings::default()).unwrap();
    let mut dialer = Dialer::new(Arc::clone(&egress.network), &Access::by(AddressRule::PrivateToo));
    let stream = tower::Service::call(&mut dialer, server.url().parse().unwrap()).await.unwrap();
    assert!(stream.inner().nodelay().unwrap());
    drop(stream);
    let body = egress
        .client::<Empty<Bytes>>(AddressRule::Any)
        .get(server.url().parse().unwrap())
        .await
        .unwrap();
    assert_eq!(body.into_body().collect().await.unwrap().to_bytes(), "{}");
}

#[tokio::test]
async fn metadata_servers_are_addresses_nearby() {
    let server = Server::with_body("{}").await;
    let port = server.address.port();
    let refused = [
        server.url().replace("http:", "https:"),
        format!("http://localhost:{port}/"),
        format!("http://metadata.example:{port}/"),
        "http://10.0.0.1/".to_owned(),
        "http://168.63.129.16/".to_owned(),
        "http://[fe80::1]/".to_owned(),
        "http://192.0.2.1/".to_owned(),
    ];
    for url in refused {
        let settings = resolving(&["127.0.0.1"]);
        assert_eq!(
            get(settings, AddressRule::Metadata, &url).await.unwrap_err(),
            Error::Refused,
            "{url}"
        );
    }
    assert_eq!(server.connects(), 0);
    assert!(get(Settings::default(), AddressRule::Metadata, &server.url()).await.is_ok());
    for nearby in [
        "169.254.169.254",
        "169.254.170.2",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "::1",
        "::ffff:169.254.169.254",
    ] {
        let expected = nearby != "::ffff:169.254.169.254";
        assert_eq!(address::is_metadata(nearby.parse().unwrap()), expected, "{nearby}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_out_of_its_time_says_so() {
    let directory =
        std::env::temp_dir().join(format!("octo-sts-egress-dates-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    for (from, to, cause) in
        [(2001, 2002, CertificateCause::Expired), (2100, 2101, CertificateCause::NotYetValid)]
    {
        let (url, certificate) = tls_server_with(|parameters| {
            parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(to, 1, 1);
        })
        .await;
        let roots = directory.join("roots.pem");
        std::fs::write(&roots, certificate).unwrap();
        let settings = Settings { ca_files: vec![roots], ..resolving(&["127.0.0.1"]) };
        let failed = get(settings, AddressRule::PrivateToo, &url).await.unwrap_err();
        assert_eq!(failed, Error::Certificate(cause));
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_proxy_that_fails_says_how() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = closed.local_addr().unwrap();
    drop(closed);
    let forbids = Server::saying("HTTP/1.1 403 Forbidden\r\n\r\n").await;
    for (proxy, cause) in
        [(gone, ConnectCause::Proxy), (forbids.address, ConnectCause::ProxyRefused)]
    {
        let settings =
            Settings { https_proxy: Some(format!("http://{proxy}")), ..Settings::default() };
        let failed = get(settings, AddressRule::Any, "https://github.example/").await.unwrap_err();
        assert_eq!(failed, Error::Connect(cause));
    }
}
