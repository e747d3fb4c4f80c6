//! One owner's hostile policy holds up nobody else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::join_all;
use octo_sts::emulator::{Selection, Visibility};
use serde_json::json;

use super::setup;
use crate::harness::{APP_PERMISSIONS, Ask, POLICY};

/// Matched against 4 KiB of `a` and `b`, each of these needs a new DFA state for nearly every byte.
const HOSTILE: &str = "((.*a){1,10}){1,90}[c-d]";
/// Expensive by its size, and quick to match.
const LARGE: &str = r"\pL{1,40}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_other_owners_are_served_while_a_hostile_policy_is_evaluated() {
    let setup = setup().await;
    let conditions = |pattern: &str, count| {
        (0..count).map(|n| format!("  c{n}: '{pattern}'\n")).collect::<String>()
    };
    let policy = |claims: String| format!("{POLICY}claim_pattern:\n{claims}");
    setup.policy("hello", "large", &policy(conditions(LARGE, 2)));
    setup.github.org("hostile");
    setup.github.repo("hostile", "hello", Visibility::Public);
    setup.github.install(setup.app, "hostile", &Selection::All, APP_PERMISSIONS);
    let hostile = policy(conditions(HOSTILE, 4)).replace("${ISSUER}", &setup.issuer.url());
    setup.github.put_file("hostile", "hello", ".github/chainguard/ci.sts.yaml", &hostile);
    let world = setup.start().await;

    let long: String = std::iter::repeat_n("ab", 2000).collect();
    let costly = world.token(json!({"c0": long, "c1": long, "c2": long, "c3": long}));
    let costly = Ask::new("hostile/hello", "ci", &costly);
    let token = world.token(json!({"c0": "main", "c1": "main"}));
    let (cheap, large) =
        (Ask::new("octo-org/hello", "ci", &token), Ask::new("octo-org/hello", "large", &token));

    // Eight callers keep the hostile owner's share in use until the others are done.
    let is_done = Arc::new(AtomicBool::new(false));
    let hostile = (0..8).map(|_| {
        let (client, ask, is_done) = (world.client.clone(), costly.clone(), Arc::clone(&is_done));
        tokio::spawn(async move {
            let mut answers = vec![client.rest(&ask).await];
            while !is_done.load(Ordering::SeqCst) || answers.len() < 2 {
                answers.push(client.rest(&ask).await);
            }
            answers
        })
    });
    let hostile: Vec<_> = hostile.collect();
    super::until("the hostile policy was read", || world.github.calls().total() > 3).await;
    for _ in 0..10 {
        for answer in join_all([&cheap, &large, &cheap].map(|ask| world.client.rest(ask))).await {
            assert_eq!((answer.code, answer.reason.as_str()), (0, ""));
        }
    }
    is_done.store(true, Ordering::SeqCst);
    let answers: Vec<_> = join_all(hostile).await.into_iter().flat_map(Result::unwrap).collect();
    let of = |reason: &str| answers.iter().filter(|answer| answer.reason == reason).count();
    assert_eq!(of("POLICY_MISMATCH") + of("RATE_LIMITED"), answers.len(), "{answers:?}");
    assert!(of("POLICY_MISMATCH") > 0 && of("RATE_LIMITED") > 0, "{answers:?}");
    let limited = answers.iter().filter(|answer| answer.reason == "RATE_LIMITED");
    assert!(limited.into_iter().all(|answer| answer.code == 8 && answer.retry_after.is_some()));
    assert_eq!(world.issued().len(), 30, "nothing was minted by the hostile policy");
}
