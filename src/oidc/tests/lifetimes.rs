//! When cached keys are used, when they are fetched, and how often at most.

use axum::http::StatusCode;
use serde_json::json;

use super::{
    super::*,
    fixture::{KEYS, NOW, World, owner},
};
use crate::reason::Reason;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// The key set's lifetime by the fixture's `Cache-Control`.
const TTL: u64 = 10 * MINUTE;

/// Refuses the token because its key id is unknown; the seconds after which a retry can help.
async fn unknown_key(world: &World, id: &str) -> u64 {
    let error = world.verify(&world.token(id)).await.unwrap_err();
    let Error::Unavailable { cause: Fault::UnknownKey, retry_after } = error else {
        panic!("{error}")
    };
    retry_after.as_secs()
}

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
    let hasty =
        tokio::time::timeout(Duration::from_millis(20), world.oidc.verify(&token, &admission))
            .await;
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
    let begun =
        tokio::time::timeout(Duration::from_millis(500), world.verify(&world.token("k1"))).await;
    assert!(begun.unwrap().is_ok(), "nobody waits");
    settled(&world, 2).await;
    world.pass(TTL / 2);
    assert!(world.verify(&world.token("k1")).await.is_ok());
    assert_eq!(world.fake.discoveries(), 2);
}

#[tokio::test]
async fn a_withdrawn_key_stops_working_at_the_end_of_the_lifetime() {
    for (cache_control, lifetime) in [
        ("max-age=600", TTL),
        ("max-age=86400", HOUR),
        ("max-age=1", 5 * MINUTE),
        ("no-store", 5 * MINUTE),
    ] {
        let world = World::new().await;
        world.fake.set().cache_control = cache_control.to_owned();
        assert!(world.verify(&world.token("k1")).await.is_ok());
        world.fake.set().keys = vec![KEYS.other_rsa.named("k2")];
        world.pass(lifetime);
        assert_eq!(unknown_key(&world, "k1").await, 3, "{cache_control}");
        assert_eq!(world.cached(&world.token("k1")).await, None);
    }
}

#[tokio::test]
async fn while_an_issuer_is_down_its_keys_serve_for_an_hour_more() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    world.fake.answers(StatusCode::TOO_MANY_REQUESTS);
    world.pass(TTL);
    for _ in 0..5 {
        assert!(world.verify(&world.token("k1")).await.is_ok());
    }
    assert_eq!(world.fake.discoveries(), 2, "the failure is cached");
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
    world.fake.answers(StatusCode::TOO_MANY_REQUESTS);
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
    world.fake.answers(StatusCode::TOO_MANY_REQUESTS);
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
async fn a_key_that_is_published_seconds_later_is_accepted_within_ten_seconds() {
    for published_after in 0..9 {
        let world = World::new().await;
        assert!(world.verify(&world.token("k1")).await.is_ok());
        let mut second = 0;
        // As a caller does that obeys Retry-After.
        while second <= 10 {
            if second >= published_after {
                world.fake.set().keys.push(KEYS.rsa.named("k2"));
            }
            match world.verify(&world.token("k2")).await {
                Ok(_) => break,
                Err(error) => {
                    assert_eq!(error.reason(), Reason::IssuerUnavailable);
                    let wait = error.retry_after().unwrap().as_secs();
                    world.pass(wait);
                    second += wait;
                }
            }
        }
        assert!(second <= 10, "published after {published_after} s, accepted after {second} s");
        assert!(world.verify(&world.token("k2")).await.is_ok());
    }
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_causes_three_fetches_and_then_one_a_minute() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    for second in 0..200_u64 {
        for n in 0..5 {
            let waited = unknown_key(&world, &format!("bogus-{second}-{n}")).await;
            let next = [3, 9, 69, 129, 189, 249].into_iter().find(|next| *next > second).unwrap();
            assert_eq!(waited, next - second, "the same answer for all, after {second} s");
        }
        let fetched = [0, 3, 9, 69, 129, 189].into_iter().filter(|at| *at <= second).count();
        assert_eq!(world.fake.discoveries(), 1 + fetched, "after {second} s");
        assert!(world.verify(&world.token("k1")).await.is_ok(), "known keys are used");
        world.pass(1);
    }
}

#[tokio::test]
async fn a_concurrent_flood_costs_no_more() {
    let world = World::new().await;
    world.fake.set().delay = Duration::from_millis(30);
    let tokens: Vec<_> = (0..200).map(|n| world.token(&format!("bogus-{n}"))).collect();
    let answers =
        futures_util::future::join_all(tokens.iter().map(|token| world.verify(token))).await;
    for answer in answers {
        let expected =
            Error::Unavailable { cause: Fault::UnknownKey, retry_after: Duration::from_secs(3) };
        assert_eq!(answer.unwrap_err(), expected);
    }
    assert!(
        world.fake.discoveries() <= 2,
        "the first of all, and one because of an unknown key id"
    );
    assert!(world.verify(&world.token("k1")).await.is_ok());
}

#[tokio::test]
async fn the_first_fetch_of_all_is_as_new_as_can_be() {
    let world = World::new().await;
    assert_eq!(unknown_key(&world, "bogus").await, 3);
    assert_eq!(unknown_key(&world, "bogus").await, 3);
    assert_eq!(world.fake.discoveries(), 1);
}

#[tokio::test]
async fn a_failed_fetch_for_an_unknown_key_id_counts_and_gets_the_same_answer() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::NOT_FOUND] {
        world.fake.answers(status);
        for wait in [3, 6, 60] {
            assert_eq!(unknown_key(&world, "bogus").await, wait);
            assert!(world.verify(&world.token("k1")).await.is_ok(), "known keys are used");
            world.pass(wait - 1);
            assert_eq!(unknown_key(&world, "bogus").await, 1);
            world.pass(1);
        }
        world.pass(4 * MINUTE);
        world.fake.answers(StatusCode::OK);
        assert!(world.verify(&world.token("k1")).await.is_ok());
    }
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
    // The refresh is in flight or just done; either way a fetch of its own finds what is not there.
    assert_eq!(unknown_key(&world, "k2").await, 3);
    assert_eq!(world.fake.discoveries(), 3);
}

#[tokio::test]
async fn an_unknown_key_id_of_an_admitted_issuer_obeys_the_same_limit() {
    let world = World::new().await;
    let claims = world.claims_of(&world.fake.issuer("other")).to_string();
    let token = |id: &str| KEYS.rsa.token(&json!({"alg": "RS256", "kid": id}), &claims);
    assert_eq!(world.verify(&token("k1")).await.unwrap().issuer_kind(), IssuerKind::Admitted);
    for n in 0..10 {
        assert_eq!(world.refusal(&token(&format!("bogus-{n}"))).await, Reason::IssuerUnavailable);
    }
    assert_eq!(world.fake.discoveries(), 2);
}

#[tokio::test]
async fn a_bad_signature_under_a_known_key_id_fetches_nothing() {
    let world = World::new().await;
    assert!(world.verify(&world.token("k1")).await.is_ok());
    let forged =
        KEYS.other_rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &world.claims().to_string());
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
    let token = |key: &super::fixture::TestKey| {
        key.token(&json!({"alg": "RS256"}), &world.claims().to_string())
    };
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
        let known =
            tokio::time::timeout(Duration::from_secs(1), world.verify(&world.token("k1"))).await;
        assert!(known.unwrap().is_ok());
    };
    let (answers, ()) =
        tokio::time::timeout(Duration::from_secs(8), futures_util::future::join(all_slow, known))
            .await
            .unwrap();
    let too_slow = |error: &Error| error.reason() == Reason::IssuerUnavailable;
    assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(too_slow)));
}

#[tokio::test]
async fn fetches_for_unknown_issuers_are_bounded_and_known_ones_do_not_wait_for_them() {
    let world = World::new().await;
    world.fake.set().delay = Duration::from_millis(100);
    let tokens: Vec<_> = (0..100)
        .map(|n| {
            let claims = world.claims_of(&world.fake.issuer(&format!("unknown-{n}"))).to_string();
            KEYS.rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &claims)
        })
        .collect();
    let unknown = futures_util::future::join_all(tokens.iter().map(|token| world.verify(token)));
    let known = world.token("k1");
    let (answers, known) = futures_util::future::join(unknown, world.verify(&known)).await;
    assert!(known.is_ok() && answers.iter().all(Result::is_ok));
    assert!(world.fake.set().busiest <= 32 + 1, "{}", world.fake.set().busiest);
}

#[tokio::test]
async fn cached_keys_verify_without_network() {
    let world = World::new().await;
    let good = world.token("k1");
    assert_eq!(world.cached(&good).await, None);
    assert_eq!(world.fake.discoveries(), 0);
    assert!(world.verify(&good).await.is_ok());
    assert_eq!(world.cached(&good).await.as_deref(), Some("repo:o/r"));
    let mut expired = world.claims();
    expired["exp"] = json!(NOW - 60);
    let expired = KEYS.rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &expired.to_string());
    for bad in [
        expired,
        world.token("bogus"),
        KEYS.other_rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &world.claims().to_string()),
    ] {
        assert_eq!(world.cached(&bad).await, None);
    }
    world.pass(TTL + HOUR - 1);
    assert!(world.cached(&good).await.is_some(), "stale keys say who calls");
    world.pass(1);
    assert_eq!(world.cached(&good).await, None);
    assert_eq!(world.fake.discoveries(), 1);
}

/// A token of an unknown issuer, and what is verified of it with cached keys and confirmed then.
async fn confirmed(world: &World, token: &str) -> Option<Result<VerifiedToken, Error>> {
    let token = world.oidc.read(token).unwrap();
    let cached = world.oidc.verify_with_cached_keys(&token, &owner()).await?;
    Some(world.oidc.confirm(&token, cached, &Admission::by_gate(token.issuer(), &owner())).await)
}

fn token_of(world: &World, issuer: &str) -> String {
    let claims = world.claims_of(&world.fake.issuer(issuer)).to_string();
    KEYS.rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &claims)
}

#[tokio::test]
async fn keys_of_an_admitted_issuer_are_refreshed_when_cached_keys_verify_a_token() {
    let world = World::new().await;
    let token = token_of(&world, "other");
    assert!(world.verify(&token).await.is_ok());
    assert!(confirmed(&world, &token).await.unwrap().is_ok());
    world.pass(TTL * 3 / 4);
    assert!(confirmed(&world, &token).await.unwrap().is_ok());
    settled(&world, 2).await;
    // Nobody called in the last quarter of the lifetime: the next caller waits for the fetch.
    world.pass(TTL + HOUR / 2);
    assert!(confirmed(&world, &token).await.unwrap().is_ok());
    assert_eq!(world.fake.discoveries(), 3);
    // While the issuer is down, its keys are used, and the failure is cached.
    world.fake.answers(StatusCode::TOO_MANY_REQUESTS);
    world.pass(TTL);
    for _ in 0..5 {
        assert!(confirmed(&world, &token).await.unwrap().is_ok());
    }
    assert_eq!(world.fake.discoveries(), 4);
}

#[tokio::test]
async fn a_withdrawn_key_of_an_admitted_issuer_is_not_confirmed() {
    let world = World::new().await;
    let token = token_of(&world, "other");
    assert!(world.verify(&token).await.is_ok());
    world.fake.set().keys = vec![KEYS.other_rsa.named("k2")];
    world.pass(TTL);
    let refused = confirmed(&world, &token).await.unwrap().unwrap_err();
    assert_eq!(refused.reason(), Reason::IssuerUnavailable);
    assert!(confirmed(&world, &token).await.is_none());
    assert_eq!(world.fake.discoveries(), 2);
}

#[tokio::test]
async fn only_the_gate_confirms_what_cached_keys_verified() {
    let world = World::new().await;
    let token = token_of(&world, "other");
    assert!(world.verify(&token).await.is_ok());
    let read = world.oidc.read(&token).unwrap();
    let cached = world.oidc.verify_with_cached_keys(&read, &owner()).await.unwrap();
    let elsewhere = Admission::by_gate(&world.fake.issuer("elsewhere"), &owner());
    assert_eq!(
        world.oidc.confirm(&read, cached, &elsewhere).await.unwrap_err(),
        Error::NotAdmitted
    );
}

#[tokio::test]
async fn an_owner_evicts_its_own_unknown_issuers_and_nobody_elses() {
    let bounds = AdmittedBounds { issuers: 50, bytes: usize::MAX };
    let world = World::with(|settings| settings.admitted = bounds).await;
    let admit = |owner: &str, issuer: &str| {
        let issuer: Issuer = issuer.parse().unwrap();
        world
            .oidc
            .inner
            .issuers
            .admit(&Admission::by_gate(&issuer, &owner.parse().unwrap()))
            .unwrap();
    };
    assert!(world.verify(&world.token("k1")).await.is_ok());
    let honest: Vec<_> = (0..20).map(|n| token_of(&world, &format!("cluster-{n}"))).collect();
    for token in &honest {
        assert!(world.verify(token).await.is_ok());
    }
    for n in 0..5_000 {
        admit("hostile", &format!("https://issuer-{n}.example"));
    }
    assert_eq!(world.oidc.inner.issuers.admitted_total().issuers, 50);
    for token in honest.iter().chain([&world.token("k1")]) {
        assert!(world.cached(token).await.is_some());
    }
    // Of its own it loses what it has not used for longest.
    let trusted = |n| {
        let issuer = format!("https://issuer-{n}.example").parse().unwrap();
        world.oidc.inner.issuers.cached(&issuer, &"hostile".parse().unwrap()).is_some()
    };
    assert!(trusted(4_999) && trusted(4_970) && !trusted(4_969));
    assert_eq!(world.fake.discoveries(), 21);
}

#[tokio::test]
async fn what_an_owner_caches_is_bounded_by_its_bytes() {
    let bounds = AdmittedBounds { issuers: usize::MAX, bytes: 1 << 20 };
    let world = World::with(|settings| settings.admitted = bounds).await;
    let honest = token_of(&world, "honest");
    assert!(world.verify(&honest).await.is_ok());
    let many: Vec<_> =
        (0..15_000).map(|n| json!({"kid": format!("{n}")})).chain([KEYS.rsa.named("k1")]).collect();
    world.fake.set().keys = many;
    for n in 0..20 {
        let token = token_of(&world, &format!("large-{n}"));
        let read = world.oidc.read(&token).unwrap();
        let admission = Admission::by_gate(read.issuer(), &"hostile".parse().unwrap());
        assert!(world.oidc.verify(&read, &admission).await.is_ok());
        assert!(world.oidc.inner.issuers.admitted_total().bytes <= 1 << 20);
    }
    assert!(world.cached(&honest).await.is_some());
}

#[tokio::test]
async fn owners_that_admit_one_issuer_share_its_fetches() {
    let world = World::new().await;
    let token = world.oidc.read(&token_of(&world, "shared")).unwrap();
    for owner in ["one", "two", "three"] {
        let owner = owner.parse().unwrap();
        assert!(
            world.oidc.verify_with_cached_keys(&token, &owner).await.is_none(),
            "not in its share yet"
        );
        assert!(
            world.oidc.verify(&token, &Admission::by_gate(token.issuer(), &owner)).await.is_ok()
        );
    }
    assert_eq!(world.fake.discoveries(), 1);
}

#[tokio::test]
async fn each_fetch_is_counted_by_how_it_ended() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let world = World::new().await;
    world.fake.answers(StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        world.verify(&world.token("k1")).await.unwrap_err().reason(),
        Reason::IssuerUnavailable
    );
    world.fake.answers(StatusCode::OK);
    world.clock.advance(Duration::from_secs(1));
    for _ in 0..3 {
        world.verify(&world.token("k1")).await.unwrap();
    }
    let text = recorder.handle().render();
    for line in [
        r#"octosts_issuer_fetches_total{outcome="done"} 1"#,
        r#"octosts_issuer_fetches_total{outcome="failed"} 1"#,
    ] {
        assert!(text.contains(line), "{text}");
    }
}
