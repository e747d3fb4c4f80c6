//! Kubernetes: tokens as a real API server made them, a cluster that keeps its keys to itself, and
//! what the issuers file makes of it all, on both wires.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use octo_sts::{
    clock::UnixTime,
    egress::Resolve,
    emulator::{Selection, Visibility, claims},
    oidc::{IssuersFile, Pod, PrivateNetworks},
    proto::octosts::v1::KubernetesIdentity,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{APP_PERMISSIONS, Ask, Folder, Setup, World, tls};

/// When the recorded tokens were good: the first second of the ES256 one.
const RECORDED: i64 = 1_795_301_421;
const RS256: &str = include_str!("../fixtures/kubernetes/tokenrequest_rs256_aud.json");
const ES256: &str = include_str!("../fixtures/kubernetes/tokenrequest_es256_aud.json");
const POD_BOUND: &str =
    include_str!("../fixtures/kubernetes/tokenrequest_rs256_podbound_2aud.json");
const DEFAULT_AUDIENCE: &str =
    include_str!("../fixtures/kubernetes/tokenrequest_rs256_defaultaud.json");
const JWKS: &str = include_str!("../fixtures/kubernetes/jwks.json");
const ANONYMOUS: &str = include_str!("../fixtures/kubernetes/jwks_anonymous_403.json");

/// Of whom the recorded tokens speak.
const POLICY: &str = "issuer: https://127.0.0.1:6444\nsubject: system:serviceaccount:default:builder\n\
                      audience: octo-sts\npermissions: {issues: write}\n";

/// The token of a recorded TokenRequest.
fn recorded(reply: &str) -> String {
    let reply: Value = serde_json::from_str(reply).unwrap();
    reply["status"]["token"].as_str().unwrap().to_owned()
}

/// A setup in which only public networks may be asked, but for what the issuers file says.
async fn setup(folder: &Folder, file: &str) -> Setup {
    let mut setup = Setup::new().await;
    setup.settings.oidc.private_networks = PrivateNetworks::Blocked;
    let pod = Pod { api_server: None, folder: folder.path().to_owned() };
    let text = file.replace("${ISSUER}", &setup.issuer.url());
    let file =
        IssuersFile { path: folder.file("issuers.yaml", &text).into(), pod, plain_http: false };
    let listed = file.load().unwrap();
    setup.settings.oidc.issuers_file = Some((file, listed));
    setup
}

/// As an API server answers for its keys: not to unauthenticated callers.
#[derive(Clone, Default)]
struct ApiServer {
    /// Who was refused, and who was answered.
    asked: Arc<Mutex<Vec<(String, bool)>>>,
}

impl ApiServer {
    async fn answer(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let may = request
            .headers()
            .get("authorization")
            .is_some_and(|shown| shown == "Bearer the-servers-own");
        self.asked.lock().unwrap().push((request.uri().path().to_owned(), may));
        let (status, body) =
            if may { (StatusCode::OK, JWKS) } else { (StatusCode::FORBIDDEN, ANONYMOUS) };
        let reply =
            Response::builder().status(status).header("content-type", "application/jwk-set+json");
        let reply = reply.header("cache-control", "public, max-age=3600");
        reply.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
    }

    /// Serves, and puts the CA beside the other files.
    async fn start(folder: &Folder) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (config, root) = tls::certificate(&["api.internal"]);
        folder.file("ca.crt", &root);
        let (server, address) = (Self::default(), listener.local_addr().unwrap());
        let answering = server.clone();
        tokio::spawn(tls::serve(listener, config, move |request| {
            answering.clone().answer(request)
        }));
        (server, format!("https://api.internal:{}/openid/v1/jwks", address.port()))
    }
}

/// The name servers of a closed network, in which every name is private.
struct ToLoopback;

impl Resolve for ToLoopback {
    fn resolve(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }
}

async fn reason(world: &World, identity: &str, token: &str) -> String {
    let checked = world.check("octo-org/hello", identity, token).await;
    let outcome = world.exchange("octo-org/hello", identity, token).await;
    checked.assert_agrees(&outcome.rest);
    outcome.reason().to_owned()
}

#[tokio::test]
async fn tokens_of_a_real_cluster_are_verified_with_keys_that_are_written_down() {
    let folder = Folder::new();
    folder.file("keys.json", JWKS);
    let setup =
        setup(&folder, "issuers: [{issuer: 'https://127.0.0.1:6444', jwks_file: keys.json}]\n")
            .await;
    setup.clock.set(UnixTime::from_secs(RECORDED));
    setup.policy("hello", "builder", POLICY);
    setup.policy(
        "hello",
        "bound",
        &POLICY.replace("permissions", "claim_pattern: {kubernetes.io/pod/name: p1}\npermissions"),
    );
    setup.policy(
        "hello",
        "es",
        &POLICY.replace(":builder", ":[b]uilder").replace("subject:", "subject_pattern:"),
    );
    let world = setup.start().await;
    for token in [RS256, ES256, POD_BOUND] {
        assert_eq!(reason(&world, "builder", &recorded(token)).await, "");
    }
    assert_eq!(reason(&world, "es", &recorded(ES256)).await, "");
    assert_eq!(reason(&world, "bound", &recorded(POD_BOUND)).await, "");
    let issued = world.issued().len();
    assert_eq!(reason(&world, "bound", &recorded(RS256)).await, "POLICY_MISMATCH");
    // One that the cluster made for itself is not for us.
    let answer = world.exchange("octo-org/hello", "builder", &recorded(DEFAULT_AUDIENCE)).await;
    assert_eq!(
        (answer.reason(), &answer.rest.failed[..]),
        ("POLICY_MISMATCH", &["audience".to_owned()][..])
    );
    // An hour and the leeway later it is over.
    world.clock.set(UnixTime::from_secs(RECORDED + 3600 + 30));
    assert_eq!(reason(&world, "builder", &recorded(ES256)).await, "TOKEN_EXPIRED");
    assert_eq!(world.issued().len(), issued);
}

#[tokio::test]
async fn keys_behind_authentication_and_a_ca_of_its_own_are_fetched_by_the_entrys_means() {
    let folder = Folder::new();
    let (server, keys) = ApiServer::start(&folder).await;
    folder.file("token", "the-servers-own\n");
    let entry = |more: &str| {
        format!("issuers: [{{issuer: 'https://127.0.0.1:6444', jwks_uri: '{keys}'{more}}}]\n")
    };
    for (more, wanted) in [
        (", ca_file: ca.crt, bearer_token_file: token, private_network: true", ""),
        (", bearer_token_file: token, private_network: true", "ISSUER_UNAVAILABLE"),
        (", ca_file: ca.crt, private_network: true", "ISSUER_MISCONFIGURED"),
        (", ca_file: ca.crt, bearer_token_file: token", "ISSUER_MISCONFIGURED"),
    ] {
        let mut setup = setup(&folder, &entry(more)).await;
        setup.settings.egress.resolver = Some(Arc::new(ToLoopback));
        setup.clock.set(UnixTime::from_secs(RECORDED));
        setup.policy("hello", "builder", POLICY);
        let world = setup.start().await;
        assert_eq!(reason(&world, "builder", &recorded(RS256)).await, wanted, "{more}");
        assert_eq!(world.issued().is_empty(), !wanted.is_empty());
    }
    // Fetched once for all that asked; refused for want of the token; else not even connected to.
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        [("/openid/v1/jwks".to_owned(), true), ("/openid/v1/jwks".to_owned(), false)]
    );
}

#[tokio::test]
async fn an_issuer_can_have_its_own_replay_protection() {
    let folder = Folder::new();
    folder.file("keys.json", JWKS);
    let entry =
        "issuers: [{issuer: 'https://127.0.0.1:6444', jwks_file: keys.json, replay: enforce}]\n";
    let setup = setup(&folder, entry).await;
    setup.clock.set(UnixTime::from_secs(RECORDED));
    setup.policy("hello", "builder", POLICY);
    let world = setup.start().await;
    let ask = Ask::new("octo-org/hello", "builder", &recorded(POD_BOUND));
    assert_eq!(world.client.rest(&ask).await.reason, "");
    assert_eq!(world.client.grpc(&ask).await.reason, "TOKEN_REPLAYED");
    assert_eq!(world.issued().len(), 1);
}

#[tokio::test]
async fn a_token_without_a_pod_is_refused_where_the_entry_asks_for_one_and_says_so() {
    let folder = Folder::new();
    folder.file("keys.json", JWKS);
    let entry = "issuers: [{issuer: 'https://127.0.0.1:6444', jwks_file: keys.json, require_claims: [kubernetes.io/pod], \
                 max_lifetime: 1h}]\n";
    let setup = setup(&folder, entry).await;
    setup.clock.set(UnixTime::from_secs(RECORDED));
    setup.policy("hello", "builder", POLICY);
    let world = setup.start().await;
    assert_eq!(reason(&world, "builder", &recorded(POD_BOUND)).await, "");
    let issued = world.issued().len();
    let outcome = world.exchange("octo-org/hello", "builder", &recorded(RS256)).await;
    assert_eq!((outcome.rest.code, outcome.reason()), (16, "TOKEN_CLAIMS_INVALID"));
    let told = "the token does not meet the rules for its issuer: `kubernetes.io/pod` is missing";
    assert_eq!((outcome.rest.message.as_str(), outcome.grpc.message.as_str()), (told, told));
    assert_eq!(world.issued().len(), issued);
}

/// A pod's claims for this server, of the emulated issuer.
fn pod(world: &World) -> Value {
    let mut pod = claims::kubernetes("production", "deployer");
    pod["iss"] = json!(world.issuer.url());
    pod["aud"] = json!(["https://github.com/octo-org/hello"]);
    pod["kubernetes.io"]["pod"] = json!({"name": "web-1", "uid": "u"});
    pod["kubernetes.io"]["node"] = json!({"name": "node-a", "uid": "u"});
    pod
}

const CLUSTER: &str = "issuers: [{issuer: '${ISSUER}', private_network: true}]\n";

/// A setup whose issuer is a cluster's and no longer that of GitHub Actions.
async fn cluster(folder: &Folder, file: &str) -> Setup {
    let mut setup = setup(folder, file).await;
    setup.settings.oidc.actions_issuer =
        "https://token.actions.githubusercontent.com".parse().unwrap();
    setup.exchange().github_host = "github.com".into();
    setup
}

#[tokio::test]
async fn a_refusal_a_check_and_the_record_say_which_workload_it_was() {
    let folder = Folder::new();
    let setup = cluster(&folder, CLUSTER).await;
    let policy = "issuer: ${ISSUER}\nsubject: system:serviceaccount:staging:deployer\npermissions: {issues: write}\n";
    setup.policy("hello", "staging", policy);
    setup.policy("hello", "production", &policy.replace("staging", "production"));
    let world = setup.start().await;
    let token = world.issuer.sign(&pod(&world));
    let workload = KubernetesIdentity {
        namespace: "production".into(),
        service_account: "deployer".into(),
        pod: "web-1".into(),
        node: "node-a".into(),
    };
    for (identity, granted) in [("staging", false), ("production", true)] {
        let checked = world.check("octo-org/hello", identity, &token).await;
        assert_eq!(
            (checked.reply().granted, checked.reply().kubernetes.as_ref()),
            (granted, Some(&workload))
        );
    }
    let refused = world.exchange("octo-org/hello", "staging", &token).await;
    let subject =
        refused.rest.conditions.iter().find(|condition| condition.field == "subject").unwrap();
    let hint = "the service account is that of another namespace: `production`, not `staging`";
    assert_eq!(subject.hint.as_deref(), Some(hint));
    let authorization = format!("Bearer {token}");
    let path = "/sts/exchange?scope=octo-org/hello&identity=staging";
    let reply =
        world.client.send(http::Method::GET, path, &[("authorization", &authorization)], "").await;
    let metadata = json!({
        "failed": "subject",
        "kubernetes_namespace": "production",
        "kubernetes_service_account": "deployer",
        "kubernetes_pod": "web-1",
        "kubernetes_node": "node-a",
    });
    assert_eq!(reply.json()["details"][0]["metadata"], metadata);
    world.usual().await;
    let record =
        world.audit.find(|record| record["verified"] == true && record["result"] == "denied").await;
    let names = json!({"namespace": "production", "service_account": "deployer", "pod": "web-1", "node": "node-a"});
    assert_eq!(record["kubernetes"], names);
}

#[tokio::test]
async fn hints_tell_of_audiences_and_claims_that_are_not_quite_right() {
    let folder = Folder::new();
    let setup = cluster(&folder, CLUSTER).await;
    let policy = "issuer: ${ISSUER}\nsubject_pattern: .*\nclaim_pattern: {kubernetes.io.namespace: production}\npermissions: {issues: write}\n";
    setup.policy("hello", "dotted", policy);
    let world = setup.start().await;
    let mut claims = pod(&world);
    claims["aud"] = json!(["https://kubernetes.default.svc"]);
    let refused = world.exchange("octo-org/hello", "dotted", &world.issuer.sign(&claims)).await;
    let hint = |field: &str| {
        refused
            .rest
            .conditions
            .iter()
            .find(|condition| condition.field == field)
            .unwrap()
            .hint
            .clone()
    };
    assert!(
        hint("audience")
            .unwrap()
            .contains("project the token with the audience `https://github.com/octo-org/hello`")
    );
    assert!(
        hint("claim_pattern.kubernetes.io.namespace")
            .unwrap()
            .contains("did you mean `kubernetes.io/namespace`?")
    );
    assert!(world.issued().is_empty());
}

#[tokio::test]
async fn only_listed_issuers_are_asked_and_others_learn_nothing_of_it() {
    let folder = Folder::new();
    let setup = cluster(
        &folder,
        &format!("{}only_listed: true\n", CLUSTER.replace("${ISSUER}", "${ISSUER}/listed")),
    )
    .await;
    let (listed, other) = (setup.issuer.at("/listed"), setup.issuer.at("/other"));
    for issuer in [&listed, &other] {
        let policy =
            format!("issuer: {}\nsubject: s\npermissions: {{issues: write}}\n", issuer.url());
        setup.policy("hello", issuer.url().rsplit('/').next().unwrap(), &policy);
    }
    setup.github.org("empty");
    setup.github.repo("empty", ".github", Visibility::Public);
    setup.github.install(setup.app, "empty", &Selection::All, APP_PERMISSIONS);
    let world = setup.start().await;
    let token = |issuer: &octo_sts::emulator::Issuer| {
        issuer.sign(&json!({"iss": issuer.url(), "sub": "s", "aud": ["sts.example.com"]}))
    };
    assert_eq!(reason(&world, "listed", &token(&listed)).await, "");
    let (issued, calls) = (world.issued().len(), world.calls());
    // Whatever is asked for, and whatever exists.
    let mut answers = Vec::new();
    for (scope, identity) in
        [("octo-org/hello", "other"), ("octo-org/hello", "none"), ("empty/x", "x"), ("nobody", "x")]
    {
        let outcome = world.client.exchange(&Ask::new(scope, identity, &token(&other))).await;
        assert_eq!((outcome.rest.code, outcome.reason()), (16, "ISSUER_NOT_TRUSTED"));
        answers.push(outcome.rest.shared());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    assert_eq!(
        (world.issued().len(), world.calls()),
        (issued, calls),
        "nothing is looked up for them"
    );
    let record = world.audit.find(|record| record["reason"] == "ISSUER_NOT_TRUSTED").await;
    assert_eq!(record["cause"], "the issuers file does not list the issuer");
}

#[tokio::test]
async fn rules_of_a_pattern_are_asked_of_a_stranger_once_its_signature_is_verified() {
    let folder = Folder::new();
    let file = "issuers: [{issuer_pattern: 'http://127\\.0\\.0\\.1:[0-9]+/x', require_claims: [kubernetes.io/pod]}]\n";
    let mut setup = cluster(&folder, file).await;
    setup.settings.oidc.private_networks = PrivateNetworks::All;
    let (issuer, forger) = (setup.issuer.at("/x"), setup.issuer.at("/y"));
    setup.policy(
        "hello",
        "x",
        &format!("issuer: {}\nsubject: s\npermissions: {{issues: write}}\n", issuer.url()),
    );
    let world = setup.start().await;
    let claims = json!({"iss": issuer.url(), "sub": "s", "aud": ["sts.example.com"]});
    assert_eq!(reason(&world, "x", &forger.sign(&claims)).await, "ISSUER_NOT_TRUSTED");
    assert_eq!(reason(&world, "x", &issuer.sign(&claims)).await, "TOKEN_CLAIMS_INVALID");
    assert!(world.issued().is_empty());
    let mut bound = claims.clone();
    bound["kubernetes.io"] = json!({"namespace": "n", "pod": {"name": "p"}});
    assert_eq!(reason(&world, "x", &issuer.sign(&bound)).await, "");
}

#[tokio::test]
async fn a_running_server_takes_up_a_changed_file() {
    let folder = Folder::new();
    let setup = cluster(&folder, &CLUSTER.replace("${ISSUER}", "${ISSUER}/old")).await;
    let (old, new) = (setup.issuer.at("/old"), setup.issuer.at("/new"));
    for (name, issuer) in [("old", &old), ("new", &new)] {
        let policy =
            format!("issuer: {}\nsubject: s\npermissions: {{issues: write}}\n", issuer.url());
        setup.policy("hello", name, &policy);
    }
    let world = setup.start().await;
    // One call at a time: between two the file may have been taken up.
    let ask = async |name: &str, issuer: &octo_sts::emulator::Issuer| {
        let token =
            issuer.sign(&json!({"iss": issuer.url(), "sub": "s", "aud": ["sts.example.com"]}));
        world.client.rest(&Ask::new("octo-org/hello", name, &token)).await.reason
    };
    assert_eq!(ask("old", &old).await, "");
    assert_eq!(ask("new", &new).await, "ISSUER_NOT_TRUSTED");
    folder.file("issuers.yaml", &CLUSTER.replace("${ISSUER}", &new.url()));
    let wait = async {
        while !ask("new", &new).await.is_empty() {
            world.clock.advance(std::time::Duration::from_secs(10));
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait)
        .await
        .expect("the file is looked at");
    assert_eq!(ask("old", &old).await, "ISSUER_NOT_TRUSTED");
}
