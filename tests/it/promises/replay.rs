//! Replay protection: a token is exchanged once, on either wire, and what fails before a mint uses
//! nothing up.

use octo_sts::{
    clock::Clock,
    emulator::{Fault, RouteKind},
    oidc::Replay,
    telemetry::Metrics,
};
use serde_json::{Value, json};

use super::{GRANTED, pass, same, setup};
use crate::harness::{Ask, World};

const REPLAYED: (i32, &str) = (16, "TOKEN_REPLAYED");

async fn protected(replay: Replay) -> World {
    let mut setup = setup().await;
    setup.exchange().replay = replay;
    setup.start().await
}

fn usual(token: &str) -> Ask {
    Ask::new("octo-org/hello", "ci", token)
}

#[tokio::test]
async fn a_token_is_exchanged_once_over_both_wires() {
    let world = protected(Replay::Enforce).await;
    let (first, second) = (usual(&world.token(json!({}))), usual(&world.token(json!({}))));
    same(&world.client.rest(&first).await, GRANTED);
    same(&world.client.grpc(&first).await, REPLAYED);
    same(&world.client.rest(&first).await, REPLAYED);
    same(&world.client.grpc(&second).await, GRANTED);
    same(&world.client.rest(&second).await, REPLAYED);
    assert_eq!(world.issued().len(), 2);
    let record: Value = world.audit.find(|record| record["reason"] == "TOKEN_REPLAYED").await;
    assert_eq!((&record["replayed"], &record["verified"]), (&json!(true), &json!(true)));
}

/// What makes two tokens one, and what does not.
#[tokio::test]
async fn tokens_are_told_apart_by_jti_and_without_one_by_their_text() {
    let world = protected(Replay::Enforce).await;
    let (later, other) = (world.clock.now().as_secs() + 90, json!("another"));
    for (one, two, expected) in [
        (json!({"jti": "a"}), json!({"jti": "a", "exp": later}), REPLAYED),
        (json!({"jti": "b"}), json!({"jti": "c"}), GRANTED),
        (json!({"jti": null}), json!({"jti": null, "exp": later}), GRANTED),
        (json!({"jti": null, "x": 1}), json!({"jti": null, "x": 1}), REPLAYED),
        (json!({"jti": "", "x": 2}), json!({"jti": "", "x": 3}), GRANTED),
        (json!({"jti": 5, "x": 4}), json!({"jti": 5, "x": &other}), GRANTED),
    ] {
        let told = format!("{one} {two}");
        same(&world.client.rest(&usual(&world.token(one))).await, GRANTED);
        let answer = world.client.rest(&usual(&world.token(two))).await;
        assert_eq!((answer.code, answer.reason.as_str()), expected, "{told}");
    }
}

#[tokio::test]
async fn of_a_hundred_uses_at_once_one_is_granted() {
    let world = protected(Replay::Enforce).await;
    let ask = usual(&world.token(json!({})));
    let callers: Vec<_> = (0..100)
        .map(|n| {
            let (client, ask) = (world.client.clone(), ask.clone());
            tokio::spawn(async move {
                if n % 2 == 0 { client.rest(&ask).await } else { client.grpc(&ask).await }
            })
        })
        .collect();
    let mut granted = 0;
    for caller in callers {
        let answer = caller.await.unwrap();
        if answer.code == 0 {
            granted += 1;
        } else {
            same(&answer, REPLAYED);
        }
    }
    assert_eq!((granted, world.issued().len()), (1, 1));
}

#[tokio::test]
async fn a_token_is_remembered_as_long_as_it_is_accepted() {
    let world = protected(Replay::Enforce).await;
    let ask = usual(&world.token(json!({"exp": world.clock.now().as_secs() + 60})));
    same(&world.client.rest(&ask).await, GRANTED);
    for (seconds, expected) in [(60, REPLAYED), (29, REPLAYED), (2, (16, "TOKEN_EXPIRED"))] {
        pass(&world, seconds);
        same(&world.client.rest(&ask).await, expected);
    }
}

#[tokio::test]
async fn what_mints_nothing_uses_nothing_up() {
    let world = protected(Replay::Enforce).await;
    let ask = usual(&world.token(json!({})));
    assert_eq!(world.check("octo-org/hello", "ci", &world.token(json!({}))).await.reason(), "");
    for _ in 0..2 {
        assert!(world.client.check(&ask).await.reason().is_empty());
        same(
            &world.client.rest(&Ask { identity: "none".into(), ..ask.clone() }).await,
            (5, "POLICY_NOT_FOUND"),
        );
        same(
            &world.client.rest(&Ask { cap: vec!["contents:write".into()], ..ask.clone() }).await,
            (7, "PERMISSION_REFUSED"),
        );
    }
    // GitHub says that it minted nothing.
    for status in [401, 403, 422] {
        world.github.fault(Fault::on(RouteKind::Mint).status(status));
        assert_ne!(world.client.rest(&ask).await.reason, "TOKEN_REPLAYED", "{status}");
        world.github.heal();
    }
    same(&world.client.rest(&ask).await, GRANTED);
    same(&world.client.rest(&ask).await, REPLAYED);
}

#[tokio::test]
async fn what_may_have_minted_uses_the_token_up() {
    for fault in [
        Fault::on(RouteKind::Mint).status(502).after_effect(),
        Fault::on(RouteKind::Mint).status(502),
    ] {
        let world = protected(Replay::Enforce).await;
        let ask = usual(&world.token(json!({})));
        // What reads the policy is minted now, without the fault.
        assert_eq!(world.client.check(&ask).await.reason(), "");
        world.github.fault(fault);
        let answer = world.client.rest(&ask).await;
        assert_eq!(answer.code, 14, "{}", answer.message);
        world.github.heal();
        same(&world.client.rest(&ask).await, REPLAYED);
    }
}

#[tokio::test]
async fn a_warning_is_a_record_and_off_is_nothing() {
    let (recorder, metrics) = Metrics::recorder().unwrap();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let world = protected(Replay::Warn).await;
    let ask = usual(&world.token(json!({})));
    same(&world.client.rest(&ask).await, GRANTED);
    same(&world.client.rest(&ask).await, GRANTED);
    let records = world.audit.at_least(2).await;
    assert_eq!((&records[0]["replayed"], &records[1]["replayed"]), (&Value::Null, &json!(true)));
    assert!(metrics.render().contains("octosts_replayed_tokens_total 1"));

    let world = protected(Replay::Off).await;
    let ask = usual(&world.token(json!({})));
    same(&world.client.rest(&ask).await, GRANTED);
    same(&world.client.rest(&ask).await, GRANTED);
    assert!(world.audit.at_least(2).await.iter().all(|record| record["replayed"].is_null()));
}
