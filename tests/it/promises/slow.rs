//! Anything slow: an exchange ends in time, and only those who need what is slow wait for it.

use std::time::Duration;

use http::Method;
use octo_sts::emulator::{Document, Fault, Misbehaviour, RouteKind, Selection, Visibility};
use serde_json::json;
use tokio::time::timeout;

use super::{ask, asking, once, same, setup, until};
use crate::harness::{APP_PERMISSIONS, Ask, POLICY};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn an_exchange_ends_at_its_deadline_while_github_stalls() {
    let mut setup = setup().await;
    setup.exchange().deadline = Duration::from_secs(1);
    let world = setup.start().await;
    world.github.fault(Fault::anything().stall());
    let outcome = timeout(SOON, world.usual()).await.expect("it ends");
    assert_eq!((outcome.rest.code, outcome.reason()), (4, "DEADLINE"));
    let audit = world.stop().await.at_least(2).await;
    assert!(
        audit.iter().all(|record| record["reason"] == "DEADLINE" && record["verified"] == true),
        "{audit:?}"
    );
}

#[tokio::test]
async fn each_of_three_tries_has_its_own_time() {
    let mut setup = setup().await;
    setup.settings.github.try_timeout = Duration::from_millis(100);
    let world = setup.start().await;
    world.github.fault(Fault::on(RouteKind::UserInstallation).stall());
    same(&timeout(SOON, once(&world)).await.expect("it ends"), super::DOWN);
    assert_eq!(super::count(&world, RouteKind::UserInstallation), 3);
}

#[tokio::test]
async fn one_organization_that_hangs_holds_up_no_other() {
    let setup = setup().await;
    setup.github.org("acme");
    setup.github.repo("acme", "hello", Visibility::Private);
    setup.github.repo("acme", ".github", Visibility::Public);
    setup.github.install(setup.app, "acme", &Selection::All, APP_PERMISSIONS);
    let policy = POLICY.replace("${ISSUER}", &setup.issuer.url());
    setup.github.put_file("acme", "hello", ".github/chainguard/ci.sts.yaml", &policy);
    let world = setup.start().await;
    world.github.fault(Fault::anything().path_with("octo-org").stall());
    let waiting: Vec<_> = (0..100).map(|_| asking(&world)).collect();
    until("the look-up hangs", || super::count(&world, RouteKind::UserInstallation) > 0).await;
    let others = async {
        for _ in 0..5 {
            let acme = Ask::new("acme/hello", "ci", &world.token(json!({})));
            same(&world.client.rest(&acme).await, super::GRANTED);
        }
    };
    timeout(Duration::from_secs(8), others).await.expect("they are served meanwhile");
    assert!(waiting.iter().all(|caller| !caller.is_finished()));
    world.github.release();
    for caller in waiting {
        same(&caller.await.unwrap(), super::GRANTED);
    }
}

#[tokio::test]
async fn an_issuer_that_hangs_costs_its_callers_no_more_than_the_fetch_may_take() {
    let mut setup = setup().await;
    setup.settings.oidc.fetch_timeout = Duration::from_millis(200);
    let other = setup.issuer.at("/other");
    setup.settings.oidc.configured = vec![other.url().parse().unwrap()];
    for document in [Document::Discovery, Document::Jwks] {
        other.misbehave(document, Misbehaviour::Stall);
    }
    let world = setup.start().await;
    let token = other.sign(&world.claims());
    let slow = world.exchange("octo-org/hello", "ci", &token);
    let outcome = timeout(SOON, slow).await.expect("it ends");
    assert_eq!((outcome.rest.code, outcome.reason()), (14, "ISSUER_UNAVAILABLE"));
    assert!(outcome.rest.retry_after.is_some());
}

#[tokio::test]
async fn one_issuer_that_hangs_holds_up_no_other() {
    let mut setup = setup().await;
    let other = setup.issuer.at("/other");
    setup.settings.oidc.configured = vec![other.url().parse().unwrap()];
    other.misbehave(Document::Discovery, Misbehaviour::Stall);
    let world = setup.start().await;
    let stuck = Ask::new("octo-org/hello", "ci", &other.sign(&world.claims()));
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let (client, ask) = (world.client.clone(), stuck.clone());
            tokio::spawn(async move { client.rest(&ask).await })
        })
        .collect();
    until("the fetch hangs", || other.fetches().discovery > 0).await;
    let others = async {
        for _ in 0..5 {
            same(&world.client.rest(&ask(&world)).await, super::GRANTED);
        }
    };
    timeout(Duration::from_secs(8), others).await.expect("they are served meanwhile");
    assert!(waiting.iter().all(|caller| !caller.is_finished()));
    other.behave();
    for caller in waiting {
        assert_eq!(caller.await.unwrap().reason, "POLICY_MISMATCH");
    }
    assert_eq!(other.fetches().discovery, 1);
}

#[tokio::test]
async fn a_policy_that_is_costly_to_evaluate_holds_up_nobody() {
    let names = ["a", "b"];
    let hostile: String =
        names.iter().map(|name| format!("  {name}: '[ab]*a[ab]{{900}}'\n")).collect();
    let setup = setup().await;
    setup.policy("hello", "hostile", &format!("{POLICY}claim_pattern:\n{hostile}"));
    let world = setup.start().await;
    let (mut claims, mut random) = (json!({}), 12_345_u32);
    for name in names {
        let mut letter = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if random >> 31 == 0 { 'a' } else { 'b' }
        };
        claims[name] = (0..3900).map(|_| letter()).collect::<String>().into();
    }
    let ask = Ask::new("octo-org/hello", "hostile", &world.token(claims));
    let warm = Ask::new("octo-org/hello", "hostile", &world.token(json!({})));
    same(&world.client.rest(&warm).await, (7, "POLICY_MISMATCH"));
    let client = world.client.clone();
    let costly = tokio::spawn(async move { client.rest(&ask).await });
    let mut meanwhile = 0;
    while !costly.is_finished() {
        assert_eq!(world.client.send(Method::GET, "/livez", &[], "").await.status, 200);
        meanwhile += 1;
    }
    same(&costly.await.unwrap(), (7, "POLICY_MISMATCH"));
    assert!(meanwhile > 20, "only {meanwhile} requests were served meanwhile");
}
