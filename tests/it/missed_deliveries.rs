//! Deliveries that did not arrive, or were not finished: GitHub is asked to send them again.

use std::time::Duration;

use octo_sts::emulator::{Fault, RouteKind};
use serde_json::{Value, json};

use crate::harness::{
    POLICY, Setup, World,
    delivery::{SECRET, push, webhook},
};

const CI: &str = ".github/chainguard/ci.sts.yaml";

async fn setup() -> Setup {
    let mut setup = Setup::with_policy(POLICY).await;
    setup.settings.webhook = Some(webhook(&[SECRET], &[]));
    setup
}

/// A server to which the emulated App's webhook leads.
async fn world() -> World {
    let setup = setup().await;
    let (github, app) = (setup.github.clone(), setup.app);
    let world = setup.start().await;
    github.set_webhook(app, &format!("http://{}/webhook", world.address), SECRET);
    until(|| github.calls().of(RouteKind::Deliveries) == 2).await;
    world
}

async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
}

/// Lets the next sweep begin.
async fn sweep(world: &World) {
    let before = world.github.calls().of(RouteKind::Deliveries);
    world.clock.advance(Duration::from_secs(5 * 60));
    until(|| world.github.calls().of(RouteKind::Deliveries) > before).await;
}

fn removed(n: u64) -> Value {
    let mut push = push("hello", json!([{ "removed": [CI] }]));
    push["sender"] = json!(n);
    push
}

#[tokio::test]
async fn the_emulated_github_delivers_and_the_server_accepts() {
    let world = world().await;
    let app = world.app;
    let guid = world.github.deliver(app, "push", removed(1)).await;
    assert_eq!(world.github.delivery_statuses(&guid), [200]);
    let record = world.audit.find(|record| record["delivery"] == guid.as_str()).await;
    assert_eq!(record["result"], "done");
    assert_eq!(world.github.unknown_requests(), Vec::<String>::new());
}

#[tokio::test]
async fn what_failed_is_delivered_again_within_five_minutes_and_only_until_it_arrives() {
    let world = world().await;
    let guid = world.github.lose(world.app, "push", removed(1)).await;
    let fine = world.github.deliver(world.app, "push", removed(2)).await;
    // The first attempt stays on GitHub's list of failures. It is replayed twice more, and changes
    // nothing.
    for statuses in [&[0, 200][..], &[0, 200, 200], &[0, 200, 200, 200]] {
        sweep(&world).await;
        until(|| world.github.delivery_statuses(&guid) == statuses).await;
    }
    let record = world.audit.find(|record| record["delivery"] == guid.as_str()).await;
    assert_eq!(record["result"], "done");
    for _ in 0..3 {
        sweep(&world).await;
    }
    assert_eq!(world.github.delivery_statuses(&guid).len(), 4);
    assert_eq!(world.github.delivery_statuses(&fine), [200]);
    let records = world.audit.at_least(4).await;
    let of = |result: &str| {
        let is =
            |record: &&Value| record["delivery"] == guid.as_str() && record["result"] == result;
        records.iter().filter(is).count()
    };
    assert_eq!((of("done"), of("replayed")), (1, 2));
}

#[tokio::test]
async fn what_github_will_not_deliver_again_does_not_stop_the_rest() {
    let world = world().await;
    let forgotten = world.github.lose(world.app, "push", removed(1)).await;
    let lost = world.github.lose(world.app, "push", removed(2)).await;
    world.github.fault(Fault::on(RouteKind::Redeliver).status(404).times(1));
    sweep(&world).await;
    until(|| world.github.delivery_statuses(&lost) == [0, 200]).await;
    assert_eq!(world.github.delivery_statuses(&forgotten), [0]);
}

#[tokio::test]
async fn an_outage_uses_up_no_request() {
    let world = world().await;
    let lost = world.github.lose(world.app, "push", removed(1)).await;
    world.github.fault(Fault::on(RouteKind::Redeliver).status(503));
    for _ in 0..5 {
        sweep(&world).await;
    }
    assert_eq!(world.github.delivery_statuses(&lost), [0]);
    world.github.heal();
    sweep(&world).await;
    until(|| world.github.delivery_statuses(&lost).starts_with(&[0, 200])).await;
}

#[tokio::test]
async fn at_start_the_last_minutes_are_delivered_again() {
    let setup = setup().await;
    let (github, app) = (setup.github.clone(), setup.app);
    let old = github.accepted(app, "push", removed(1));
    setup.clock.advance(Duration::from_secs(11 * 60));
    let recent = github.accepted(app, "push", removed(2));
    let other = github.accepted(app, "installation", json!({ "action": "created" }));
    let _world = setup.start().await;
    until(|| github.delivery_statuses(&recent).len() == 2).await;
    assert_eq!(github.delivery_statuses(&old).len(), 1, "it was finished long ago");
    assert_eq!(github.delivery_statuses(&other).len(), 1, "there is no work after the reply");
}

#[tokio::test]
async fn hundreds_of_failures_are_found_page_by_page() {
    let setup = setup().await;
    let (github, app) = (setup.github.clone(), setup.app);
    let mut lost = Vec::new();
    for n in 0..250 {
        lost.push(github.lose(app, "push", removed(n)).await);
    }
    let _world = setup.start().await;
    until(|| lost.iter().all(|guid| github.delivery_statuses(guid).len() == 2)).await;
}
