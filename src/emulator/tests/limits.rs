//! Rate limits, what every request needs, and Enterprise Server.

use super::*;
use crate::emulator::{LimitStyle, RouteKind};

#[tokio::test]
async fn the_primary_limit_of_an_installation() {
    let world = World::with(Options { hourly_limit: 3, ..Options::default() }).await;
    let token = world.mint(Value::Null).await;
    for remaining in ["2", "1", "0"] {
        let answer = world.get("/repos/octo-org/hello", &token).await;
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining")), (200, remaining));
        assert_eq!(answer.header("x-ratelimit-resource"), "core");
    }
    let message = format!("API rate limit exceeded for installation ID {}.", world.installation);
    for (status, retry_after, told) in [(403, false, ""), (429, true, "3540")] {
        world.github.set(|options| options.limit_style = LimitStyle { status, retry_after });
        world.advance(60 * u64::from(retry_after));
        let answer = world.get("/repos/octo-org/hello", &token).await;
        assert_eq!((answer.status, answer.message()), (status, message.clone()));
        assert_eq!(
            (answer.header("x-ratelimit-remaining"), answer.header("retry-after")),
            ("0", told)
        );
        assert_eq!(answer.header("x-ratelimit-reset"), "1767229200");
    }
    let free = world.get("/rate_limit", &token).await.json();
    assert_eq!(
        (&free["resources"]["core"]["remaining"], &free["rate"]["limit"]),
        (&json!(0), &json!(3))
    );
    world.advance(3_540);
    let token = world.mint(Value::Null).await;
    assert_eq!(
        world.get("/repos/octo-org/hello", &token).await.header("x-ratelimit-remaining"),
        "2"
    );
    assert!(world.github.spend_quota(world.installation, 2));
    assert_eq!(world.get("/repos/octo-org/hello", &token).await.status, 429);
    assert_eq!(world.try_mint(Value::Null).await.status, 201, "minting draws on no quota");
}

#[tokio::test]
async fn the_secondary_limit_on_minting() {
    let style = LimitStyle { status: 403, retry_after: true };
    let world = World::with(Options {
        mints_per_minute: Some(2),
        limit_style: style,
        ..Options::default()
    })
    .await;
    for _ in 0..2 {
        world.mint(Value::Null).await;
    }
    let refused = world.try_mint(Value::Null).await;
    assert_eq!((refused.status, refused.header("retry-after")), (403, "60"));
    assert_eq!(
        refused.message(),
        "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
    );
    assert_eq!(world.github.minted_count(), 2);
    world.advance(60);
    world.mint(Value::Null).await;
}

#[tokio::test]
async fn what_every_request_needs() {
    let world = World::new().await;
    let bare =
        http::Request::get(format!("{}/meta", world.github.url())).body(Full::default()).unwrap();
    assert_eq!(world.http.try_send(bare).await.unwrap().status, 403);
    let token = world.mint(Value::Null).await;
    let answer = world.get_with("/meta", &token, ("x-github-api-version", "2026-03-10")).await;
    assert_eq!(
        (answer.status, answer.header("x-github-api-version-selected")),
        (200, "2026-03-10")
    );
    assert!(!answer.header("x-github-request-id").is_empty());
    assert_eq!(
        world.get_with("/meta", &token, ("x-github-api-version", "2020-01-01")).await.status,
        400
    );
    let repository = world
        .get_with("/repos/octo-org/hello", &token, ("x-github-api-version", "2026-03-10"))
        .await
        .json();
    assert!(repository.get("has_downloads").is_none() && repository.get("name").is_some());
    let rate =
        world.get_with("/rate_limit", &token, ("x-github-api-version", "2026-03-10")).await.json();
    assert!(rate.get("rate").is_none() && rate.get("resources").is_some());
    assert_eq!(
        world.get("/installation/repositories", "").await.message(),
        "Requires authentication"
    );
    assert_eq!(
        world.send(Method::GET, "/meta", "Digest x", None).await.message(),
        "Bad credentials"
    );
}

#[tokio::test]
async fn an_enterprise_server() {
    let world = World::with(Options { enterprise_server: true, ..Options::default() }).await;
    assert!(world.github.url().ends_with("/api/v3"));
    let token = world.mint(Value::Null).await;
    let answer = world.get("/repos/octo-org/hello", &token).await;
    assert!(answer.json()["url"].as_str().unwrap().starts_with(&world.github.url()));
    assert!(
        !answer.headers.contains_key("x-ratelimit-limit")
            && answer.headers.contains_key("x-github-enterprise-version")
    );
    assert!(world.get("/meta", &token).await.json()["installed_version"].is_string());
    assert_eq!(world.get("/rate_limit", &token).await.status, 404);
    let root = world.github.url().replace("/api/v3", "/meta");
    assert_eq!(world.http.get(&root).await.status, 501);
}

#[tokio::test]
async fn requests_are_counted_and_logged_without_credentials() {
    let world = World::new().await;
    let before = world.github.calls();
    let token = world.mint(json!({"repositories": ["hello"]})).await;
    world.get("/repos/octo-org/hello?x=1", &token).await;
    let calls = world.github.calls().since(&before);
    assert_eq!(
        (calls.of(RouteKind::Mint), calls.of(RouteKind::Repository), calls.total()),
        (1, 1, 2)
    );
    let log = world.github.log();
    assert_eq!((log[0].app, log[0].status), (Some(world.app), Some(201)));
    assert_eq!(
        (log[1].installation, log[1].path.as_str()),
        (Some(world.installation), "/repos/octo-org/hello?x=1")
    );
    assert!(!format!("{log:?}{:?}", world.github.minted()).contains(&token));
}

/// A second App on the organization of `first`, on the same GitHub.
fn second_app(first: &World) -> World {
    let (app, pem) = first.github.app("octo-sts-2");
    let installation = first.github.install(app, "octo-org", &Selection::All, &GRANTED);
    let github = first.github.clone();
    World { github, clock: first.clock.clone(), http: Http::new(), app, pem, installation }
}

/// Reads a private repository: the status, and what remains of the quota.
async fn read(world: &World, token: &str) -> (u16, String) {
    let answer = world.get("/repos/octo-org/hello", token).await;
    (answer.status, answer.header("x-ratelimit-remaining").to_owned())
}

#[tokio::test]
async fn apps_on_one_owner_share_nothing() {
    let first = World::new().await;
    let second = second_app(&first);
    let foreign_key = World { pem: first.pem.clone(), ..second_app(&first) };
    assert_eq!(foreign_key.try_mint(Value::Null).await.status, 401, "each App has its own keys");
    let token = first.mint(Value::Null).await;
    let other = second.mint(Value::Null).await;
    assert!(first.github.set_hourly_limit(first.installation, 2));
    for (from_first, from_second) in
        [((200, "1"), (200, "4999")), ((200, "0"), (200, "4998")), ((403, "0"), (200, "4997"))]
    {
        let (status, remaining) = read(&first, &token).await;
        assert_eq!((status, remaining.as_str()), from_first);
        let (status, remaining) = read(&second, &other).await;
        assert_eq!((status, remaining.as_str()), from_second);
    }
    assert!(first.github.set_mints_per_minute(first.app, 1));
    assert_eq!(first.try_mint(Value::Null).await.status, 201, "no limit was counted before");
    let limited = first.try_mint(Value::Null).await;
    assert!(limited.status == 403 && limited.message().contains("secondary rate limit"));
    assert_eq!(second.try_mint(Value::Null).await.status, 201);
    assert!(second.github.suspend(second.installation));
    assert_eq!(read(&second, &other).await.0, 403);
    assert_eq!(second.try_mint(Value::Null).await.status, 403);
    first.advance(3_600);
    let token = first.mint(Value::Null).await;
    assert_eq!(read(&first, &token).await, (200, "1".into()), "the other App is suspended");
    assert!(second.github.unsuspend(second.installation));
    assert!(second.github.uninstall(second.installation));
    assert_eq!(second.try_mint(Value::Null).await.status, 404);
    assert_eq!(read(&first, &token).await, (200, "0".into()), "the other App is uninstalled");
}

#[tokio::test]
async fn limits_are_set_on_what_exists() {
    let world = World::new().await;
    assert!(!world.github.set_hourly_limit(InstallationId(1), 5));
    assert!(!world.github.set_mints_per_minute(AppId(1), 5));
    assert!(world.github.set_hourly_limit(world.installation, 9));
    world.github.install(world.app, "octo-org", &Selection::All, &GRANTED);
    let token = world.mint(Value::Null).await;
    let answer = world.get("/repos/octo-org/hello", &token).await;
    assert_eq!(answer.header("x-ratelimit-limit"), "9", "a changed installation keeps its limit");
}
