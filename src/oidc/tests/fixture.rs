//! An issuer on loopback that counts what it is asked and misbehaves when told to, and its keys.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, MutexGuard},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::super::*;
use crate::{clock::ManualClock, clock::UnixTime, egress};

/// The owner whose policy admits unknown issuers.
pub(super) fn owner() -> Owner {
    "octo-org".parse().unwrap()
}

pub(super) const NOW: i64 = 1_800_000_000;

pub(in crate::oidc) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key and its public half as a JWK without id.
pub(in crate::oidc) struct TestKey {
    pair: Pair,
    pub(super) jwk: Value,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// Keys of every accepted type; made once for all tests.
pub(in crate::oidc) struct TestKeys {
    pub(in crate::oidc) rsa: TestKey,
    pub(in crate::oidc) other_rsa: TestKey,
    pub(in crate::oidc) p256: TestKey,
    pub(in crate::oidc) p384: TestKey,
    pub(in crate::oidc) p521: TestKey,
    pub(in crate::oidc) ed25519: TestKey,
}

pub(in crate::oidc) static KEYS: LazyLock<TestKeys> = LazyLock::new(|| TestKeys {
    rsa: TestKey::rsa(),
    other_rsa: TestKey::rsa(),
    p256: TestKey::ec(&sig::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
    p384: TestKey::ec(&sig::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
    p521: TestKey::ec(&sig::ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
    ed25519: TestKey::ed25519(),
});

impl TestKey {
    fn rsa() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let n = b64(pair.public_key().modulus().big_endian_without_leading_zero());
        let e = b64(pair.public_key().exponent().big_endian_without_leading_zero());
        Self { pair: Pair::Rsa(pair), jwk: json!({"kty": "RSA", "n": n, "e": e}) }
    }

    fn ec(algorithm: &'static sig::EcdsaSigningAlgorithm, curve: &str) -> Self {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let (x, y) =
            pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
        let jwk = json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)});
        Self { pair: Pair::Ec(pair), jwk }
    }

    fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key())});
        Self { pair: Pair::Ed(pair), jwk }
    }

    /// The JWK with an id.
    pub(in crate::oidc) fn named(&self, id: &str) -> Value {
        self.with(json!({"kid": id}))
    }

    /// The JWK with more members.
    pub(in crate::oidc) fn with(&self, more: Value) -> Value {
        let mut jwk = self.jwk.clone();
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    }

    /// Signs as `algorithm` says, as far as the key can.
    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding: &dyn sig::RsaEncoding = match algorithm {
                    "RS384" => &sig::RSA_PKCS1_SHA384,
                    "RS512" => &sig::RSA_PKCS1_SHA512,
                    "PS256" => &sig::RSA_PSS_SHA256,
                    "PS384" => &sig::RSA_PSS_SHA384,
                    "PS512" => &sig::RSA_PSS_SHA512,
                    _ => &sig::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Pair::Ec(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token of these two parts, signed as the header says.
    pub(super) fn token(&self, header: &Value, claims: &str) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims));
        let signature = self.sign(header["alg"].as_str().unwrap_or_default(), signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }
}

/// What the issuer does when asked.
pub(super) struct Behaviour {
    pub(super) keys: Vec<Value>,
    pub(super) algorithms: Option<Value>,
    pub(super) cache_control: String,
    /// Instead of 200, for discovery.
    pub(super) status: StatusCode,
    /// How many more times `status` is the answer.
    pub(super) times: usize,
    pub(super) delay: Duration,
    /// Instead of the issuer's own.
    pub(super) issuer: Option<String>,
    pub(super) jwks_uri: Option<String>,
    /// Instead of the key set.
    pub(super) key_document: Option<String>,
    /// What must be shown, else the answer is 403, as the API server of a cluster has it.
    pub(super) bearer: Option<String>,
    /// The credentials that were shown, one for each request.
    pub(super) shown: Vec<Option<String>>,
    pub(super) discoveries: usize,
    pub(super) key_fetches: usize,
    /// How many discoveries are under way, and how many were at most.
    busy: usize,
    pub(super) busiest: usize,
}

/// The issuer; `{path}` after its address makes as many issuers as a test wants.
#[derive(Clone)]
pub(super) struct Fake {
    address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Fake {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behaviour = Behaviour {
            keys: vec![KEYS.rsa.named("k1")],
            algorithms: Some(json!(["RS256"])),
            cache_control: "max-age=600".to_owned(),
            status: StatusCode::OK,
            times: usize::MAX,
            delay: Duration::ZERO,
            issuer: None,
            jwks_uri: None,
            key_document: None,
            bearer: None,
            shown: Vec::new(),
            discoveries: 0,
            key_fetches: 0,
            busy: 0,
            busiest: 0,
        };
        let fake = Self {
            address: listener.local_addr().unwrap(),
            behaviour: Arc::new(Mutex::new(behaviour)),
        };
        let app = Router::new()
            .route("/{issuer}/.well-known/openid-configuration", get(discovery))
            .route(
                "/{issuer}//.well-known/openid-configuration",
                get(|| async { StatusCode::NOT_FOUND }),
            )
            .route("/{issuer}/jwks", get(jwks))
            .with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        fake
    }

    pub(super) fn set(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour.lock().unwrap()
    }

    /// The status of discovery from now on.
    pub(super) fn answers(&self, status: StatusCode) {
        self.set().status = status;
    }

    pub(super) fn issuer(&self, name: &str) -> Issuer {
        format!("http://{}/{name}", self.address).parse().unwrap()
    }

    pub(super) fn discoveries(&self) -> usize {
        self.set().discoveries
    }
}

impl Behaviour {
    /// Whether the caller has shown what it must.
    fn admits(&mut self, headers: &HeaderMap) -> bool {
        let shown =
            headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
        self.shown.push(shown.clone());
        self.bearer.is_none()
            || shown == self.bearer.as_ref().map(|token| format!("Bearer {token}"))
    }
}

async fn discovery(
    State(fake): State<Fake>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> axum::response::Response {
    let (delay, status, document) = {
        let mut now = fake.set();
        if !now.admits(&headers) {
            return StatusCode::FORBIDDEN.into_response();
        }
        now.discoveries += 1;
        now.busy += 1;
        now.busiest = now.busiest.max(now.busy);
        let issuer = now.issuer.clone().unwrap_or_else(|| fake.issuer(&name).to_string());
        let jwks_uri =
            now.jwks_uri.clone().unwrap_or_else(|| format!("{}/jwks", fake.issuer(&name)));
        let mut document = json!({"issuer": issuer, "jwks_uri": jwks_uri});
        if let Some(algorithms) = &now.algorithms {
            document["id_token_signing_alg_values_supported"] = algorithms.clone();
        }
        let status = if now.times > 0 { now.status } else { StatusCode::OK };
        now.times = now.times.saturating_sub(1);
        (now.delay, status, document)
    };
    tokio::time::sleep(delay).await;
    fake.set().busy -= 1;
    (status, [(header::LOCATION, "/elsewhere")], document.to_string()).into_response()
}

async fn jwks(State(fake): State<Fake>, headers: HeaderMap) -> axum::response::Response {
    let mut now = fake.set();
    if !now.admits(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    // As an API server does: a request that does not name this media type gets no keys.
    let accepted = headers.get(header::ACCEPT).map(|value| value.to_str().unwrap());
    if !accepted.is_some_and(|accepted| accepted.contains("application/jwk-set+json")) {
        return StatusCode::NOT_ACCEPTABLE.into_response();
    }
    now.key_fetches += 1;
    let document =
        now.key_document.clone().unwrap_or_else(|| json!({"keys": now.keys}).to_string());
    ([(header::CACHE_CONTROL, now.cache_control.clone())], document).into_response()
}

/// The module under test, an issuer that is known to it as that of Actions, and the time.
pub(super) struct World {
    pub(super) fake: Fake,
    pub(super) oidc: Oidc,
    pub(super) clock: ManualClock,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let fake = Fake::start().await;
        let clock = ManualClock::at(UnixTime::from_secs(NOW));
        let mut settings = Settings::new(fake.issuer("actions"));
        settings.private_networks = PrivateNetworks::All;
        change(&mut settings);
        let egress = Egress::new(egress::Settings::default()).unwrap();
        let oidc = Oidc::new(settings, egress, Arc::new(clock.clone()));
        Self { fake, oidc, clock }
    }

    /// Claims of the known issuer that are good for a day.
    pub(super) fn claims(&self) -> Value {
        self.claims_of(&self.fake.issuer("actions"))
    }

    pub(super) fn claims_of(&self, issuer: &Issuer) -> Value {
        json!({"iss": issuer.as_str(), "sub": "repo:o/r", "aud": "sts", "exp": NOW + 86_400, "iat": NOW - 1, "jti": "j"})
    }

    /// A good token of the known issuer under the key id.
    pub(super) fn token(&self, key_id: &str) -> String {
        KEYS.rsa.token(
            &json!({"alg": "RS256", "kid": key_id, "typ": "JWT"}),
            &self.claims().to_string(),
        )
    }

    /// Verifies as callers do: a known issuer immediately, another as if the gate had admitted it.
    pub(super) async fn verify(&self, token: &str) -> Result<VerifiedToken, Error> {
        let token = self.oidc.read(token)?;
        let admission = self
            .oidc
            .known(&token)?
            .unwrap_or_else(|| Admission::by_gate(token.issuer(), &owner()));
        self.oidc.verify(&token, &admission).await
    }

    /// The subject of the token, if cached keys verify it.
    pub(super) async fn cached(&self, token: &str) -> Option<String> {
        let token = self.oidc.read(token).unwrap();
        let cached = self.oidc.verify_with_cached_keys(&token, &owner()).await;
        cached.map(|cached| cached.subject().as_str().to_owned())
    }

    /// The reason for which the token is refused.
    pub(super) async fn refusal(&self, token: &str) -> crate::reason::Reason {
        self.verify(token).await.unwrap_err().reason()
    }

    pub(super) fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}
