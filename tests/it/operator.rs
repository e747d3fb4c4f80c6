//! What the operator of a server decides about owners and policies: `STS_OWNERS`,
//! `STS_REQUIRE_REPOSITORIES`, and what the records say of tokens for all repositories.

use std::sync::{Arc, Mutex};

use octo_sts::{emulator::Selection, telemetry::Metrics};
use serde_json::{Value, json};

use crate::harness::{APP_PERMISSIONS, Ask, DOMAIN, POLICY, Setup, alone};

/// Serves these owners only.
async fn serving(owners: &[&str]) -> Setup {
    let mut setup = Setup::with_policy(POLICY).await;
    setup.exchange().owners = Some(owners.iter().map(|owner| owner.parse().unwrap()).collect());
    setup
}

#[tokio::test]
async fn an_owner_that_is_not_served_is_refused_before_github_is_called() {
    let setup = serving(&["other-org", "third"]).await;
    let world = setup.start().await;
    for scope in ["octo-org/hello", "OCTO-ORG/hello", "octo-org", "unknown-org/x"] {
        let answer = world.exchange(scope, "ci", &world.token(json!({}))).await.rest;
        assert_eq!((answer.code, answer.reason.as_str()), (5, "NO_APP"), "{scope}");
        assert!(
            answer.message.starts_with("no GitHub App configured for org "),
            "{}",
            answer.message
        );
    }
    assert_eq!(world.calls(), (0, 0));
    assert!(world.issued().is_empty());
    let record = &world.audit.at_least(1).await[0];
    assert!(record["cause"].as_str().unwrap().contains("STS_OWNERS"), "{record}");
    let forged = world
        .exchange("octo-org/hello", "ci", &world.issuer.at("/other").sign(&world.claims()))
        .await
        .rest;
    assert_eq!(forged.code, 16, "an unverified caller does not learn it");
}

#[tokio::test]
async fn an_owner_is_served_in_any_letter_case() {
    let world = serving(&["third", "Octo-Org"]).await.start().await;
    assert_eq!(world.usual().await.rest.code, 0);
    assert_eq!(world.exchange("OCTO-org/hello", "ci", &world.token(json!({}))).await.rest.code, 0);
}

#[tokio::test]
async fn unverified_callers_cannot_tell_which_owners_are_served() {
    let setup = serving(&["octo-org"]).await;
    setup.github.org("other-org");
    setup.github.install(setup.app, "other-org", &Selection::All, APP_PERMISSIONS);
    let unknown = setup.issuer.at("/unknown");
    let world = setup.start().await;
    let token = unknown.sign(&json!({"sub": "s", "aud": DOMAIN}));
    let mut answers = Vec::new();
    for scope in ["octo-org/hello", "other-org/hello", "unknown-org/hello", "other-org"] {
        let answer = world.exchange(scope, "ci", &token).await.rest;
        answers.push((answer.code, answer.reason, answer.message));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!((answers[0].0, answers[0].1.as_str()), (16, "ISSUER_NOT_TRUSTED"));
    assert_eq!(unknown.fetches().jwks, 0);
}

fn organization_policy(repositories: &str) -> String {
    format!(
        "issuer: ${{ISSUER}}\nsubject_pattern: '.*'\npermissions: {{members: read}}\n{repositories}"
    )
}

#[tokio::test]
async fn the_operator_can_require_a_list_of_repositories() {
    let mut setup = Setup::with_policy(POLICY).await;
    let rules = octo_sts::policy::Rules { require_repositories: true, ..Default::default() };
    setup.settings.store.rules = std::sync::Arc::new(rules);
    for (name, repositories) in
        [("absent", ""), ("empty", "repositories: []\n"), ("listed", "repositories: [hello]\n")]
    {
        setup.policy(".github", name, &organization_policy(repositories));
    }
    let world = setup.start().await;
    for scope in ["octo-org", "octo-org/.github"] {
        for name in ["absent", "empty"] {
            let answer = world.exchange(scope, name, &world.token(json!({}))).await.rest;
            assert_eq!(answer.reason, "POLICY_INVALID", "{scope} {name}");
            assert!(answer.message.contains("STS_REQUIRE_REPOSITORIES"), "{}", answer.message);
        }
        assert!(world.issued().is_empty());
    }
    assert_eq!(world.exchange("octo-org", "listed", &world.token(json!({}))).await.rest.code, 0);
    assert_eq!(world.usual().await.rest.code, 0, "a repository policy has no list");
}

// On one thread, so that the recorder sees what the server counts.
#[tokio::test(flavor = "current_thread")]
async fn a_token_for_all_repositories_is_recorded_and_counted() {
    let (recorder, metrics) = Metrics::recorder().unwrap();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let setup = Setup::with_policy(POLICY).await;
    setup.policy(".github", "absent", &organization_policy(""));
    setup.policy(".github", "empty", &organization_policy("repositories: []\n"));
    setup.policy(".github", "listed", &organization_policy("repositories: [hello]\n"));
    let world = setup.start().await;
    let exchanges = [
        ("octo-org", "absent", json!("all")),
        ("octo-org/.github", "absent", json!([".github"])),
        ("octo-org", "empty", json!("all")),
        ("octo-org/.github", "empty", json!("all")),
        ("octo-org", "listed", json!(["hello"])),
    ];
    for (n, (scope, name, repositories)) in exchanges.iter().enumerate() {
        // Over both wires.
        assert_eq!(
            world.exchange(scope, name, &world.token(json!({}))).await.rest.code,
            0,
            "{scope} {name}"
        );
        let records = world.audit.at_least(2 * (n + 1)).await;
        let last: &Value = records.last().unwrap();
        assert_eq!(&last["token"]["repositories"], repositories, "{scope} {name}");
    }
    let page = metrics.render();
    assert!(page.contains("octosts_all_repositories_tokens_total 6"), "{page}");
}

#[tokio::test]
async fn the_record_has_what_was_asked_for_and_what_was_given() {
    let setup = Setup::with_policy(POLICY).await;
    setup.policy(".github", "ci", POLICY);
    let world = setup.start().await;
    let ask = Ask {
        scopes: vec!["octo-org/other".to_owned()],
        cap: vec!["issues:read".to_owned(), "groups.list".to_owned()],
        ..Ask::new("octo-org", "ci", &world.token(json!({})))
    };
    assert_eq!(world.client.exchange(&ask).await.rest.code, 0);
    for record in world.audit.at_least(2).await {
        assert_eq!(record["scope"], "octo-org,octo-org/other");
        assert_eq!(record["cap"], "issues:read,groups.list");
        let permissions = &record["token"]["permissions"];
        assert_eq!(permissions, &json!({"issues": "read", "metadata": "read"}));
        assert_eq!(record["token"]["repositories"], json!(["other"]));
    }
}

/// Collects the names of spans in their order.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<&'static str>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Spans {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        _: &tracing::span::Id,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        if attributes.metadata().target().starts_with("octo_sts::exchange") {
            self.0.lock().unwrap().push(attributes.metadata().name());
        }
    }
}

#[tokio::test]
async fn each_step_of_an_exchange_has_its_span() {
    use octo_sts::telemetry::trace;
    use tracing_subscriber::layer::SubscriberExt;

    if !alone("operator::each_step_of_an_exchange_has_its_span") {
        return;
    }
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = Setup::with_policy(POLICY).await.start().await;
    let token = world.token(json!({}));
    let ask = Ask::new("octo-org/hello", "ci", &token);
    assert_eq!(world.client.rest(&ask).await.code, 0);
    let all =
        [trace::IDENTIFY, trace::TRUSTED_ISSUERS, trace::POLICY, trace::EVALUATE, trace::MINT];
    assert_eq!(std::mem::take(&mut *spans.0.lock().unwrap()), all);

    let expired = world.token(json!({ "exp": 1 }));
    assert_eq!(world.client.rest(&Ask::new("octo-org/hello", "ci", &expired)).await.code, 16);
    assert_eq!(std::mem::take(&mut *spans.0.lock().unwrap()), [trace::IDENTIFY]);
}
