//! Small servers on loopback that stand in for others, and that tell what they heard.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Body, extract::Request};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, Response};
use octo_sts::{
    client::{
        Class, Error,
        ambient::{NoIdentity, Options, Places, Source},
    },
    clock::{Clock, ManualClock, UnixTime},
    config::Environment,
    egress::{Egress, Settings},
};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// What every place gives out in these tests: in the form of a token, and told in no error.
pub const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJqb2IifQ.c2lnbmF0dXJl";
/// Another token of that form, told apart by its subject.
pub fn token_of(subject: &str) -> String {
    let claims = URL_SAFE_NO_PAD.encode(serde_json::json!({"sub": subject}).to_string());
    format!("eyJhbGciOiJSUzI1NiJ9.{claims}.c2lnbmF0dXJl")
}

/// What is not an identity token, and the word by which an error names its kind. The content is in
/// no error.
pub const NO_TOKENS: [(&str, &str); 8] = [
    ("ghp_s3cret", "a GitHub token"),
    ("github_pat_s3cret", "a GitHub token"),
    ("-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n", "PEM"),
    ("{\"value\": \"s3cret.s3cret.s3cret\"}", "a JSON document"),
    ("Bearer s3cret", "without `Bearer`"),
    ("s3cret s3cret", "more than one word"),
    ("hvs.s3cret", "not a JWT"),
    ("ya29.c.s3cret", "not those of a JWT"),
];

/// What tokens are asked for.
pub const AUDIENCE: &str = "sts.example.com";

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Heard {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: String,
}

impl Heard {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The one parameter of that name, in query or form.
    pub fn parameter(&self, name: &str) -> String {
        let form = form_urlencoded::parse(self.body.as_bytes()).into_owned();
        let all: Vec<_> =
            self.query.iter().cloned().chain(form).filter(|(found, _)| found == name).collect();
        assert!(all.len() <= 1, "{name} comes twice");
        all.into_iter().next().map(|(_, value)| value).unwrap_or_default()
    }
}

/// An answer: status, headers, body.
pub type Said = (u16, Vec<(&'static str, String)>, String);

/// An answer without headers of its own.
pub fn said(status: u16, body: impl Into<String>) -> Said {
    (status, vec![], body.into())
}

/// A server that answers each request by a function.
pub struct Fake {
    pub url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Fake {
    pub async fn start(answer: impl Fn(&Heard) -> Said + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let keeps = Arc::clone(&heard);
        let handler = move |request: Request| {
            let (keeps, answer) = (Arc::clone(&keeps), answer.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let heard = Heard {
                    method: head.method.to_string(),
                    path: head.uri.path().to_owned(),
                    query: form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
                        .into_owned()
                        .collect(),
                    headers: head.headers,
                    body: String::from_utf8(body.to_vec()).unwrap(),
                };
                let (status, headers, body) = answer(&heard);
                keeps.lock().unwrap().push(heard);
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                response.body(Body::from(body)).unwrap()
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
        Self { url, heard }
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

/// A server that says these bytes to whoever connects, and then nothing more.
pub async fn raw(bytes: impl Into<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bytes = bytes.into();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            let _heard = stream.read(&mut asked).await;
            stream.write_all(&bytes).await.ok();
            open.push(stream);
        }
    });
    url
}

/// What a server may do wrong: the name of it, its bytes, and the code that it comes to.
pub fn wrongs() -> Vec<(&'static str, Vec<u8>, &'static [i32])> {
    let huge = [
        &b"HTTP/1.1 200 OK\r\nmetadata-flavor: Google\r\ncontent-length: 400000\r\n\r\n"[..],
        &vec![b'x'; 400_000],
    ]
    .concat();
    let ok = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nmetadata-flavor: Google\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    vec![
        ("hangs", vec![], &[4]),
        ("hangs in the body", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"val".to_vec(), &[4]),
        ("is no http", b"220 smtp.example ESMTP\r\n".to_vec(), &[14]),
        ("is huge", huge, &[13]),
        ("is empty", ok("").into_bytes(), &[13]),
        ("is garbage", ok("{\"value\":\"a b\",\"token\":\"a\\nb\"}<WebIdentityToken>a b</WebIdentityToken>").into_bytes(), &[13]),
        ("is another page", ok("<html>sign in</html>").into_bytes(), &[13]),
        ("leads elsewhere", b"HTTP/1.1 302 Found\r\nmetadata-flavor: Google\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec(), &[2]),
    ]
}

/// An environment.
pub fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| (*name, *value)).collect()
}

/// Nothing is anywhere, and nobody is waited for for long.
pub fn nowhere() -> Places {
    Places {
        pod_files: vec![],
        api_token: "/nonexistent".into(),
        firmware: "/nonexistent".into(),
        circleci: "/nonexistent".into(),
        gcp: "http://127.0.0.1:1".into(),
        aws_machine: "http://127.0.0.1:1".into(),
        aws_container: "http://127.0.0.1:1".into(),
        aws_sts: None,
        near: std::time::Duration::from_millis(400),
        far: std::time::Duration::from_millis(400),
    }
}

/// Time for slow machines: where an answer is expected, patience costs nothing.
pub fn patient(places: Places) -> Places {
    let long = std::time::Duration::from_secs(20);
    Places { near: long, far: long, ..places }
}

/// The search in that environment.
pub fn find(pairs: &[(&str, &str)], places: Places) -> Result<Source, NoIdentity> {
    Source::find(&environment(pairs), &Options { places, ..Options::default() })
}

/// A token of what is found, as text.
pub async fn token(source: &Source) -> Result<String, Error> {
    let egress = Egress::new(Settings::default()).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(UnixTime::from_secs(1_790_000_000)));
    source.token(AUDIENCE, &egress, &clock).await.map(|token| token.expose_secret().to_owned())
}

/// The error of a place that gives no token.
pub async fn refused(source: &Source) -> Error {
    let error = token(source).await.unwrap_err();
    let told = format!("{error} {error:?} {source:?}");
    for secret in [TOKEN, "s3cret"] {
        assert!(!told.contains(secret), "{told}");
    }
    error
}

/// Asserts that everything that a server may do wrong ends, and as what.
pub async fn holds_against_wrongs(find: impl Fn(&str, Places) -> Source) {
    for (wrong, bytes, codes) in wrongs() {
        // Only what hangs is not waited for.
        let places = if codes == [4] { nowhere() } else { patient(nowhere()) };
        let error = refused(&find(&raw(bytes).await, places)).await;
        assert!(codes.contains(&error.code), "{wrong}: {} {error}", error.code);
    }
    let gone = refused(&find("http://127.0.0.1:1", patient(nowhere()))).await;
    assert_eq!((gone.code, gone.class()), (14, Class::Unavailable));
}
