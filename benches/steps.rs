//! What each step of an exchange costs by itself: verify a token under held keys, compile a policy,
//! evaluate it. `cargo bench --bench steps`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark ends where something is not as it should be"
)]

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use octo_sts::{
    clock::{Clock, SystemClock},
    egress::Egress,
    emulator::{Alg, Issuer, claims},
    oidc::{Oidc, PrivateNetworks, Settings, VerifiedToken},
    policy::{Asked, Kind, Policy, Rules},
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

/// A verifier that holds the issuer's keys, a token of each algorithm, and the first one verified.
async fn prepare() -> (Issuer, Oidc, Vec<(&'static str, String)>, VerifiedToken) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let issuer = Issuer::start(Arc::clone(&clock)).await.unwrap();
    let egress = Egress::new(Default::default()).unwrap();
    let settings =
        Settings { private_networks: PrivateNetworks::Known, ..Settings::new(issuer.url().parse().unwrap()) };
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

fn steps(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let (issuer, oidc, tokens, verified) = runtime.block_on(prepare());
    for (name, token) in &tokens {
        criterion.bench_function(&format!("verify {name}"), |bencher| {
            bencher.iter(|| oidc.verify_with_held_keys(&oidc.read(black_box(token)).unwrap()).unwrap());
        });
    }
    let text = POLICY.replace("ISSUER", &issuer.url());
    let rules = Rules::default();
    criterion.bench_function("compile a policy", |bencher| {
        bencher.iter(|| Policy::parse(black_box(text.as_bytes()), Kind::Repository, &rules).unwrap());
    });
    let policy = Policy::parse(text.as_bytes(), Kind::Repository, &rules).unwrap();
    let (scope, policy_repo) = ("octo-org/hello".parse().unwrap(), ".github".parse().unwrap());
    let asked =
        Asked { scope: &scope, domain: "sts.example.com", github_host: "github.com", policy_repo: &policy_repo };
    criterion.bench_function("evaluate a policy", |bencher| {
        bencher.iter(|| policy.evaluate(black_box(&verified), &asked).unwrap());
    });
}

criterion_group!(benches, steps);
criterion_main!(benches);
