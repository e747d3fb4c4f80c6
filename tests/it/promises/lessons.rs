//! What went wrong in services like this one, held fast.

use http::Method;
use octo_sts::emulator::{Fault, Lie, RouteKind, Selection};
use serde_json::json;

use super::{count, once, pass, same, setup, until};
use crate::harness::{APP_PERMISSIONS, Ask, POLICY, World};

async fn rest(world: &World, scope: &str, identity: &str) -> crate::harness::Answer {
    world.client.rest(&Ask::new(scope, identity, &world.token(json!({})))).await
}

#[tokio::test]
async fn the_second_exchange_enforces_the_same_as_the_first() {
    let world = setup().await.start().await;
    for _ in 0..3 {
        let answer = once(&world).await;
        let minted = world.github.token(&answer.token).unwrap();
        assert_eq!(
            minted.body,
            json!({"repositories": ["hello"], "permissions": {"contents": "read", "issues": "write"}})
        );
        let evil = world.token(json!({"sub": "repo:octo-org/hello:ref:refs/heads/mainx"}));
        same(
            &world.client.rest(&Ask::new("octo-org/hello", "ci", &evil)).await,
            (7, "POLICY_MISMATCH"),
        );
    }
}

#[tokio::test]
async fn an_empty_policy_file_is_an_invalid_policy_each_time() {
    let setup = setup().await;
    setup.policy("hello", "empty", "");
    let world = setup.start().await;
    for seconds in [0, 1, 10, 61] {
        pass(&world, seconds);
        same(&rest(&world, "octo-org/hello", "empty").await, (5, "POLICY_INVALID"));
    }
}

#[tokio::test]
async fn a_broken_policy_that_was_mended_works_within_seconds() {
    let setup = setup().await;
    setup.policy("hello", "ci", "issuer: [");
    let world = setup.start().await;
    same(&once(&world).await, (5, "POLICY_INVALID"));
    let mended = POLICY.replace("${ISSUER}", &world.issuer.url());
    world.github.put_file("octo-org", "hello", ".github/chainguard/ci.sts.yaml", &mended);
    pass(&world, 10);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn the_policy_repositorys_scope_reads_the_organizations_policy_and_mints_for_itself_alone() {
    let setup = setup().await;
    setup.policy(".github", "org", POLICY);
    setup.policy(".github", "some", &format!("{POLICY}repositories: [hello, other]\n"));
    let world = setup.start().await;
    let repositories = async |scope: &str, identity: &str| {
        let answer = rest(&world, scope, identity).await;
        same(&answer, super::GRANTED);
        world.github.token(&answer.token).unwrap().repositories
    };
    assert_eq!(repositories("octo-org", "org").await, None);
    assert_eq!(repositories("octo-org/.github", "org").await, Some(vec![".github".to_owned()]));
    let both = Some(vec!["hello".to_owned(), "other".to_owned()]);
    for scope in ["octo-org", "octo-org/.github"] {
        assert_eq!(
            repositories(scope, "some").await.map(|mut names| (names.sort(), names).1),
            both,
            "{scope}"
        );
    }
    same(&rest(&world, "octo-org/hello", "org").await, (5, "POLICY_NOT_FOUND"));
}

#[tokio::test]
async fn letter_case_of_owner_and_repository_makes_no_difference_and_no_second_entry() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    let before = world.github.calls();
    for scope in ["Octo-Org/hello", "OCTO-ORG/HELLO", "octo-org/Hello"] {
        same(&rest(&world, scope, "ci").await, super::GRANTED);
    }
    assert_eq!(world.github.calls().since(&before).total(), 3);
}

#[tokio::test]
async fn an_owner_that_is_asked_for_in_capitals_first_works_too() {
    let world = setup().await.start().await;
    same(&rest(&world, "OCTO-ORG/HELLO", "ci").await, super::GRANTED);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn after_uninstalling_and_installing_anew_the_next_exchange_works() {
    let setup = setup().await;
    let app = setup.app;
    let world = setup.start().await;
    for seconds in [0, 30, 61] {
        same(&once(&world).await, super::GRANTED);
        let old = world.issued().last().unwrap().installation;
        world.github.uninstall(old);
        let new = world.github.install(app, "octo-org", &Selection::All, APP_PERMISSIONS);
        assert_ne!(new, old);
        pass(&world, seconds);
        let before = count(&world, RouteKind::UserInstallation);
        same(&once(&world).await, super::GRANTED);
        assert_eq!(count(&world, RouteKind::UserInstallation) - before, 1, "after {seconds} s");
    }
}

#[tokio::test]
async fn a_stale_installation_is_tried_once_more_and_no_oftener() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world.github.uninstall(world.installation);
    let before = world.github.calls();
    same(&once(&world).await, (5, "NOT_INSTALLED"));
    let calls = world.github.calls().since(&before);
    assert_eq!((calls.of(RouteKind::Mint), calls.of(RouteKind::UserInstallation)), (1, 1));

    // GitHub goes on saying 404 for an installation that it lists.
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world.github.fault(Fault::on(RouteKind::Mint).status(404));
    let before = world.github.calls();
    same(&once(&world).await, super::DOWN);
    let calls = world.github.calls().since(&before);
    assert_eq!((calls.of(RouteKind::Mint), calls.of(RouteKind::UserInstallation)), (2, 1));
}

#[tokio::test]
async fn a_renamed_repository_is_not_accessible_under_its_old_name() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world.github.rename("octo-org", "hello", "renamed");
    pass(&world, 60);
    same(&once(&world).await, (5, "REPOSITORY_NOT_ACCESSIBLE"));
    let (followed, minted) = (world.github.log(), world.issued().len());
    assert!(
        followed.iter().all(|call| !call.path.contains("/repositories/")),
        "a redirect was followed"
    );
    assert_eq!(minted, 1);
}

#[tokio::test]
async fn a_suspended_installation_is_refused_as_such() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world.github.suspend(world.installation);
    same(&once(&world).await, (7, "INSTALLATION_SUSPENDED"));
    pass(&world, 61);
    same(&once(&world).await, (7, "INSTALLATION_SUSPENDED"));

    let setup = setup().await;
    setup.github.suspend(setup.installation);
    let world = setup.start().await;
    same(&once(&world).await, (7, "INSTALLATION_SUSPENDED"));
    world.github.unsuspend(world.installation);
    pass(&world, 30);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn a_reply_that_is_wider_than_the_request_is_revoked_and_never_handed_over() {
    for lie in [
        Lie::ExtraPermission("administration".into(), "write".into()),
        Lie::ExtraPermission("metadata".into(), "write".into()),
        Lie::Level("write".into()),
        Lie::Level("owner".into()),
        Lie::ExtraRepository("other".into()),
        Lie::SelectionAll,
        Lie::NoRepositories,
        Lie::NoPermissions,
    ] {
        let world = setup().await.start().await;
        same(&once(&world).await, super::GRANTED);
        world.github.fault(Fault::on(RouteKind::Mint).lie(lie.clone()));
        let outcome = world.usual().await;
        assert_eq!((outcome.rest.code, outcome.reason()), (13, "INTERNAL"), "{lie:?}");
        until("they are revoked", || {
            world.issued().iter().filter(|token| token.revoked).count() == 2
        })
        .await;
        assert_eq!(world.issued().len(), 3, "{lie:?}");
    }
}

#[tokio::test]
async fn a_wider_read_token_reads_nothing() {
    let world = setup().await.start().await;
    world.github.fault(Fault::on(RouteKind::Mint).lie(Lie::SelectionAll));
    assert_ne!(once(&world).await.code, 0);
    assert_eq!(count(&world, RouteKind::Contents), 0);
    until("it is revoked", || world.github.live_tokens().is_empty()).await;
}

#[tokio::test]
async fn what_github_refuses_is_told_as_what_it_is() {
    let setup = setup().await;
    setup.policy("hello", "much", &POLICY.replace("issues: write", "deployments: write"));
    setup.policy(".github", "gone", &format!("{POLICY}repositories: [hello, gone]\n"));
    let world = setup.start().await;
    same(&rest(&world, "octo-org/hello", "much").await, (7, "PERMISSION_REFUSED"));
    same(&rest(&world, "octo-org", "gone").await, (7, "REPOSITORY_REFUSED"));
    assert!(world.issued().is_empty());
}

#[tokio::test]
async fn a_pinned_app_that_is_another_is_no_reason_to_take_this_one() {
    let setup = setup().await;
    setup.policy("hello", "pinned", &format!("{POLICY}app: another\n"));
    setup.policy("hello", "ours", &format!("{POLICY}app: octo-sts\n"));
    let world = setup.start().await;
    same(&rest(&world, "octo-org/hello", "pinned").await, (9, "APP_PIN_UNSATISFIED"));
    same(&rest(&world, "octo-org/hello", "ours").await, super::GRANTED);
}

#[tokio::test]
async fn an_issuer_named_in_no_policy_of_the_repository_gets_nothing_by_being_known() {
    let mut setup = setup().await;
    let other = setup.issuer.at("/other");
    setup.settings.oidc.configured = vec![other.url().parse().unwrap()];
    let world = setup.start().await;
    let outcome = world.exchange("octo-org/hello", "ci", &other.sign(&world.claims())).await;
    assert_eq!(
        (outcome.reason(), outcome.rest.failed.as_slice()),
        ("POLICY_MISMATCH", &["issuer".to_owned()][..])
    );
}

#[tokio::test]
async fn nothing_is_asked_that_github_does_not_document() {
    let world = setup().await.start().await;
    for (scope, identity) in
        [("octo-org/hello", "ci"), ("octo-org", "ci"), ("nobody", "x"), ("octo-org/none", "a/b.c")]
    {
        rest(&world, scope, identity).await;
    }
    assert_eq!(world.github.unknown_requests(), [""; 0]);
}

#[tokio::test]
async fn an_exchange_whose_message_nobody_can_read_is_recorded_once() {
    let world = setup().await.start().await;
    let path = "/chainguard.platform.oidc.SecurityTokenService/Exchange";
    let bearer = format!("Bearer {}", world.token(json!({})));
    // A message of two bytes that is no protobuf.
    let message = "\0\0\0\0\u{2}\u{a}\u{7f}";
    for (credential, code) in [(bearer.as_str(), "3"), ("Basic x", "16")] {
        let headers = [("content-type", "application/grpc"), ("authorization", credential)];
        let reply = world.client.send(Method::POST, path, &headers, message).await;
        assert_eq!(reply.headers["grpc-status"], code, "{reply:?}");
    }
    let records = world.stop().await.at_least(2).await;
    let told = |record: &serde_json::Value| {
        (record["reason"].clone(), record["protocol"].clone(), record["result"].clone())
    };
    let denied = |reason: &str| (json!(reason), json!("grpc"), json!("denied"));
    let told: Vec<_> = records.iter().map(told).collect();
    assert_eq!(told, [denied("REQUEST_INVALID"), denied("CREDENTIAL_MISSING")]);
}

#[tokio::test]
async fn a_refusal_fits_into_a_header_whatever_the_policy_calls_its_conditions() {
    let setup = setup().await;
    let names: String = (0..60).map(|n| format!("  {}{n}: x\n", "ü".repeat(200))).collect();
    setup.policy("hello", "wordy", &format!("{POLICY}claim_pattern:\n{names}"));
    let world = setup.start().await;
    let outcome = world.exchange("octo-org/hello", "wordy", &world.token(json!({}))).await;
    assert_eq!(outcome.reason(), "POLICY_MISMATCH");
    assert!(outcome.rest.message.len() < 512, "{}", outcome.rest.message);
}
