//! Three attempts for each call, two for a mint; a long `Retry-After` is returned to the caller.

use std::time::Duration;

use octo_sts::emulator::{Fault, RouteKind};

use super::{count, once, refused, same, setup};

/// Every kind of call that an exchange needs, in its order.
const NEEDED: [RouteKind; 3] = [RouteKind::UserInstallation, RouteKind::Mint, RouteKind::Contents];

/// So many attempts a call of this kind has.
fn attempts(kind: RouteKind) -> u32 {
    if kind == RouteKind::Mint { 2 } else { 3 }
}

#[tokio::test]
async fn bad_answers_are_survived_up_to_the_last_attempt() {
    for kind in NEEDED {
        for fault in [Fault::on(kind).status(503), Fault::on(kind).html(502), Fault::on(kind).cut()]
        {
            let world = setup().await.start().await;
            world.github.fault(fault.clone().times(attempts(kind) - 1));
            same(&once(&world).await, super::GRANTED);

            let world = setup().await.start().await;
            world.github.fault(fault.clone());
            let (code, reason) = refused(&world).await;
            assert_eq!(code, 14, "{kind:?} {fault:?} {reason}");
            assert_eq!(count(&world, kind), attempts(kind) as usize, "{kind:?} {fault:?}");
        }
    }
}

#[tokio::test]
async fn what_no_retry_can_mend_is_not_tried_again() {
    for status in [400, 401, 404, 409, 422, 505] {
        let world = setup().await.start().await;
        same(&once(&world).await, super::GRANTED);
        let before = count(&world, RouteKind::Mint);
        world.github.fault(Fault::on(RouteKind::Mint).status(status));
        assert_ne!(once(&world).await.code, 0);
        // A 401 and a 404 may speak of an installation that is gone: it is looked up once more.
        let tries = if matches!(status, 401 | 404) { 2 } else { 1 };
        assert_eq!(count(&world, RouteKind::Mint) - before, tries, "{status}");
    }
}

#[tokio::test]
async fn a_long_wait_is_handed_on_and_not_waited_for() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    let before = count(&world, RouteKind::Mint);
    world.github.fault(Fault::on(RouteKind::Mint).status(503).header("retry-after", "3"));
    let answer = once(&world).await;
    same(&answer, super::DOWN);
    assert_eq!(answer.retry_after, Some(Duration::from_secs(3)));
    assert_eq!(count(&world, RouteKind::Mint) - before, 1);
}

#[tokio::test]
async fn a_short_wait_is_waited_for() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    world.github.fault(Fault::on(RouteKind::Mint).times(1).status(503).header("retry-after", "1"));
    let mut caller = super::asking(&world);
    assert!(tokio::time::timeout(Duration::from_millis(900), &mut caller).await.is_err());
    same(&caller.await.unwrap(), super::GRANTED);
}
