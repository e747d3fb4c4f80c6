//! What is remembered, for how long, and at what price it is asked for again.

use octo_sts::emulator::RouteKind;

use super::{count, once, pass, same, setup};
use crate::harness::{POLICY, World};

const CI: &str = ".github/chainguard/ci.sts.yaml";

/// Puts another policy in the place of `ci`.
fn edit(world: &World, text: &str) {
    world.github.put_file("octo-org", "hello", CI, &text.replace("${ISSUER}", &world.issuer.url()));
}

#[tokio::test]
async fn a_deleted_policy_is_refused_within_the_ttl() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world.github.remove_file("octo-org", "hello", CI);
    pass(&world, 59);
    same(&once(&world).await, super::GRANTED);
    pass(&world, 1);
    same(&once(&world).await, (5, "POLICY_NOT_FOUND"));
}

#[tokio::test]
async fn a_narrowed_policy_is_enforced_within_the_ttl() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    edit(&world, &POLICY.replace("refs/heads/main", "refs/heads/release"));
    pass(&world, 60);
    same(&once(&world).await, (7, "POLICY_MISMATCH"));
    edit(&world, &POLICY.replace("issues: write", "issues: read"));
    pass(&world, 60);
    let answer = once(&world).await;
    assert_eq!(world.github.token(&answer.token).unwrap().permissions["issues"], "read");
}

#[tokio::test]
async fn an_unchanged_policy_is_revalidated_free_of_quota() {
    let setup = setup().await;
    setup.list("issuers: ['${ISSUER}']\n");
    let world = setup.start().await;
    same(&once(&world).await, super::GRANTED);
    let quota = |world: &World| world.github.installation(world.installation).unwrap().quota_used;
    let (spent, asked) = (quota(&world), world.github.calls());
    for _ in 0..5 {
        pass(&world, 61);
        same(&once(&world).await, super::GRANTED);
    }
    assert_eq!(quota(&world), spent, "a 304 is free");
    let asked = world.github.calls().since(&asked);
    assert_eq!(
        (asked.of(RouteKind::Contents), asked.of(RouteKind::Mint), asked.total()),
        (10, 5, 15)
    );
    let unchanged = world.github.log().iter().filter(|call| call.status == Some(304)).count();
    assert_eq!(unchanged, 10);
}

#[tokio::test]
async fn a_revalidated_policy_enforces_the_same() {
    let world = setup().await.start().await;
    let evil = world.token(serde_json::json!({"sub": "repo:octo-org/hello:ref:refs/heads/evil"}));
    for _ in 0..3 {
        same(&once(&world).await, super::GRANTED);
        let outcome = world.exchange("octo-org/hello", "ci", &evil).await;
        assert_eq!((outcome.rest.code, outcome.reason()), (7, "POLICY_MISMATCH"));
        pass(&world, 61);
    }
}

#[tokio::test]
async fn a_missing_policy_is_remembered_for_ten_seconds() {
    let world = setup().await.start().await;
    world.github.remove_file("octo-org", "hello", CI);
    same(&once(&world).await, (5, "POLICY_NOT_FOUND"));
    edit(&world, POLICY);
    let asked = world.github.calls().total();
    pass(&world, 9);
    same(&once(&world).await, (5, "POLICY_NOT_FOUND"));
    assert_eq!(world.github.calls().total(), asked, "it is remembered");
    pass(&world, 1);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn a_missing_installation_is_cached_for_five_seconds() {
    let setup = setup().await;
    let app = setup.app;
    setup.github.uninstall(setup.installation);
    let world = setup.start().await;
    same(&once(&world).await, (5, "NOT_INSTALLED"));
    let asked =
        count(&world, RouteKind::UserInstallation) + count(&world, RouteKind::OrgInstallation);
    assert_eq!(asked, 2);
    world.github.install(
        app,
        "octo-org",
        &octo_sts::emulator::Selection::All,
        crate::harness::APP_PERMISSIONS,
    );
    pass(&world, 4);
    same(&once(&world).await, (5, "NOT_INSTALLED"));
    assert_eq!(world.github.calls().total(), asked);
    pass(&world, 1);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn a_policy_that_may_not_be_read_any_more_does_not_serve() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    let fault = octo_sts::emulator::Fault::on(RouteKind::Contents).path_with("ci.sts.yaml");
    world.github.fault(fault.status(403));
    pass(&world, 61);
    same(&once(&world).await, (7, "POLICY_FORBIDDEN"));
    // A failure afterwards does not bring the copy back.
    world.github.heal();
    world.github.fault(
        octo_sts::emulator::Fault::on(RouteKind::Contents).path_with("ci.sts.yaml").status(503),
    );
    pass(&world, 10);
    same(&once(&world).await, super::DOWN);
}

#[tokio::test]
async fn read_tokens_are_narrow_and_replaced_before_they_end() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    let reading = |world: &World| {
        let issued = world.issued().len();
        world.github.minted_count() - issued
    };
    assert_eq!(reading(&world), 2);
    for token in
        world.github.live_tokens().iter().filter(|token| !token.permissions.contains_key("issues"))
    {
        assert_eq!(
            token.permissions.iter().map(|(n, l)| format!("{n}:{l}")).collect::<Vec<_>>(),
            ["contents:read", "metadata:read"]
        );
        assert_eq!(token.repositories.as_ref().map(Vec::len), Some(1));
    }
    pass(&world, 3600 - 120);
    same(&once(&world).await, super::GRANTED);
    assert_eq!(reading(&world), 4);
}

#[tokio::test]
async fn a_private_repository_that_leaves_the_installation_is_not_accessible_within_the_ttl() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world
        .github
        .select(world.installation, &octo_sts::emulator::Selection::Only(vec![".github".into()]));
    pass(&world, 60);
    same(&once(&world).await, (5, "REPOSITORY_NOT_ACCESSIBLE"));
    world.github.select(world.installation, &octo_sts::emulator::Selection::All);
    pass(&world, 10);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn what_a_grant_used_is_refreshed_in_the_background_once_for_each_lifetime() {
    let setup = setup().await;
    setup.list("issuers: ['${ISSUER}']\n");
    let world = setup.start().await;
    same(&once(&world).await, super::GRANTED);
    for _ in 0..3 {
        let reads = count(&world, RouteKind::Contents);
        pass(&world, 44);
        same(&once(&world).await, super::GRANTED);
        pass(&world, 1);
        for _ in 0..5 {
            same(&once(&world).await, super::GRANTED);
        }
        super::until("the list and the policy are read", || {
            count(&world, RouteKind::Contents) == reads + 2
        })
        .await;
        // What was stored at 45 s serves beyond the first lifetime.
        pass(&world, 30);
        same(&once(&world).await, super::GRANTED);
        assert_eq!(count(&world, RouteKind::Contents), reads + 2);
        pass(&world, 60);
        same(&once(&world).await, super::GRANTED);
    }
    let found = count(&world, RouteKind::UserInstallation);
    assert_eq!(found, 1);
    pass(&world, 45 * 60);
    same(&once(&world).await, super::GRANTED);
    super::until("the installation is looked up", || {
        count(&world, RouteKind::UserInstallation) == found + 1
    })
    .await;
    pass(&world, 20 * 60);
    same(&once(&world).await, super::GRANTED);
    assert_eq!(
        count(&world, RouteKind::UserInstallation),
        found + 1,
        "it serves beyond the first hour"
    );
}
