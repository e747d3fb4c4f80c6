//! What every call has in common: headers, the App's JWT, tries, limits, odd replies.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use tokio::io::AsyncReadExt;

use super::*;

fn claims(authorization: &str) -> Value {
    let payload = authorization.strip_prefix("Bearer ").unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn unavailable(error: &Error, words: &str) -> bool {
    matches!(error, Error::Unavailable { cause, .. } | Error::Unexpected(cause) if cause.contains(words))
}

#[tokio::test]
async fn a_call_has_the_headers_that_github_asks_for() {
    let world = World::new(|_| None).await;
    world.installation().await;
    let seen = world.fake.seen().remove(0);
    assert_eq!(seen.line, LOOK_UP);
    assert_eq!(seen.header("x-github-api-version"), "2022-11-28");
    assert_eq!(seen.headers.get_all("x-github-api-version").iter().count(), 1);
    assert_eq!(seen.header("accept"), "application/vnd.github+json");
    assert!(seen.header("user-agent").starts_with("octo-sts/"));
}

#[tokio::test]
async fn the_apps_jwt_lives_for_less_than_ten_minutes_and_began_a_minute_ago() {
    let world = World::new(|_| None).await;
    world.installation().await;
    let claims = claims(world.fake.seen()[0].header("authorization"));
    assert_eq!(claims, json!({"iat": NOW.as_secs() - 60, "exp": NOW.as_secs() + 570, "iss": "5"}));
}

#[tokio::test]
async fn twenty_callers_make_one_signature_and_it_serves_for_eight_minutes() {
    let world = World::new(|_| None).await;
    let proofs = join_all((0..20).map(|_| world.github.prove_any_key())).await;
    assert!(proofs.iter().all(Result::is_ok));
    world.clock.advance(Duration::from_secs(479));
    world.signer.broken.store(true, Ordering::SeqCst);
    world.github.prove_any_key().await.unwrap();
    assert_eq!(world.signer.signatures.load(Ordering::SeqCst), 1);
    world.clock.advance(Duration::from_secs(1));
    let error = world.github.prove_any_key().await.unwrap_err();
    assert_eq!(error, Error::Signer(SignerError::unavailable("key service down")));
    assert_eq!(error.reason(), crate::reason::Reason::SignerUnavailable);
    world.signer.broken.store(false, Ordering::SeqCst);
    world.github.prove_any_key().await.unwrap();
}

#[tokio::test]
async fn a_failed_signature_is_shared_too() {
    let world = World::new(|_| None).await;
    world.signer.broken.store(true, Ordering::SeqCst);
    let proofs = join_all((0..20).map(|_| world.github.prove_any_key())).await;
    assert!(proofs.iter().all(Result::is_err));
    assert_eq!(world.signer.signatures.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_signer_that_hangs_holds_up_nobody_for_long() {
    let world =
        World::with(|_| None, |settings| settings.try_timeout = Duration::from_millis(10)).await;
    world.signer.hangs.store(true, Ordering::SeqCst);
    assert_eq!(
        world.github.prove_any_key().await.unwrap_err(),
        Error::Signer(SignerError::unavailable("no signature in time"))
    );
}

#[tokio::test]
async fn each_try_is_counted_by_kind_and_status() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let world =
        World::new(on(
            MINT,
            |seen| if seen.nth == 0 { refusal(500, "oops") } else { healthy(seen) },
        ))
        .await;
    drop(world.mint().await.unwrap());
    world.github.close(Duration::from_secs(5)).await;
    let text = recorder.handle().render();
    for (kind, status) in [("installation", 200), ("mint", 500), ("mint", 201), ("revoke", 204)] {
        let line =
            format!("octosts_github_requests_total{{kind=\"{kind}\",status=\"{status}\"}} 1");
        assert!(text.contains(&line), "{text}");
    }
    assert!(text.contains("octosts_github_revocations_total{outcome=\"done\"} 1"), "{text}");
    assert!(!text.contains("canary"));
}

#[tokio::test]
async fn without_an_app_nothing_is_asked() {
    let world = World::with(|_| None, |settings| settings.pools = Pools::default()).await;
    assert_eq!(world.github.prove_any_key().await.unwrap_err(), Error::NoApp);
    assert_eq!(world.look_up(CallerTrust::Verified).await.unwrap_err(), Error::NoApp);
    assert!(world.fake.seen().is_empty());
}

#[tokio::test]
async fn server_errors_are_repeated_twice_and_once_for_a_mint() {
    for status in [500, 501, 502, 503, 504] {
        let failing = move |times: usize| {
            move |seen: &Seen| {
                if seen.nth < times { refusal(status, "Server Error") } else { healthy(seen) }
            }
        };
        let world = World::new(on(LOOK_UP, failing(2))).await;
        world.installation().await;
        assert_eq!(world.fake.count(LOOK_UP), 3, "{status}");
        let world = World::new(on(MINT, failing(1))).await;
        world.mint().await.unwrap().hand_over();
        assert_eq!(world.fake.count(MINT), 2, "{status}");
    }
}

#[tokio::test]
async fn after_the_last_attempt_github_is_unavailable() {
    let world = World::new(on(MINT, |_| answer(502, r#"{"error":"Server Error"}"#))).await;
    let error = world.mint().await.unwrap_err();
    assert!(unavailable(&error, "502"), "{error}");
    assert!(error.is_outage());
    assert_eq!(world.fake.count(MINT), 2);
}

#[tokio::test]
async fn other_answers_are_not_tried_again() {
    for status in [400, 404, 405, 409, 410, 451, 505] {
        let world = World::new(on(MINT, move |_| refusal(status, "no"))).await;
        world.mint().await.unwrap_err();
        assert_eq!(world.fake.count(MINT), 1, "{status}");
    }
}

#[tokio::test]
async fn a_long_retry_after_is_handed_on_and_a_short_one_waited_for() {
    let world = World::new(on(MINT, |_| refusal(503, "busy").with("retry-after", 3))).await;
    let error = world.mint().await.unwrap_err();
    assert_eq!((error.retry_after(), world.fake.count(MINT)), (Some(Duration::from_secs(3)), 1));

    let world = World::new(on(MINT, |_| refusal(503, "busy").with("retry-after", u64::MAX))).await;
    assert_eq!(world.mint().await.unwrap_err().retry_after(), Some(Duration::from_secs(3600)));

    let world = World::new(on(LOOK_UP, |seen| match seen.nth {
        0 => refusal(503, "busy").with("retry-after", 1),
        _ => healthy(seen),
    }))
    .await;
    #[expect(clippy::disallowed_methods, reason = "it is the wait itself that is measured")]
    let start = std::time::Instant::now();
    world.installation().await;
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn after_a_connection_that_closes_there_are_two_more_attempts() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.read_buf(&mut Vec::new()).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let world = World::with(|_| None, |settings| settings.api = api).await;
    let error = world.look_up(CallerTrust::Verified).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert_eq!(accepted.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn nobody_at_the_address_is_unavailable() {
    let world =
        World::with(|_| None, |settings| settings.api = Uri::from_static("http://127.0.0.1:1"))
            .await;
    let error = world.look_up(CallerTrust::Verified).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn each_try_has_its_deadline() {
    let script = on(LOOK_UP, |seen| healthy(seen).after(if seen.nth < 2 { 30_000 } else { 0 }));
    let world = World::with(script, |settings| settings.try_timeout = Duration::from_secs(1)).await;
    world.installation().await;
    assert_eq!(world.fake.count(LOOK_UP), 3);
}

#[tokio::test]
async fn replies_that_are_not_what_they_should_be() {
    for (body, words) in [
        ("x".repeat(70_000), "too large"),
        ("<html><body>Unicorn!</body></html>".to_owned(), "not what it should be"),
        (r#"{"id": 77, "app_id": 5, "app_sl"#.to_owned(), "not what it should be"),
        ("[]".to_owned(), "not what it should be"),
        (r#"{"id": "77"}"#.to_owned(), "not what it should be"),
        (String::new(), "not what it should be"),
    ] {
        let world = World::new(on(LOOK_UP, move |_| answer(200, &body))).await;
        let error = world.look_up(CallerTrust::Verified).await.unwrap_err();
        assert!(unavailable(&error, words), "{error}");
        assert_eq!(world.fake.count("GET"), 1);
    }
}

#[tokio::test]
async fn an_error_page_is_told_on_one_short_line() {
    let page = format!("<html>\r\n{}</html>", "é".repeat(5000));
    let world = World::new(on(LOOK_UP, move |_| answer(500, &page))).await;
    let text = world.look_up(CallerTrust::Verified).await.unwrap_err().to_string();
    assert!(text.contains("500: <html>") && text.len() < 400 && !text.contains('\n'), "{text}");
}

#[tokio::test]
async fn a_limit_closes_its_lane_until_it_is_over() {
    let world = World::new(on(MINT, |seen| match seen.nth {
        0 => refusal(403, "You have exceeded a secondary rate limit.").with("retry-after", 7),
        _ => healthy(seen),
    }))
    .await;
    let limited = |secs| Error::RateLimited { retry_after: Duration::from_secs(secs) };
    assert_eq!(world.mint().await.unwrap_err(), limited(7));
    world.clock.advance(Duration::from_secs(3));
    assert_eq!(world.mint().await.unwrap_err(), limited(4));
    let read =
        world.github.read_token(&world.installation().await, &"hello".parse().unwrap()).await;
    assert_eq!(read.unwrap_err(), limited(4));
    assert_eq!(world.fake.count(MINT), 1);
    world.clock.advance(Duration::from_secs(4));
    world.mint().await.unwrap().hand_over();
    assert_eq!(world.fake.count(MINT), 2);
}

#[tokio::test]
async fn a_limit_on_reads_leaves_mints_alone() {
    let world = World::new(on(FILE, |_| {
        refusal(403, "API rate limit exceeded for installation ID 77.")
            .with("x-ratelimit-remaining", 0)
            .with("x-ratelimit-reset", NOW.as_secs() + 120)
    }))
    .await;
    let token = world.read_token().await;
    for _ in 0..2 {
        let error = world.github.file(&token, FILE_PATH, None, None).await.unwrap_err();
        assert_eq!(error, Error::RateLimited { retry_after: Duration::from_secs(120) });
    }
    assert_eq!(world.fake.count(FILE), 1);
    world.mint().await.unwrap().hand_over();
}

#[tokio::test]
async fn an_address_without_a_host_is_refused() {
    for api in ["/api/v3", "ftp://github.example", "github.example"] {
        let settings = Settings::new(api.parse().unwrap(), Pools::default());
        let egress = Egress::new(egress::Settings::default()).unwrap();
        assert_eq!(
            GitHub::new(settings, &egress, Arc::new(ManualClock::at(NOW))).unwrap_err(),
            ApiAddressError,
            "{api}"
        );
    }
}

#[tokio::test]
async fn the_clock_is_compared_with_the_date_of_every_answer() {
    for status in [200, 404, 500] {
        for seconds in [45, -45, 0] {
            let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
            let _guard = metrics::set_default_local_recorder(&recorder);
            let theirs = UnixTime::from_secs(NOW.as_secs() - seconds).http_date();
            let world = World::new(move |seen| {
                let answered = if status == 200 { healthy(seen) } else { refusal(status, "no") };
                Some(answered.with("date", &theirs))
            })
            .await;
            assert_eq!(world.github.clock_drift(), None);
            let _either = world.look_up(CallerTrust::Verified).await;
            assert_eq!(world.github.clock_drift(), Some(seconds), "{status}");
            let line = format!("octosts_clock_drift_seconds {seconds}");
            let page = recorder.handle().render();
            // Lookups of installations run in their own task, on this thread.
            assert!(page.lines().any(|found| found == line), "{page}");
        }
    }
}
