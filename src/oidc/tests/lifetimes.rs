//! When keys serve, when they are fetched, and how often at most.

use axum::http::StatusCode;
use serde_json::json;

use super::{
    super::*,
    fixture::{KEYS, World},
};
use crate::reason::Reason;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// The key set's lifetime by the fixture's `Cache-Control`.
const TTL: u64 = 10 * MINUTE;

/// Waits until the issuer was asked `times` and nothing is under way.
async fn settled(world: &World, times: usize) {
    for _ in 0..1000 {
        if world.fake.set().key_fetches == times {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.fake.set().key_fetches, times);
}

#[tokio::test]
async fn keys_are_fetched_once_and_serve_for_their_lifetime() {
    let world = World::new().await;
    for _ in 0..5 {
        assert!(world.verify(&world.token("k1")).await.is_ok());
        world.pass(TTL / 10);
    }
    assert_eq!(world.fake.discoveries(), 1);
}

#[tokio::test]
async fn concurrent_callers_share_a_fetch_and_one_that_hangs_up_fails_none() {
    let world = World::new().await;
    world.fake.set().delay = Duration::from_millis(100);
    let token = world.oidc.read(&world.token("k1")).unwrap();
    let admission = world.oidc.known(&token).unwrap().unwrap();
    let hasty = tokio::time::timeout(Duration::from_millis(20), world.oidc.verify(&token, &admission)).await;
    assert!(hasty.is_err());
    let callers = (0..50).map(|_| world.oidc.verify(&token, &admission));
    let answers = futures_util::future::join_all(callers).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(world.fake.discoveries(), 1);
}

#[tokio::test]
async fn in_the_last_quarter_keys_are_renewed_in_the_background() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    world.pass(TTL * 3 / 4);
    world.fake.set().delay = Duration::from_millis(600);
    let begun = tokio::time::timeout(Duration::from_millis(500), world.verify(&world.token("k1"))).await;
    assert!(begun.unwrap().is_ok(), "nobody waits");
    settled(&world, 2).await;
    world.pass(TTL / 2);
    assert!(world.verify(&world.token("k1")).await.is_ok());
    assert_eq!(world.fake.discoveries(), 2);
}

#[tokio::test]
async fn a_withdrawn_key_stops_working_at_the_end_of_the_lifetime() {
    for (cache_control, lifetime) in
        [("max-age=600", TTL), ("max-age=86400", HOUR), ("max-age=1", 5 * MINUTE), ("no-store", 5 * MINUTE)]
    {
        let world = World::new().await;
        world.fake.set().cache_control = cache_control.to_owned();
        assert!(world.verify(&world.token("k1")).await.is_ok());
        world.fake.set().keys = vec![KEYS.other_rsa.named("k2")];
        world.pass(lifetime);
        assert_eq!(world.refusal(&world.token("k1")).await, Reason::SignatureInvalid, "{cache_control}");
        assert!(world.oidc.verify_with_held_keys(&world.oidc.read(&world.token("k1")).unwrap()).is_none());
    }
}

#[tokio::test]
async fn while_an_issuer_is_down_its_keys_serve_for_an_hour_more() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    world.fake.answers(StatusCode::NOT_FOUND);
    world.pass(TTL);
    for _ in 0..5 {
        assert!(world.verify(&world.token("k1")).await.is_ok());
    }
    assert_eq!(world.fake.discoveries(), 2, "the failure is remembered");
    world.pass(HOUR - 1);
    assert!(world.verify(&world.token("k1")).await.is_ok());
    world.pass(1);
    assert_eq!(world.refusal(&world.token("k1")).await, Reason::IssuerUnavailable);
    world.fake.answers(StatusCode::OK);
    world.pass(30);
    assert!(world.verify(&world.token("k1")).await.is_ok());
}

#[tokio::test]
async fn without_keys_an_issuer_is_tried_after_one_two_four_to_thirty_seconds() {
    let world = World::new().await;
    world.fake.answers(StatusCode::NOT_FOUND);
    for (attempt, wait) in [1, 2, 4, 8, 16, 30, 30, 30].into_iter().enumerate() {
        for second in 0..wait {
            let error = world.verify(&world.token("k1")).await.unwrap_err();
            assert_eq!(error.retry_after(), Some(Duration::from_secs(wait - second)), "{attempt}");
            assert_eq!(error.reason(), Reason::IssuerUnavailable);
            world.pass(1);
        }
        assert_eq!(world.fake.discoveries(), attempt + 1);
    }
    world.fake.answers(StatusCode::OK);
    assert!(world.verify(&world.token("k1")).await.is_ok());
    world.fake.answers(StatusCode::NOT_FOUND);
    world.pass(TTL + HOUR);
    let error = world.verify(&world.token("k1")).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)), "success forgets the failures");
}

#[tokio::test]
async fn a_new_key_is_found_at_once() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    world.fake.set().keys.push(KEYS.rsa.named("k2"));
    assert!(world.verify(&world.token("k2")).await.is_ok());
    assert!(world.verify(&world.token("k1")).await.is_ok());
    assert_eq!(world.fake.discoveries(), 2);
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_causes_a_fetch_a_minute() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    // The first of them is told for good: the keys are as new as can be. The others shall come again.
    assert_eq!(world.refusal(&world.token("bogus")).await, Reason::SignatureInvalid);
    for n in 0..1000_u64 {
        let error = world.verify(&world.token(&format!("bogus-{n}"))).await.unwrap_err();
        assert_eq!(error.reason(), Reason::IssuerUnavailable);
        assert_eq!(error.retry_after(), Some(Duration::from_millis(60_000 - 50 * n)));
        world.clock.advance(Duration::from_millis(50));
    }
    assert_eq!(world.fake.discoveries(), 2);
    world.fake.set().keys = vec![KEYS.rsa.named("rotated")];
    assert_eq!(world.refusal(&world.token("rotated")).await, Reason::IssuerUnavailable);
    world.pass(10);
    assert!(world.verify(&world.token("rotated")).await.is_ok());
    assert_eq!(world.fake.discoveries(), 3);
}

#[tokio::test]
async fn a_concurrent_flood_costs_no_more() {
    let world = World::new().await;
    world.fake.set().delay = Duration::from_millis(30);
    let tokens: Vec<_> = (0..200).map(|n| world.token(&format!("bogus-{n}"))).collect();
    let answers = futures_util::future::join_all(tokens.iter().map(|token| world.verify(token))).await;
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(world.fake.discoveries(), 2, "the first of all, and one on account of an unknown key id");
    assert!(world.verify(&world.token("k1")).await.is_ok());
}

#[tokio::test]
async fn a_failed_fetch_for_an_unknown_key_id_counts() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    world.fake.answers(StatusCode::NOT_FOUND);
    for n in 0..59 {
        assert_eq!(world.refusal(&world.token(&format!("bogus-{n}"))).await, Reason::IssuerUnavailable);
        assert!(world.verify(&world.token("k1")).await.is_ok(), "known keys serve");
        world.pass(1);
    }
    assert_eq!(world.fake.discoveries(), 2);
    world.pass(1);
    assert_eq!(world.refusal(&world.token("bogus")).await, Reason::IssuerUnavailable);
    assert_eq!(world.fake.discoveries(), 3);
}

#[tokio::test]
async fn the_regular_fetch_does_not_count() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    world.pass(TTL);
    assert!(world.verify(&world.token("k1")).await.is_ok());
    world.fake.set().keys.push(KEYS.rsa.named("k2"));
    assert!(world.verify(&world.token("k2")).await.is_ok());
    assert_eq!(world.fake.discoveries(), 3);
}

#[tokio::test]
async fn an_unknown_key_id_waits_for_a_fetch_under_way_without_spending_its_own() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    world.pass(TTL * 3 / 4);
    world.fake.set().delay = Duration::from_millis(50);
    world.fake.set().keys.push(KEYS.rsa.named("k2"));
    assert!(world.verify(&world.token("k1")).await.is_ok(), "this one begins the renewal");
    assert!(world.verify(&world.token("k2")).await.is_ok(), "this one waits for it");
    assert_eq!(world.fake.discoveries(), 2);
    world.fake.set().keys.push(KEYS.rsa.named("k3"));
    assert!(world.verify(&world.token("k3")).await.is_ok());
    assert_eq!(world.fake.discoveries(), 3);
}

#[tokio::test]
async fn a_key_that_the_fetch_under_way_still_lacks_is_fetched_for_next() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    world.pass(TTL * 3 / 4);
    assert!(world.verify(&world.token("k1")).await.is_ok());
    // The renewal is under way or just done; either way a fetch of its own finds what is not there.
    assert_eq!(world.refusal(&world.token("k2")).await, Reason::SignatureInvalid);
    assert_eq!(world.fake.discoveries(), 3);
}

#[tokio::test]
async fn an_unknown_key_id_of_an_admitted_issuer_gets_a_final_no() {
    let world = World::new().await;
    let claims = world.claims_of(&world.fake.issuer("other")).to_string();
    let token = |id: &str| KEYS.rsa.token(&json!({"alg": "RS256", "kid": id}), &claims);
    assert_eq!(world.verify(&token("k1")).await.unwrap().issuer_kind(), IssuerKind::Admitted);
    for n in 0..10 {
        assert_eq!(world.refusal(&token(&format!("bogus-{n}"))).await, Reason::SignatureInvalid);
    }
    assert_eq!(world.fake.discoveries(), 2);
}

#[tokio::test]
async fn a_bad_signature_under_a_known_key_id_fetches_nothing() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    let forged = KEYS.other_rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &world.claims().to_string());
    for _ in 0..10 {
        assert_eq!(world.refusal(&forged).await, Reason::SignatureInvalid);
        world.pass(MINUTE / 2);
    }
    assert_eq!(world.fake.discoveries(), 1);
}

#[tokio::test]
async fn rotation_is_seen_without_key_ids_too() {
    let world = World::new().await;
    world.fake.set().keys = vec![KEYS.rsa.jwk.clone()];
    let token = |key: &super::fixture::TestKey| key.token(&json!({"alg": "RS256"}), &world.claims().to_string());
    assert!(world.verify(&token(&KEYS.rsa)).await.is_ok());
    world.fake.set().keys = vec![KEYS.other_rsa.jwk.clone()];
    assert!(world.verify(&token(&KEYS.other_rsa)).await.is_ok());
    for _ in 0..10 {
        assert_eq!(world.refusal(&token(&KEYS.rsa)).await, Reason::SignatureInvalid);
    }
    assert_eq!(world.fake.discoveries(), 2);
}

#[tokio::test]
async fn a_slow_issuer_ends_in_time_and_holds_up_no_other() {
    let world = World::with(|settings| settings.fetch_timeout = Duration::from_secs(2)).await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    world.fake.set().delay = Duration::from_secs(20);
    let slow: Vec<_> = (0..100)
        .map(|n| {
            let claims = world.claims_of(&world.fake.issuer(&format!("slow-{n}"))).to_string();
            KEYS.rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &claims)
        })
        .collect();
    let all_slow = futures_util::future::join_all(slow.iter().map(|token| world.verify(token)));
    let known = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let known = tokio::time::timeout(Duration::from_secs(1), world.verify(&world.token("k1"))).await;
        assert!(known.unwrap().is_ok());
    };
    let (answers, ()) =
        tokio::time::timeout(Duration::from_secs(8), futures_util::future::join(all_slow, known)).await.unwrap();
    let too_slow = |error: &Error| error.reason() == Reason::IssuerUnavailable;
    assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(too_slow)));
}

#[tokio::test]
async fn strangers_issuers_share_places_that_known_ones_do_not_need() {
    let world = World::new().await;
    world.fake.set().delay = Duration::from_millis(100);
    let tokens: Vec<_> = (0..100)
        .map(|n| {
            let claims = world.claims_of(&world.fake.issuer(&format!("stranger-{n}"))).to_string();
            KEYS.rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &claims)
        })
        .collect();
    let strangers = futures_util::future::join_all(tokens.iter().map(|token| world.verify(token)));
    let known = world.token("k1");
    let (answers, known) = futures_util::future::join(strangers, world.verify(&known)).await;
    assert!(known.is_ok() && answers.iter().all(Result::is_ok));
    assert!(world.fake.set().busiest <= 32 + 1, "{}", world.fake.set().busiest);
}

#[tokio::test]
async fn held_keys_verify_without_network_as_long_as_they_serve() {
    let world = World::new().await;
    let token = world.oidc.read(&world.token("k1")).unwrap();
    assert!(world.oidc.verify_with_held_keys(&token).is_none());
    assert_eq!(world.fake.discoveries(), 0);
    assert!(world.verify(&world.token("k1")).await.is_ok());
    assert_eq!(world.oidc.verify_with_held_keys(&token).unwrap().subject().as_str(), "repo:o/r");
    let mut expired = world.claims();
    expired["exp"] = json!(super::fixture::NOW - 60);
    let expired = KEYS.rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &expired.to_string());
    for bad in [
        expired,
        world.token("bogus"),
        KEYS.other_rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &world.claims().to_string()),
    ] {
        assert!(world.oidc.verify_with_held_keys(&world.oidc.read(&bad).unwrap()).is_none());
    }
    world.pass(TTL - 1);
    assert!(world.oidc.verify_with_held_keys(&token).is_some());
    world.pass(1);
    assert!(world.oidc.verify_with_held_keys(&token).is_none());
    assert_eq!(world.fake.discoveries(), 1);
}

#[tokio::test]
async fn strangers_issuers_push_out_each_other_only() {
    let world = World::with(|settings| settings.admitted_issuers = 8).await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    for n in 0..10_000 {
        let issuer = format!("https://issuer-{n}.example").parse().unwrap();
        world.oidc.inner.issuers.admit(&Admission::by_gate(&issuer)).unwrap();
    }
    for n in 0..100 {
        let claims = world.claims_of(&world.fake.issuer(&format!("stranger-{n}"))).to_string();
        assert!(world.verify(&KEYS.rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &claims)).await.is_ok());
    }
    assert!(world.oidc.inner.issuers.admitted_count() <= 8);
    assert_eq!(world.fake.discoveries(), 1 + 100);
    assert!(world.verify(&world.token("k1")).await.is_ok());
    assert_eq!(world.fake.discoveries(), 1 + 100, "the known issuer's keys are still there");
}

#[tokio::test]
async fn each_fetch_is_counted_by_how_it_ended() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let world = World::new().await;
    world.fake.answers(StatusCode::NOT_FOUND);
    assert_eq!(world.verify(&world.token("k1")).await.unwrap_err().reason(), Reason::IssuerUnavailable);
    world.fake.answers(StatusCode::OK);
    world.clock.advance(Duration::from_secs(1));
    for _ in 0..3 {
        world.verify(&world.token("k1")).await.unwrap();
    }
    let text = recorder.handle().render();
    for line in
        [r#"octosts_issuer_fetches_total{outcome="done"} 1"#, r#"octosts_issuer_fetches_total{outcome="failed"} 1"#]
    {
        assert!(text.contains(line), "{text}");
    }
}
