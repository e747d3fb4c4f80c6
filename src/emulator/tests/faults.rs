//! Faults do what was asked for, as often as asked, and only then.

use super::*;
use crate::emulator::{Fault, Lie, RouteKind};

#[tokio::test]
async fn statuses_pages_and_broken_bodies() {
    let world = World::new().await;
    let token = world.mint(Value::Null).await;
    let repository = Fault::on(RouteKind::Repository);
    world.github.fault(repository.clone().times(2).status(502));
    for _ in 0..2 {
        let answer = world.get("/repos/octo-org/hello", &token).await;
        assert_eq!((answer.status, answer.json()), (502, json!({"error": "Server Error"})));
    }
    assert_eq!(world.get("/repos/octo-org/hello", &token).await.status, 200);

    world.github.fault(repository.clone().times(1).status(429).header("retry-after", "7"));
    let limited = world.get("/repos/octo-org/hello", &token).await;
    assert_eq!((limited.status, limited.header("retry-after")), (429, "7"));
    world.github.fault(repository.clone().times(1).html(503));
    assert!(
        world
            .get("/repos/octo-org/hello", &token)
            .await
            .header("content-type")
            .starts_with("text/html")
    );
    world.github.fault(repository.clone().times(1).truncated());
    assert!(
        serde_json::from_slice::<Value>(&world.get("/repos/octo-org/hello", &token).await.body)
            .is_err()
    );
    world.github.fault(repository.clone().times(1).padded(1 << 20));
    let padded = world.get("/repos/octo-org/hello", &token).await;
    assert_eq!((padded.body.len(), &padded.json()["name"]), (1 << 20, &json!("hello")));
    world.github.fault(repository.path_with("/OPEN").after(1).status(500));
    let paths = ["hello", "open", "open", "hello"].map(|name| format!("/repos/octo-org/{name}"));
    let mut statuses = Vec::new();
    for path in &paths {
        statuses.push(world.get(path, &token).await.status);
    }
    assert_eq!(statuses, [200, 200, 500, 200]);
    world.github.heal();
    assert_eq!(world.get("/repos/octo-org/open", &token).await.status, 200);
}

#[tokio::test]
async fn a_connection_is_cut_before_or_after() {
    let world = World::new().await;
    let path = format!("/app/installations/{}/access_tokens", world.installation);
    let bearer = format!("Bearer {}", world.jwt());
    world.github.fault(Fault::on(RouteKind::Mint).method(Method::POST).times(1).cut());
    assert!(world.try_send(Method::POST, &path, &bearer, None).await.is_err());
    assert!(world.github.minted().is_empty());
    world.github.fault(Fault::anything().times(1).cut_after());
    assert!(world.try_send(Method::POST, &path, &bearer, None).await.is_err());
    assert_eq!(world.github.minted().len(), 1, "it took effect");
    assert_eq!(world.github.calls().of(RouteKind::Mint), 2);
}

#[tokio::test]
async fn an_answer_is_lost_after_the_request_took_effect() {
    let world = World::new().await;
    let path = format!("/app/installations/{}/access_tokens", world.installation);
    let bearer = format!("Bearer {}", world.jwt());
    let mint = || world.try_send(Method::POST, &path, &bearer, None);
    world.github.fault(Fault::on(RouteKind::Mint).times(1).status(502));
    assert_eq!((mint().await.unwrap().status, world.github.minted().len()), (502, 0));
    world.github.fault(Fault::on(RouteKind::Mint).times(1).status(502).after_effect());
    assert_eq!((mint().await.unwrap().status, world.github.minted().len()), (502, 1));
    world.github.fault(Fault::on(RouteKind::Mint).times(1).stall().after_effect());
    let mut late = Box::pin(mint());
    while world.github.minted().len() == 1 {
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(5), &mut late).await.is_err()
        );
    }
    world.github.release();
    assert_eq!((late.await.unwrap().status, world.github.minted().len()), (201, 2));
}

#[tokio::test]
async fn stalled_requests_do_not_hold_others() {
    let world = World::new().await;
    let token = world.mint(Value::Null).await;
    world.github.fault(Fault::on(RouteKind::Repository).path_with("hello").stall());
    let (http, github, url) = (world.http.clone(), world.github.clone(), world.github.url());
    let stalled =
        tokio::spawn(async move { http.get(&format!("{url}/repos/octo-org/hello")).await.status });
    while github.calls().of(RouteKind::Repository) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.get("/repos/octo-org/open", &token).await.status, 200);
    assert!(!stalled.is_finished());
    world.github.release();
    assert_eq!(stalled.await.unwrap(), 404);

    world.github.fault(Fault::on(RouteKind::Meta).stall_for(Duration::from_secs(10)));
    let (http, url) = (world.http.clone(), world.github.url());
    let late = tokio::spawn(async move { http.get(&format!("{url}/meta")).await.status });
    while github.calls().of(RouteKind::Meta) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!late.is_finished());
    // The sleeper may start after the clock was moved: then it needs another push.
    while !late.is_finished() {
        world.advance(10);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(late.await.unwrap(), 200);
}

#[tokio::test]
async fn replies_that_are_wider_than_the_truth() {
    let world = World::new().await;
    let asked = json!({"permissions": {"contents": "read"}, "repositories": ["hello"]});
    for (lie, pointer, told) in [
        (
            Lie::ExtraPermission("members".into(), "write".into()),
            "/permissions/members",
            json!("write"),
        ),
        (
            Lie::Level("admin".into()),
            "/permissions",
            json!({"contents": "admin", "metadata": "read"}),
        ),
        (Lie::ExtraRepository("secret".into()), "/repositories/1/name", json!("secret")),
        (Lie::SelectionAll, "/repository_selection", json!("all")),
        (Lie::NoRepositories, "/repositories", Value::Null),
        (Lie::NoPermissions, "/permissions", Value::Null),
        (Lie::Set("/expires_at".into(), json!("soon")), "/expires_at", json!("soon")),
        (Lie::Set("/new/member".into(), json!(1)), "/new/member", json!(1)),
        (Lie::Remove("/token".into()), "/token", Value::Null),
    ] {
        let truth = world.try_mint(asked.clone()).await.json();
        world.github.fault(Fault::on(RouteKind::Mint).times(1).lie(lie.clone()));
        let lied = world.try_mint(asked.clone()).await.json();
        assert_eq!(lied.pointer(pointer).cloned().unwrap_or_default(), told, "{lie:?}");
        assert_ne!(truth.pointer(pointer).cloned().unwrap_or_default(), told, "{lie:?}");
    }
    assert!(
        world
            .github
            .minted()
            .iter()
            .all(|token| token.permissions["contents"] == "read" && token.permissions.len() == 2)
    );
}

#[tokio::test]
async fn a_body_hangs_or_breaks_off() {
    let world = World::new().await;
    let get = || world.try_send(Method::GET, "/meta", "", None);
    world.github.fault(Fault::on(RouteKind::Meta).times(1).cut_body());
    assert!(get().await.is_err());
    world.github.fault(Fault::on(RouteKind::Meta).times(1).hang());
    let hung = tokio::time::timeout(Duration::from_millis(100), get()).await;
    assert!(hung.is_err(), "{hung:?}");
    assert_eq!(get().await.unwrap().status, 200);
}
