//! Who is told what: insiders can mend a policy, outsiders only learn what their own token said.

use octo_sts::{
    emulator::{Issuer, Selection},
    oidc::{IssuersFile, Pod},
};
use serde_json::json;

use super::setup;
use crate::harness::{DOMAIN, Folder, POLICY, Setup, World};

/// A workflow of somebody else's repository, with a token of the same Actions issuer.
fn outsider(world: &World) -> String {
    world.token(
        json!({"sub": "repo:evil/evil:ref:refs/heads/main", "repository_owner": "evil", "repository": "evil/evil"}),
    )
}

fn insider(world: &World) -> String {
    world.token(json!({"sub": "repo:octo-org/hello:ref:refs/heads/evil"}))
}

async fn refusal(
    world: &World,
    scope: &str,
    identity: &str,
    token: &str,
) -> crate::harness::Answer {
    let outcome = world.exchange(scope, identity, token).await;
    assert_ne!(outcome.rest.code, 0);
    outcome.rest
}

#[tokio::test]
async fn what_was_wanted_is_for_insiders() {
    let world = setup().await.start().await;
    let inside = refusal(&world, "octo-org/hello", "ci", &insider(&world)).await;
    let subject = |answer: &crate::harness::Answer| {
        answer.conditions.iter().find(|condition| condition.field == "subject").cloned().unwrap()
    };
    assert_eq!(subject(&inside).got.as_deref(), Some("repo:octo-org/hello:ref:refs/heads/evil"));
    assert_eq!(subject(&inside).wanted.as_deref(), Some("repo:octo-org/hello:ref:refs/heads/main"));

    let outside = refusal(&world, "octo-org/hello", "ci", &outsider(&world)).await;
    assert_eq!(
        (outside.reason.as_str(), outside.failed.as_slice()),
        ("POLICY_MISMATCH", &["subject".to_owned()][..])
    );
    assert_eq!(subject(&outside).got.as_deref(), Some("repo:evil/evil:ref:refs/heads/main"));
    assert!(
        outside
            .conditions
            .iter()
            .all(|condition| condition.wanted.is_none() && condition.hint.is_none())
    );
    assert!(!outside.message.contains("octo-org/hello"), "{}", outside.message);
}

#[tokio::test]
async fn the_owners_name_is_compared_whole_and_without_case() {
    let world = setup().await.start().await;
    for (owner, told) in
        [("Octo-Org", true), ("octo-org-evil", false), ("octo", false), ("", false)]
    {
        let token = world.token(json!({"sub": "x", "repository_owner": owner}));
        let answer = refusal(&world, "octo-org/hello", "ci", &token).await;
        assert_eq!(
            answer.conditions.iter().any(|condition| condition.wanted.is_some()),
            told,
            "{owner}"
        );
    }
    let token = world.token(json!({"sub": "x", "repository_owner": ["octo-org"]}));
    let answer = refusal(&world, "octo-org/hello", "ci", &token).await;
    assert!(answer.conditions.iter().all(|condition| condition.wanted.is_none()));
}

#[tokio::test]
async fn where_a_policy_is_broken_is_for_insiders() {
    let setup = setup().await;
    setup.policy("hello", "broken", "issuer: x\nsecret_typo: y\n");
    let world = setup.start().await;
    let inside = refusal(&world, "octo-org/hello", "broken", &insider(&world)).await;
    assert_eq!((inside.code, inside.reason.as_str()), (5, "POLICY_INVALID"));
    assert!(inside.message.contains("line"), "{}", inside.message);
    let outside = refusal(&world, "octo-org/hello", "broken", &outsider(&world)).await;
    let absent = refusal(&world, "octo-org/hello", "absent", &outsider(&world)).await;
    assert_eq!((outside.code, outside.reason.as_str()), (5, "POLICY_NOT_FOUND"));
    assert_eq!(outside.message, absent.message.replace("absent", "broken"));
}

#[tokio::test]
async fn whether_the_repository_or_only_the_policy_is_missing_is_for_insiders() {
    let setup = setup().await;
    setup
        .github
        .select(setup.installation, &Selection::Only(vec![".github".into(), "hello".into()]));
    let world = setup.start().await;
    for repo in ["other", "none"] {
        let inside = refusal(&world, &format!("octo-org/{repo}"), "ci", &insider(&world)).await;
        assert_eq!(
            (inside.code, inside.reason.as_str()),
            (5, "REPOSITORY_NOT_ACCESSIBLE"),
            "{repo}"
        );
        let outside =
            refusal(&world, &format!("octo-org/{repo}"), "absent", &outsider(&world)).await;
        let there = refusal(&world, "octo-org/hello", "absent", &outsider(&world)).await;
        assert_eq!(
            (outside.code, &outside.reason, &outside.message),
            (5, &there.reason, &there.message)
        );
        assert_eq!(outside.reason, "POLICY_NOT_FOUND");
    }
    let inside = refusal(&world, "octo-org/hello", "absent", &insider(&world)).await;
    assert_eq!(inside.reason, "POLICY_NOT_FOUND");
}

#[tokio::test]
async fn whether_the_app_may_read_a_repository_is_for_insiders() {
    let setup = setup().await;
    setup.github.set_visibility("octo-org", ".github", octo_sts::emulator::Visibility::Public);
    let world = setup.start().await;
    let forbidden = octo_sts::emulator::Fault::on(octo_sts::emulator::RouteKind::Contents)
        .path_with("ci.sts.yaml");
    world.github.fault(forbidden.status(403));
    let inside = refusal(&world, "octo-org/hello", "ci", &insider(&world)).await;
    assert_eq!((inside.code, inside.reason.as_str()), (7, "POLICY_FORBIDDEN"));
    let outside = refusal(&world, "octo-org/hello", "ci", &outsider(&world)).await;
    assert_eq!((outside.code, outside.reason.as_str()), (5, "POLICY_NOT_FOUND"));
}

/// A world with a policy for an issuer of the issuers file, exact or by pattern. `entry` follows
/// its URL there.
async fn configured(entry: &str, issuer_line: impl Fn(&Issuer) -> String) -> (World, Issuer) {
    let mut setup: Setup = setup().await;
    let cluster = setup.issuer.at("/cluster");
    let folder = Folder::new();
    folder.file("issuers.yaml", &format!("issuers: [{{issuer: '{}'{entry}}}]\n", cluster.url()));
    let pod = Pod { api_server: None, folder: folder.path().to_owned() };
    let file = IssuersFile { path: folder.path().join("issuers.yaml"), pod, plain_http: true };
    let listed = file.load().unwrap();
    setup.settings.oidc.issuers_file = Some((file, listed));
    let text = format!(
        "{}\nsubject: system:serviceaccount:a:b\npermissions: {{contents: read}}\n",
        issuer_line(&cluster)
    );
    setup.policy("hello", "pod", &text);
    (setup.start().await, cluster)
}

/// Whether a workload of the issuer whose subject is another is shown what the policy expects.
async fn is_insider(world: &World, cluster: &Issuer) -> bool {
    let token = cluster.sign(&json!({"sub": "system:serviceaccount:a:c", "aud": DOMAIN}));
    let answer = refusal(world, "octo-org/hello", "pod", &token).await;
    assert_eq!(answer.failed, ["subject"]);
    answer.conditions.iter().any(|condition| condition.wanted.is_some())
}

#[tokio::test]
async fn a_workload_of_a_single_tenant_issuer_that_the_policy_names_exactly_is_an_insider() {
    for (entry, expected) in [
        (", single_tenant: true", true),
        (", private_network: true", true),
        (", private_network: true, single_tenant: false", false),
        ("", false),
    ] {
        let (world, cluster) =
            configured(entry, |cluster| format!("issuer: {}", cluster.url())).await;
        assert_eq!(is_insider(&world, &cluster).await, expected, "{entry}");
    }
    let (world, cluster) = configured(", single_tenant: true", |cluster| {
        format!("issuer_pattern: '{}'", cluster.url().replace('.', "\\."))
    })
    .await;
    assert!(!is_insider(&world, &cluster).await);
    // Nor may it read another issuer's policy.
    let token = cluster.sign(&json!({"sub": "system:serviceaccount:a:c", "aud": DOMAIN}));
    let answer = refusal(&world, "octo-org/hello", "ci", &token).await;
    assert!(answer.conditions.iter().all(|condition| condition.wanted.is_none()), "{answer:?}");
}

#[tokio::test]
async fn issuers_that_the_operator_only_names_and_unknown_ones_are_shared_by_many_tenants() {
    for is_configured in [true, false] {
        let mut setup: Setup = setup().await;
        let cluster = setup.issuer.at("/cluster");
        if is_configured {
            setup.settings.oidc.configured = vec![cluster.url().parse().unwrap()];
        }
        let text = format!(
            "issuer: {}\nsubject: system:serviceaccount:a:b\npermissions: {{contents: read}}\n",
            cluster.url()
        );
        setup.policy("hello", "pod", &text);
        assert!(!is_insider(&setup.start().await, &cluster).await, "{is_configured}");
    }
}

#[tokio::test]
async fn a_claim_of_ownership_counts_only_from_the_actions_issuer() {
    let (world, cluster) =
        configured(", single_tenant: true", |_| "issuer: https://else.example.com".into()).await;
    let token = cluster.sign(&json!({"sub": "x", "aud": DOMAIN, "repository_owner": "octo-org"}));
    let answer = refusal(&world, "octo-org/hello", "pod", &token).await;
    assert!(answer.conditions.iter().all(|condition| condition.wanted.is_none()), "{answer:?}");
}

#[tokio::test]
async fn the_audience_that_was_wanted_is_never_the_policys_secret() {
    let setup = setup().await;
    setup.policy("hello", "aud", &format!("{POLICY}audience: internal-name\n"));
    let world = setup.start().await;
    let outside = refusal(&world, "octo-org/hello", "aud", &outsider(&world)).await;
    assert_eq!(outside.failed, ["subject", "audience"]);
    assert!(!format!("{outside:?}").contains("internal-name"));
}
