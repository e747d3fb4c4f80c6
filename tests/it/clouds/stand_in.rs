//! AWS, Google Cloud and Azure on loopback, as far as a signer needs them.
//!
//! All of them are behind one HTTP proxy, under their own names and with certificates of an
//! authority of their own, so the program runs as it does elsewhere. They answer from what they were
//! given: a key, and the credentials that count.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    digest::{Digest, SHA256},
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    client::fake::{Fake, Heard, TOKEN, said},
    harness::{Folder, tls},
};

pub const AWS_KEY: &str =
    "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
pub const GCP_KEY: &str =
    "projects/p/locations/global/keyRings/octo-sts/cryptoKeys/app-signing-key/cryptoKeyVersions/1";
pub const AZURE_KEY: &str = "https://v.vault.azure.net/keys/app";
/// A secret of each of the services, which no log and no reply may hold.
pub const SECRET: &str = "c10ud-s3cret";

/// The webhook's secret, at each of the secret managers.
pub const WEBHOOK_SECRET: &str = "webhook-s3cret";

const HOSTS: [&str; 12] = [
    "broker.example.com",
    "secretsmanager.us-east-1.amazonaws.com",
    "secretmanager.googleapis.com",
    "kms.us-east-1.amazonaws.com",
    "sts.us-east-1.amazonaws.com",
    "cloudkms.googleapis.com",
    "oauth2.googleapis.com",
    "sts.googleapis.com",
    "iamcredentials.googleapis.com",
    "login.microsoftonline.com",
    "v.vault.azure.net",
    "localhost",
];

/// What a key management service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Works,
    /// The caller may sign, and may not read the public key.
    SignOnly,
    /// The caller may do nothing.
    Denied,
    /// It answers 500.
    Down,
    /// It answers with what is not a signature.
    Garbage,
    /// It signs with another key than the one whose public half it gives.
    OtherKey,
}

struct State {
    key: RsaKeyPair,
    other: RsaKeyPair,
    mode: Mutex<Mode>,
    calls: Mutex<Vec<String>>,
}

pub struct Clouds {
    pub proxy: String,
    pub root: PathBuf,
    /// The metadata servers of Google's and Azure's machines.
    pub metadata: Fake,
    pub folder: Folder,
    state: Arc<State>,
}

impl Clouds {
    /// Every service holds the key.
    pub async fn start(pem: &str) -> Self {
        let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap()
        else {
            panic!("the emulator gives out PKCS #8");
        };
        let state = Arc::new(State {
            key: RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap(),
            other: RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap(),
            mode: Mutex::default(),
            calls: Mutex::default(),
        });
        let (server, root_pem) = tls::certificate(&HOSTS);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let tunnels = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = tunnels.local_addr().unwrap();
        tokio::spawn(forward(listener, behind));
        let answers = Arc::clone(&state);
        tokio::spawn(tls::serve(tunnels, server, move |request| {
            let state = Arc::clone(&answers);
            async move { answer(&state, request).await }
        }));
        let folder = Folder::new();
        folder.file("ca.pem", &root_pem);
        folder.file("token", TOKEN);
        let root = folder.path().join("ca.pem");
        let metadata = Fake::start(machine).await;
        Self { proxy, root, metadata, folder, state }
    }

    pub fn set(&self, mode: Mode) {
        *self.state.mode.lock().unwrap() = mode;
    }

    /// What was asked, as `HOST OPERATION`, and forgets it.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.calls.lock().unwrap())
    }

    /// A file in the folder, by its whole path.
    pub fn file(&self, name: &str, text: &str) -> String {
        self.folder.file(name, text);
        self.folder.path().join(name).display().to_string()
    }
}

/// A proxy that leads every host to one address.
async fn forward(listener: TcpListener, behind: SocketAddr) {
    while let Ok((mut socket, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = socket.read_u8().await else { return };
                head.push(byte);
            }
            assert!(head.starts_with(b"CONNECT "), "{}", String::from_utf8_lossy(&head));
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok();
            let Ok(mut server) = tokio::net::TcpStream::connect(behind).await else { return };
            tokio::io::copy_bidirectional(&mut socket, &mut server).await.ok();
        });
    }
}

/// The metadata servers.
fn machine(heard: &Heard) -> crate::client::fake::Said {
    let token = || json!({ "access_token": SECRET, "expires_in": 3599, "token_type": "Bearer" });
    match heard.path.as_str() {
        "/computeMetadata/v1/instance/service-accounts/default/token" => {
            assert_eq!(heard.header("metadata-flavor"), "Google");
            (200, vec![("metadata-flavor", "Google".into())], token().to_string())
        }
        "/computeMetadata/v1/instance/service-accounts/default/identity" => {
            assert_eq!(heard.parameter("audience"), "https://broker.example.com/events");
            (200, vec![("metadata-flavor", "Google".into())], TOKEN.to_owned())
        }
        "/metadata/identity/oauth2/token" => {
            assert_eq!(heard.header("metadata"), "true");
            assert_eq!(heard.parameter("resource"), "https://vault.azure.net");
            said(200, token().to_string())
        }
        "/app-service" => {
            assert_eq!(heard.header("x-identity-header"), "identity");
            assert_eq!(heard.parameter("api-version"), "2019-08-01");
            said(200, token().to_string())
        }
        "/subject" => said(200, json!({ "value": TOKEN }).to_string()),
        path => panic!("{path}"),
    }
}

async fn answer(state: &State, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let host =
        head.uri.host().map(str::to_owned).or_else(|| {
            head.headers.get("host").and_then(|host| Some(host.to_str().ok()?.to_owned()))
        });
    let host = host.unwrap_or_default();
    let path = head.uri.path();
    let header = |name| head.headers.get(name).map_or("", |value| value.to_str().unwrap());
    let operation = match header("x-amz-target") {
        "" => path,
        target => target,
    };
    state.calls.lock().unwrap().push(format!("{host} {operation}"));
    let (status, reply) = match host.as_str() {
        "kms.us-east-1.amazonaws.com" => {
            let scope = "/us-east-1/kms/aws4_request, SignedHeaders=content-type;host;x-amz-date";
            assert!(header("authorization").contains("Credential=AKID"), "{head:?}");
            assert!(header("authorization").contains(scope), "{}", header("authorization"));
            aws_kms(state, operation, &serde_json::from_slice(&body).unwrap())
        }
        "sts.us-east-1.amazonaws.com" => (200, sts(&body)),
        "cloudkms.googleapis.com" => {
            assert_eq!(header("authorization"), format!("Bearer {SECRET}"));
            gcp_kms(state, path, &body)
        }
        "secretsmanager.us-east-1.amazonaws.com" => {
            assert!(header("authorization").contains("/us-east-1/secretsmanager/aws4_request"));
            assert_eq!(operation, "secretsmanager.GetSecretValue");
            aws_secret(&serde_json::from_slice(&body).unwrap())
        }
        "broker.example.com" => {
            let mut calls = state.calls.lock().unwrap();
            calls.push(format!("{} {}", header("ce-type"), header("authorization")));
            (202, json!({}))
        }
        "secretmanager.googleapis.com" => {
            assert_eq!(header("authorization"), format!("Bearer {SECRET}"));
            assert_eq!(path, "/v1/projects/p/secrets/webhook/versions/latest:access");
            let data = STANDARD.encode(WEBHOOK_SECRET);
            (200, json!({ "name": "n", "payload": { "data": data, "dataCrc32c": "1" } }))
        }
        "v.vault.azure.net" => {
            assert_eq!(header("authorization"), format!("Bearer {SECRET}"));
            assert_eq!(head.uri.query(), Some("api-version=7.4"));
            azure(state, path, &body)
        }
        "iamcredentials.googleapis.com" => {
            assert_eq!(header("authorization"), "Bearer federated");
            (200, json!({ "accessToken": SECRET }))
        }
        host => {
            (200, json!({ "access_token": granted(host, path, &body), "token_type": "Bearer" }))
        }
    };
    let reply = reply.as_str().map_or_else(|| reply.to_string(), str::to_owned);
    Response::builder().status(status).body(Full::from(reply)).unwrap()
}

/// The token endpoints: each grant has what it needs, and nothing of another.
fn granted(host: &str, path: &str, body: &[u8]) -> &'static str {
    let form: std::collections::BTreeMap<String, String> =
        form_urlencoded::parse(body).into_owned().collect();
    let value = |name: &str| form.get(name).map_or("", String::as_str);
    match (host, value("grant_type")) {
        ("oauth2.googleapis.com", "refresh_token") => {
            assert_eq!(value("refresh_token"), "refresh");
            SECRET
        }
        ("oauth2.googleapis.com", "urn:ietf:params:oauth:grant-type:jwt-bearer") => {
            let claims = value("assertion").split('.').nth(1).unwrap();
            let claims: Value =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
            assert_eq!(claims["iss"], "signer@p.iam.gserviceaccount.com");
            assert_eq!(claims["aud"], "https://oauth2.googleapis.com/token");
            assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
            SECRET
        }
        ("sts.googleapis.com", "urn:ietf:params:oauth:grant-type:token-exchange") => {
            assert_eq!(value("subject_token"), TOKEN);
            "federated"
        }
        ("login.microsoftonline.com", "client_credentials") => {
            assert_eq!(path, "/tenant/oauth2/v2.0/token");
            assert_eq!(value("scope"), "https://vault.azure.net/.default");
            let is_secret = value("client_secret") == "client-secret";
            assert!(is_secret ^ (value("client_assertion") == TOKEN), "{form:?}");
            SECRET
        }
        other => panic!("{other:?}"),
    }
}

fn sts(body: &[u8]) -> Value {
    let form: std::collections::BTreeMap<String, String> =
        form_urlencoded::parse(body).into_owned().collect();
    assert_eq!(form["Action"], "AssumeRoleWithWebIdentity");
    assert_eq!(form["WebIdentityToken"], TOKEN);
    Value::String(format!(
        "<Credentials><AccessKeyId>AKIDROLE</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>\
         <SessionToken>session</SessionToken></Credentials>"
    ))
}

impl State {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    fn signs(&self) -> &RsaKeyPair {
        if self.mode() == Mode::OtherKey { &self.other } else { &self.key }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let key = self.signs();
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }

    fn public(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = self.key.public_key().as_der().unwrap();
        der.as_ref().to_vec()
    }
}

fn aws_kms(state: &State, target: &str, body: &Value) -> (u16, Value) {
    assert_eq!(body["KeyId"], AWS_KEY);
    let refused = |kind: &str| (400, json!({ "__type": kind, "message": SECRET }));
    match (state.mode(), target) {
        (Mode::Down, _) => (500, json!({ "__type": "KMSInternalException" })),
        (Mode::Denied, _) | (Mode::SignOnly, "TrentService.GetPublicKey") => {
            refused("AccessDeniedException")
        }
        (Mode::Garbage, _) => (200, json!({ "Signature": "%", "PublicKey": "%" })),
        (_, "TrentService.Sign") => {
            assert_eq!(body["MessageType"], "RAW");
            assert_eq!(body["SigningAlgorithm"], "RSASSA_PKCS1_V1_5_SHA_256");
            let message = STANDARD.decode(body["Message"].as_str().unwrap()).unwrap();
            (200, json!({ "Signature": STANDARD.encode(state.sign(&message)) }))
        }
        (_, "TrentService.GetPublicKey") => {
            (200, json!({ "PublicKey": STANDARD.encode(state.public()) }))
        }
        other => panic!("{other:?}"),
    }
}

/// One secret is text, the other binary.
fn aws_secret(body: &Value) -> (u16, Value) {
    match body["SecretId"].as_str().unwrap() {
        "octo-sts/webhook" => (200, json!({ "SecretString": WEBHOOK_SECRET })),
        "arn:aws:secretsmanager:us-east-1:111122223333:secret:octo-sts/next-AbCdEf" => {
            (200, json!({ "SecretBinary": STANDARD.encode("the next one") }))
        }
        other => panic!("{other}"),
    }
}

fn gcp_kms(state: &State, path: &str, body: &[u8]) -> (u16, Value) {
    let key = GCP_KEY.trim_end_matches('1');
    let version = path.strip_prefix(&format!("/v1/{key}")).unwrap();
    let operation = version.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let refused = |status: u16, word: &str| {
        (status, json!({ "error": { "code": status, "status": word, "message": SECRET } }))
    };
    match (state.mode(), operation) {
        (Mode::Down, _) => refused(500, "INTERNAL"),
        (Mode::Denied, _) | (Mode::SignOnly, "/publicKey") => refused(403, "PERMISSION_DENIED"),
        (Mode::Garbage, _) => (200, json!({ "signature": "%", "pem": "%" })),
        (_, ":asymmetricSign") => {
            let body: Value = serde_json::from_slice(body).unwrap();
            let message = STANDARD.decode(body["data"].as_str().unwrap()).unwrap();
            (200, json!({ "name": GCP_KEY, "signature": STANDARD.encode(state.sign(&message)) }))
        }
        (_, "/publicKey") => {
            let text = STANDARD.encode(state.public());
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
            (200, json!({ "pem": pem, "algorithm": "RSA_SIGN_PKCS1_2048_SHA256" }))
        }
        other => panic!("{other:?}"),
    }
}

fn azure(state: &State, path: &str, body: &[u8]) -> (u16, Value) {
    let refused =
        |status: u16, code: &str| (status, json!({ "error": { "code": code, "message": SECRET } }));
    match (state.mode(), path) {
        (Mode::Down, _) => refused(500, "InternalServerError"),
        (Mode::Denied, _) | (Mode::SignOnly, "/keys/app") => refused(403, "Forbidden"),
        (Mode::Garbage, _) => (200, json!({ "value": "%", "key": { "n": "%", "e": "%" } })),
        (_, "/secrets/webhook") => (200, json!({ "value": WEBHOOK_SECRET, "id": "i" })),
        (_, "/keys/app//sign") => {
            let body: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(body["alg"], "RS256");
            let digest = URL_SAFE_NO_PAD.decode(body["value"].as_str().unwrap()).unwrap();
            let digest = Digest::import_less_safe(&digest, &SHA256).unwrap();
            let key = state.signs();
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign_digest(&RSA_PKCS1_SHA256, &digest, &mut signature).unwrap();
            (200, json!({ "kid": AZURE_KEY, "value": URL_SAFE_NO_PAD.encode(signature) }))
        }
        (_, "/keys/app") => {
            // PKCS #1: a sequence of the modulus, behind nine bytes, and the exponent 65537.
            let der = state.key.public_key().as_ref();
            let (n, e) = (URL_SAFE_NO_PAD.encode(&der[9..265]), URL_SAFE_NO_PAD.encode([1, 0, 1]));
            (200, json!({ "key": { "kid": AZURE_KEY, "kty": "RSA", "n": n, "e": e } }))
        }
        other => panic!("{other:?}"),
    }
}
