//! No token and no key is ever told: not in logs at any level, not in records, replies or metrics.
//!
//! Everything runs on one thread under a subscriber that keeps every line of this crate and of its
//! libraries; the callers run on another, so that what their own libraries print does not count.

use std::{
    io,
    sync::{Arc, Mutex},
};

use http::Method;
use octo_sts::{
    emulator::{Fault, Lie, RouteKind, TokenFormat},
    telemetry::Metrics,
};
use serde_json::json;

use crate::harness::{Ask, Client, POLICY, Setup, World, alone};

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Keeps every line that this thread logs, as long as the guard lives.
    fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Marks by which a secret would be known, whole or in part, as text or as bytes in a `Debug`.
fn marks(secrets: &[String]) -> Vec<String> {
    // The parts of a JWT start so (`{"alg"`, `{"typ"`, `{"kid"`, `{"iss"`, `{"iat"`, `{"exp"`), the
    // App's and a caller's alike; a shorter mark would turn up in a digest by chance. An
    // installation token starts with `ghs_`.
    let parts = ["eyJhbGci", "eyJ0eXAi", "eyJraWQi", "eyJpc3Mi", "eyJpYXQi", "eyJleHAi"];
    let others = ["101, 121, 74", "ghs_", "103, 104, 115, 95", "PRIVATE KEY"];
    let mut marks: Vec<String> = parts.into_iter().chain(others).map(str::to_owned).collect();
    for secret in secrets {
        // The last part is the signature of a JWT; without dots it is the middle of a token or a
        // key.
        let last = secret.rsplit('.').next().unwrap();
        let middle = last.len() / 2;
        marks.push(last[middle.saturating_sub(8)..middle + 8].to_owned());
    }
    marks
}

#[track_caller]
fn assert_silent(what: &str, text: &str, marks: &[String]) {
    for mark in marks {
        if let Some(at) = text.find(mark.as_str()) {
            let from = text[..at].rfind('\n').map_or(0, |line| line + 1);
            let line = text[from..].lines().next().unwrap();
            panic!("{what} tell {mark:?}: {line}");
        }
    }
}

/// A request that is no proper exchange: method, path, authorization, body.
type Raw = (Method, String, String, String);

/// Asks on a thread of its own: each ask on both wires, then each path raw.
async fn drive(world: &World, asks: Vec<Ask>, raw: Vec<Raw>) -> (Vec<String>, String) {
    let address = world.address;
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::new(address);
            let (mut granted, mut told) = (Vec::new(), String::new());
            for ask in &asks {
                for check in [client.check_grpc(ask).await, client.check_rest(ask).await] {
                    told.push_str(&format!("{check:?}\n"));
                }
                for answer in [client.grpc(ask).await, client.rest(ask).await] {
                    granted.extend(Some(answer.token.clone()).filter(|token| !token.is_empty()));
                    told.push_str(&format!(
                        "{:?}\n",
                        crate::harness::Answer { token: String::new(), ..answer }
                    ));
                }
            }
            for (method, path, authorization, body) in &raw {
                let kind = ("content-type", "application/x-www-form-urlencoded");
                let reply = client
                    .send(method.clone(), path, &[("authorization", authorization), kind], body)
                    .await;
                assert_ne!(reply.status, 200);
                told.push_str(&format!(
                    "{:?} {}\n",
                    reply.headers,
                    String::from_utf8_lossy(&reply.body)
                ));
            }
            (granted, told)
        })
    };
    tokio::task::spawn_blocking(move || std::thread::spawn(work).join().unwrap()).await.unwrap()
}

/// Good and bad tokens, in all the places where a caller may put one.
fn asks(world: &World) -> (Vec<String>, Vec<Ask>, Vec<Raw>) {
    let good = world.token(json!({}));
    let denied = world.token(json!({"sub": "repo:octo-org/hello:ref:refs/heads/evil"}));
    let expired = world.token(json!({"exp": 1_000_000_000}));
    let forged = world
        .issuer
        .at("/forger")
        .sign(&json!({"iss": world.issuer.url(), "sub": "x", "aud": "y"}));
    let stranger = world.issuer.at("/stranger").sign(&json!({"sub": "x", "aud": "y"}));
    let cut = good[..good.len() - 40].to_owned();
    let long = format!("{good}{}", "A".repeat(40_000));
    let tokens = vec![
        good.clone(),
        denied,
        expired,
        forged,
        stranger,
        cut,
        long,
        "ghs_abcdefghijklmnopqrstuvwxyz0123456789".into(),
    ];
    let mut asks: Vec<Ask> =
        tokens.iter().map(|token| Ask::new("octo-org/hello", "ci", token)).collect();
    asks.push(Ask::new("octo-org/hello", "none", &good));
    asks.push(Ask::new("octo-org/none", "ci", &good));
    asks.push(Ask::new("nobody", "ci", &good));
    asks.push(Ask {
        authorization: Some(format!("Basic {good}")),
        ..Ask::new("octo-org/hello", "ci", &good)
    });
    let bearer = format!("Bearer {good}");
    let raw = vec![
        (
            Method::GET,
            format!("/sts/exchange?scope=octo-org/hello&identity=none&token={good}"),
            bearer.clone(),
            String::new(),
        ),
        (Method::GET, format!("/{good}"), bearer.clone(), String::new()),
        (
            Method::POST,
            "/sts/exchange".into(),
            bearer.clone(),
            format!("scope=octo-org/hello&identity=none&access_token={good}"),
        ),
        (
            Method::POST,
            format!("/sts/check?scope=octo-org/hello&token={good}"),
            bearer.clone(),
            format!("identity={good}"),
        ),
        (
            Method::GET,
            format!("/sts/exchange?scope={good}&identity=ci"),
            bearer.clone(),
            String::new(),
        ),
        (Method::DELETE, format!("/sts/exchange/{good}"), bearer, String::new()),
    ];
    (tokens, asks, raw)
}

/// The faults under which the same is asked again.
fn faults() -> Vec<Option<Fault>> {
    let mint = || Fault::on(RouteKind::Mint);
    vec![
        None,
        Some(mint().status(500)),
        Some(mint().status(401)),
        Some(mint().status(422)),
        Some(mint().truncated()),
        Some(mint().cut_after()),
        Some(mint().lie(Lie::ExtraPermission("members".into(), "admin".into()))),
        Some(mint().lie(Lie::Set("/expires_at".into(), json!("soon")))),
        Some(mint().lie(Lie::Set("/permissions".into(), json!("ghs_notatoken")))),
        Some(Fault::on(RouteKind::Contents).truncated()),
        Some(Fault::on(RouteKind::UserInstallation).status(401)),
        Some(Fault::on(RouteKind::Revoke).status(500)),
    ]
}

async fn silent(format: TokenFormat) {
    let (lines, _logging) = Lines::capture();
    let (recorder, metrics) = Metrics::recorder().unwrap();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let mut setup = Setup::with_policy(POLICY).await;
    setup.settings.github.first_backoff = std::time::Duration::from_millis(1);
    setup.github.set(|options| options.token_format = format);
    let world = setup.start().await;
    let (tokens, _, _) = asks(&world);
    let (mut secrets, mut told) = (tokens, String::new());
    let mut expected = 0;
    for fault in faults() {
        world.github.heal();
        let (_, asks, raw) = asks(&world);
        // Two of the raw ones are neither an exchange nor a check.
        expected += asks.len() * 4 + raw.len() - 2;
        fault.into_iter().for_each(|fault| world.github.fault(fault));
        let (granted, replies) = drive(&world, asks, raw).await;
        secrets.extend(granted);
        told.push_str(&replies);
        world.clock.advance(std::time::Duration::from_secs(61));
    }
    let records = serde_json::to_string(&world.stop().await.at_least(expected).await).unwrap();
    let (page, lines) = (metrics.render(), lines.text());

    // The eyes are open: this crate's lines, its libraries', and what callers did are all there.
    assert!(
        lines.contains(" INFO ") && lines.contains("request refused") && lines.contains("hyper"),
        "{lines}"
    );
    assert!(lines.contains("TRACE") && lines.lines().count() > 1_000);
    assert!(
        records.contains("GITHUB_UNAVAILABLE")
            && records.contains("granted")
            && page.contains("octosts_exchanges_total")
    );
    assert!(secrets.iter().any(|secret| secret.starts_with("ghs_")));
    let marks = marks(&secrets);
    for (what, text) in
        [("logs", lines), ("records", records), ("replies", told), ("metrics", page)]
    {
        assert!(!text.contains("panicked"), "{what}");
        assert_silent(what, &text, &marks);
    }
}

#[tokio::test]
async fn nothing_tells_a_token_or_a_key() {
    if alone("secrets::nothing_tells_a_token_or_a_key") {
        silent(TokenFormat::Classic).await;
    }
}

#[tokio::test]
async fn nothing_tells_a_token_of_the_long_form() {
    if alone("secrets::nothing_tells_a_token_of_the_long_form") {
        silent(TokenFormat::Stateless).await;
    }
}

#[test]
#[should_panic(expected = "logs tell \"ghs_\"")]
fn a_token_that_is_told_is_found() {
    assert_silent("logs", "a line\nanother with ghs_1234\n", &marks(&[]));
}
