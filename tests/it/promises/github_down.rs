//! GitHub is down: what is cached serves within its bound, minting says so.

use octo_sts::emulator::{Fault, RouteKind};

use super::{count, once, pass, same, setup};

const LIST: &str = "trusted-token-issuers";

#[tokio::test]
async fn a_cached_policy_serves_for_the_stale_bound_and_no_longer() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world.github.fault(Fault::on(RouteKind::Contents).status(503));
    for seconds in [61, 120, 118] {
        pass(&world, seconds);
        same(&once(&world).await, super::GRANTED);
    }
    pass(&world, 2);
    same(&once(&world).await, super::DOWN);
    world.github.heal();
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn while_a_stale_copy_serves_github_is_asked_again_every_few_seconds_only() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world.github.fault(Fault::on(RouteKind::Contents).status(503));
    pass(&world, 61);
    let before = count(&world, RouteKind::Contents);
    for _ in 0..10 {
        same(&once(&world).await, super::GRANTED);
    }
    // One look at the list and one at the policy, of three tries each.
    assert_eq!(count(&world, RouteKind::Contents) - before, 6);
    world.github.heal();
    pass(&world, 5);
    same(&once(&world).await, super::GRANTED);
    assert_eq!(count(&world, RouteKind::Contents) - before, 8);
}

#[tokio::test]
async fn a_policy_that_was_never_seen_is_not_invented() {
    let world = setup().await.start().await;
    world.github.fault(Fault::on(RouteKind::Contents).path_with("ci.sts.yaml").status(500));
    same(&once(&world).await, super::DOWN);
    // Nothing is remembered of the failure.
    world.github.heal();
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn the_last_known_list_serves_for_an_hour_and_no_longer() {
    let setup = setup().await;
    setup.list("issuers: ['${ISSUER}']\n");
    let world = setup.start().await;
    same(&once(&world).await, super::GRANTED);
    world.github.fault(Fault::on(RouteKind::Contents).path_with(LIST).status(502));
    for minutes in [2, 30, 27] {
        pass(&world, minutes * 60);
        same(&once(&world).await, super::GRANTED);
    }
    pass(&world, 61);
    same(&once(&world).await, (14, "TRUSTED_ISSUERS_UNAVAILABLE"));
}

#[tokio::test]
async fn minting_says_that_github_is_down() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    let served = count(&world, RouteKind::Contents);
    world.github.fault(Fault::anything().status(503));
    let outcome = world.usual().await;
    assert_eq!((outcome.rest.code, outcome.reason()), super::DOWN);
    assert_eq!(count(&world, RouteKind::Contents), served, "the policy was at hand");
}

#[tokio::test]
async fn an_installation_that_was_found_serves_on_while_github_cannot_be_asked() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world.github.fault(Fault::on(RouteKind::UserInstallation).status(500));
    pass(&world, 3601);
    same(&once(&world).await, super::GRANTED);
}
