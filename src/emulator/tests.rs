//! The emulators over real sockets.

mod apps;
mod faults;
mod git;
mod issuer;
mod limits;
mod reading;
mod robust;
mod shapes;
mod tokens;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use serde_json::{Value, json};

use super::{GitHub, Options, Selection, Visibility, keys};
use crate::{
    clock::{Clock, ManualClock, UnixTime},
    egress::{AddressRule, Connector, Egress, Settings},
    name::{AppId, InstallationId},
};

/// A client that knows nothing of the emulators but their URLs.
#[derive(Clone)]
struct Http(Client<Connector, Full<Bytes>>);

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Http {
    fn new() -> Self {
        Self(Egress::new(Settings::default()).unwrap().client(AddressRule::PrivateToo))
    }

    /// `Err` if the connection broke off.
    async fn try_send(&self, request: http::Request<Full<Bytes>>) -> Result<Answer, String> {
        let answer = self.0.request(request).await.map_err(|error| error.to_string())?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    async fn get(&self, url: &str) -> Answer {
        let request =
            http::Request::get(url).header("user-agent", "test").body(Full::default()).unwrap();
        self.try_send(request).await.unwrap()
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A GitHub with one organization, a private repository `hello`, a public one `open`, and an App
/// that may read and write contents and issues, installed on all.
struct World {
    github: GitHub,
    clock: ManualClock,
    http: Http,
    app: AppId,
    pem: String,
    installation: InstallationId,
}

const GRANTED: [(&str, &str); 2] = [("contents", "write"), ("issues", "write")];

impl World {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let clock = ManualClock::at(UnixTime::from_secs(1_767_225_600));
        let github = GitHub::start_with(Arc::new(clock.clone()), options).await.unwrap();
        let (app, pem) = github.app("octo-sts");
        github.org("octo-org");
        github.repo("octo-org", "hello", Visibility::Private);
        github.repo("octo-org", "open", Visibility::Public);
        let installation = github.install(app, "octo-org", &Selection::All, &GRANTED);
        Self { github, clock, http: Http::new(), app, pem, installation }
    }

    fn now(&self) -> i64 {
        self.clock.now().as_secs()
    }

    /// A good App JWT.
    fn jwt(&self) -> String {
        self.jwt_of(&json!({"iss": self.app.0, "iat": self.now() - 60, "exp": self.now() + 540}))
    }

    fn jwt_of(&self, claims: &Value) -> String {
        sign(&self.pem, r#"{"alg":"RS256","typ":"JWT"}"#, claims)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        authorization: &str,
        body: Option<Value>,
    ) -> Answer {
        self.try_send(method, path, authorization, body).await.unwrap()
    }

    async fn try_send(
        &self,
        method: Method,
        path: &str,
        authorization: &str,
        body: Option<Value>,
    ) -> Result<Answer, String> {
        let mut request =
            http::Request::builder().method(method).uri(format!("{}{path}", self.github.url()));
        request = request.header("user-agent", "test");
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.http.try_send(request.body(Full::from(body)).unwrap()).await
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        let authorization = if token.is_empty() { String::new() } else { format!("token {token}") };
        self.send(Method::GET, path, &authorization, None).await
    }

    async fn get_with(&self, path: &str, token: &str, (name, value): (&str, &str)) -> Answer {
        let request = http::Request::get(format!("{}{path}", self.github.url()))
            .header("user-agent", "test")
            .header("authorization", format!("Bearer {token}"))
            .header(name, value);
        self.http.try_send(request.body(Full::default()).unwrap()).await.unwrap()
    }

    async fn as_app(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send(method, path, &format!("Bearer {}", self.jwt()), body).await
    }

    async fn try_mint(&self, body: Value) -> Answer {
        let body = (!body.is_null()).then_some(body);
        self.as_app(
            Method::POST,
            &format!("/app/installations/{}/access_tokens", self.installation),
            body,
        )
        .await
    }

    /// A token that was asked for with this body.
    async fn mint(&self, body: Value) -> String {
        let answer = self.try_mint(body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// A JWS with the key of a PEM, as a client makes one.
fn sign(pem: &str, header: &str, claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    let signed = format!("{}.{}", keys::base64url(header), keys::base64url(claims.to_string()));
    let signature =
        jsonwebtoken::crypto::sign(signed.as_bytes(), &key, jsonwebtoken::Algorithm::RS256)
            .unwrap();
    format!("{signed}.{signature}")
}
