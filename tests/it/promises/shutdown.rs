//! SIGTERM: not ready at once, running exchanges finish, and nothing that could read stays behind.

use futures_util::StreamExt;
use http::Method;
use octo_sts::emulator::{Fault, RouteKind};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{asking, count, once, same, setup, until};

#[tokio::test]
async fn running_exchanges_finish_and_read_tokens_are_revoked() {
    let world = setup().await.start().await;
    same(&once(&world).await, super::GRANTED);
    let before = count(&world, RouteKind::Mint);
    world.github.fault(Fault::on(RouteKind::Mint).stall());
    let running: Vec<_> = (0..3).map(|_| asking(&world)).collect();
    until("the mints are under way", || count(&world, RouteKind::Mint) == before + 3).await;
    world.terminate();
    until("nobody new is let in", || std::net::TcpStream::connect(world.address).is_err()).await;
    world.github.release();
    for caller in running {
        same(&caller.await.unwrap(), super::GRANTED);
    }
    let github = world.github.clone();
    assert_eq!(world.stop().await.at_least(4).await.len(), 4);
    let alive = github.live_tokens();
    assert_eq!(alive.len(), 4, "{alive:?}");
    assert!(alive.iter().all(|token| token.permissions["issues"] == "write"), "{alive:?}");
    assert_eq!(github.revoked_tokens().len(), 2);
}

#[tokio::test]
async fn readiness_drops_at_once() {
    let world = setup().await.start().await;
    assert_eq!(world.client.send(Method::GET, "/readyz", &[], "").await.status, 200);
    let channel =
        tonic::transport::Channel::from_shared(format!("http://{}", world.address)).unwrap();
    let mut health = HealthClient::new(channel.connect().await.unwrap());
    let mut states = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let mut told = async || states.next().await.unwrap().unwrap().status();
    assert_eq!(told().await, ServingStatus::Serving);
    world.terminate();
    assert_eq!(told().await, ServingStatus::NotServing);
    world.stop().await;
}
