//! The published guides' examples as they stand: policies under their real issuers, the `curl`
//! line, and the claims that clusters put into their tokens.
//!
//! The issuers are real in name only. A resolver leads their names to a server of this test that
//! has a certificate for them, so tokens with the very `iss` of the guides are verified over TLS.

use std::{
    collections::BTreeSet, future, io, net::IpAddr, path::PathBuf, process::Command, sync::Arc,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use octo_sts::{
    egress::Resolve,
    emulator::{Issuer, Selection, Visibility, claims},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{APP_PERMISSIONS, DOMAIN, Folder, Setup, World, tls};

/// An address of this machine that nothing else of it uses.
const FRONT: [u8; 4] = [127, 86, 101, 5];

const ACTIONS: &str = "https://token.actions.githubusercontent.com";
const GOOGLE: &str = "https://accounts.google.com";
const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";
const GKE: &str = "https://container.googleapis.com/v1/projects/PROJECT_ID/locations/us-east-1/clusters/CLUSTER_NAME";
const EKS: &str = "https://oidc.eks.us-east-1.amazonaws.com/id/CLUSTER_ID";
const AKS: &str = "https://oidc.azure.com/TENANT_ID/";
const HOSTS: [&str; 6] = [
    "token.actions.githubusercontent.com",
    "accounts.google.com",
    "kubernetes.default.svc.cluster.local",
    "container.googleapis.com",
    "oidc.eks.us-east-1.amazonaws.com",
    "oidc.azure.com",
];

/// Every name leads to the front.
struct ToFront;

impl Resolve for ToFront {
    fn resolve(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![FRONT.into()]) })
    }
}

/// What an issuer at this host and path publishes; the keys are `issuer`'s.
fn publish(issuer: &Issuer, host: &str, path: &str) -> Value {
    match path.strip_suffix(".well-known/openid-configuration") {
        Some(base) => {
            let slash = AKS.strip_prefix("https://") == Some(&format!("{host}{base}"));
            let base = if slash { base } else { base.trim_end_matches('/') };
            json!({"issuer": format!("https://{host}{base}"), "jwks_uri": format!("https://{host}/keys")})
        }
        None => issuer.jwks(),
    }
}

/// The issuers' documents, by the host and path that are asked.
fn answer(issuer: &Issuer, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
    let host = host.or_else(|| request.uri().host().map(str::to_owned)).unwrap();
    let document = publish(issuer, &host, request.uri().path());
    Response::new(Full::new(Bytes::from(document.to_string())))
}

/// A policy of the guides, as it stands but for the region: a host has no capitals.
fn published(name: &str) -> String {
    let file = format!("{name}.sts.yaml");
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests/corpus/seed-policies", &file].iter().collect();
    std::fs::read_to_string(path).unwrap().replace("REGION", "us-east-1")
}

/// The names of all those policies.
fn all_published() -> BTreeSet<String> {
    let folder: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests/corpus/seed-policies"].iter().collect();
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap());
    files.map(|file| file.strip_suffix(".sts.yaml").unwrap().to_owned()).collect()
}

/// A server for `your-org/your-repo`, with every policy of the guides, and the issuers that they
/// name. `None` where port 443 cannot be had.
async fn guides() -> Option<World> {
    let listener = match TcpListener::bind((IpAddr::from(FRONT), 443)).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("skipped, needs port 443 of {}: {error}", IpAddr::from(FRONT));
            return None;
        }
    };
    let mut setup = Setup::new().await;
    setup.github.org("your-org");
    setup.github.repo("your-org", "your-repo", Visibility::Private);
    setup.github.repo("your-org", ".github", Visibility::Public);
    setup.github.install(setup.app, "your-org", &Selection::All, APP_PERMISSIONS);
    for name in all_published() {
        let path = format!(".github/chainguard/{name}.sts.yaml");
        setup.github.put_file("your-org", "your-repo", &path, &published(&name));
    }
    let (config, root) = tls::certificate(&HOSTS);
    let issuer = setup.issuer.clone();
    tokio::spawn(tls::serve(listener, config, move |request| {
        future::ready(answer(&issuer, &request))
    }));
    let folder = Folder::new();
    setup.settings.egress.resolver = Some(Arc::new(ToFront));
    setup.settings.egress.ca_files = vec![folder.file("root.pem", &root).into()];
    setup.settings.oidc.actions_issuer = ACTIONS.parse().unwrap();
    setup.exchange().github_host = "github.com".into();
    Some(setup.start().await)
}

const SCOPE: &str = "your-org/your-repo";

/// The claims of a pod's token as the guides show them.
fn pod(issuer: &str, namespace: &str, account: &str) -> Value {
    let mut claims = claims::kubernetes(namespace, account);
    claims["iss"] = json!(issuer);
    claims["aud"] = json!(["https://github.com/your-org/your-repo"]);
    claims
}

fn workflow(reference: &str) -> Value {
    let mut claims = claims::github_actions("chainguard-dev", "foo", reference);
    claims["iss"] = json!(ACTIONS);
    claims["aud"] = json!(DOMAIN);
    claims
}

fn person(email: &str) -> Value {
    json!({"iss": GOOGLE, "aud": DOMAIN, "sub": "110169484474386276334", "email": email, "email_verified": true})
}

/// The pod of the guide's `production-` pattern: its account is named in `default`, and its
/// namespace is not.
fn of_namespace(namespace: &str) -> Value {
    let mut claims = pod(CLUSTER, "default", "github-automation");
    claims["kubernetes.io"]["namespace"] = json!(namespace);
    claims
}

/// Each policy with a token that satisfies it and one that does not, and what the token may do.
fn examples() -> Vec<(&'static str, Value, Value, Value)> {
    let cluster = |namespace: &str, account: &str| pod(CLUSTER, namespace, account);
    let named = |issuer| pod(issuer, "NAMESPACE", "SERVICE_ACCOUNT_NAME");
    let read = json!({"contents": "read"});
    vec![
        (
            "actions",
            workflow("refs/heads/main"),
            workflow("refs/heads/other"),
            json!({"contents": "read", "issues": "write"}),
        ),
        (
            "google",
            person("a@chainguard.dev"),
            person("a@chainguard.dev.evil.example"),
            read.clone(),
        ),
        (
            "k8s-automation",
            cluster("default", "github-automation"),
            cluster("other", "github-automation"),
            json!({"contents": "read", "issues": "write", "pull_requests": "write"}),
        ),
        (
            "gitops",
            cluster("gitops-system", "controller"),
            cluster("default", "controller"),
            json!({"contents": "write", "statuses": "write"}),
        ),
        (
            "pipeline",
            cluster("pipeline", "trigger"),
            cluster("pipeline", "other"),
            json!({"contents": "write", "pull_requests": "write"}),
        ),
        (
            "any-namespace",
            cluster("staging", "github-automation"),
            cluster("staging", "other"),
            read.clone(),
        ),
        (
            "namespace-claim",
            of_namespace("production-eu"),
            of_namespace("production"),
            json!({"contents": "write"}),
        ),
        ("gke", named(GKE), pod(GKE, "NAMESPACE", "other"), read.clone()),
        ("eks", named(EKS), pod(EKS, "NAMESPACE", "other"), read.clone()),
        ("aks", named(AKS), pod(AKS, "NAMESPACE", "other"), read),
    ]
}

#[tokio::test]
async fn the_guides_work_as_they_stand() {
    let Some(world) = guides().await else { return };
    for (policy, good, bad, permissions) in examples() {
        let outcome = world.exchange(SCOPE, policy, &world.issuer.sign(&good)).await;
        assert_eq!(outcome.reason(), "", "{policy}: {}", outcome.rest.message);
        for token in outcome.tokens() {
            let minted = json!({"permissions": permissions, "repositories": ["your-repo"]});
            assert_eq!(world.github.token(token).unwrap().body, minted, "{policy}");
        }
        let outcome = world.exchange(SCOPE, policy, &world.issuer.sign(&bad)).await;
        assert_eq!(outcome.reason(), "POLICY_MISMATCH", "{policy}");
    }
    curl_and_jq(&world).await;
    a_decoded_token(&world).await;
    assert!(world.github.unknown_requests().is_empty());
}

#[test]
fn every_published_policy_has_an_example() {
    let examples: BTreeSet<_> = examples().iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(examples, all_published());
}

/// The claims of a pod as they are printed, the times aside, and what a policy can ask of each.
async fn a_decoded_token(world: &World) {
    let claims = json!({
        "iss": EKS,
        "sub": "system:serviceaccount:production:auth-service",
        "aud": ["https://auth-service.internal"],
        "kubernetes.io": {
            "namespace": "production",
            "pod": {"name": "auth-service-7d9f4b-abc12", "uid": "f47ac10b-58cc-4372-a567-0e02b2c3d479"},
            "serviceaccount": {"name": "auth-service", "uid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8"},
        },
    });
    for (n, (claim, pattern, failed)) in [
        ("kubernetes.io/namespace", "production", None),
        ("kubernetes.io/namespace", "prod", Some("claim_pattern.kubernetes.io/namespace")),
        ("kubernetes.io/pod/name", "auth-service-.*", None),
        ("kubernetes.io/pod/name", "auth-service", Some("claim_pattern.kubernetes.io/pod/name")),
        ("kubernetes.io/pod/uid", "[0-9a-f-]{36}", None),
        ("kubernetes.io/serviceaccount/name", "auth-service", None),
        ("kubernetes.io/pod", ".*", Some("claim_pattern.kubernetes.io/pod")),
        ("kubernetes.io.namespace", ".*", Some("claim_pattern.kubernetes.io.namespace")),
    ]
    .into_iter()
    .enumerate()
    {
        let policy = format!(
            "issuer: {EKS}\nsubject: system:serviceaccount:production:auth-service\n\
             audience: https://auth-service.internal\nclaim_pattern: {{{claim}: '{pattern}'}}\n\
             permissions: {{contents: read}}\n"
        );
        world.github.put_file(
            "your-org",
            "your-repo",
            &format!(".github/chainguard/pod-{n}.sts.yaml"),
            &policy,
        );
        let outcome = world.exchange(SCOPE, &format!("pod-{n}"), &world.issuer.sign(&claims)).await;
        assert_eq!(
            outcome.rest.failed,
            Vec::from_iter(failed),
            "{claim} {pattern}: {}",
            outcome.rest.message
        );
        assert_eq!(outcome.reason().is_empty(), failed.is_none(), "{claim} {pattern}");
    }
}

/// The lines of the guide, with this server's address, and the workload's token where it reads its
/// own.
const SCRIPT: &str = r#"
RESPONSE=$(curl -s -H "Authorization: Bearer $SA_TOKEN" \
  "https://octo-sts.dev/sts/exchange?scope=${GITHUB_REPO}&identity=k8s-automation")
GITHUB_TOKEN=$(echo "$RESPONSE" | jq -r '.access_token')
echo "$GITHUB_TOKEN"
"#;

async fn curl_and_jq(world: &World) {
    for needed in ["sh", "curl", "jq"] {
        if Command::new(needed).arg("--version").output().is_err() {
            return eprintln!("skipped, needs {needed}");
        }
    }
    let script = SCRIPT.replace("https://octo-sts.dev", &format!("http://{}", world.address));
    let mut sh = Command::new("sh");
    sh.args(["-c", &script]).env("GITHUB_REPO", SCOPE);
    sh.env("SA_TOKEN", world.issuer.sign(&pod(CLUSTER, "default", "github-automation")));
    let output = tokio::task::spawn_blocking(move || sh.output()).await.unwrap().unwrap();
    let token = String::from_utf8(output.stdout).unwrap();
    assert!(world.github.token(token.trim()).is_some(), "{token}");
}
