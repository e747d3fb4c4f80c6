//! Finding an installation.

use futures_util::future::join_all;

use super::*;

async fn find(world: &World) -> Result<Installation, Error> {
    world.look_up(CallerTrust::Verified).await
}

fn changed(field: &'static str, value: Value) -> impl Fn(&Seen) -> Option<Answered> + Send + Sync {
    on(LOOK_UP, move |_| {
        let mut reply = installation_json("octo-org");
        reply[field] = value.clone();
        answer(200, reply)
    })
}

#[tokio::test]
async fn twenty_callers_make_one_look_up_and_it_serves_for_an_hour() {
    let world = World::new(|_| None).await;
    let found = join_all((0..20).map(|_| find(&world))).await;
    assert!(
        found.iter().all(|found| { found.as_ref().is_ok_and(|i| i.id() == InstallationId(77)) })
    );
    world.clock.advance(Duration::from_secs(3599));
    find(&world).await.unwrap();
    assert_eq!(world.fake.count("GET"), 1);
    world.clock.advance(Duration::from_secs(1));
    find(&world).await.unwrap();
    assert_eq!(world.fake.count("GET"), 2);
    world.github.forget_installations(&owner());
    find(&world).await.unwrap();
    assert_eq!(world.fake.count("GET"), 3);
}

#[tokio::test]
async fn an_organization_is_asked_for_where_no_user_is_found() {
    let world = World::new(|seen| match seen.line.as_str() {
        LOOK_UP => Some(refusal(404, "Not Found")),
        ORG_LOOK_UP => Some(answer(200, installation_json("Octo-Org"))),
        _ => None,
    })
    .await;
    assert_eq!(find(&world).await.unwrap().owner().as_str(), "Octo-Org");
}

#[tokio::test]
async fn absence_is_cached_for_five_seconds_or_for_ten_if_the_caller_is_unverified() {
    for (status, error) in
        [(404, Error::NotInstalled), (301, Error::AccountMoved("301: Not Found".into()))]
    {
        assert_eq!(error.reason(), crate::reason::Reason::NotInstalled);
        let world =
            World::new(move |_| Some(refusal(status, "Not Found").with("location", "/elsewhere")))
                .await;
        assert_eq!(find(&world).await.unwrap_err(), error);
        world.clock.advance(Duration::from_secs(4));
        assert_eq!(find(&world).await.unwrap_err(), error);
        assert_eq!(
            (world.fake.count(LOOK_UP), world.fake.count(ORG_LOOK_UP), world.fake.seen().len()),
            (1, 1, 2)
        );
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(world.look_up(CallerTrust::Unverified).await.unwrap_err(), error);
        assert_eq!(world.fake.seen().len(), 2);
        assert_eq!(find(&world).await.unwrap_err(), error);
        assert_eq!(world.fake.seen().len(), 4);
    }
}

#[tokio::test]
async fn the_reply_is_for_the_owner_that_was_asked_for() {
    for (account, fits) in [
        (json!({"login": "OCTO-org"}), true),
        (json!({"login": "octo-org2"}), false),
        (json!({"slug": "octo-org"}), false),
        (Value::Null, false),
    ] {
        let world = World::new(changed("account", account.clone())).await;
        assert_eq!(find(&world).await.is_ok(), fits, "{account}");
    }
}

#[tokio::test]
async fn the_reply_is_for_our_app() {
    let world = World::new(changed("app_id", json!(6))).await;
    assert!(matches!(find(&world).await.unwrap_err(), Error::Misconfigured(_)));
}

#[tokio::test]
async fn a_suspended_installation_is_told_and_remembered() {
    let world = World::new(changed("suspended_at", json!("2023-01-01T00:00:00Z"))).await;
    for _ in 0..2 {
        let error = find(&world).await.unwrap_err();
        assert!(
            matches!(&error, Error::Suspended(cause) if cause.contains("2023-01-01")),
            "{error}"
        );
    }
    assert_eq!(world.fake.count("GET"), 1);
}

#[tokio::test]
async fn an_app_that_github_does_not_accept_is_the_operators_mistake() {
    for (status, message) in [
        (401, "A JSON web token could not be decoded"),
        (401, "'Expiration time' claim ('exp') is too far in the future"),
        (
            401,
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
        ),
        (
            401,
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        ),
        (401, "Integration not found"),
        (404, "Integration not found"),
        (401, "Bad credentials"),
    ] {
        let world = World::new(on(LOOK_UP, move |seen| {
            if seen.nth == 0 { refusal(status, message) } else { healthy(seen) }
        }))
        .await;
        let error = find(&world).await.unwrap_err();
        let is_so = matches!(&error, Error::Misconfigured(cause) | Error::Unauthorized(cause) if cause.contains(message));
        assert!(is_so, "{error}");
        assert_eq!(error.reason(), crate::reason::Reason::Internal);
        // Nothing of it is cached: after the correction, a new JWT works immediately.
        find(&world).await.unwrap();
        assert_eq!(world.signer.signatures.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn an_installation_that_was_found_serves_on_while_github_is_down() {
    let world =
        World::new(on(
            LOOK_UP,
            |seen| if seen.nth == 0 { healthy(seen) } else { refusal(500, "oops") },
        ))
        .await;
    find(&world).await.unwrap();
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(find(&world).await.unwrap().id(), InstallationId(77));
    assert_eq!(world.fake.count(LOOK_UP), 4);
}

#[tokio::test]
async fn an_answer_ends_what_was_found_and_an_outage_does_not_bring_it_back() {
    for status in [400, 403, 451, 410, 200] {
        let script = move |seen: &Seen| match seen.nth {
            0 => healthy(seen),
            1 => refusal(status, "no"),
            2 => refusal(429, "slow down"),
            _ => refusal(503, "oops"),
        };
        let world = World::new(on(LOOK_UP, script)).await;
        find(&world).await.unwrap();
        world.clock.advance(Duration::from_secs(3600));
        assert!(!find(&world).await.unwrap_err().is_outage(), "{status}");
        for _ in 0..2 {
            assert!(find(&world).await.unwrap_err().is_outage(), "{status}");
            world.clock.advance(Duration::from_secs(60));
        }
    }
}

#[tokio::test]
async fn an_installation_as_of_a_moment_is_looked_up_if_it_was_not_since() {
    let world = World::new(|_| None).await;
    let since = async |moment| world.installation_since(moment).await;
    find(&world).await.unwrap();
    let read_at = world.clock.monotonic();
    since(read_at).await.unwrap();
    assert_eq!(world.fake.count(LOOK_UP), 1);
    world.clock.advance(Duration::from_secs(60));
    since(read_at).await.unwrap();
    assert_eq!(world.fake.count(LOOK_UP), 1);
    since(world.clock.monotonic()).await.unwrap();
    since(world.clock.monotonic()).await.unwrap();
    assert_eq!(world.fake.count(LOOK_UP), 2);
}

#[tokio::test]
async fn an_installation_as_of_a_moment_is_not_one_that_an_outage_kept() {
    let world =
        World::new(on(
            LOOK_UP,
            |seen| if seen.nth == 0 { healthy(seen) } else { refusal(500, "oops") },
        ))
        .await;
    find(&world).await.unwrap();
    world.clock.advance(Duration::from_secs(60));
    for _ in 0..2 {
        let error = world.installation_since(world.clock.monotonic()).await.unwrap_err();
        assert!(error.is_outage(), "{error}");
    }
    find(&world).await.unwrap();
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let world =
        World::new(on(
            LOOK_UP,
            |seen| if seen.nth < 3 { refusal(500, "oops") } else { healthy(seen) },
        ))
        .await;
    assert!(find(&world).await.unwrap_err().is_outage());
    find(&world).await.unwrap();
}

#[tokio::test]
async fn strangers_share_what_is_found_and_cost_no_more() {
    let world = World::new(|_| None).await;
    for trust in [CallerTrust::Unverified, CallerTrust::Verified, CallerTrust::Unverified] {
        world.look_up(trust).await.unwrap();
    }
    assert_eq!(world.fake.count("GET"), 1);
}
