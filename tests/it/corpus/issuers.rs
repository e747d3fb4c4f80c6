//! The trusted-issuer list of an organization: `issuers.yaml`. Each case has an organization of its
//! own.

use std::time::Duration;

use octo_sts::{
    admission::Rate,
    emulator::{Selection, Visibility},
};
use serde::Deserialize;
use serde_json::json;

use super::{Expected, Judge, StandIns, load, setup};
use crate::harness::{APP_PERMISSIONS, Ask, Setup, World};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// The file's text; none: there is no file.
    list: Option<String>,
    /// Issuers whose tokens are exchanged.
    #[serde(default)]
    admits: Vec<String>,
    /// Issuers whose tokens are refused on account of the list.
    #[serde(default)]
    refuses: Vec<String>,
    /// Issuers that are not listed, but only recorded.
    #[serde(default)]
    records: Vec<String>,
    /// The file breaks a rule.
    #[serde(default)]
    invalid: bool,
}

fn owner(n: usize) -> String {
    format!("org-{n}")
}

/// Makes the organization with its list, and a policy for each issuer that asks.
fn found(setup: &Setup, n: usize, case: &Case) {
    let owner = owner(n);
    setup.github.org(&owner);
    setup.github.repo(&owner, ".github", Visibility::Public);
    setup.github.repo(&owner, "hello", Visibility::Private);
    setup.github.install(setup.app, &owner, &Selection::All, APP_PERMISSIONS);
    let put = |name: &str, text: &str| {
        setup.github.put_file(&owner, ".github", &format!(".github/chainguard/{name}"), text);
    };
    if let Some(list) = &case.list {
        put("trusted-token-issuers.yaml", list);
    }
    for (n, issuer) in asked(case).enumerate() {
        let policy = format!(
            "issuer: {issuer}\nsubject_pattern: '.*'\npermissions: {{issues: write}}\nrepositories: [hello]\n"
        );
        put(&format!("asker-{n}.sts.yaml"), &policy);
    }
}

fn asked(case: &Case) -> impl Iterator<Item = &String> {
    case.admits.iter().chain(&case.refuses).chain(&case.records)
}

/// The issuers of this world; the first is known, the others are not.
const KNOWN: &str = "";
const STRANGERS: [&str; 4] = ["/a", "/b", "/tenant-a", "/tenant-a/x"];

fn token(world: &World, issuer: &str) -> String {
    let path = issuer.strip_prefix(&world.issuer.url()).unwrap_or("/a");
    // Whoever is refused is never asked for keys, so any key will do where the issuer is none of
    // ours.
    let signer = if path == KNOWN || STRANGERS.contains(&path) { path } else { "/a" };
    let mut claims = world.claims();
    claims["iss"] = json!(issuer);
    world.issuer.at(signer).sign(&claims)
}

async fn run(judge: &mut Judge<'_>, n: usize, case: &Case) {
    let world = judge.world;
    let verdict =
        |issuer: &str| match (case.invalid, case.refuses.iter().any(|refused| refused == issuer)) {
            (false, false) => "granted",
            (true, _) if issuer == world.issuer.url() => "9 TRUSTED_ISSUERS_INVALID",
            (false, true) if issuer == world.issuer.url() => "7 ISSUER_NOT_PERMITTED",
            _ => "16 ISSUER_NOT_TRUSTED",
        };
    for (k, issuer) in asked(case).enumerate() {
        let expected =
            Expected::new(verdict(issuer), &json!({"issues": "write"}), &json!(["hello"]));
        let ask = Ask::new(&owner(n), &format!("asker-{k}"), &token(world, issuer));
        judge.ask(&format!("{} {issuer}", case.name), &expected, async || ask.clone()).await;
        if case.records.contains(issuer) {
            let policy = format!("asker-{k}");
            let record = world
                .audit
                .find(|record| record["scope"] == owner(n) && record["identity"] == policy)
                .await;
            assert_eq!(record["trusted_issuers"], "not listed, audit only", "{}", case.name);
        }
    }
}

#[tokio::test]
async fn lists_of_trusted_issuers_mean_what_the_corpus_says() {
    let setup = setup().await;
    let root = setup.issuer.url();
    let stand_ins =
        StandIns::default().with("ROOT", &root).with("ROOT_PATTERN", root.replace('.', r"\."));
    let mut cases: Vec<Case> = load("issuers.yaml", &stand_ins);
    let _strangers = STRANGERS.map(|path| setup.issuer.at(path));
    for (n, case) in cases.iter_mut().enumerate() {
        if case.invalid {
            assert!(asked(case).next().is_none(), "{}: an invalid list refuses all", case.name);
            case.refuses = vec![root.clone(), format!("{root}/a")];
        }
        assert!(asked(case).next().is_some(), "{} asks nothing", case.name);
        found(&setup, n, case);
    }
    let world = setup.start().await;
    let owners: Vec<_> = (0..cases.len()).map(owner).collect();
    let owners: Vec<_> = owners.iter().map(String::as_str).collect();
    let mut judge = Judge::new(&world, &owners).await;
    for (n, case) in cases.iter().enumerate() {
        run(&mut judge, n, case).await;
    }
    judge.finish();
}

#[tokio::test]
async fn invalid_tokens_empty_a_bucket_and_callers_verified_by_cached_keys_do_not_need_it() {
    let mut setup = setup().await;
    setup.exchange().admission.address = Rate::new(60, 2);
    let (issuer, foreign) = (setup.issuer.at("/a"), setup.issuer.at("/b"));
    setup.policy(
        "hello",
        "ci",
        &format!("issuer: {}\nsubject: s\npermissions: {{issues: write}}\n", issuer.url()),
    );
    let world = setup.start().await;
    let claims = json!({"iss": issuer.url(), "sub": "s", "aud": "sts.example.com"});
    let (good, bad) = (issuer.sign(&claims), foreign.sign(&claims));
    let ask = async |owner: &str, token: &str| {
        let answer = world.client.rest(&Ask::new(&format!("{owner}/hello"), "ci", token)).await;
        (answer.code, answer.reason, answer.retry_after.is_some())
    };
    let granted = (0, String::new(), false);
    let (not_trusted, limited) =
        ((16, "ISSUER_NOT_TRUSTED".into(), false), (8, "RATE_LIMITED".into(), true));
    assert_eq!(ask("octo-org", &good).await, granted);
    for owner in ["octo-org", "nobody"] {
        for _ in 0..2 {
            ask(owner, &bad).await;
        }
        assert_eq!(ask(owner, &bad).await, limited, "{owner}");
    }
    let calls = world.calls();
    assert_eq!(ask("octo-org", &bad).await, limited);
    assert_eq!(world.calls(), calls);
    assert_eq!(ask("octo-org", &good).await, granted);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(ask("octo-org", &bad).await, not_trusted);
}
