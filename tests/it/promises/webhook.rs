//! A change that GitHub announces: refused within a second of the delivery, whatever is cached, in
//! flight, late, repeated, out of order, or still shown by GitHub as it was.

use std::time::Duration;

use octo_sts::emulator::{Fault, RouteKind};
use serde_json::{Value, json};

use super::{asking, count, once, pass, same, setup, until};
use crate::harness::{
    Setup, World,
    delivery::{Delivery, SECRET, push, webhook},
};

const CI: &str = ".github/chainguard/ci.sts.yaml";
const NOT_FOUND: (i32, &str) = (5, "POLICY_NOT_FOUND");

/// A server with a webhook.
async fn with_webhook() -> Setup {
    let mut setup = setup().await;
    setup.settings.webhook = Some(webhook(&[SECRET], &[]));
    setup
}

/// The same, after a grant: everything is cached.
async fn warm() -> World {
    let world = with_webhook().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world
}

/// Removes the policy and delivers the push that did it.
async fn remove(world: &World) {
    world.github.remove_file("octo-org", "hello", CI);
    let removed = push("hello", json!([{ "removed": [CI] }]));
    same_reply(&world.deliver(&Delivery::new("push", removed)).await, (200, "accepted"));
}

#[track_caller]
fn same_reply((status, message): &(u16, String), expected: (u16, &str)) {
    assert_eq!((*status, message.as_str()), expected);
}

#[tokio::test]
async fn a_deleted_policy_is_refused_after_the_reply() {
    let world = warm().await;
    remove(&world).await;
    same(&once(&world).await, NOT_FOUND);
    assert_eq!(world.issued().len(), 1);
}

#[tokio::test]
async fn a_narrowed_policy_and_a_narrowed_list_are_enforced_after_the_reply() {
    let world = warm().await;
    world.github.put_file("octo-org", "hello", CI, &narrowed(&world));
    world.deliver(&Delivery::new("push", push("hello", json!([{ "modified": [CI] }])))).await;
    same(&once(&world).await, (7, "POLICY_MISMATCH"));

    let setup = with_webhook().await;
    setup.list("issuers: ['${ISSUER}']\n");
    let world = setup.start().await;
    same(&once(&world).await, super::GRANTED);
    let list = ".github/chainguard/trusted-token-issuers.yaml";
    world.github.put_file("octo-org", ".github", list, "issuers: ['https://other.example']\n");
    let narrowed = push(".github", json!([{ "modified": [list] }]));
    world.deliver(&Delivery::new("push", narrowed)).await;
    same(&once(&world).await, (7, "ISSUER_NOT_PERMITTED"));
}

fn narrowed(world: &World) -> String {
    crate::harness::POLICY
        .replace("refs/heads/main", "refs/heads/release")
        .replace("${ISSUER}", &world.issuer.url())
}

#[tokio::test]
async fn while_github_still_shows_the_old_file_nothing_is_minted_by_it() {
    let world = warm().await;
    // The delivery is here before the file has changed everywhere.
    let removed = push("hello", json!([{ "removed": [CI] }]));
    world.deliver(&Delivery::new("push", removed)).await;
    for _ in 0..5 {
        same(&once(&world).await, super::DOWN);
        pass(&world, 1);
    }
    world.github.remove_file("octo-org", "hello", CI);
    same(&once(&world).await, NOT_FOUND);
    assert_eq!(world.issued().len(), 1);
}

#[tokio::test]
async fn for_ten_seconds_every_exchange_reads_the_policy_again() {
    let world = warm().await;
    let touched = push("hello", json!([{ "added": [".github/chainguard/other.sts.yaml"] }]));
    world.deliver(&Delivery::new("push", touched)).await;
    let reads = || count(&world, RouteKind::Contents);
    for second in 0..13 {
        let before = reads();
        same(&once(&world).await, super::GRANTED);
        // Once more after the window, since the last copy is from within it.
        assert_eq!(reads() > before, second <= 10, "second {second}");
        pass(&world, 1);
    }
}

#[tokio::test]
async fn a_copy_from_the_window_is_not_served_while_github_is_down() {
    let world = warm().await;
    let touched = push("hello", json!([{ "added": [".github/chainguard/other.sts.yaml"] }]));
    world.deliver(&Delivery::new("push", touched)).await;
    same(&once(&world).await, super::GRANTED);
    world.github.fault(Fault::on(RouteKind::Contents).status(503));
    for seconds in [1, 15, 60] {
        pass(&world, seconds);
        same(&once(&world).await, super::DOWN);
    }
    assert_eq!(world.issued().len(), 2);
}

#[tokio::test]
async fn an_exchange_in_flight_does_not_mint_by_the_old_policy() {
    // It waits for the mint, or GitHub's answer to the mint waits; the token is revoked then.
    for fault in
        [Fault::on(RouteKind::Mint).stall(), Fault::on(RouteKind::Mint).stall().after_effect()]
    {
        let world = warm().await;
        world.github.fault(fault);
        let mints = count(&world, RouteKind::Mint);
        let caller = asking(&world);
        until("the mint is under way", || count(&world, RouteKind::Mint) == mints + 1).await;
        remove(&world).await;
        world.github.release();
        same(&caller.await.unwrap(), NOT_FOUND);
        let alive = || world.issued().iter().skip(1).filter(|token| !token.revoked).count();
        until("its token is revoked", || alive() == 0).await;
    }
}

#[tokio::test]
async fn an_exchange_that_reads_the_old_policy_during_the_delivery_does_not_use_it() {
    let world = with_webhook().await.start().await;
    world
        .github
        .fault(Fault::on(RouteKind::Contents).path_with("ci.sts.yaml").stall().after_effect());
    let caller = asking(&world);
    let is_reading = || {
        let calls = world.github.log();
        calls.iter().any(|call| call.path.ends_with("ci.sts.yaml"))
    };
    until("the policy is being read", is_reading).await;
    remove(&world).await;
    world.github.release();
    same(&caller.await.unwrap(), NOT_FOUND);
    assert_eq!(world.issued().len(), 0);
}

#[tokio::test]
async fn under_load_no_exchange_that_begins_after_the_reply_is_granted() {
    let world = warm().await;
    let load: Vec<_> = (0..64).map(|_| asking(&world)).collect();
    remove(&world).await;
    let issued = world.issued().len();
    let later: Vec<_> = (0..64).map(|_| asking(&world)).collect();
    for caller in later {
        same(&caller.await.unwrap(), NOT_FOUND);
    }
    for caller in load {
        let answer = caller.await.unwrap();
        assert!([super::GRANTED, NOT_FOUND].contains(&(answer.code, answer.reason.as_str())));
    }
    let alive = || world.issued().iter().skip(issued).filter(|token| !token.revoked).count();
    until("nothing minted since is alive", || alive() == 0).await;
}

#[tokio::test]
async fn a_replay_changes_nothing_whatever_its_headers() {
    let world = warm().await;
    let touched = push("hello", json!([{ "added": [".github/chainguard/other.sts.yaml"] }]));
    let delivery = Delivery::new("push", touched);
    world.deliver(&delivery).await;
    pass(&world, 11);
    same(&once(&world).await, super::GRANTED);
    let reads = count(&world, RouteKind::Contents);
    for replay in [delivery.clone(), delivery.clone().id("another"), delivery.event("repository")] {
        same_reply(&world.deliver(&replay).await, (200, "replayed"));
        same(&once(&world).await, super::GRANTED);
    }
    assert_eq!(count(&world, RouteKind::Contents), reads);
}

#[tokio::test]
async fn an_older_push_that_arrives_later_does_not_bring_the_old_policy_back_nor_stop_the_new_one()
{
    let world = warm().await;
    let at = |seconds: i64, commits: Value| {
        let mut push = push("hello", commits);
        push["repository"]["pushed_at"] = json!(world.now() - seconds);
        push
    };
    world.github.put_file("octo-org", "hello", CI, &format!("{}# newer\n", world.policy_text()));
    let newer = at(1, json!([{ "modified": [CI] }]));
    world.deliver(&Delivery::new("push", newer)).await;
    same(&once(&world).await, super::GRANTED);
    let older = at(3, json!([{ "modified": [CI], "removed": [] }]));
    same_reply(&world.deliver(&Delivery::new("push", older)).await, (200, "accepted"));
    same(&once(&world).await, super::GRANTED);
}

#[tokio::test]
async fn a_late_delivery_stops_nothing_and_a_lost_one_costs_the_ttl() {
    let world = warm().await;
    let mut late = push("hello", json!([{ "modified": [CI] }]));
    late["repository"]["pushed_at"] = json!(world.now() - 60);
    world.deliver(&Delivery::new("push", late)).await;
    same(&once(&world).await, super::GRANTED);
    pass(&world, 11);
    same(&once(&world).await, super::GRANTED);
    // Lost.
    world.github.remove_file("octo-org", "hello", CI);
    pass(&world, 60);
    same(&once(&world).await, NOT_FOUND);
}

#[tokio::test]
async fn each_kind_of_change_removes_what_it_concerns_and_nothing_else() {
    let cases = include_str!("../../corpus/webhook/changes.json");
    let cases: Vec<(String, bool, Value)> = serde_json::from_str(cases).unwrap();
    for (event, removes, body) in cases {
        let world = warm().await;
        let reads = count(&world, RouteKind::Contents);
        let (status, message) = world.deliver(&Delivery::new(&event, body.clone())).await;
        assert!([200, 202].contains(&status), "{message}");
        pass(&world, 1);
        once(&world).await;
        assert_eq!(count(&world, RouteKind::Contents) > reads, removes, "{event} {body}");
    }
}

#[tokio::test]
async fn a_delivery_that_is_not_signed_changes_nothing_and_is_recorded_as_refused() {
    let world = warm().await;
    world.github.remove_file("octo-org", "hello", CI);
    let removed = push("hello", json!([{ "removed": [CI] }]));
    let forged = Delivery::new("push", removed).secret("guess");
    same_reply(&world.deliver(&forged).await, (400, "no matching secrets"));
    same(&once(&world).await, super::GRANTED);
    let record = world.audit.find(|record| record["operation"] == "delivery").await;
    assert_eq!(
        (&record["result"], &record["cause"], &record["delivery"], record.get("owner")),
        (&json!("refused"), &json!("no matching secrets"), &json!(forged.id), None)
    );
}

#[tokio::test]
async fn each_delivery_has_one_record_with_its_id() {
    let world = warm().await;
    remove(&world).await;
    let record = world.audit.find(|record| record["operation"] == "delivery").await;
    for (field, value) in [
        ("type", json!("audit")),
        ("result", json!("done")),
        ("event", json!("push")),
        ("owner", json!("octo-org")),
        ("repository", json!("hello")),
        ("invalidated", json!(1)),
        ("client_address", json!("127.0.0.1")),
    ] {
        assert_eq!(record[field], value, "{field}");
    }
}

#[tokio::test]
async fn any_path_without_a_route_takes_deliveries_and_a_port_of_their_own_too() {
    let world = warm().await;
    let touched = || push("hello", json!([{ "added": [format!("{CI}{}", rand())] }]));
    for path in ["/webhook", "/", "/hook", "/a/b?c=d"] {
        let delivery = Delivery::new("push", touched()).path(path);
        same_reply(&world.deliver(&delivery).await, (200, "accepted"));
    }
    // Routes stay what they are, and so do requests that are no deliveries.
    for (method, path, status) in [
        ("GET", "/webhook", 405),
        ("GET", "/", 200),
        ("POST", "/hook", 404),
        ("POST", "/webhook", 400),
        ("GET", "/livez", 200),
        ("POST", "/livez", 405),
        ("POST", "/", 405),
    ] {
        let reply = world.client.send(method.parse().unwrap(), path, &[], "").await;
        assert_eq!(reply.status, status, "{method} {path}");
    }
    for path in ["/", "/livez", "/readyz", "/openapi.json"] {
        let reply = world.client.send("OPTIONS".parse().unwrap(), path, &[], "").await;
        assert_eq!(reply.status, 405, "{path}");
        assert_eq!(reply.headers["allow"], "GET, HEAD", "{path}");
    }
    let exchange = Delivery::new("push", touched()).path("/sts/exchange");
    assert_eq!(world.deliver(&exchange).await.0, 401);
}

/// Distinguishes bodies that would otherwise be replays.
fn rand() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

#[tokio::test]
async fn only_the_listed_owners_count() {
    let mut setup = setup().await;
    setup.settings.webhook = Some(webhook(&["old", SECRET], &["other-org"]));
    let world = setup.start().await;
    let touched = push("hello", json!([{ "removed": [CI] }]));
    same_reply(&world.deliver(&Delivery::new("push", touched)).await, (200, "ignored"));
    same_reply(&world.deliver(&Delivery::new("star", json!({}))).await, (202, "ignored"));
}

#[tokio::test]
async fn bodies_up_to_25_mb_are_taken_and_larger_ones_are_not() {
    let world = warm().await;
    let mut large = push("hello", json!([{ "removed": [CI] }]));
    large["filler"] = json!("x".repeat((25 << 20) - 1024));
    let delivery = Delivery::new("push", large.clone());
    assert!(delivery.body.len() <= 25 << 20);
    same_reply(&world.deliver(&delivery).await, (200, "accepted"));
    large["filler"] = json!("x".repeat(25 << 20));
    let (status, message) = world.deliver(&Delivery::new("push", large)).await;
    assert_eq!((status, message.as_str()), (413, "the body is larger than 25 MB"));
    tokio::time::timeout(Duration::from_secs(5), once(&world)).await.unwrap();
}
