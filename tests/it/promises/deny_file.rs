//! What the operator denies (`STS_DENY_FILE`): refused on both wires, nothing minted, and in force
//! soon after the file changes, whatever is cached or in flight.

use std::time::Duration;

use octo_sts::{
    deny_file::{Denials, DenyFile},
    emulator::{Fault, Fetches, RouteKind},
    telemetry::Metrics,
};
use serde_json::{Value, json};

use super::{GRANTED, asking, count, once, until};
use crate::harness::{Answer, Ask, DOMAIN, Folder, POLICY, Setup, World};

const MESSAGE: &str = "denied by the operator of this server";
const DENIED: (i32, &str) = (7, "DENIED_BY_OPERATOR");
const NOT_TRUSTED: (i32, &str) = (16, "ISSUER_NOT_TRUSTED");

/// Denials by a file in this folder, whose entries these are, each in braces without its reason.
fn denials(folder: &Folder, entries: &[&str]) -> Denials {
    let file = DenyFile { path: write(folder, entries).into() };
    let list = file.load().unwrap();
    Denials::new(file, list)
}

fn write(folder: &Folder, entries: &[&str]) -> String {
    let lines = entries.iter().map(|entry| format!("  - {{{entry}, reason: OUR-REASON}}\n"));
    let text = if entries.is_empty() { " []\n".to_owned() } else { "\n".to_owned() };
    folder.file("deny.yaml", &format!("deny:{text}{}", lines.collect::<String>()))
}

/// The usual organization with policies of every reach, served with one entry. `${ISSUER}` is the
/// issuer's URL.
async fn denying(entry: &str) -> (World, Folder) {
    let mut setup = Setup::with_policy(POLICY).await;
    let organization = |repositories: &str| {
        format!(
            "issuer: ${{ISSUER}}\nsubject_pattern: .*\npermissions: {{contents: read}}\n{repositories}"
        )
    };
    setup.policy("other", "ci", POLICY);
    setup.policy(".github", "all", &organization(""));
    setup.policy(".github", "hello", &organization("repositories: [hello]\n"));
    setup.policy(".github", "other", &organization("repositories: [other]\n"));
    let folder = Folder::new();
    let entry = entry.replace("${ISSUER}", &setup.issuer.url());
    setup.settings.denials = denials(&folder, &[&entry]);
    (setup.start().await, folder)
}

#[track_caller]
fn same(answer: &Answer, expected: (i32, &str), what: &str) {
    assert_eq!((answer.code, answer.reason.as_str()), expected, "{what}: {}", answer.message);
    if expected == DENIED {
        assert_eq!(answer.message, MESSAGE, "{what}");
    }
    assert!(!format!("{answer:?}").contains("OUR-REASON"), "{what}");
}

/// Exchange and check of a policy give this; what is refused is never minted.
async fn is(world: &World, at: (&str, &str), token: &str, expected: (i32, &str), what: &str) {
    let issued = world.issued().len();
    let answer = world.exchange(at.0, at.1, token).await.rest;
    same(&answer, expected, what);
    if expected != GRANTED {
        assert_eq!(world.issued().len(), issued, "{what}");
        let check = world.check(at.0, at.1, token).await;
        assert_eq!(check.reason(), expected.1, "{what}");
    }
}

#[tokio::test]
async fn an_entry_denies_what_it_names_and_no_neighbour() {
    const CI: (&str, &str) = ("octo-org/hello", "ci");
    const OTHER: (&str, &str) = ("octo-org/other", "ci");
    const ALL: (&str, &str) = ("octo-org", "all");
    const LISTED: (&str, &str) = ("octo-org", "hello");
    type Places = &'static [(&'static str, &'static str)];
    let cases: [(&str, Places, Places); 13] = [
        ("owner: OCTO-org", &[CI, OTHER, ALL, ("octo-org/.github", "hello")], &[]),
        ("owner: octo", &[], &[CI, ALL]),
        ("repository: octo-org/Hello", &[CI, ALL, LISTED], &[OTHER, ("octo-org", "other")]),
        (
            "repository: octo-org/.github",
            &[ALL, LISTED, ("octo-org/.github", "other")],
            &[CI, OTHER],
        ),
        ("policy: octo-org/hello/ci", &[CI], &[OTHER, ALL, LISTED]),
        ("policy: octo-org/.github/all", &[ALL, ("octo-org/.github", "all")], &[CI, LISTED]),
        ("subject: 'repo:octo-org/hello:ref:refs/heads/main'", &[CI, OTHER, ALL], &[]),
        ("subject: 'repo:octo-org/hello:ref:refs/heads/mai'", &[], &[CI]),
        ("subject_pattern: 'repo:octo-org/hello:.*'", &[CI, ALL], &[]),
        ("subject_pattern: octo-org", &[], &[CI]),
        ("owner: octo-org, subject: another", &[], &[CI, ALL]),
        ("issuer: '${ISSUER}', policy: octo-org/hello/ci", &[CI], &[ALL]),
        ("issuer: https://another.example.com, owner: octo-org", &[], &[CI]),
    ];
    for (entry, denied, granted) in cases {
        let (world, _folder) = denying(entry).await;
        let token = world.token(json!({}));
        for at in denied {
            is(&world, *at, &token, DENIED, &format!("{entry} {at:?}")).await;
        }
        for at in granted {
            is(&world, *at, &token, GRANTED, &format!("{entry} {at:?}")).await;
        }
    }
}

#[tokio::test]
async fn a_known_issuer_is_not_trusted_and_learns_nothing_else() {
    for entry in ["issuer: '${ISSUER}'", "issuer: '${ISSUER}/'"] {
        let (world, _folder) = denying(entry).await;
        let token = world.token(json!({}));
        is(&world, ("octo-org/hello", "ci"), &token, NOT_TRUSTED, entry).await;
        // Neither its keys nor GitHub are asked.
        assert_eq!(world.calls().1, 0);
        assert_eq!(world.issuer.fetches(), Fetches::default());
    }
}

#[tokio::test]
async fn a_key_is_denied_whether_or_not_the_token_names_it() {
    let (world, folder) = denying("key_id: placeholder").await;
    let at = ("octo-org/hello", "ci");
    is(&world, at, &world.token(json!({})), GRANTED, "another key").await;
    let own = world.issuer.header()["kid"].as_str().unwrap().to_owned();
    write(&folder, &[&format!("key_id: '{own}'")]);
    until_denied(&world, NOT_TRUSTED).await;
    // Only the signature tells which key it was.
    let unnamed = world.issuer.sign_with(&json!({ "kid": null }), &world.claims());
    is(&world, at, &unnamed, DENIED, "a token without kid").await;
}

#[tokio::test]
async fn a_token_that_is_narrowed_past_the_denied_repository_is_granted() {
    let (world, _folder) = denying("repository: octo-org/hello").await;
    let ask = |repository: &str| Ask {
        scopes: vec![repository.to_owned()],
        ..Ask::new("octo-org", "all", &world.token(json!({})))
    };
    same(&world.client.exchange(&ask("octo-org/other")).await.rest, GRANTED, "other");
    same(&world.client.exchange(&ask("octo-org/hello")).await.rest, DENIED, "hello");
}

/// Callers of an unknown issuer must not learn by the answer, or by a fetch, what is denied.
#[tokio::test]
async fn an_unknown_issuer_gets_the_one_answer_until_it_is_verified() {
    for (entry, expected) in [
        ("issuer: '${TENANT}'", NOT_TRUSTED),
        ("owner: octo-org", NOT_TRUSTED),
        ("repository: octo-org/hello", NOT_TRUSTED),
        ("policy: octo-org/hello/pod", NOT_TRUSTED),
        ("subject: 'system:serviceaccount:a:b'", DENIED),
        ("owner: another", GRANTED),
    ] {
        let mut setup = Setup::with_policy(POLICY).await;
        let tenant = setup.issuer.at("/tenant");
        let policy = format!(
            "issuer: {}\nsubject: system:serviceaccount:a:b\npermissions: {{contents: read}}\n",
            tenant.url()
        );
        setup.policy("hello", "pod", &policy);
        let folder = Folder::new();
        setup.settings.denials = denials(&folder, &[&entry.replace("${TENANT}", &tenant.url())]);
        let world = setup.start().await;
        let token = tenant.sign(&json!({"sub": "system:serviceaccount:a:b", "aud": DOMAIN}));
        is(&world, ("octo-org/hello", "pod"), &token, expected, entry).await;
        if expected == NOT_TRUSTED {
            assert_eq!(tenant.fetches(), Fetches::default(), "{entry}");
            assert_eq!(world.calls().1, 0, "{entry}");
        }
    }
}

#[tokio::test]
async fn the_operators_reason_is_in_the_record_and_in_the_metric() {
    let (recorder, metrics) = Metrics::recorder().unwrap();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let (world, _folder) = denying("owner: octo-org").await;
    same(&once(&world).await, DENIED, "owner");
    let record: Value = world.audit.find(|record| record["reason"] == "DENIED_BY_OPERATOR").await;
    assert_eq!(record["cause"], "denied by the entry at line 2 of the deny file: OUR-REASON");
    assert_eq!(record["subject"], "repo:octo-org/hello:ref:refs/heads/main");
    let page = metrics.render();
    assert!(page.contains("octosts_operator_denials_total 1"), "{page}");
    assert!(page.contains("octosts_deny_file_entries 1"), "{page}");
}

/// Lets half a second pass, until the usual exchange has this outcome.
async fn until_denied(world: &World, expected: (i32, &str)) {
    for _ in 0..500 {
        world.clock.advance(Duration::from_millis(500));
        let answer = once(world).await;
        if (answer.code, answer.reason.as_str()) == expected {
            return;
        }
    }
    panic!("the changed file is never in force: {expected:?}");
}

#[tokio::test]
async fn a_changed_file_is_in_force_and_an_error_lifts_nothing() {
    let (recorder, metrics) = Metrics::recorder().unwrap();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let (world, folder) = denying("owner: another").await;
    same(&once(&world).await, GRANTED, "before");
    write(&folder, &["owner: octo-org"]);
    until_denied(&world, DENIED).await;
    let path = folder.path().join("deny.yaml");
    let broken: [&dyn Fn(); 4] = [
        &|| std::fs::remove_file(&path).unwrap(),
        &|| drop(folder.file("deny.yaml", "")),
        &|| drop(folder.file("deny.yaml", "deny:\n  - {owner: another")),
        &|| drop(folder.file("deny.yaml", "deny:\n  - {owners: another, reason: x}\n")),
    ];
    let denied_until = async |gauge: &str| {
        for _ in 0..500 {
            world.clock.advance(Duration::from_millis(500));
            same(&once(&world).await, DENIED, gauge);
            if metrics.render().contains(gauge) {
                return;
            }
        }
        panic!("never: {gauge}");
    };
    for damage in broken {
        damage();
        denied_until("octosts_deny_file_ok 0").await;
        write(&folder, &["owner: octo-org"]);
        denied_until("octosts_deny_file_ok 1").await;
    }
    write(&folder, &[]);
    until_denied(&world, GRANTED).await;
}

/// A denial that arrives while GitHub mints: the token is revoked, and the caller is denied.
#[tokio::test]
async fn an_exchange_in_flight_is_denied() {
    for fault in
        [Fault::on(RouteKind::Mint).stall(), Fault::on(RouteKind::Mint).stall().after_effect()]
    {
        let (recorder, metrics) = Metrics::recorder().unwrap();
        let _counting = metrics::set_default_local_recorder(&recorder);
        let (world, folder) = denying("owner: another").await;
        same(&once(&world).await, GRANTED, "before");
        world.github.fault(fault);
        let mints = count(&world, RouteKind::Mint);
        let caller = asking(&world);
        until("the mint is under way", || count(&world, RouteKind::Mint) > mints).await;
        write(&folder, &["owner: another", "owner: octo-org"]);
        until("the changed file is in force", || {
            world.clock.advance(Duration::from_millis(1));
            metrics.render().contains("octosts_deny_file_entries 2")
        })
        .await;
        world.github.release();
        same(&caller.await.unwrap(), DENIED, "in flight");
        let alive = || world.issued().iter().skip(1).any(|token| !token.revoked);
        until("its token is revoked", || !alive()).await;
    }
}
