//! The audit sink is stuck: nothing is issued that could not be recorded.

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use http::Method;
use octo_sts::{audit::AuditSink, emulator::RouteKind};
use serde_json::json;

use super::{count, once, same, setup, until};
use crate::harness::{Ask, AuditLines, Setup, World};

/// A sink that takes nothing while it is held.
#[derive(Clone, Default)]
struct Valve(Arc<(Mutex<bool>, Condvar)>);

impl Valve {
    fn hold(&self, held: bool) {
        *self.0.0.lock().unwrap() = held;
        self.0.1.notify_all();
    }
}

struct Held(Valve, AuditLines);

impl AuditSink for Held {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let (held, changed) = &*self.0.0;
        drop(changed.wait_while(held.lock().unwrap(), |held| *held).unwrap());
        self.1.write(line)
    }
}

async fn world(mut setup: Setup) -> (World, Valve) {
    setup.settings.audit.places = 4;
    setup.settings.audit.patience = Duration::from_millis(50);
    let (valve, lines) = (Valve::default(), AuditLines::default());
    (setup.start_with(Box::new(Held(valve.clone(), lines.clone())), lines).await, valve)
}

async fn ready(world: &World) -> u16 {
    world.client.send(Method::GET, "/readyz", &[], "").await.status
}

#[tokio::test]
async fn exchanges_end_before_minting_and_readiness_drops_until_it_recovers() {
    let (world, valve) = world(setup().await).await;
    same(&once(&world).await, super::GRANTED);
    world.audit.at_least(1).await;
    valve.hold(true);
    for _ in 0..4 {
        same(&once(&world).await, super::GRANTED);
    }
    assert_eq!(ready(&world).await, 200, "a full queue alone is no reason");
    let asked = world.github.calls().total();
    let outcome = world.usual().await;
    assert_eq!((outcome.rest.code, outcome.reason()), (14, "AUDIT_UNAVAILABLE"));
    assert!(outcome.rest.retry_after.is_some());
    assert_eq!(world.github.calls().total(), asked, "GitHub is not even asked");
    assert_eq!(ready(&world).await, 503);
    valve.hold(false);
    world.audit.at_least(5).await;
    assert_eq!(ready(&world).await, 200);
    same(&once(&world).await, super::GRANTED);
    assert_eq!(world.stop().await.at_least(6).await.len(), 6);
}

#[tokio::test]
async fn attempts_that_end_unverified_hold_half_of_the_queue_and_get_8_beyond() {
    let (world, valve) = world(setup().await).await;
    valve.hold(true);
    let (kid, claims) =
        (json!({"kid": world.issuer.header()["kid"]}), json!({"iss": world.issuer.url()}));
    let forged = Ask::new("octo-org/hello", "ci", &world.issuer.at("/x").sign_with(&kid, &claims));
    for _ in 0..2 {
        assert_eq!(world.client.rest(&forged).await.code, 16);
    }
    let answer = world.client.rest(&forged).await;
    same(&answer, (8, "RATE_LIMITED"));
    assert!(answer.retry_after.is_some());
    // A real caller still finds a place, and its record says the truth.
    same(&once(&world).await, super::GRANTED);
    assert_eq!(ready(&world).await, 200);
    assert_eq!(count(&world, RouteKind::Mint), 3);
    valve.hold(false);
    let records = world.stop().await.at_least(3).await;
    assert_eq!(
        records.iter().map(|r| r["verified"].as_bool().unwrap()).collect::<Vec<_>>(),
        [false, false, true]
    );
}

#[tokio::test]
async fn a_stuck_sink_does_not_hold_up_the_end() {
    let mut setup = setup().await;
    setup.settings.shutdown_timeout = Duration::from_secs(2);
    let (world, valve) = world(setup).await;
    valve.hold(true);
    same(&once(&world).await, super::GRANTED);
    let github = world.github.clone();
    tokio::time::timeout(Duration::from_secs(8), world.stop()).await.expect("it ends");
    until("the read tokens are revoked", || github.revoked_tokens().len() == 2).await;
    valve.hold(false);
}

#[tokio::test]
async fn records_that_wait_when_the_server_is_told_to_stop_are_written_while_time_is_left() {
    let (world, valve) = world(setup().await).await;
    valve.hold(true);
    for _ in 0..4 {
        same(&once(&world).await, super::GRANTED);
    }
    world.terminate();
    until("the port is closed", || std::net::TcpStream::connect(world.address).is_err()).await;
    // Longer than any single step of the shutdown used to wait for the sink.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    valve.hold(false);
    assert_eq!(world.stop().await.at_least(4).await.len(), 4);
}
