//! A name changes hands: no answer of the account that had it is taken for one of the account that
//! has it.

use octo_sts::{
    emulator::{Fault, Lie, RouteKind, Selection, Visibility},
    name::AppId,
};
use serde_json::json;

use super::{count, once, pass, same, setup, until};
use crate::harness::{APP_PERMISSIONS, Answer, Ask, POLICY, Setup, World};

const NOT_INSTALLED: (i32, &str) = (5, "NOT_INSTALLED");

/// A world in which everything of `octo-org` is cached, with a policy of the organization for all
/// its repositories beside the usual one.
async fn warm() -> (World, AppId) {
    let setup: Setup = setup().await;
    setup.policy(".github", "all", POLICY);
    let app = setup.app;
    let world = setup.start().await;
    for answer in [once(&world).await, organization(&world).await] {
        same(&answer, super::GRANTED);
    }
    (world, app)
}

/// Asks for all repositories of the organization.
async fn organization(world: &World) -> Answer {
    world.client.rest(&Ask::new("octo-org", "all", &world.token(json!({})))).await
}

/// Somebody registers the name and installs the App, with these policies.
fn register_anew(world: &World, app: AppId, policy: &str) {
    let text = policy.replace("${ISSUER}", &world.issuer.url());
    world.github.org("octo-org");
    world.github.repo("octo-org", ".github", Visibility::Public);
    world.github.repo("octo-org", "hello", Visibility::Private);
    world.github.put_file("octo-org", "hello", ".github/chainguard/ci.sts.yaml", &text);
    world.github.put_file("octo-org", ".github", ".github/chainguard/all.sts.yaml", &text);
    world.github.install(app, "octo-org", &Selection::All, APP_PERMISSIONS);
}

/// Callers' tokens of the installation that had the name first, but for the two of the warm-up.
fn of_the_first(world: &World) -> (usize, usize) {
    let tokens = world.issued();
    let later = tokens.iter().skip(2).filter(|token| token.installation == world.installation);
    let alive = later.clone().filter(|token| !token.revoked).count();
    (later.count(), alive)
}

#[tokio::test]
async fn after_a_rename_the_old_name_is_not_installed_and_no_more_tokens_are_minted() {
    let (world, _) = warm().await;
    world.github.rename_account("octo-org", "renamed");
    same(&once(&world).await, NOT_INSTALLED);
    until("its token is revoked", || of_the_first(&world) == (1, 0)).await;
    let mints = count(&world, RouteKind::Mint);
    for _ in 0..5 {
        same(&once(&world).await, NOT_INSTALLED);
        same(&organization(&world).await, NOT_INSTALLED);
    }
    assert_eq!(count(&world, RouteKind::Mint), mints);
    let record = world.audit.find(|record| record["reason"] == "NOT_INSTALLED").await;
    assert_eq!(record["mint_calls"], 1);
}

#[tokio::test]
async fn a_token_for_all_repositories_is_not_minted_under_an_old_name() {
    let (world, _) = warm().await;
    world.github.rename_account("octo-org", "renamed");
    pass(&world, 61);
    let answer = organization(&world).await;
    assert_ne!(answer.code, 0, "{answer:?}");
    assert_eq!(of_the_first(&world).1, 0);
}

#[tokio::test]
async fn who_registers_the_name_anew_is_served_by_its_own_policies_immediately() {
    let (world, app) = warm().await;
    world.github.rename_account("octo-org", "renamed");
    register_anew(&world, app, POLICY);
    let answer = once(&world).await;
    same(&answer, super::GRANTED);
    assert_ne!(world.github.token(&answer.token).unwrap().installation, world.installation);
    let answer = organization(&world).await;
    same(&answer, super::GRANTED);
    assert_ne!(world.github.token(&answer.token).unwrap().installation, world.installation);
    until("what the first account gave is revoked", || of_the_first(&world).1 == 0).await;
}

#[tokio::test]
async fn a_cached_absence_delays_the_new_owner_by_seconds() {
    let (world, app) = warm().await;
    world.github.rename_account("octo-org", "renamed");
    same(&once(&world).await, NOT_INSTALLED);
    register_anew(&world, app, POLICY);
    pass(&world, 30);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn the_first_accounts_policies_do_not_decide_for_the_second() {
    let (world, app) = warm().await;
    world.github.rename_account("octo-org", "renamed");
    register_anew(&world, app, &POLICY.replace("refs/heads/main", "refs/heads/release"));
    same(&once(&world).await, (7, "POLICY_MISMATCH"));
    same(&organization(&world).await, (7, "POLICY_MISMATCH"));
    assert_eq!(of_the_first(&world).1, 0);
}

#[tokio::test]
async fn the_second_accounts_policies_do_not_decide_for_the_first() {
    // The name is taken over by an account that has not installed the App, and whose public
    // repository anyone may read, with the token of another account too.
    let (world, _) = warm().await;
    world.github.rename_account("octo-org", "renamed");
    world.github.repo("octo-org", ".github", Visibility::Public);
    let evil = POLICY
        .replace("issues: write", "administration: write")
        .replace("${ISSUER}", &world.issuer.url());
    for name in ["all", "evil"] {
        world.github.put_file(
            "octo-org",
            ".github",
            &format!(".github/chainguard/{name}.sts.yaml"),
            &evil,
        );
    }
    for seconds in [0, 11, 61, 61] {
        pass(&world, seconds);
        for name in ["evil", "all"] {
            let ask = Ask::new("octo-org", name, &world.token(json!({})));
            let answer = world.client.rest(&ask).await;
            if answer.code == 0 {
                // Within the TTL the first account's own policy may still give its own token.
                let token = world.github.token(&answer.token).unwrap();
                assert!(
                    name == "all" && !token.permissions.contains_key("administration"),
                    "{token:?}"
                );
            }
        }
    }
    same(&organization(&world).await, NOT_INSTALLED);
}

#[tokio::test]
async fn a_reply_for_another_account_has_the_installation_looked_up_once_more() {
    for lie in [
        Lie::Set("/repositories/0/full_name".into(), json!("evil/hello")),
        Lie::Set("/repositories/0/owner/login".into(), json!("evil")),
        Lie::ExtraPermission("administration".into(), "write".into()),
        Lie::SelectionAll,
    ] {
        let (world, _) = warm().await;
        let before = world.github.calls();
        world.github.fault(Fault::on(RouteKind::Mint).lie(lie.clone()).times(1));
        same(&once(&world).await, (13, "INTERNAL"));
        let calls = world.github.calls().since(&before);
        assert_eq!(
            (calls.of(RouteKind::Mint), calls.of(RouteKind::UserInstallation)),
            (1, 1),
            "{lie:?}"
        );
        until("it is revoked", || of_the_first(&world) == (1, 0)).await;
        same(&once(&world).await, super::GRANTED);
    }
}
