//! OIDC issuers on loopback: discovery, keys, signatures, and misbehaviour on demand.
//!
//! One listener carries any number of issuers, distinguished by path. Each has its own keys.

mod keyring;
mod publish;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::{
    keys::{Alg, base64url, random},
    server::Server,
};
use crate::clock::{Clock, UnixTime};
use keyring::Keyring;

/// How long a signed token lives, where its claims do not say: as GitHub Actions' do.
const LIFE: Duration = Duration::from_secs(300);

/// What an issuer publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Document {
    /// `.well-known/openid-configuration` (OpenID Connect Discovery 1.0 section 4).
    Discovery,
    /// The key set (RFC 7517 section 5).
    Jwks,
}

/// How an issuer fails to publish a document as it should.
#[derive(Debug, Clone, PartialEq)]
pub enum Misbehaviour {
    /// The connection is cut.
    Cut,
    /// This status, with a JSON error.
    Status(u16),
    /// No answer until [`Issuer::behave`], for any number of requests.
    Stall,
    /// The answer comes when the clock has moved on by this much.
    Slow(Duration),
    /// 302 to this URL.
    Redirect(String),
    /// Half of the document is sent; the rest never comes.
    Hang,
    /// The document is padded to at least this many bytes.
    Padded(usize),
    /// An HTML page.
    Html,
    /// Another document.
    Replace(Value),
    /// The member is another; null removes it. `issuer`, `jwks_uri` and
    /// `id_token_signing_alg_values_supported` are what matters in discovery.
    Member(String, Value),
    /// Keys that no client can use stand beside the good ones.
    OddKeys,
    /// The content is compressed with gzip, whatever the request accepts.
    Gzip,
    /// `Content-Encoding` has this value, and the content is not encoded.
    ContentEncoding(String),
}

/// How often an issuer's documents were asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetches {
    /// The discovery document.
    pub discovery: usize,
    /// The key set.
    pub jwks: usize,
}

/// One issuer. Clones are handles on the same one; the listener ends with the last handle of any.
#[derive(Clone)]
pub struct Issuer {
    shared: Shared,
    server: Arc<Server>,
    tenant: String,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All issuers of a listener.
struct World {
    clock: Arc<dyn Clock>,
    root: String,
    /// By path, without a trailing slash.
    tenants: BTreeMap<String, Tenant>,
    unknown: Vec<String>,
    behaved: watch::Sender<u64>,
}

/// Misbehaviour for so many more fetches; `None` is until further notice.
#[derive(Debug, Clone)]
struct Spell {
    how: Misbehaviour,
    times: Option<u32>,
}

struct Tenant {
    url: String,
    keys: Keyring,
    misbehaviour: BTreeMap<Document, Spell>,
    fetches: Fetches,
    cache_control: Option<String>,
    bearer: Option<String>,
}

impl Issuer {
    /// Starts on a free loopback port, with one RS256 key.
    ///
    /// # Errors
    /// No port can be bound.
    pub async fn start(clock: Arc<dyn Clock>) -> io::Result<Self> {
        let mut shared = None;
        let server = Server::start(|address| {
            let world = World {
                clock,
                root: format!("http://{address}"),
                tenants: BTreeMap::new(),
                unknown: Vec::new(),
                behaved: watch::Sender::new(0),
            };
            let world = Shared(Arc::new(Mutex::new(world)));
            shared = Some(world.clone());
            Arc::new(move |request| Box::pin(publish::handle(world.clone(), request)))
        })
        .await?;
        let shared =
            shared.ok_or_else(|| io::Error::other("the listener did not ask for its handler"))?;
        let issuer = Self { shared, server: Arc::new(server), tenant: String::new() };
        Ok(issuer.at(""))
    }

    /// The issuer at this path of the same listener (`/tenant-a`), made with one RS256 key if it is
    /// new. A trailing slash belongs to its name.
    #[must_use]
    pub fn at(&self, path: &str) -> Self {
        self.at_with(path, Alg::Rs256)
    }

    /// As [`Issuer::at`], with a first key of another algorithm: an RSA key takes long to generate.
    pub fn at_with(&self, path: &str, alg: Alg) -> Self {
        let tenant = path.trim_end_matches('/').to_owned();
        let mut world = self.shared.lock();
        if !world.tenants.contains_key(&tenant) {
            let mut keys = Keyring::default();
            keys.add(alg);
            let url = format!("{}{path}", world.root);
            let fresh = Tenant {
                url,
                keys,
                misbehaviour: BTreeMap::new(),
                fetches: Fetches::default(),
                cache_control: None,
                bearer: None,
            };
            world.tenants.insert(tenant.clone(), fresh);
        }
        Self { shared: self.shared.clone(), server: self.server.clone(), tenant }
    }

    /// The issuer's identifier: its `iss`.
    pub fn url(&self) -> String {
        self.on(|tenant| tenant.url.clone()).unwrap_or_default()
    }

    /// Where the listener is.
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    fn on<T>(&self, act: impl FnOnce(&mut Tenant) -> T) -> Option<T> {
        self.shared.lock().tenants.get_mut(&self.tenant).map(act)
    }

    /// Signs claims with the current key. `iss`, `iat`, `nbf`, `exp` (5 minutes) and `jti` are
    /// filled in where they are absent; a claim that is null is left out.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({}), claims)
    }

    /// As [`Issuer::sign`], with other header parameters; null leaves one out.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let now = self.shared.lock().clock.now();
        self.on(|tenant| {
            let claims = completed(standard(&tenant.url, now), claims);
            let header = completed(tenant.keys.header(), header);
            tenant.keys.sign(&header.to_string(), &claims.to_string())
        })
        .unwrap_or_default()
    }

    /// Signs header and payload as they stand, JSON or not.
    pub fn sign_text(&self, header: &str, payload: &str) -> String {
        self.on(|tenant| tenant.keys.sign(header, payload)).unwrap_or_default()
    }

    /// The header that the next token gets.
    pub fn header(&self) -> Value {
        Value::Object(self.on(|tenant| tenant.keys.header()).unwrap_or_default())
    }

    /// Publishes one more key and signs with it from now on; its key id.
    pub fn rotate(&self, alg: Alg) -> String {
        let kid = self.add_key(alg);
        self.use_key(&kid);
        kid
    }

    /// Publishes one more key; its key id.
    pub fn add_key(&self, alg: Alg) -> String {
        self.on(|tenant| tenant.keys.add(alg)).unwrap_or_default()
    }

    /// Signs with this key from now on, published or not.
    pub fn use_key(&self, kid: &str) -> bool {
        self.on(|tenant| tenant.keys.choose(kid)).unwrap_or_default()
    }

    /// No longer publishes the key; it can still sign.
    pub fn withdraw(&self, kid: &str) -> bool {
        self.on(|tenant| tenant.keys.publish(kid, false)).unwrap_or_default()
    }

    /// Publishes the key again.
    pub fn publish(&self, kid: &str) -> bool {
        self.on(|tenant| tenant.keys.publish(kid, true)).unwrap_or_default()
    }

    /// The key set as it is published.
    pub fn jwks(&self) -> Value {
        self.on(|tenant| tenant.keys.jwks()).unwrap_or_default()
    }

    /// From now on the document is not as it should be.
    pub fn misbehave(&self, document: Document, how: Misbehaviour) {
        self.on(|tenant| tenant.misbehaviour.insert(document, Spell { how, times: None }));
    }

    /// The next `times` fetches of the document do not get it as it should be.
    pub fn misbehave_times(&self, times: u32, document: Document, how: Misbehaviour) {
        self.on(|tenant| tenant.misbehaviour.insert(document, Spell { how, times: Some(times) }));
    }

    /// Ends all misbehaviour, stalls included.
    pub fn behave(&self) {
        self.on(|tenant| tenant.misbehaviour.clear());
        self.shared.lock().behaved.send_modify(|times| *times += 1);
    }

    /// The `Cache-Control` of both documents; `None` sends none.
    pub fn cache_control(&self, value: Option<&str>) {
        self.on(|tenant| tenant.cache_control = value.map(str::to_owned));
    }

    /// Both documents demand this bearer token, as a Kubernetes API server does; 403 without, 401
    /// with another.
    pub fn require_bearer(&self, token: Option<&str>) {
        self.on(|tenant| tenant.bearer = token.map(str::to_owned));
    }

    /// How often the documents were asked for.
    pub fn fetches(&self) -> Fetches {
        self.on(|tenant| tenant.fetches).unwrap_or_default()
    }

    /// Method and path of each request to the listener that was for no document.
    pub fn unknown_requests(&self) -> Vec<String> {
        self.shared.lock().unknown.clone()
    }
}

fn standard(issuer: &str, now: UnixTime) -> Map<String, Value> {
    let (now, end) = (now.as_secs(), now.plus(LIFE).as_secs());
    let jti = base64url(random::<16>());
    [
        ("iss", json!(issuer)),
        ("iat", json!(now)),
        ("nbf", json!(now)),
        ("exp", json!(end)),
        ("jti", json!(jti)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// The defaults with `given` over them, without what is null.
fn completed(mut defaults: Map<String, Value>, given: &Value) -> Value {
    for (name, value) in given.as_object().into_iter().flatten() {
        defaults.insert(name.clone(), value.clone());
    }
    defaults.retain(|_, value| !value.is_null());
    Value::Object(defaults)
}
