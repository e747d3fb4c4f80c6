//! A caller hangs up: its exchange ends and is recorded, and nothing that was minted for it stays.

use octo_sts::emulator::{Fault, RouteKind};

use super::{asking, count, once, same, setup, until};

#[tokio::test]
async fn a_token_that_was_minted_for_it_is_revoked_and_it_is_recorded_once() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    let before = count(&world, RouteKind::Mint);
    world.github.fault(Fault::on(RouteKind::Mint).stall());
    let caller = asking(&world);
    until("the mint is under way", || count(&world, RouteKind::Mint) > before).await;
    caller.abort();
    let records = world.audit.at_least(2).await;
    assert_eq!(
        (records[1]["result"].as_str(), records[1]["verified"].as_bool()),
        (Some("abandoned"), Some(true))
    );
    assert!(records[1]["token"].is_null());
    world.github.release();
    until("the token is revoked", || {
        world.issued().iter().filter(|token| token.revoked).count() == 1
    })
    .await;
    assert_eq!(world.issued().len(), 2);
    assert_eq!(world.stop().await.at_least(2).await.len(), 2, "one record for each attempt");
}

#[tokio::test]
async fn a_shared_look_up_goes_on_for_the_others() {
    let world = setup().await.start().await;
    world.github.fault(Fault::on(RouteKind::UserInstallation).stall());
    let first = asking(&world);
    until("the look-up is under way", || count(&world, RouteKind::UserInstallation) == 1).await;
    let others: Vec<_> = (0..5).map(|_| asking(&world)).collect();
    first.abort();
    let records = world.audit.at_least(1).await;
    assert_eq!(records[0]["result"], "abandoned");
    world.github.release();
    for other in others {
        same(&other.await.unwrap(), super::GRANTED);
    }
    assert_eq!(count(&world, RouteKind::UserInstallation), 1);
    assert_eq!(world.stop().await.at_least(6).await.len(), 6);
}

#[tokio::test]
async fn a_caller_that_hangs_up_poisons_nothing() {
    let world = setup().await.start().await;
    world.github.fault(Fault::on(RouteKind::Contents).stall());
    let caller = asking(&world);
    until("the read is under way", || count(&world, RouteKind::Contents) == 1).await;
    caller.abort();
    world.audit.at_least(1).await;
    world.github.release();
    same(&once(&world).await, super::GRANTED);
}
