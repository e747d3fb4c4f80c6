//! An issuer that is down, withdraws a key, or is named in a flood of unknown key ids.

use octo_sts::emulator::{Alg, Document, Misbehaviour};
use serde_json::json;

use super::{once, pass, refused, same, setup};
use crate::harness::{Ask, World};

const MINUTE: u64 = 60;

/// The issuer answers nothing that helps.
fn fall(world: &World) {
    world.issuer.misbehave(Document::Discovery, Misbehaviour::Status(404));
    world.issuer.misbehave(Document::Jwks, Misbehaviour::Status(404));
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
        world.clock.advance(std::time::Duration::from_secs(wait) - std::time::Duration::from_millis(1));
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
    same(&once(&world).await, (16, "SIGNATURE_INVALID"));
    world.issuer.use_key(&new);
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn a_key_lives_as_long_as_the_issuer_says_within_bounds() {
    for (said, held) in [("max-age=1", 5 * MINUTE), ("max-age=1200", 20 * MINUTE), ("max-age=86400", 60 * MINUTE)] {
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
async fn a_flood_of_unknown_key_ids_fetches_once_a_minute() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    let before = world.issuer.fetches().jwks;
    for minute in 1..=3 {
        for n in 0..40 {
            let token = world.issuer.sign_with(&json!({"kid": format!("made-up-{minute}-{n}")}), &world.claims());
            let answer = world.client.rest(&Ask::new("octo-org/hello", "ci", &token)).await;
            // The first one had the newest keys fetched: its no is final. The others are told to come again.
            let expected = if n == 0 { (16, "SIGNATURE_INVALID") } else { (14, "ISSUER_UNAVAILABLE") };
            same(&answer, expected);
            assert_eq!(answer.retry_after.is_some(), n > 0);
        }
        assert_eq!(world.issuer.fetches().jwks - before, minute);
        pass(&world, MINUTE);
    }
    // A real new key is found all the same.
    world.issuer.rotate(Alg::Es256);
    same(&once(&world).await, super::GRANTED);
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
        same(&world.client.rest(&Ask::new("octo-org/hello", "ci", &forged)).await, (16, "SIGNATURE_INVALID"));
    }
    assert_eq!(world.issuer.fetches(), before);
}
