//! CloudEvents for exchanges and changed policies, as a sink receives them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{
    POLICY, Setup, World,
    delivery::{Delivery, SECRET, webhook},
};

/// A sink that keeps what it gets.
#[derive(Clone, Default)]
struct Sink {
    events: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    /// Statuses of the next answers; 200 after them.
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Sink {
    async fn start() -> (Self, String) {
        let sink = Self::default();
        let receive = async |State(sink): State<Self>, headers: HeaderMap, body: Bytes| {
            let status = sink.answers.lock().unwrap().pop().unwrap_or(200);
            if status == 200 {
                let data = serde_json::from_slice(&body).unwrap();
                sink.events.lock().unwrap().push((headers, data));
            }
            axum::http::StatusCode::from_u16(status).unwrap()
        };
        let router = Router::new().route("/broker", post(receive)).with_state(sink.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/broker", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (sink, url)
    }

    /// The next event, in the order of arrival.
    async fn next(&self, n: usize) -> (HeaderMap, Value) {
        let wait = async {
            while self.events.lock().unwrap().len() <= n {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
        self.events.lock().unwrap()[n].clone()
    }
}

async fn world(sink: &str) -> World {
    let mut setup =
        Setup::with_policy(&format!("{POLICY}claim_pattern:\n  event_name: pu.h\n")).await;
    setup.settings.events = Some((sink.parse().unwrap(), "https://sts.example.com".into()));
    setup.settings.webhook = Some(webhook(&[SECRET], &[]));
    setup.start().await
}

async fn exchange(world: &World, changes: Value) -> crate::harness::Answer {
    let ask = crate::harness::Ask::new("octo-org/hello", "ci", &world.token(changes));
    world.client.rest(&ask).await
}

#[track_caller]
fn attributes(headers: &HeaderMap, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(headers.get(*name).map(|it| it.to_str().unwrap()), Some(*value), "{name}");
    }
}

#[tokio::test]
async fn a_grant_is_sent_in_the_form_of_the_go_service() {
    let (sink, url) = Sink::start().await;
    let world = world(&url).await;
    let answer = exchange(&world, json!({ "event_name": "push" })).await;
    assert_eq!(answer.code, 0);
    let (headers, mut data) = sink.next(0).await;
    attributes(
        &headers,
        &[
            ("ce-specversion", "1.0"),
            ("ce-type", "dev.octo-sts.exchange"),
            ("ce-source", "https://sts.example.com"),
            ("ce-subject", "octo-org/hello/ci"),
            ("content-type", "application/json"),
        ],
    );
    assert_eq!(headers["ce-id"].len(), 36);
    let sha256 = world.github.token(&answer.token).unwrap().sha256;
    for member in ["time", "request_id", "user_agent"] {
        data.as_object_mut().unwrap().remove(member);
    }
    assert_eq!(
        data,
        json!({
            "actor": {
                "iss": world.issuer.url(),
                "sub": "repo:octo-org/hello:ref:refs/heads/main",
                "claims": [{ "name": "event_name", "value": "push" }],
            },
            "trust_policy": {
                "issuer": world.issuer.url(),
                "subject": "repo:octo-org/hello:ref:refs/heads/main",
                "claim_pattern": { "event_name": "pu.h" },
                "permissions": { "contents": "read", "issues": "write" },
                "repositories": ["hello"],
            },
            "installation_id": world.installation.0,
            "scope": "octo-org/hello",
            "identity": "ci",
            "token_sha256": sha256,
        })
    );
}

#[tokio::test]
async fn refusals_are_sent_with_what_was_known_then() {
    let (sink, url) = Sink::start().await;
    let world = world(&url).await;
    // Verified, and not satisfying the policy.
    exchange(&world, json!({ "event_name": "pull_request" })).await;
    let (_, data) = sink.next(0).await;
    let error = data["error"].as_str().unwrap();
    assert!(error.starts_with("rpc error: code = PermissionDenied desc = "), "{error}");
    assert_eq!((&data["installation_id"], &data["token_sha256"]), (&json!(0), &json!("")));
    assert!(data["trust_policy"]["permissions"].is_object());
    // Not verified: nothing that is only claimed.
    exchange(&world, json!({ "exp": 1 })).await;
    let (_, data) = sink.next(1).await;
    assert!(data["error"].as_str().unwrap().contains("code = Unauthenticated"), "{data}");
    assert_eq!(
        (&data["actor"], &data["trust_policy"]),
        (&json!({ "iss": "", "sub": "" }), &Value::Null)
    );
    // A check is not an exchange, and a request without a scope is none either.
    world.check("octo-org/hello", "ci", &world.token(json!({}))).await;
    world.client.rest(&crate::harness::Ask::new("", "ci", "x")).await;
    // A subject that is not the value of a header is escaped.
    world.client.rest(&crate::harness::Ask::new("a b\"%é", "ci", "x")).await;
    attributes(&sink.next(2).await.0, &[("ce-subject", "a%20b%22%25%C3%A9/ci")]);
    exchange(&world, json!({ "event_name": "push" })).await;
    assert!(sink.next(3).await.1.get("error").is_none());
}

#[tokio::test]
async fn an_issuer_that_is_not_on_the_list_is_in_the_event() {
    for (mode, allowed) in [("audit", true), ("enforce", false)] {
        let (sink, url) = Sink::start().await;
        let mut setup = Setup::with_policy(POLICY).await;
        setup.settings.events = Some((url.parse().unwrap(), "https://sts.example.com".into()));
        setup.list(&format!("mode: {mode}\nissuers: ['https://other.example']\n"));
        let world = setup.start().await;
        exchange(&world, json!({})).await;
        let (_, data) = sink.next(0).await;
        let expected = json!({ "mode": mode, "allowed": allowed, "iss": world.issuer.url() });
        assert_eq!(data["issuer_allowlist"], expected);
    }
}

#[tokio::test]
async fn a_sink_that_is_down_delays_nothing_and_gets_the_event_later() {
    let (sink, url) = Sink::start().await;
    sink.answers.lock().unwrap().extend([503, 429, 502]);
    let world = world(&url).await;
    let answer = exchange(&world, json!({ "event_name": "push" })).await;
    assert_eq!(answer.code, 0);
    assert_eq!(sink.events.lock().unwrap().len(), 0, "the reply did not wait");
    sink.next(0).await;
    // What the sink does not want is not repeated.
    sink.answers.lock().unwrap().push(400);
    exchange(&world, json!({ "event_name": "push" })).await;
    exchange(&world, json!({ "event_name": "other" })).await;
    let (_, data) = sink.next(1).await;
    assert!(data["error"].is_string(), "{data}");

    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let world = self::world(&format!("http://{nowhere}/")).await;
    for _ in 0..20 {
        assert_eq!(exchange(&world, json!({ "event_name": "push" })).await.code, 0);
    }
}

#[tokio::test]
async fn what_is_queued_is_sent_before_the_end() {
    let (sink, url) = Sink::start().await;
    let world = world(&url).await;
    for _ in 0..50 {
        exchange(&world, json!({ "event_name": "push" })).await;
    }
    world.stop().await;
    assert_eq!(sink.events.lock().unwrap().len(), 50);
}

#[tokio::test]
async fn changed_policies_are_sent_one_by_one() {
    let (sink, url) = Sink::start().await;
    let world = world(&url).await;
    let before = world.github.head_of("octo-org", "hello", "main").unwrap();
    let changes = [
        (".github/chainguard/ci.sts.yaml", Some("issuer: x\n")),
        (
            ".github/chainguard/new.sts.yaml",
            Some("issuer: https://a.example\nsubject: a\npermissions:\n  contents: read\n"),
        ),
        ("README.md", Some("changed")),
    ];
    let after = world.github.commit_files(("octo-org", "hello"), "main", &changes);
    let push = json!({
        "ref": "refs/heads/main", "before": before, "after": after, "forced": false,
        "commits": [{ "modified": [".github/chainguard/ci.sts.yaml"] }],
        "repository": { "name": "hello", "owner": { "login": "octo-org" }, "default_branch": "main" },
        "installation": { "id": world.installation.0 },
        "sender": { "login": "mona", "id": 5 }, "pusher": { "name": "Mona" },
    });
    world.deliver(&Delivery::new("push", push)).await;
    for n in 0..2 {
        let (headers, mut data) = sink.next(n).await;
        let first = data["change_index"] == 0;
        attributes(
            &headers,
            &[
                ("ce-type", "dev.octo-sts.policy"),
                ("ce-source", "https://github.com/octo-org/hello"),
                ("ce-githubcommit", &after),
                ("ce-githubinstallationid", &world.installation.to_string()),
            ],
        );
        if !first {
            attributes(&headers, &[("ce-subject", "octo-org/hello/new")]);
        }
        for member in ["time", "error"] {
            data.as_object_mut().unwrap().remove(member);
        }
        let name = if first { "ci" } else { "new" };
        assert_eq!(
            data,
            json!({
                "org": "octo-org", "repo": "hello", "ref": "refs/heads/main", "commit": after,
                "before": before, "installation_id": world.installation.0, "actor": "mona",
                "actor_id": 5, "pusher": "Mona", "forced": false, "detection": "snapshot",
                "change": {
                    "path": format!(".github/chainguard/{name}.sts.yaml"), "policy": name,
                    "action": if first { "updated" } else { "created" },
                },
                "change_index": i32::from(!first), "change_count": 2, "valid": !first,
            })
        );
    }
}
