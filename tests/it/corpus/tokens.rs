//! The contract of tokens: `tokens.yaml`.

use std::{collections::BTreeMap, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use octo_sts::{
    clock::Clock,
    emulator::{Alg, Document, Issuer, Misbehaviour},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Expected, Judge, StandIns, load, setup};
use crate::harness::{Ask, POLICY, Setup, World};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// Whose token. The policy of that name names the issuer exactly.
    #[serde(default)]
    issuer: Option<String>,
    /// The policy that is asked for, if it is not the issuer's own.
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    token: Build,
    /// A second token, of which `sent` may take parts.
    #[serde(default)]
    other: Build,
    /// What is sent instead of the token.
    #[serde(default)]
    sent: Option<String>,
    /// A minute passes before each question.
    #[serde(default)]
    later: bool,
    expect: String,
    #[serde(default)]
    failed: Vec<String>,
    /// What the message contains.
    #[serde(default)]
    says: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    /// Which key signs.
    #[serde(default)]
    key: Option<String>,
    /// Header members laid over `alg`, `kid` and `typ`; null takes one away.
    #[serde(default)]
    header: Map<String, Value>,
    /// Text that follows the last header member.
    #[serde(default)]
    header_more: String,
    /// The whole header.
    #[serde(default)]
    header_text: Option<String>,
    /// Claims laid over those of a workflow; null takes one away.
    #[serde(default)]
    claims: Map<String, Value>,
    /// Text that follows the last claim.
    #[serde(default)]
    claims_more: String,
    /// All of the claims.
    #[serde(default)]
    claims_text: Option<String>,
}

/// The issuers of this world, and the ids of their keys.
struct Issuers {
    by_name: BTreeMap<&'static str, Issuer>,
    foreign: Issuer,
    /// Key ids by what the file calls the keys.
    kids: BTreeMap<&'static str, String>,
}

const ALGS: [Alg; 10] = [
    Alg::Rs256,
    Alg::Rs384,
    Alg::Rs512,
    Alg::Ps256,
    Alg::Ps384,
    Alg::Ps512,
    Alg::Es256,
    Alg::Es384,
    Alg::Es512,
    Alg::EdDsa,
];

/// How an issuer publishes, by its name: both what Go's libraries accept, and what is wrong.
fn misbehave(name: &str, issuer: &Issuer) {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut keys = issuer.jwks();
        change(&mut keys);
        issuer.misbehave(Document::Jwks, Misbehaviour::Replace(keys));
    };
    let discovery = |how| issuer.misbehave(Document::Discovery, how);
    let member = |name: &str, value: Value| discovery(Misbehaviour::Member(name.into(), value));
    match name {
        "zeros" => changed(&|keys| {
            for name in ["n", "e"] {
                let bytes = B64.decode(keys["keys"][0][name].as_str().unwrap()).unwrap();
                keys["keys"][0][name] = json!(B64.encode([vec![0, 0], bytes].concat()));
            }
        }),
        "many" => changed(&|keys| {
            let one = keys["keys"][0].clone();
            let others = (0..200)
                .map(|n| json!({"kid": n.to_string(), "kty": "RSA", "n": one["n"], "e": "AQAB"}));
            keys["keys"] = others.chain([one.clone()]).collect();
        }),
        "ten" => (0..10).for_each(|_| drop(issuer.rotate(Alg::Es256))),
        "p-521" => drop(issuer.rotate(Alg::Es512)),
        "spiffe" => changed(&|keys| keys["keys"][0]["use"] = json!("jwt-svid")),
        "gzip" => {
            for document in [Document::Discovery, Document::Jwks] {
                issuer.misbehave(document, Misbehaviour::Gzip);
            }
        }
        "no-encoding" => {
            for document in [Document::Discovery, Document::Jwks] {
                issuer.misbehave(document, Misbehaviour::ContentEncoding(String::new()));
            }
        }
        "closing" => {
            issuer.misbehave_times(2, Document::Discovery, Misbehaviour::Cut);
            issuer.misbehave_times(1, Document::Jwks, Misbehaviour::Cut);
        }
        "login" | "unknown-login" => discovery(Misbehaviour::Html),
        "login-for-keys" => issuer.misbehave(Document::Jwks, Misbehaviour::Html),
        "other" => member("issuer", json!("https://other.example")),
        "template" => member("issuer", json!("https://login.example/{tenantid}/v2.0")),
        "not-found" | "unknown-not-found" => discovery(Misbehaviour::Status(404)),
        "unauthorized" => discovery(Misbehaviour::Status(401)),
        "forbidden-keys" => issuer.misbehave(Document::Jwks, Misbehaviour::Status(403)),
        "redirect" => discovery(Misbehaviour::Redirect("https://login.example".into())),
        "no-keys" => changed(&|keys| keys["keys"] = json!([])),
        "insecure-keys" => member("jwks_uri", json!("http://keys.example/jwks")),
        "metadata-keys" => member("jwks_uri", json!("https://169.254.169.254/jwks")),
        "large" => issuer.misbehave(Document::Jwks, Misbehaviour::Padded(257 << 10)),
        "brotli" => discovery(Misbehaviour::ContentEncoding("br".into())),
        "busy" => discovery(Misbehaviour::Status(429)),
        "failing" => discovery(Misbehaviour::Status(503)),
        _ => {}
    }
}

const OTHERS: [&str; 27] = [
    "cluster",
    "stranger",
    "zeros",
    "many",
    "ten",
    "p-521",
    "spiffe",
    "gzip",
    "no-encoding",
    "closing",
    "login",
    "unknown-login",
    "login-for-keys",
    "other",
    "template",
    "not-found",
    "unknown-not-found",
    "unauthorized",
    "forbidden-keys",
    "redirect",
    "no-keys",
    "insecure-keys",
    "metadata-keys",
    "large",
    "brotli",
    "busy",
    "failing",
];

/// Whether the operator names the issuer.
fn is_configured(name: &str) -> bool {
    name != "actions" && name != "stranger" && !name.starts_with("unknown")
}

impl Issuers {
    fn new(actions: &Issuer) -> Self {
        let first = |issuer: &Issuer| issuer.header()["kid"].as_str().unwrap().to_owned();
        let mut kids: BTreeMap<_, _> = [("RS256", first(actions))].into();
        for alg in ALGS.into_iter().skip(1) {
            kids.insert(alg.name(), actions.add_key(alg));
        }
        kids.insert("withdrawn", actions.add_key(Alg::Rs256));
        actions.withdraw(&kids["withdrawn"]);
        // The pool hands every issuer other keys.
        let mut by_name: BTreeMap<_, _> =
            OTHERS.map(|name| (name, actions.at(&format!("/{name}")))).into();
        by_name.iter().for_each(|(name, issuer)| misbehave(name, issuer));
        by_name.insert("actions", actions.clone());
        Self { by_name, foreign: actions.at("/foreign"), kids }
    }

    fn stand_ins(&self, world: &World) -> StandIns {
        let mut stand_ins = StandIns::at(world.clock.now())
            .with("ACTIONS", self.by_name["actions"].url())
            .with("CLUSTER", self.by_name["cluster"].url())
            .with("STRANGER", self.by_name["stranger"].url())
            .with("JWK:foreign", self.foreign.jwks()["keys"][0].to_string());
        for (name, kid) in &self.kids {
            stand_ins = stand_ins.with(&format!("KID:{name}"), kid.as_str());
        }
        stand_ins
    }

    /// Header, claims and signature in base64.
    fn build(&self, world: &World, issuer: &str, build: &Build) -> [String; 3] {
        let own = &self.by_name[issuer];
        let key = build.key.as_deref().unwrap_or("RS256");
        let secret = key.strip_prefix("HS256 ");
        let header = own.header();
        let kid = match key {
            _ if issuer != "actions" => header["kid"].as_str().unwrap(),
            _ if secret.is_some() || key == "foreign" => &self.kids["RS256"],
            key => &self.kids[key],
        };
        let alg = if ALGS.iter().any(|alg| alg.name() == key) { key } else { "RS256" };
        let alg = if secret.is_some() { "HS256" } else { alg };
        let alg = if issuer == "actions" { alg } else { header["alg"].as_str().unwrap() };
        let header =
            text(json!({"alg": alg, "kid": kid, "typ": "JWT"}), &build.header, &build.header_more);
        let now = world.clock.now().as_secs();
        let mut standard = world.claims();
        standard["iss"] = json!(own.url());
        standard["iat"] = json!(now);
        standard["exp"] = json!(now + 300);
        let claims = text(standard, &build.claims, &build.claims_more);
        let header = build.header_text.as_ref().unwrap_or(&header);
        let claims = build.claims_text.as_ref().unwrap_or(&claims);
        if let Some(secret) = secret {
            return self.with_secret(secret, header, claims);
        }
        let signer = if key == "foreign" { &self.foreign } else { own };
        if issuer == "actions" && key != "foreign" {
            assert!(own.use_key(kid));
        }
        let token = signer.sign_text(header, claims);
        let parts: Vec<_> = token.split('.').map(str::to_owned).collect();
        parts.try_into().unwrap()
    }

    /// Signed with what everybody knows of the public key.
    fn with_secret(&self, what: &str, header: &str, claims: &str) -> [String; 3] {
        let keys = self.by_name["actions"].jwks();
        let kid = &self.kids["RS256"];
        let jwk = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == **kid).unwrap();
        let modulus = jwk["n"].as_str().unwrap();
        let secret = match what {
            "modulus" => B64.decode(modulus).unwrap(),
            "modulus text" => modulus.as_bytes().to_vec(),
            "jwk" => jwk.to_string().into_bytes(),
            "nothing" => Vec::new(),
            other => panic!("no such secret: {other}"),
        };
        let (header, claims) = (B64.encode(header), B64.encode(claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let signature = hmac::sign(&key, format!("{header}.{claims}").as_bytes());
        [header, claims, B64.encode(signature)]
    }

    fn token(&self, world: &World, case: &Case) -> String {
        let issuer = case.issuer.as_deref().unwrap_or("actions");
        let token = self.build(world, issuer, &case.token);
        let Some(sent) = &case.sent else { return token.join(".") };
        let other = self.build(world, issuer, &case.other);
        let mut parts = StandIns::default();
        for (n, (one, two)) in token.iter().zip(&other).enumerate() {
            let name = ["HEADER", "CLAIMS", "SIGNATURE"][n];
            parts = parts.with(name, one).with(&format!("OTHER_{name}"), two);
        }
        // Text in base64 that need not be a signed part of anything.
        let filled = parts.fill(sent);
        filled
            .split('|')
            .enumerate()
            .map(|(n, part)| if n % 2 == 1 { B64.encode(part) } else { part.into() })
            .collect()
    }
}

/// `defaults` with `changes` over them, and `more` before the closing brace.
fn text(mut defaults: Value, changes: &Map<String, Value>, more: &str) -> String {
    let members = defaults.as_object_mut().unwrap();
    members.extend(changes.clone());
    members.retain(|_, value| !value.is_null());
    let text = defaults.to_string();
    if more.is_empty() { text } else { format!("{},{more}}}", text.strip_suffix('}').unwrap()) }
}

#[tokio::test]
async fn tokens_are_taken_or_refused_as_the_corpus_says() {
    let mut setup = setup().await;
    let issuers = Issuers::new(&setup.issuer);
    let configured = issuers.by_name.iter().filter(|(name, _)| is_configured(name));
    setup.settings.oidc.configured =
        configured.map(|(_, issuer)| issuer.url().parse().unwrap()).collect();
    for (name, issuer) in &issuers.by_name {
        let policy = format!(
            "issuer: {}\nsubject_pattern: '(?s:.*)'\npermissions: {{issues: write}}\n",
            issuer.url()
        );
        setup.policy("hello", name, &policy);
    }
    setup.policy(
        "hello",
        "open",
        "issuer_pattern: '.*'\nsubject_pattern: '.*'\npermissions: {issues: write}\n",
    );
    let reads = format!(
        "issuer: {}\nsubject_pattern: '.*'\nclaim_pattern: {{x: '(?s:.*)'}}\npermissions: {{issues: write}}\n",
        setup.issuer.url()
    );
    setup.policy("hello", "reads", &reads);
    let world = setup.start().await;
    let mut cases: Vec<Case> = load("tokens.yaml", &issuers.stand_ins(&world));
    // Those that let time pass come last: the others name times.
    cases.sort_by_key(|case| case.later);
    let mut judge = Judge::new(&world, &["octo-org/hello"]).await;
    for case in &cases {
        let expected = Expected::new(&case.expect, &json!({"issues": "write"}), &json!(["hello"]))
            .failing(&case.failed);
        let expected = Expected { says: vec![case.says.clone()], ..expected };
        let identity = case.policy.as_deref().or(case.issuer.as_deref()).unwrap_or("actions");
        let ask = async || {
            if case.later {
                world.clock.advance(Duration::from_secs(61));
            }
            Ask::new("octo-org/hello", identity, &issuers.token(&world, case))
        };
        judge.ask(&case.name, &expected, ask).await;
    }
    assert!(judge.world.github.minted_count() > 20);
    judge.finish();
}

/// More than any header may have: the connection ends, before anything is read as a token.
#[tokio::test]
async fn a_megabyte_of_dots_is_not_even_read() {
    let world = Setup::with_policy(POLICY).await.start().await;
    let mut socket = TcpStream::connect(world.address).await.unwrap();
    let head = "GET /sts/exchange?scope=octo-org/hello&identity=ci HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ";
    socket.write_all(head.as_bytes()).await.unwrap();
    // The server may close while this is under way.
    let _ = socket.write_all(&vec![b'.'; 1 << 20]).await;
    let mut reply = [0; 12];
    match socket.read_exact(&mut reply).await {
        Ok(_) => assert_eq!(&reply, b"HTTP/1.1 431"),
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::TimedOut),
    }
    assert_eq!((world.github.minted_count(), world.issuer.fetches()), (0, Default::default()));
    world.usual().await.tokens();
}
