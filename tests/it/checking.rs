//! Asking without minting: what a check says, what it leaves behind, and what it never does.

use octo_sts::{
    emulator::{Fault, RouteKind, Selection},
    telemetry::Metrics,
};
use serde_json::json;

use crate::harness::{Ask, POLICY, Setup};

#[tokio::test]
async fn a_grant_says_what_the_token_would_have() {
    let world = Setup::with_policy(POLICY).await.start().await;
    let ask = Ask::new("octo-org/hello", "ci", &world.token(json!({})));
    let checked = world.client.check(&ask).await;
    let reply = checked.reply();
    assert!(reply.granted);
    assert_eq!(json!(reply.permissions), json!({"contents": "read", "issues": "write"}));
    assert_eq!(reply.repositories, ["hello"]);
    let fields: Vec<_> =
        reply.conditions.iter().map(|condition| condition.field.as_str()).collect();
    assert_eq!(fields, ["issuer", "subject", "audience"]);
    assert_eq!(
        reply.conditions[1].wanted.as_deref(),
        Some("repo:octo-org/hello:ref:refs/heads/main")
    );
    assert_eq!(world.issued().len(), 0);

    let by_hand = world
        .client
        .send(
            http::Method::POST,
            "/sts/check?scope=octo-org/hello",
            &[
                ("authorization", ask.authorization.as_deref().unwrap()),
                ("content-type", "application/x-www-form-urlencoded"),
            ],
            "identity=ci",
        )
        .await;
    assert_eq!(by_hand.status, 200);
    assert_eq!(by_hand.json()["permissions"], json!({"contents": "read", "issues": "write"}));
    assert_eq!(
        by_hand.json()["conditions"][0]["hint"],
        json!(null),
        "an optional field is left out"
    );
}

#[tokio::test]
async fn an_outsider_that_is_granted_is_not_told_what_was_wanted() {
    let setup = Setup::new().await;
    setup.policy(
        "hello",
        "open",
        "issuer: ${ISSUER}\nsubject_pattern: 'repo:(secret|x)/.*'\npermissions: {issues: write}\n",
    );
    let world = setup.start().await;
    for (owner, is_told) in [("octo-org", true), ("elsewhere", false)] {
        let token = world.token(json!({"sub": "repo:x/y", "repository_owner": owner}));
        let checked = world.check("octo-org/hello", "open", &token).await;
        assert!(checked.reply().granted);
        assert!(
            checked
                .reply()
                .conditions
                .iter()
                .all(|condition| condition.wanted.is_some() == is_told),
            "{owner}"
        );
    }
}

#[tokio::test]
async fn an_organization_policy_without_repositories_reaches_all() {
    let setup = Setup::new().await;
    setup.policy(
        ".github",
        "ci",
        "issuer: ${ISSUER}\nsubject_pattern: '.*'\npermissions: {members: read}\n",
    );
    let world = setup.start().await;
    let reply = |scope: &'static str| async {
        world.check(scope, "ci", &world.token(json!({}))).await.reply().clone()
    };
    let (all, one) = (reply("octo-org").await, reply("octo-org/.github").await);
    assert!(all.granted && all.repositories.is_empty());
    assert_eq!(one.repositories, [".github"]);
}

#[tokio::test]
async fn what_is_decided_about_a_caller_who_is_known_is_a_reply() {
    type Change = fn(&Setup);
    let changes: [(&str, &str, Change); 7] = [
        ("POLICY_NOT_FOUND", "octo-org/hello", |setup| {
            setup.github.remove_file("octo-org", "hello", ".github/chainguard/ci.sts.yaml");
        }),
        ("POLICY_INVALID", "octo-org/hello", |setup| setup.policy("hello", "ci", "issuer: [")),
        ("NOT_INSTALLED", "nobody/hello", |_| {}),
        ("REPOSITORY_NOT_ACCESSIBLE", "octo-org/hello", |setup| {
            setup.github.select(setup.installation, &Selection::Only(["other".to_owned()].into()));
        }),
        ("INSTALLATION_SUSPENDED", "octo-org/hello", |setup| {
            assert!(setup.github.suspend(setup.installation))
        }),
        ("ISSUER_NOT_PERMITTED", "octo-org/hello", |setup| {
            setup.list("issuers: ['https://i.example']\n")
        }),
        ("TRUSTED_ISSUERS_INVALID", "octo-org/hello", |setup| setup.list("issuers: 5\n")),
    ];
    for (reason, scope, change) in changes {
        let setup = Setup::with_policy(POLICY).await;
        change(&setup);
        let world = setup.start().await;
        let checked = world.check(scope, "ci", &world.token(json!({}))).await;
        let reply = checked.reply();
        assert_eq!((reply.granted, reply.reason.as_str()), (false, reason));
        assert!(reply.conditions.is_empty() && !reply.message.is_empty(), "{reply:?}");
        let answer = world.exchange(scope, "ci", &world.token(json!({}))).await;
        checked.assert_agrees(&answer.rest);
    }
}

#[tokio::test]
async fn a_fault_is_an_error_as_of_an_exchange() {
    let mut setup = Setup::with_policy(POLICY).await;
    setup.settings.github.first_backoff = std::time::Duration::from_millis(1);
    let world = setup.start().await;
    world.github.fault(Fault::on(RouteKind::Contents).status(500));
    let token = world.token(json!({}));
    let checked = world.check("octo-org/hello", "ci", &token).await;
    assert_eq!(
        (checked.error.as_ref().unwrap().code, checked.reason()),
        (14, "TRUSTED_ISSUERS_UNAVAILABLE")
    );
    checked.assert_agrees(&world.exchange("octo-org/hello", "ci", &token).await.rest);
}

#[tokio::test]
async fn each_check_is_recorded_once_as_a_check() {
    let (recorder, metrics) = Metrics::recorder().unwrap();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let world = Setup::with_policy(POLICY).await.start().await;
    let good = Ask::new("octo-org/hello", "ci", &world.token(json!({})));
    let bad = Ask::new("octo-org/hello", "ci", &world.token(json!({"sub": "x"})));
    let mut ids = Vec::new();
    for ask in [&good, &bad, &Ask { authorization: None, ..good.clone() }] {
        ids.extend(world.client.check_each(ask).await.map(|check| check.request_id));
    }
    world.client.rest(&good).await;
    let records = world.stop().await.at_least(7).await;
    let (checks, exchanges) = records.split_at(6);
    assert_eq!(exchanges[0]["operation"], "exchange");
    let told: Vec<_> = checks.iter().map(|record| record["request_id"].as_str().unwrap()).collect();
    assert_eq!(told, ids);
    for (n, record) in checks.iter().enumerate() {
        let results = ["granted", "denied", "denied"];
        assert_eq!(
            (&record["operation"], &record["result"]),
            (&json!("check"), &json!(results[n / 2]))
        );
        assert!(record["token"].is_null(), "{record}");
        let conditions = record["conditions"].as_array().map_or(0, Vec::len);
        assert_eq!(conditions, if n < 4 { 3 } else { 0 }, "{record}");
    }
    let page = metrics.render();
    for line in [
        r#"octosts_exchanges_total{operation="check",result="granted",reason="",protocol="grpc"} 1"#,
        r#"octosts_exchanges_total{operation="check",result="denied",reason="POLICY_MISMATCH",protocol="rest"} 1"#,
        r#"octosts_exchanges_total{operation="exchange",result="granted",reason="",protocol="rest"} 1"#,
        r#"octosts_exchange_duration_seconds_count{operation="check"} 6"#,
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
}
