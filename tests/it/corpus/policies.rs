//! The policy language: `policies.yaml`, each policy under a name of its own.

use std::collections::{BTreeMap, BTreeSet};

use octo_sts::{
    clock::Clock,
    emulator::{Selection, Visibility},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Expected, Judge, StandIns, load, read, setup};
use crate::harness::{APP_PERMISSIONS, Ask, POLICY, Setup};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    policy: String,
    scope: String,
    #[serde(default)]
    claims: Map<String, Value>,
    expect: String,
    #[serde(default)]
    failed: Vec<String>,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    #[serde(default)]
    repositories: Value,
    at: Option<(u32, u32)>,
    #[serde(default)]
    says: Vec<String>,
}

impl Case {
    /// The repository that holds the policy.
    fn repo(&self) -> String {
        self.scope.split_once('/').map_or(".github", |(_, repo)| repo).to_ascii_lowercase()
    }

    fn expected(&self) -> Expected {
        let verdict = match self.expect.as_str() {
            "granted" => "granted",
            "POLICY_INVALID" => "5 POLICY_INVALID",
            "POLICY_MISMATCH" => "7 POLICY_MISMATCH",
            other => panic!("{}: {other}", self.name),
        };
        let first =
            self.at.map(|(line, column)| format!(" is invalid: line {line}, column {column}: "));
        let says = first.into_iter().chain(self.says.iter().cloned()).collect();
        let expected = Expected::new(verdict, &json!(self.permissions), &self.repositories);
        Expected { says, failed: self.failed.clone(), ..expected }
    }
}

/// Gives the App what the cases grant, and makes the repositories that they name.
fn furnish(setup: &Setup, cases: &[Case]) {
    let mut most: BTreeMap<&str, &str> = APP_PERMISSIONS.iter().copied().collect();
    let rank = |level: &str| ["read", "write", "admin"].iter().position(|known| *known == level);
    for (name, level) in cases.iter().flat_map(|case| &case.permissions) {
        let held = most.entry(name).or_insert(level);
        *held = if rank(level) > rank(held) { level } else { held };
    }
    let most: Vec<_> = most.into_iter().collect();
    setup.github.install(setup.app, "octo-org", &Selection::All, &most);
    let named = cases
        .iter()
        .filter_map(|case| case.repositories.as_array())
        .flatten()
        .filter_map(Value::as_str);
    let mut there: BTreeSet<String> = [".github", "hello", "other"].map(str::to_owned).into();
    for name in named {
        if there.insert(name.to_ascii_lowercase()) {
            setup.github.repo("octo-org", name, Visibility::Private);
        }
    }
}

#[tokio::test]
async fn policies_mean_through_the_server_what_the_corpus_says() {
    let mut setup = setup().await;
    let cluster = setup.issuer.at("/cluster");
    setup.settings.oidc.configured = vec![cluster.url().parse().unwrap()];
    let stand_ins = StandIns::default()
        .with("ACTIONS", setup.issuer.url())
        .with("CLUSTER", cluster.url())
        .with("GITHUB_HOST", "github.com")
        .with("X4096", "x".repeat(4096));
    let cases: Vec<Case> = load("policies.yaml", &stand_ins);
    let base: Map<String, Value> =
        serde_json::from_str(&stand_ins.fill(&read("base-claims.json"))).unwrap();
    furnish(&setup, &cases);
    for (n, case) in cases.iter().enumerate() {
        setup.github.put_file(
            "octo-org",
            &case.repo(),
            &format!(".github/chainguard/case-{n}.sts.yaml"),
            &case.policy,
        );
    }
    let world = setup.start().await;
    let mut judge = Judge::new(&world, &["octo-org/hello", "octo-org"]).await;
    for (n, case) in cases.iter().enumerate() {
        let now = world.clock.now().as_secs();
        let mut claims = base.clone();
        claims.extend([("iat".into(), json!(now)), ("exp".into(), json!(now + 300))]);
        claims.extend(case.claims.clone());
        let issuer = if claims["iss"] == cluster.url() { &cluster } else { &world.issuer };
        let token =
            issuer.sign_text(&issuer.header().to_string(), &Value::Object(claims).to_string());
        let ask = Ask::new(&case.scope, &format!("case-{n}"), &token);
        judge.ask(&case.name, &case.expected(), async || ask.clone()).await;
    }
    judge.finish();
}

#[tokio::test]
async fn what_was_wanted_is_told_to_those_who_could_read_it() {
    let setup = Setup::new().await;
    setup.policy("hello", "ci", POLICY);
    setup.policy("hello", "broken", "issuer: ${ISSUER}\n");
    let world = setup.start().await;
    let told = async |identity: &str, repository_owner: &str| {
        let token = world.token(json!({"sub": "repo:x/y", "repository_owner": repository_owner}));
        let checked = world.check("octo-org/hello", identity, &token).await;
        let answer = world.exchange("octo-org/hello", identity, &token).await.rest;
        checked.assert_agrees(&answer);
        answer
    };
    for (owner, is_told) in
        [("octo-org", true), ("Octo-Org", true), ("octo-org2", false), ("", false)]
    {
        let answer = told("ci", owner).await;
        assert_eq!(
            (answer.reason.as_str(), answer.failed.as_slice()),
            ("POLICY_MISMATCH", &["subject".to_owned()][..])
        );
        let subject =
            answer.conditions.iter().find(|condition| condition.field == "subject").unwrap();
        assert_eq!(
            (subject.got.as_deref(), subject.wanted.is_some()),
            (Some("repo:x/y"), is_told),
            "{owner}"
        );
        let broken = if is_told { "POLICY_INVALID" } else { "POLICY_NOT_FOUND" };
        assert_eq!(told("broken", owner).await.reason, broken, "{owner}");
    }
}

#[tokio::test]
async fn only_an_actions_token_says_whose_workflow_it_is_of() {
    let mut setup = Setup::new().await;
    let cluster = setup.issuer.at("/cluster");
    setup.settings.oidc.configured = vec![cluster.url().parse().unwrap()];
    let (url, rest) = (cluster.url(), "subject: s\npermissions: {contents: read}\n");
    setup.policy("hello", "exact", &format!("issuer: {url}\n{rest}"));
    setup.policy("hello", "pattern", &format!("issuer_pattern: '{url}'\n{rest}"));
    let world = setup.start().await;
    let claims = json!({"sub": "t", "aud": "sts.example.com", "repository_owner": "octo-org"});
    for identity in ["exact", "pattern"] {
        let answer = world.exchange("octo-org/hello", identity, &cluster.sign(&claims)).await.rest;
        assert_eq!(answer.failed, ["subject"], "{identity}");
        assert!(answer.conditions.iter().all(|condition| condition.wanted.is_none()), "{identity}");
    }
    let answer = world.exchange("octo-org/hello", "absent", &cluster.sign(&claims)).await.rest;
    assert_eq!(answer.reason, "POLICY_NOT_FOUND");
}

#[tokio::test]
async fn a_pin_is_kept_or_nothing_is_minted() {
    let setup = setup().await;
    let id = setup.app.to_string();
    let pins = [
        ("app: octo-sts".to_owned(), true),
        (format!("app: {id}"), true),
        (format!("app: '{id}'"), true),
        ("app_pattern: octo-.*".to_owned(), true),
        ("app_pattern: 'octo-sts|x'".to_owned(), true),
        ("app: octo".to_owned(), false),
        ("app: OCTO-STS".to_owned(), false),
        (format!("app: '{id}0'"), false),
        ("app_pattern: octo".to_owned(), false),
        // A pattern is compared with the name, never with the id.
        (format!("app_pattern: '{id}|x'"), false),
    ];
    for (n, (pin, _)) in pins.iter().enumerate() {
        let policy = format!(
            "issuer: ${{ISSUER}}\nsubject_pattern: '.*'\n{pin}\npermissions: {{issues: write}}\n"
        );
        setup.policy("hello", &format!("pin-{n}"), &policy);
    }
    let world = setup.start().await;
    let mut judge = Judge::new(&world, &["octo-org/hello"]).await;
    for (n, (pin, kept)) in pins.iter().enumerate() {
        let verdict = if *kept { "granted" } else { "9 APP_PIN_UNSATISFIED" };
        let expected = Expected::new(verdict, &json!({"issues": "write"}), &json!(["hello"]));
        let ask = Ask::new("octo-org/hello", &format!("pin-{n}"), &world.token(json!({})));
        judge.ask(pin, &expected, async || ask.clone()).await;
    }
    judge.finish();
}
