//! Strangers in numbers.

use std::time::Duration;

use http::Method;
use octo_sts::{
    admission::Rate,
    emulator::{Alg, Fetches, Issuer, RouteKind},
};
use serde_json::json;

use super::{claims, is_the_answer, setup};
use crate::harness::{Answer, Ask, World};

/// A forged token of an issuer that listens, so that a request to it would be seen.
fn forged(world: &World, n: usize) -> String {
    let mut claims = claims();
    claims["iss"] = json!(format!("{}/invented-{n}", world.issuer.url()));
    world.issuer.at("/forger").sign(&claims)
}

/// Asks as the client behind the proxy at this address.
async fn from(
    world: &World,
    address: &str,
    (scope, identity): (&str, &str),
    token: &str,
) -> Answer {
    let path = format!("/sts/exchange?scope={scope}&identity={identity}");
    let headers = [("authorization", &*format!("Bearer {token}")), ("x-forwarded-for", address)];
    Answer::of_rest(&world.client.send(Method::GET, &path, &headers, "").await)
}

/// 10,000 forged tokens, each with an issuer, a name and an address of its own, a third of them for
/// owners that do not exist. How many were told to slow down.
async fn flood(world: &World) -> usize {
    // Quick to sign with.
    world.issuer.at("/forger").rotate(Alg::Es256);
    let mut limited = 0;
    for batch in 0..100 {
        let asks = (0..100).map(|n| batch * 100 + n).map(|n| async move {
            let scope = match n % 3 {
                0 => format!("invented-{n}/repo"),
                1 => format!("octo-org/invented-{n}"),
                _ => "octo-org/hello".to_owned(),
            };
            let address = format!("10.{}.{}.{}", n / 65_536, n / 256 % 256, n % 256);
            from(world, &address, (&scope, &format!("invented-{n}")), &forged(world, n)).await
        });
        for answer in futures_util::future::join_all(asks).await {
            match answer.code {
                8 => limited += 1,
                _ => is_the_answer(&answer),
            }
        }
    }
    limited
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_forged_tokens_cost_a_bounded_number_of_calls_and_hold_up_nobody() {
    let (mut setup, tenant) = setup().await;
    setup.settings.transport.trusted_proxy_hops = 1;
    let world = setup.start().await;
    let usual = Ask::new("octo-org/hello", "ci", &world.token(json!({})));
    assert_eq!(world.client.rest(&usual).await.code, 0);
    from(&world, "192.0.2.1", ("octo-org/hello", "pod"), &tenant.sign(&claims())).await;
    let (calls, fetches) = (world.github.calls(), world.issuer.fetches());

    let real = async {
        let mut served = 0;
        for _ in 0..100 {
            assert_eq!(world.client.rest(&usual).await.code, 0);
            let pod =
                from(&world, "192.0.2.1", ("octo-org/hello", "pod"), &tenant.sign(&claims())).await;
            assert_eq!(pod.code, 0, "{pod:?}");
            served += 2;
        }
        served
    };
    let (limited, served) = tokio::join!(flood(&world), real);

    let calls = world.github.calls().since(&calls);
    let unverified = calls.total() - served;
    // The process's burst is 3,000: each costs two lookups of an owner, or a mint and a read or
    // two.
    assert!(limited >= 7_000, "{limited} of 10,000 were told to slow down");
    assert!(unverified <= 3_000 * 4, "{unverified} calls: {:?}", calls.iter().collect::<Vec<_>>());
    assert_eq!(world.issuer.fetches(), fetches, "issuers were asked");
    assert_eq!(world.issuer.unknown_requests(), [""; 0], "issuers were asked");
    assert_eq!(tenant.fetches(), Fetches { discovery: 1, jwks: 1 });
    assert_eq!(world.issued().len(), served / 2 + 1, "only real callers were given a token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_push_nothing_out_that_real_callers_use() {
    let (mut setup, _) = setup().await;
    setup.settings.transport.trusted_proxy_hops = 1;
    let wide = Rate::new(1_000_000, 1_000_000);
    let rates = &mut setup.exchange().admission;
    (rates.owner, rates.address, rates.process) = (wide, wide, wide);
    let world = setup.start().await;
    let usual = Ask::new("octo-org/hello", "ci", &world.token(json!({})));
    assert_eq!(world.client.rest(&usual).await.code, 0);
    // More owners than the lookups of unverified callers have room for: two calls each, and as many again for
    // those that were pushed out since.
    world.issuer.at("/forger").rotate(Alg::Es256);
    let owners = async || {
        let before = world.github.calls().total();
        for batch in 0..30 {
            let asks = (0..50).map(|n| batch * 50 + n).map(|n| {
                let world = &world;
                async move {
                    let address = format!("10.0.{}.{}", n / 256, n % 256);
                    from(world, &address, (&format!("invented-{n}/x"), "ci"), &forged(world, n))
                        .await
                }
            });
            futures_util::future::join_all(asks).await.iter().for_each(is_the_answer);
        }
        world.github.calls().total() - before
    };
    assert_eq!(owners().await, 3_000);
    let again = owners().await;
    assert!(again >= 600, "{again} calls: what unverified callers made up is held without bound");
    let before = world.github.calls();
    assert_eq!(world.client.rest(&usual).await.code, 0);
    assert_eq!(world.github.calls().since(&before).total(), 1, "everything is at hand still");
}

#[tokio::test]
async fn an_empty_bucket_answers_alike_for_every_owner() {
    let (setup, tenant) = setup().await;
    let world = setup.start().await;
    for n in 0..30 {
        let ask = Ask::new("octo-org/hello", "none", &forged(&world, n));
        is_the_answer(&world.client.rest(&ask).await);
    }
    let calls = world.github.calls().total();
    let mut told = Vec::new();
    for scope in ["octo-org/hello", "octo-org/none", "nobody/none"] {
        let outcome = world.exchange(scope, "pod", &tenant.sign(&claims())).await;
        assert_eq!((outcome.rest.code, outcome.reason()), (8, "RATE_LIMITED"), "{scope}");
        told.push((outcome.rest.message.clone(), outcome.rest.retry_after));
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
    assert_eq!(told[0].1, Some(Duration::from_secs(1)));
    assert_eq!((world.github.calls().total(), tenant.fetches()), (calls, Fetches::default()));
    // A check is charged to the same buckets.
    let checked = world.check("octo-org/hello", "pod", &tenant.sign(&claims())).await;
    assert_eq!(checked.reason(), "RATE_LIMITED");
    assert_eq!((world.github.calls().total(), tenant.fetches()), (calls, Fetches::default()));
    world.clock.advance(Duration::from_secs(1));
    let forged_check = async |n| {
        world.client.check_rest(&Ask::new("octo-org/hello", "none", &forged(&world, n))).await
    };
    assert_eq!(forged_check(31).await.reason(), "ISSUER_NOT_TRUSTED");
    assert_eq!(forged_check(32).await.reason(), "RATE_LIMITED");
    // Known issuers need none of them.
    world.usual().await.tokens();
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(
        world.client.rest(&Ask::new("octo-org/hello", "pod", &tenant.sign(&claims()))).await.code,
        0
    );
}

#[tokio::test]
async fn an_empty_bucket_does_not_refuse_a_proven_caller_whose_token_cached_keys_verify() {
    let (setup, tenant) = setup().await;
    let world = setup.start().await;
    let ask = |tenant: &Issuer| Ask::new("octo-org/hello", "pod", &tenant.sign(&claims()));
    assert_eq!(world.client.rest(&ask(&tenant)).await.code, 0);
    for n in 0..40 {
        world.client.rest(&Ask::new("octo-org/hello", "none", &forged(&world, n))).await;
    }
    assert_eq!(
        world.client.rest(&Ask::new("octo-org/hello", "none", &forged(&world, 99))).await.code,
        8
    );
    for _ in 0..100 {
        assert_eq!(world.client.rest(&ask(&tenant)).await.code, 0);
    }
}

#[tokio::test]
async fn the_lookups_of_an_unverified_caller_are_shared_and_remembered() {
    let (setup, _) = setup().await;
    let world = setup.start().await;
    let asks =
        (0..20).map(|n| {
            let world = &world;
            async move {
                world.client.rest(&Ask::new("octo-org/hello", "none", &forged(world, n))).await
            }
        });
    futures_util::future::join_all(asks).await.iter().for_each(is_the_answer);
    let calls = world.github.calls();
    assert_eq!(calls.of(RouteKind::UserInstallation), 1);
    assert_eq!((calls.of(RouteKind::Mint), calls.of(RouteKind::Repository)), (2, 1));
    assert_eq!(
        calls.of(RouteKind::Contents),
        3,
        "the list, the policy, and the proof that it is absent"
    );
}
