//! What the server promises when something fails, one module for each thing that can.
//!
//! Time is injected wherever it decides. Where a test needs a caller to be waiting, it waits for
//! the request to arrive at the emulator, never for a while.

mod attempts;
mod budgets;
mod caches;
mod deny_file;
mod github_down;
mod hangup;
mod hostile_policy;
mod issuers;
mod late;
mod lessons;
mod limits;
mod list;
mod pools;
mod refusals;
mod renames;
mod replay;
mod retries;
mod shutdown;
mod signer;
mod sink;
mod slow;
mod visibility;
mod webhook;

use std::time::Duration;

use octo_sts::emulator::RouteKind;
use serde_json::json;
use tokio::{task::JoinHandle, time::timeout};

use crate::harness::{Answer, Ask, POLICY, Setup, World};

/// The usual world, with backoffs that cost a test nothing.
async fn setup() -> Setup {
    let mut setup = Setup::with_policy(POLICY).await;
    setup.settings.github.first_backoff = Duration::from_millis(1);
    setup
}

/// The usual question with a fresh token.
fn ask(world: &World) -> Ask {
    Ask::new("octo-org/hello", "ci", &world.token(json!({})))
}

/// The usual question, once and over REST, where calls are counted.
async fn once(world: &World) -> Answer {
    world.client.rest(&ask(world)).await
}

/// Code and reason of the usual question.
async fn refused(world: &World) -> (i32, String) {
    let answer = once(world).await;
    (answer.code, answer.reason)
}

/// A caller that is under way.
fn asking(world: &World) -> JoinHandle<Answer> {
    let (client, ask) = (world.client.clone(), ask(world));
    tokio::spawn(async move { client.rest(&ask).await })
}

/// Moves the clock.
fn pass(world: &World, seconds: u64) {
    world.clock.advance(Duration::from_secs(seconds));
}

/// Waits until something is so, ten seconds at most.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// How often GitHub was asked for something of this kind.
fn count(world: &World, kind: RouteKind) -> usize {
    world.github.calls().of(kind)
}

const DOWN: (i32, &str) = (14, "GITHUB_UNAVAILABLE");
const LIMITED: (i32, &str) = (8, "GITHUB_RATE_LIMITED");
const GRANTED: (i32, &str) = (0, "");

/// Compares code and reason.
#[track_caller]
fn same(answer: &Answer, expected: (i32, &str)) {
    assert_eq!((answer.code, answer.reason.as_str()), expected, "{}", answer.message);
}
