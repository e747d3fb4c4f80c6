//! GitHub mints, and nobody learns of it in time: no token stays that neither a caller nor a record
//! has.

use std::{sync::Arc, time::Duration};

use octo_sts::{
    client::{Class, Client, Error, IdentityToken, Server, Target},
    clock::{Clock, SystemClock},
    egress::{Egress, Settings as EgressSettings},
    emulator::{Fault, RouteKind},
};
use serde_json::{Value, json};

use super::{asking, count, once, same, setup, until};
use crate::harness::World;

/// A world in which all but the mint is cached.
async fn warm() -> World {
    warm_with_deadline(Duration::from_secs(14)).await
}

async fn warm_with_deadline(deadline: Duration) -> World {
    let mut setup = setup().await;
    setup.exchange().deadline = deadline;
    // Other calls would have given up long before.
    setup.settings.github.try_timeout = Duration::from_secs(1);
    let world = setup.start().await;
    same(&once(&world).await, super::GRANTED);
    world
}

fn mint() -> Fault {
    Fault::on(RouteKind::Mint)
}

/// Callers' tokens that work, but for the first.
fn alive(world: &World) -> usize {
    world.issued().iter().skip(1).filter(|token| !token.revoked).count()
}

/// Mint calls after the warm-up.
fn mints(world: &World) -> usize {
    // Two of them read the list and the policy, and one was the first caller's.
    count(world, RouteKind::Mint) - 3
}

/// `mint_calls` and `may_have_minted` of the latest record, of so many.
async fn recorded(world: &World, records: usize) -> (Value, Value) {
    let record = world.audit.at_least(records).await.pop().unwrap();
    (record["mint_calls"].clone(), record["may_have_minted"].clone())
}

#[tokio::test]
async fn an_answer_that_comes_late_but_within_the_deadline_is_the_one_token() {
    for fault in [mint().stall(), mint().stall().after_effect()] {
        let world = warm().await;
        world.github.fault(fault);
        let caller = asking(&world);
        until("the mint is under way", || mints(&world) == 1).await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        world.github.release();
        same(&caller.await.unwrap(), super::GRANTED);
        assert_eq!((mints(&world), alive(&world), world.issued().len()), (1, 1, 2));
        assert_eq!(recorded(&world, 2).await, (json!(1), Value::Null));
    }
}

#[tokio::test]
async fn an_answer_after_the_deadline_is_revoked_and_was_not_repeated() {
    for fault in [mint().stall(), mint().stall().after_effect()] {
        let world = warm_with_deadline(Duration::from_secs(2)).await;
        world.github.fault(fault);
        let outcome = world.usual().await;
        assert_eq!((outcome.rest.code, outcome.reason()), (4, "DEADLINE"));
        assert_eq!(outcome.rest.may_have_minted.as_deref(), Some("true"));
        assert_eq!(recorded(&world, 3).await, (json!(1), json!(true)));
        assert_eq!(mints(&world), 2, "one for each wire");
        world.github.release();
        until("both arrived and are revoked", || world.issued().len() == 3 && alive(&world) == 0)
            .await;
    }
}

#[tokio::test]
async fn an_exchange_makes_at_most_two_calls_whose_outcome_is_unknown() {
    let lost: [fn() -> Fault; 5] = [
        || mint().status(502).after_effect(),
        || mint().status(504).after_effect(),
        || mint().html(500).after_effect(),
        || mint().cut_after(),
        || mint().cut_body(),
    ];
    for fault in lost {
        // One is survived: what was lost may live, and the record says that there were two calls.
        let world = warm().await;
        world.github.fault(fault().times(1));
        same(&once(&world).await, super::GRANTED);
        assert_eq!((mints(&world), world.issued().len()), (2, 3), "{:?}", fault());
        assert_eq!(recorded(&world, 2).await, (json!(2), Value::Null));

        let world = warm().await;
        world.github.fault(fault());
        let answer = once(&world).await;
        same(&answer, super::DOWN);
        assert_eq!(answer.may_have_minted.as_deref(), Some("true"), "{:?}", fault());
        assert_eq!((mints(&world), world.issued().len()), (2, 3), "{:?}", fault());
        assert_eq!(recorded(&world, 2).await, (json!(2), json!(true)));
        let outcome = world.usual().await;
        assert_eq!(outcome.grpc.may_have_minted.as_deref(), Some("true"));
    }
}

#[tokio::test]
async fn refusals_prove_that_nothing_was_minted() {
    for status in [401, 403, 404, 422, 429] {
        let world = warm().await;
        world.github.fault(mint().status(status));
        let outcome = world.usual().await;
        assert_ne!(outcome.rest.code, 0);
        assert_eq!(
            (outcome.rest.may_have_minted, outcome.grpc.may_have_minted),
            (None, None),
            "{status}"
        );
        let (_, may_have_minted) = recorded(&world, 3).await;
        assert_eq!(may_have_minted, Value::Null, "{status}");
    }
    // They do not count among the unknown ones either.
    let world = warm().await;
    world.github.fault(mint().status(404).times(1));
    world.github.fault(mint().status(502).after_effect().times(1));
    same(&once(&world).await, super::GRANTED);
    assert_eq!(recorded(&world, 2).await, (json!(3), Value::Null));
}

#[tokio::test]
async fn a_refusal_before_the_mint_has_no_mint_calls() {
    let world = warm().await;
    let evil = world.token(json!({"sub": "repo:octo-org/hello:ref:refs/heads/evil"}));
    let outcome = world.exchange("octo-org/hello", "ci", &evil).await;
    assert_eq!(
        (outcome.reason(), outcome.rest.may_have_minted.as_deref()),
        ("POLICY_MISMATCH", None)
    );
    assert_eq!(recorded(&world, 3).await, (Value::Null, Value::Null));
}

#[tokio::test]
async fn a_caller_that_disconnects_during_a_late_mint_leaves_no_token() {
    for fault in [mint().stall(), mint().stall().after_effect()] {
        let world = warm().await;
        world.github.fault(fault);
        let caller = asking(&world);
        until("the mint is under way", || mints(&world) == 1).await;
        caller.abort();
        assert_eq!(recorded(&world, 2).await, (json!(1), json!(true)));
        world.github.release();
        until("it arrived and is revoked", || world.issued().len() == 2 && alive(&world) == 0)
            .await;
    }
}

#[tokio::test]
async fn a_token_to_read_with_that_comes_late_is_used_and_not_minted_again() {
    let mut setup = setup().await;
    setup.settings.github.try_timeout = Duration::from_millis(300);
    let world = setup.start().await;
    world.github.fault(mint().stall().after_effect());
    // Each of them gives up, and none mints another.
    for _ in 0..3 {
        assert_eq!(once(&world).await.code, 14);
    }
    assert_eq!(count(&world, RouteKind::Mint), 1);
    world.github.release();
    until("the token has come", || world.github.calls().of(RouteKind::Mint) == 1).await;
    same(&once(&world).await, super::GRANTED);
    assert_eq!(count(&world, RouteKind::Mint), 3, "the policy's and the caller's");
    assert_eq!(world.github.live_tokens().len(), 3);
}

/// What our own client gets from the server.
async fn by_client(world: &World) -> Result<(), Error> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let egress = Egress::new(EgressSettings::default()).unwrap();
    let client =
        Client::new(Server::parse(&format!("http://{}", world.address)).unwrap(), &egress, clock);
    let token = IdentityToken::parse(&world.token(json!({}))).unwrap();
    let target = Target::new("octo-org/hello".parse().unwrap(), "ci".parse().unwrap());
    client.exchange(&token, &target).await.map(drop)
}

#[tokio::test]
async fn our_client_does_not_repeat_an_exchange_that_may_have_minted() {
    let world = warm().await;
    world.github.fault(mint().status(502).after_effect());
    let error = by_client(&world).await.unwrap_err();
    assert_eq!((error.class(), error.may_have_minted), (Class::Unavailable, true));
    assert_eq!((mints(&world), world.audit.at_least(2).await.len()), (2, 2), "one exchange");
}

#[tokio::test]
async fn our_client_repeats_an_exchange_that_minted_nothing() {
    let mut setup = setup().await;
    setup.settings.github.try_timeout = Duration::from_millis(300);
    let world = setup.start().await;
    world.github.fault(Fault::on(RouteKind::UserInstallation).status(502).times(3));
    by_client(&world).await.unwrap();
    assert_eq!(world.audit.at_least(2).await.len(), 2, "two exchanges");
}
