//! The issuers file at work: whose keys are asked for, by what means, and what is asked of tokens.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    super::*,
    fixture::{Fake, KEYS, NOW, owner},
};
use crate::{
    clock::{ManualClock, UnixTime},
    egress,
    tests::Folder,
};

/// Two issuers, a file that speaks of them, and nothing else that is reachable.
struct World {
    fake: Fake,
    other: Fake,
    folder: Folder,
    clock: ManualClock,
    oidc: Oidc,
}

/// The file's text; `HOME` is the first issuer's address, `OTHER` the other's.
async fn world(text: &str) -> World {
    let (fake, other, folder) = (Fake::start().await, Fake::start().await, Folder::new());
    folder.file("token", "first\n");
    let mut world = bare(fake, other, folder);
    world.write(text);
    let file = IssuersFile {
        path: world.folder.path().join("issuers.yaml"),
        pod: Pod { api_server: None, folder: world.folder.path().to_owned() },
        plain_http: false,
    };
    let listed = file.load().unwrap();
    let mut settings = settings();
    settings.issuers_file = Some((file, listed));
    world.oidc = oidc(settings, &world.clock);
    world
}

fn bare(fake: Fake, other: Fake, folder: Folder) -> World {
    let clock = ManualClock::at(UnixTime::from_secs(NOW));
    let oidc = oidc(settings(), &clock);
    World { fake, other, folder, clock, oidc }
}

fn settings() -> Settings {
    Settings::new("https://token.actions.githubusercontent.com".parse().unwrap())
}

fn oidc(settings: Settings, clock: &ManualClock) -> Oidc {
    Oidc::new(settings, Egress::new(egress::Settings::default()).unwrap(), Arc::new(clock.clone()))
}

impl World {
    fn write(&self, text: &str) {
        let address = |fake: &Fake| fake.issuer("").to_string().trim_end_matches('/').to_owned();
        let text =
            text.replace("HOME", &address(&self.fake)).replace("OTHER", &address(&self.other));
        self.folder.file("issuers.yaml", &text);
    }

    fn token(&self, fake: &Fake, changes: Value) -> String {
        let mut claims = json!({"iss": fake.issuer("a").as_str(), "sub": "s", "aud": "sts", "exp": NOW + 3600, "iat": NOW});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        KEYS.rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &claims.to_string())
    }

    /// Verifies as for a known issuer; one that is not known is none of this test's.
    async fn verify(&self, token: &str) -> Result<VerifiedToken, Error> {
        let token = self.oidc.read(token)?;
        let admission = self.oidc.known(&token)?.ok_or(Error::NotAdmitted)?;
        self.oidc.verify(&token, &admission).await
    }

    async fn usual(&self) -> Result<VerifiedToken, Error> {
        self.verify(&self.token(&self.fake, json!({}))).await
    }
}

fn fault(outcome: Result<VerifiedToken, Error>) -> Fault {
    let error = outcome.unwrap_err();
    let Error::Unavailable { cause, .. } = error else { panic!("{error}") };
    cause
}

#[tokio::test]
async fn an_entry_makes_its_issuer_known_and_its_network_reachable() {
    let world = world("issuers: [{issuer: HOME/a, private_network: true}]\n").await;
    let token = world.usual().await.unwrap();
    assert_eq!(token.issuer_kind(), IssuerKind::Configured);
    let unknown = world.oidc.read(&world.token(&world.other, json!({}))).unwrap();
    assert!(world.oidc.known(&unknown).unwrap().is_none());
    // Nor is another path of the same host.
    let sibling = json!({"iss": world.fake.issuer("b").as_str()});
    assert!(
        world
            .oidc
            .known(&world.oidc.read(&world.token(&world.fake, sibling)).unwrap())
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn the_credential_is_shown_at_home_as_its_file_has_it_then() {
    let world =
        world("issuers: [{issuer: HOME/a, private_network: true, bearer_token_file: token}]\n")
            .await;
    world.fake.set().bearer = Some("first".into());
    world.usual().await.unwrap();
    world.folder.file("token", "second");
    world.fake.set().bearer = Some("second".into());
    world.clock.advance(Duration::from_secs(601));
    world.usual().await.unwrap();
    assert_eq!(world.fake.set().shown.iter().flatten().last().unwrap(), "Bearer second");
    // Without it the cluster says 403, and nothing else is tried.
    world.clock.advance(Duration::from_secs(2 * 3600));
    std::fs::remove_file(world.folder.path().join("token")).unwrap();
    let shown = world.fake.set().shown.len();
    assert_eq!(
        fault(world.verify(&world.token(&world.fake, json!({"exp": NOW + 86_400}))).await),
        Fault::Bearer
    );
    assert_eq!(world.fake.set().shown.len(), shown);
}

#[tokio::test]
async fn neither_credential_nor_network_reach_another_origin_that_discovery_names() {
    let text = "issuers: [{issuer: HOME/a, private_network: true, bearer_token_file: token}]\n";
    let world = world(text).await;
    let elsewhere = format!("{}/jwks", world.other.issuer("a"));
    world.fake.set().jwks_uri = Some(elsewhere);
    // Loopback is no public address, so the other origin is not even connected to.
    assert_eq!(fault(world.usual().await), Fault::InsecureKeys);
    assert!(world.other.set().shown.is_empty());

    // Where private networks are open to all known issuers the keys come, but the credential stays
    // home.
    let file = world.oidc.inner.settings.issuers_file.clone();
    let settings =
        Settings { issuers_file: file, private_networks: PrivateNetworks::Known, ..settings() };
    let world = World { oidc: oidc(settings, &world.clock), ..world };
    world.usual().await.unwrap();
    assert_eq!(world.other.set().shown, [None]);
    assert_eq!(world.fake.set().shown.last().unwrap().as_deref(), Some("Bearer first"));
}

#[tokio::test]
async fn keys_at_a_given_address_need_no_discovery() {
    let text = "issuers: [{issuer: https://k8s.internal, jwks_uri: HOME/a/jwks, private_network: true, bearer_token_file: token}]\n";
    let world = world(text).await;
    world.fake.set().bearer = Some("first".into());
    world.verify(&world.token(&world.fake, json!({"iss": "https://k8s.internal"}))).await.unwrap();
    assert_eq!((world.fake.discoveries(), world.fake.set().key_fetches), (0, 1));
}

#[tokio::test]
async fn keys_that_are_written_down_are_all_there_are() {
    let jwks = json!({"keys": [KEYS.rsa.named("k1"), KEYS.other_rsa.with(json!({"kid": "k2", "exp": NOW + 60}))]});
    let world = world(&format!("issuers: [{{issuer: HOME/a, jwks: {jwks}}}]\n")).await;
    world.usual().await.unwrap();
    let by = |key: &str| {
        let claims = json!({"iss": world.fake.issuer("a").as_str(), "sub": "s", "exp": NOW + 3600})
            .to_string();
        KEYS.other_rsa.token(&json!({"alg": "RS256", "kid": key}), &claims)
    };
    assert!(
        world
            .oidc
            .verify_with_cached_keys(&world.oidc.read(&by("k2")).unwrap(), &owner())
            .await
            .is_some()
    );
    world.verify(&by("k2")).await.unwrap();
    // An id that is not among them may be in the file soon: it is read again every ten seconds.
    let unknown =
        Error::Unavailable { cause: Fault::UnknownKey, retry_after: Duration::from_secs(10) };
    assert_eq!(world.verify(&by("k3")).await.unwrap_err(), unknown);
    // A key that says when it ends is none from then on.
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(
        world.verify(&by("k2")).await.unwrap_err().reason(),
        crate::reason::Reason::SignatureInvalid
    );
    assert_eq!((world.fake.discoveries(), world.fake.set().key_fetches), (0, 0));
}

#[tokio::test]
async fn rules_are_asked_of_an_entrys_tokens_and_say_what_is_missing() {
    let rules = "max_lifetime: 2h, max_age: 10m, require_jti: true, require_claims: [kubernetes.io/pod], algorithms: [RS256, ES256]";
    let world =
        world(&format!("issuers: [{{issuer: HOME/a, private_network: true, {rules}}}]\n")).await;
    let pod = json!({"pod": {"name": "web"}});
    let good = json!({"jti": "j", "kubernetes.io": pod});
    world.verify(&world.token(&world.fake, good.clone())).await.unwrap();
    for (claim, value, unfit) in [
        ("kubernetes.io", json!({"namespace": "x"}), Unfit::Missing("kubernetes.io/pod".into())),
        ("jti", json!(null), Unfit::Missing("jti".into())),
        ("exp", json!(NOW + 7201), Unfit::LongLived("2h".into())),
        ("iat", json!(NOW - 601), Unfit::Old("10m".into())),
    ] {
        let mut claims = good.clone();
        claims[claim] = value;
        let token = world.token(&world.fake, claims);
        assert_eq!(world.verify(&token).await.unwrap_err(), Error::Unfit(unfit), "{claim}");
        // The keys that are held change nothing about it.
        assert!(
            world
                .oidc
                .verify_with_cached_keys(&world.oidc.read(&token).unwrap(), &owner())
                .await
                .is_none(),
            "{claim}"
        );
    }
}

#[tokio::test]
async fn rules_of_the_first_matching_pattern_count_where_no_entry_has_the_issuer_by_name() {
    let text = "issuers:
  - {issuer_pattern: 'http://127\\.0\\.0\\.1:[0-9]+/a', max_age: 1h}
  - {issuer_pattern: 'http://127\\.0\\.0\\.1:[0-9]+/[a-z]', require_jti: true}
  - {issuer: HOME/a, private_network: true}
";
    let world = world(text).await;
    let old = json!({"iat": NOW - 7200});
    world.verify(&world.token(&world.fake, old.clone())).await.unwrap();
    // A pattern makes nothing known; the gate's admission is needed, and then the rules are asked.
    let file = world.oidc.inner.settings.issuers_file.clone();
    let settings =
        Settings { issuers_file: file, private_networks: PrivateNetworks::All, ..settings() };
    let oidc = oidc(settings, &world.clock);
    let verify = async |changes: Value| {
        let token = oidc.read(&world.token(&world.other, changes)).unwrap();
        assert!(oidc.known(&token).unwrap().is_none());
        oidc.verify(&token, &Admission::by_gate(token.issuer(), &owner()))
            .await
            .map(|token| token.issuer_kind())
    };
    assert_eq!(verify(json!({})).await, Ok(IssuerKind::Admitted));
    assert_eq!(verify(old).await, Err(Error::Unfit(Unfit::Old("1h".into()))));
    let other_path = json!({"iss": world.other.issuer("b").as_str()});
    assert_eq!(verify(other_path).await, Err(Error::Unfit(Unfit::Missing("jti".into()))));
}

#[tokio::test]
async fn rules_of_a_pattern_are_asked_of_issuers_that_are_known_without_an_entry_too() {
    let world = world(
        "issuers: [{issuer_pattern: 'http://127\\.0\\.0\\.1:[0-9]+/a', require_jti: true}]\n",
    )
    .await;
    let file = world.oidc.inner.settings.issuers_file.clone();
    let configured = vec![world.fake.issuer("a")];
    let settings = Settings {
        issuers_file: file,
        configured,
        private_networks: PrivateNetworks::Known,
        ..settings()
    };
    let world = World { oidc: oidc(settings, &world.clock), ..world };
    assert_eq!(world.usual().await.unwrap_err(), Error::Unfit(Unfit::Missing("jti".into())));
    world.verify(&world.token(&world.fake, json!({"jti": "j"}))).await.unwrap();
}

#[tokio::test]
async fn only_listed_leaves_nobody_else() {
    let text = "issuers:
  - {issuer: HOME/a, private_network: true}
  - {issuer_pattern: 'https://[a-z]+\\.example\\.com'}
  - {issuer_pattern: 'https://gitlab\\.com'}
only_listed: true
";
    let world = world(text).await;
    world.usual().await.unwrap();
    let known = |issuer: &str| {
        let claims = json!({"iss": issuer}).to_string();
        let token = world.oidc.read(&KEYS.rsa.token(&json!({"alg": "RS256"}), &claims)).unwrap();
        world.oidc.known(&token).map(|admission| admission.is_some())
    };
    for issuer in [
        "https://accounts.google.com",
        "https://token.actions.githubusercontent.com",
        "https://a.example.org",
    ] {
        assert_eq!(known(issuer), Err(Error::NotListed), "{issuer}");
    }
    assert_eq!(known("https://a.example.com"), Ok(false));
    assert_eq!(known("https://gitlab.com"), Ok(true));
    // Not even by an admission of the gate.
    let token = world.oidc.read(&world.token(&world.other, json!({}))).unwrap();
    let answer = world.oidc.verify(&token, &Admission::by_gate(token.issuer(), &owner())).await;
    assert_eq!(answer.unwrap_err(), Error::NotListed);
    assert!(world.oidc.verify_with_cached_keys(&token, &owner()).await.is_none());
    assert_eq!(world.other.discoveries(), 0);
}

#[tokio::test]
async fn an_entry_for_a_built_in_issuer_keeps_its_kind() {
    let jwks = json!({"keys": [KEYS.rsa.named("k1")]});
    let world =
        world(&format!("issuers: [{{issuer: 'https://accounts.google.com', jwks: {jwks}}}]\n"))
            .await;
    let token = world.token(&world.fake, json!({"iss": "https://accounts.google.com"}));
    assert_eq!(world.verify(&token).await.unwrap().issuer_kind(), IssuerKind::BuiltIn);
}

/// Follows the file by itself, and waits until it has looked at it once more.
struct Follower {
    task: tokio::task::JoinHandle<()>,
}

impl Follower {
    fn of(world: &World) -> Self {
        Self { task: tokio::spawn(world.oidc.clone().reload_issuers_file()) }
    }

    async fn until(&self, world: &World, what: impl AsyncFn() -> bool) {
        let wait = async {
            while !what().await {
                world.clock.advance(Duration::from_secs(10));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the file is followed");
        assert!(!self.task.is_finished());
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_changed_file_is_taken_up_and_a_mistake_leaves_the_old_set() {
    let world = world("issuers: [{issuer: HOME/a, private_network: true}]\n").await;
    let follower = Follower::of(&world);
    let is_known = |fake: &Fake| {
        let token = world.token(fake, json!({"exp": NOW + 86_400}));
        world.oidc.known(&world.oidc.read(&token).unwrap()).unwrap().is_some()
    };
    world.usual().await.unwrap();
    world.write("issuers: [{issuer: HOME/a, private_network: true}, {issuer: OTHER/a, private_network: true}]\n");
    follower.until(&world, async || is_known(&world.other)).await;
    // Of the entry that stayed the same the keys are still held.
    let discoveries = world.fake.discoveries();
    assert_eq!(discoveries, 1);
    let token = world.oidc.read(&world.token(&world.fake, json!({}))).unwrap();
    assert!(world.oidc.verify_with_cached_keys(&token, &owner()).await.is_some());

    // One error anywhere, and nothing of the file is used.
    world.write("issuers: [{issuer: OTHER/a, private_network: true}, {issuer: HOME/a, privat_network: true}]\n");
    let looks = world.clock.now();
    follower
        .until(&world, async || world.clock.now().since(looks) > Duration::from_secs(100))
        .await;
    assert!(is_known(&world.fake) && is_known(&world.other));

    world.write("issuers: [{issuer: OTHER/a, private_network: true}]\n");
    follower.until(&world, async || !is_known(&world.fake)).await;
    assert!(is_known(&world.other));
}

#[tokio::test]
async fn an_entry_that_has_changed_counts_as_it_is_now() {
    let entry = |key: &Value, more: &str| {
        format!("issuers: [{{issuer: HOME/a, jwks: {}{more}}}]\n", json!({"keys": [key]}))
    };
    let world = world(&entry(&KEYS.rsa.named("k1"), "")).await;
    let replace = |text: &str| {
        world.write(text);
        let (file, _) = world.oidc.inner.settings.issuers_file.clone().unwrap();
        world.oidc.inner.issuers.replace(&world.oidc.inner.settings, Some(&file.load().unwrap()));
    };
    world.usual().await.unwrap();
    replace(&entry(&KEYS.rsa.named("k1"), ", require_jti: true"));
    assert_eq!(world.usual().await.unwrap_err(), Error::Unfit(Unfit::Missing("jti".into())));
    replace(&entry(&KEYS.other_rsa.named("k1"), ""));
    assert_eq!(world.usual().await.unwrap_err().reason(), crate::reason::Reason::SignatureInvalid);
}

#[tokio::test]
async fn an_issuer_that_is_struck_off_is_a_stranger_even_for_a_call_under_way() {
    let world = world("issuers: [{issuer: HOME/a, private_network: true}]\n").await;
    let token = world.oidc.read(&world.token(&world.fake, json!({}))).unwrap();
    let admission = world.oidc.known(&token).unwrap().unwrap();
    let only = "issuers: [{issuer: OTHER/a, private_network: true}]\n";
    world.write(only);
    let (file, _) = world.oidc.inner.settings.issuers_file.clone().unwrap();
    world.oidc.inner.issuers.replace(&world.oidc.inner.settings, Some(&file.load().unwrap()));
    // It was known when it was admitted: its own keys and rules apply until the end, not those of an unknown issuer.
    world.oidc.verify(&token, &admission).await.unwrap();
    assert!(world.oidc.known(&token).unwrap().is_none());
    assert!(world.oidc.verify_with_cached_keys(&token, &owner()).await.is_none());
}
