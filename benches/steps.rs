//! What each step of an exchange costs by itself: verify a token with cached keys, compile a
//! policy, evaluate it. `cargo bench --bench steps`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark ends where something is not as it should be"
)]

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt;
use octo_sts::{
    clock::{Clock, ManualClock, SystemClock, UnixTime},
    egress::Egress,
    emulator::{Alg, Issuer, claims},
    oidc::{IssuersFile, Oidc, Pod, PrivateNetworks, Settings, VerifiedToken},
    policy::{Context, Policy, PolicyKind, Rules},
};
use serde_json::json;
use tokio::runtime::Runtime;

const POLICY: &str = r#"
issuer: ISSUER
subject_pattern: repo:octo-org/hello:ref:refs/heads/(main|release-[0-9]+)
claim_pattern:
  job_workflow_ref: octo-org/hello/\.github/workflows/.*@refs/heads/main
  repository_owner: octo-org
permissions:
  contents: read
  issues: write
"#;

/// A verifier with the issuer's keys cached, a token of each algorithm, and the first one verified.
async fn prepare() -> (Issuer, Oidc, Vec<(&'static str, String)>, VerifiedToken) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let issuer = Issuer::start(Arc::clone(&clock)).await.unwrap();
    let egress = Egress::new(Default::default()).unwrap();
    let settings = Settings {
        private_networks: PrivateNetworks::Known,
        ..Settings::new(issuer.url().parse().unwrap())
    };
    let oidc = Oidc::new(settings, egress, clock);
    let mut claims = claims::github_actions("octo-org", "hello", "refs/heads/main");
    claims["aud"] = json!("sts.example.com");
    let mut tokens = Vec::new();
    for alg in [Alg::Rs256, Alg::Es256, Alg::EdDsa] {
        issuer.rotate(alg);
        tokens.push((alg.name(), issuer.sign(&claims)));
    }
    let token = oidc.read(&tokens[0].1).unwrap();
    let verified = oidc.verify(&token, &oidc.known(&token).unwrap().unwrap()).await.unwrap();
    (issuer, oidc, tokens, verified)
}

/// Verifies a token with the cached keys. Where that takes longest, it runs on another thread.
fn verify(oidc: &Oidc, token: &str) {
    let token = oidc.read(token).unwrap();
    let owner = "octo-org".parse().unwrap();
    let verification = oidc.verify_with_cached_keys(&token, &owner);
    assert!(verification.now_or_never().is_none_or(|verified| verified.is_some()));
}

/// When the recorded tokens of a real API server were good.
const RECORDED: i64 = 1_795_301_421;

/// A verifier by an issuers file, with the keys of a real API server and rules for its tokens.
fn cluster() -> Oidc {
    let folder = std::env::temp_dir().join(format!("octo-sts-bench-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    let file = IssuersFile {
        path: folder.join("issuers.yaml"),
        pod: Pod { api_server: None, folder: folder.clone() },
        plain_http: false,
    };
    let keys = include_str!("../tests/fixtures/kubernetes/jwks.json");
    let entry = format!(
        "{{issuer: 'https://127.0.0.1:6444', jwks: {keys}, max_lifetime: 1h, require_claims: [kubernetes.io/namespace]}}"
    );
    std::fs::write(&file.path, format!("issuers: [{entry}]\n")).unwrap();
    let listed = file.load().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    let settings = Settings {
        issuers_file: Some((file, listed)),
        ..Settings::new("https://token.actions.githubusercontent.com".parse().unwrap())
    };
    let clock = ManualClock::at(UnixTime::from_secs(RECORDED));
    Oidc::new(settings, Egress::new(Default::default()).unwrap(), Arc::new(clock))
}

/// Service accounts' tokens as a cluster made them: how many a second one core verifies.
fn pods(criterion: &mut Criterion) {
    let oidc = cluster();
    let mut group = criterion.benchmark_group("verify a service account's token");
    group.throughput(Throughput::Elements(1));
    for (name, reply) in [
        (
            "RS256, bound to a pod",
            include_str!("../tests/fixtures/kubernetes/tokenrequest_rs256_podbound_2aud.json"),
        ),
        ("ES256", include_str!("../tests/fixtures/kubernetes/tokenrequest_es256_aud.json")),
    ] {
        let reply: serde_json::Value = serde_json::from_str(reply).unwrap();
        let token = reply["status"]["token"].as_str().unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| verify(&oidc, black_box(token)));
        });
    }
    group.finish();
}

fn steps(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let (issuer, oidc, tokens, verified) = runtime.block_on(prepare());
    for (name, token) in &tokens {
        criterion.bench_function(&format!("verify {name}"), |bencher| {
            bencher.iter(|| verify(&oidc, black_box(token)));
        });
    }
    let text = POLICY.replace("ISSUER", &issuer.url());
    let rules = Rules::default();
    criterion.bench_function("compile a policy", |bencher| {
        bencher.iter(|| {
            Policy::parse(black_box(text.as_bytes()), PolicyKind::Repository, &rules).unwrap()
        });
    });
    let policy = Policy::parse(text.as_bytes(), PolicyKind::Repository, &rules).unwrap();
    let (scope, policy_repo) = ("octo-org/hello".parse().unwrap(), ".github".parse().unwrap());
    let asked = Context {
        scope: &scope,
        domain: "sts.example.com",
        github_host: "github.com",
        policy_repo: &policy_repo,
    };
    criterion.bench_function("evaluate a policy", |bencher| {
        bencher.iter(|| policy.evaluate(black_box(&verified), &asked).unwrap());
    });
}

criterion_group!(benches, steps, pods);
criterion_main!(benches);
