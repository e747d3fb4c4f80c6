//! How many calls to GitHub an exchange costs, and that other organizations do not change it.

use octo_sts::emulator::{RouteKind, Selection, Visibility};

use super::{once, same, setup};
use crate::harness::{APP_PERMISSIONS, Ask, POLICY, World};

async fn cost(world: &World, scope: &str, identity: &str) -> usize {
    let before = world.github.calls();
    let ask = Ask::new(scope, identity, &world.token(serde_json::json!({})));
    same(&world.client.rest(&ask).await, super::GRANTED);
    world.github.calls().since(&before).total()
}

#[tokio::test]
async fn cold_6_in_a_repository_3_once_the_owner_is_warm_1_when_warm() {
    let setup = setup().await;
    setup.policy("other", "ci", POLICY);
    setup.policy(".github", "ci", POLICY);
    let world = setup.start().await;
    assert_eq!(cost(&world, "octo-org/hello", "ci").await, 6);
    assert_eq!(cost(&world, "octo-org/other", "ci").await, 3);
    assert_eq!(
        cost(&world, "octo-org", "ci").await,
        2,
        "the list's read token reads the policy too"
    );
    for _ in 0..100 {
        assert_eq!(cost(&world, "octo-org/hello", "ci").await, 1);
    }
    let calls = world.github.calls();
    assert_eq!(
        (calls.of(RouteKind::UserInstallation), calls.of(RouteKind::OrgInstallation)),
        (1, 0)
    );
}

#[tokio::test]
async fn cold_5_in_an_organization_scope() {
    let setup = setup().await;
    setup.policy(".github", "ci", POLICY);
    let world = setup.start().await;
    assert_eq!(cost(&world, "octo-org", "ci").await, 5);
    assert_eq!(cost(&world, "octo-org/.github", "ci").await, 1, "the same file");
}

#[tokio::test]
async fn two_more_where_an_absent_list_must_be_proven() {
    let setup = setup().await;
    setup.github.set_visibility("octo-org", ".github", Visibility::Private);
    let world = setup.start().await;
    assert_eq!(cost(&world, "octo-org/hello", "ci").await, 8);
    assert_eq!(cost(&world, "octo-org/hello", "ci").await, 1);
}

#[tokio::test]
async fn the_number_of_organizations_does_not_matter() {
    let setup = setup().await;
    for n in 0..1_000 {
        let owner = format!("org-{n}");
        setup.github.org(&owner);
        setup.github.install(setup.app, &owner, &Selection::All, APP_PERMISSIONS);
    }
    let world = setup.start().await;
    assert_eq!(cost(&world, "octo-org/hello", "ci").await, 6);
    assert_eq!(cost(&world, "octo-org/hello", "ci").await, 1);
}

#[tokio::test]
async fn cold_callers_at_once_share_every_look_up() {
    let world = setup().await.start().await;
    let callers: Vec<_> = (0..50).map(|_| super::asking(&world)).collect();
    for caller in callers {
        same(&caller.await.unwrap(), super::GRANTED);
    }
    assert_eq!(world.github.calls().total(), 5 + 50);
    assert_eq!(world.issuer.fetches().jwks, 1);
    same(&once(&world).await, super::GRANTED);
}
