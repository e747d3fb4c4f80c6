//! An issuer that is down, withdraws a key, or is named in a flood of unknown key ids.

use std::time::Duration;

use octo_sts::{
    admission::Rate,
    clock::UnixTime,
    emulator::{Alg, Document, Misbehaviour},
};
use serde_json::json;

use super::{once, pass, refused, same, setup};
use crate::harness::{Answer, Ask, DOMAIN, World};

const MINUTE: u64 = 60;

/// The issuer answers nothing that helps.
fn fall(world: &World) {
    world.issuer.misbehave(Document::Discovery, Misbehaviour::Status(429));
    world.issuer.misbehave(Document::Jwks, Misbehaviour::Status(429));
}

#[tokio::test]
async fn cached_keys_serve_for_an_hour_after_their_lifetime_and_no_longer() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    fall(&world);
    for minutes in [6, 30, 28] {
        pass(&world, minutes * MINUTE);
        same(&once(&world).await, super::GRANTED);
    }
    // 64 minutes: five of lifetime and sixty of grace are nearly over.
    pass(&world, 2 * MINUTE);
    let answer = once(&world).await;
    same(&answer, (14, "ISSUER_UNAVAILABLE"));
    assert!(answer.retry_after.is_some());
    world.issuer.behave();
    pass(&world, 30);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn without_keys_the_issuer_is_tried_again_after_1_2_4_seconds_and_so_on() {
    let world = setup().await.start().await;
    fall(&world);
    let mut fetched = 0;
    for wait in [1, 2, 4, 8, 16, 30, 30] {
        for _ in 0..3 {
            assert_eq!(refused(&world).await, (14, "ISSUER_UNAVAILABLE".to_owned()));
        }
        fetched += 1;
        assert_eq!(world.issuer.fetches().discovery, fetched, "before the wait of {wait} s");
        world
            .clock
            .advance(std::time::Duration::from_secs(wait) - std::time::Duration::from_millis(1));
        refused(&world).await;
        assert_eq!(world.issuer.fetches().discovery, fetched, "within the wait of {wait} s");
        world.clock.advance(std::time::Duration::from_millis(1));
    }
    world.issuer.behave();
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn a_withdrawn_key_stops_working_when_the_lifetime_is_over() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    let old = world.issuer.header()["kid"].as_str().unwrap().to_owned();
    let new = world.issuer.rotate(Alg::Rs256);
    world.issuer.withdraw(&old);
    world.issuer.use_key(&old);
    same(&once(&world).await, super::GRANTED);
    pass(&world, 5 * MINUTE);
    same(&once(&world).await, (14, "ISSUER_UNAVAILABLE"));
    world.issuer.use_key(&new);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn a_key_lives_as_long_as_the_issuer_says_within_bounds() {
    for (said, held) in
        [("max-age=1", 5 * MINUTE), ("max-age=1200", 20 * MINUTE), ("max-age=86400", 60 * MINUTE)]
    {
        let setup = setup().await;
        setup.issuer.cache_control(Some(said));
        let world = setup.start().await;
        same(&once(&world).await, super::GRANTED);
        pass(&world, held * 3 / 4 - 1);
        same(&once(&world).await, super::GRANTED);
        assert_eq!(world.issuer.fetches().jwks, 1, "{said}");
        pass(&world, held / 4 + 1);
        same(&once(&world).await, super::GRANTED);
        assert_eq!(world.issuer.fetches().jwks, 2, "{said}");
    }
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_fetches_three_times_and_then_once_a_minute() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    let before = world.issuer.fetches().jwks;
    for (second, next, fetched) in
        [(0, 3, 1), (3, 9, 2), (5, 9, 2), (9, 69, 3), (40, 69, 3), (69, 129, 4), (129, 189, 5)]
    {
        world.clock.set(UnixTime::from_secs(1_790_000_000 + second));
        for n in 0..20 {
            let token = world
                .issuer
                .sign_with(&json!({"kid": format!("made-up-{second}-{n}")}), &world.claims());
            let answer = world.client.rest(&Ask::new("octo-org/hello", "ci", &token)).await;
            same(&answer, (14, "ISSUER_UNAVAILABLE"));
            assert!(answer.message.contains("unknown key id"), "{}", answer.message);
            assert_eq!(
                answer.retry_after,
                Some(Duration::from_secs((next - second).try_into().unwrap())),
                "{second}"
            );
        }
        assert_eq!(world.issuer.fetches().jwks - before, fetched, "after {second} s");
    }
    // Keys that are cached are used all the while.
    same(&once(&world).await, super::GRANTED);
    assert_eq!(world.issuer.fetches().jwks - before, 5);
}

#[tokio::test]
async fn a_key_that_is_published_three_seconds_later_is_accepted_within_ten_seconds() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    let new = world.issuer.rotate(Alg::Es256);
    world.issuer.withdraw(&new);
    let mut waited = 0;
    while waited < 10 {
        if waited >= 3 {
            world.issuer.publish(&new);
        }
        let outcome = world.usual().await;
        if outcome.rest.code == 0 {
            outcome.tokens();
            break;
        }
        assert_eq!((outcome.rest.code, outcome.reason()), (14, "ISSUER_UNAVAILABLE"));
        let wait = outcome.rest.retry_after.unwrap();
        world.clock.advance(wait);
        waited += wait.as_secs();
    }
    assert!(waited < 10, "{waited}");
}

#[tokio::test]
async fn a_bad_signature_under_a_known_key_id_fetches_nothing() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    let before = world.issuer.fetches();
    let forger = world.issuer.at("/forger");
    let claims = {
        let mut claims = world.claims();
        claims["iss"] = json!(world.issuer.url());
        claims
    };
    let forged = forger.sign_with(&json!({"kid": world.issuer.header()["kid"]}), &claims);
    for _ in 0..20 {
        same(
            &world.client.rest(&Ask::new("octo-org/hello", "ci", &forged)).await,
            (16, "SIGNATURE_INVALID"),
        );
    }
    assert_eq!(world.issuer.fetches(), before);
}

/// A world with an unknown issuer whose keys are cached, and whose owner's bucket is empty.
async fn with_empty_bucket() -> (World, octo_sts::emulator::Issuer) {
    let mut setup = setup().await;
    setup.exchange().admission.owner = Rate::new(1, 2);
    let cluster = setup.issuer.at("/cluster");
    setup.policy(
        "hello",
        "pod",
        &format!("issuer: {}\nsubject: s\npermissions: {{issues: write}}\n", cluster.url()),
    );
    let world = setup.start().await;
    same(&from(&world, &cluster).await, super::GRANTED);
    (world, cluster)
}

async fn from(world: &World, cluster: &octo_sts::emulator::Issuer) -> Answer {
    let token = cluster.sign(&json!({"sub": "s", "aud": DOMAIN}));
    world.client.rest(&Ask::new("octo-org/hello", "pod", &token)).await
}

#[tokio::test]
async fn workloads_of_an_admitted_issuer_are_not_locked_out_when_the_lifetime_of_its_keys_ends() {
    let (world, cluster) = with_empty_bucket().await;
    let forger = world.issuer.at("/forger");
    let empty = async || {
        let forged = forger.sign(&json!({"iss": cluster.url(), "sub": "s", "aud": DOMAIN}));
        for _ in 0..30 {
            world.client.rest(&Ask::new("octo-org/hello", "pod", &forged)).await;
        }
        same(
            &world.client.rest(&Ask::new("octo-org/hello", "pod", &forged)).await,
            (8, "RATE_LIMITED"),
        );
    };
    for minutes in [4, 5, 30, 60] {
        pass(&world, minutes * MINUTE);
        empty().await;
        same(&from(&world, &cluster).await, super::GRANTED);
    }
}
