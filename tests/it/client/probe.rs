//! `octo-sts probe` as a process: the Go service's smoke test against this server.

use octo_sts::{
    clock::{Clock, SystemClock},
    emulator::{Fault, RouteKind, Selection, generate_rsa_pem},
};
use serde_json::{Value, json};

use super::commands::{folder, run};
use crate::harness::{APP_PERMISSIONS, DOMAIN, POLICY, Setup, World, settings};

const CHECKS: &str = "issuer: ${ISSUER}\nsubject_pattern: '.*'\n\
    permissions:\n  checks: write\n  contents: read\n  metadata: read\n";

/// A file in the format of the Go service, as its documentation has it.
const FILE: &str = "\
domain: sts.example.com
tests:
  - name: valid token exchange with verification
    scope: octo-org/hello
    identity: ci
    expect_failure: false
    verify:
      contents_read:
        org: octo-org
        repo: hello
        path: .github/chainguard/ci.sts.yaml
      issues_read: {org: octo-org, repo: hello}
  - name: missing STS policy
    scope: octo-org/hello
    identity: does-not-exist
    expect_failure: true
    expected_error: unable to find trust policy
  - name: app not installed on target
    scope: some-org/no-app-here
    identity: anything
    expect_failure: true
    expected_error: no installation found
  - name: any refusal
    scope: octo-org/hello
    identity: does-not-exist
    expect_failure: true
    expected_error: exchange failed
";

/// A world in our time with three Apps, since processes read the machine's clock.
async fn world() -> World {
    let mut setup = Setup::with_policy(POLICY).await;
    setup.policy("hello", "checks", CHECKS);
    let (pem, public) = generate_rsa_pem();
    let mut ids = Vec::new();
    for slug in ["first", "second", "third"] {
        let (app, _) = setup.github.app(slug);
        setup.github.add_key(app, public.clone());
        setup.github.install(app, "octo-org", &Selection::All, APP_PERMISSIONS);
        ids.push(app.to_string());
    }
    let several = settings(&[
        ("STS_DOMAIN", DOMAIN),
        ("GITHUB_APP_IDS", &ids.join(",")),
        ("APP_SECRET_CERTIFICATE_ENV_VAR", &pem),
        ("GITHUB_BASE_URL", &setup.github.url()),
    ]);
    setup.settings.github = several.github;
    setup.settings.apps = several.apps;
    setup.clock.set(SystemClock.now());
    setup.start().await
}

/// Runs the program with a file of tests.
async fn probe(world: &World, name: &str, file: &str, more: &[&str]) -> (i32, String, String) {
    let path = folder(&format!("probe-{name}")).join("probe.yaml");
    std::fs::write(&path, file).unwrap();
    let server = format!("http://{}", world.address);
    let token = world.token(json!({}));
    let github = world.github.url();
    let path = path.to_str().unwrap();
    let mut arguments = vec!["probe", "--config", path, "--server", &server];
    arguments.extend(more);
    run(&arguments, &[("STS_ID_TOKEN", &token), ("GITHUB_BASE_URL", &github)], "").await
}

/// Every token that was issued to a caller is revoked.
fn nothing_is_left(world: &World) {
    assert!(world.issued().iter().all(|token| token.revoked));
}

#[tokio::test]
async fn a_smoke_test_of_the_go_service_passes_and_leaves_no_token() {
    let world = world().await;
    let (code, out, err) = probe(&world, "passes", FILE, &[]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.ends_with("4 of 4 tests passed\n"), "{out}");
    assert_eq!(world.issued().len(), 1);
    nothing_is_left(&world);
}

#[tokio::test]
async fn each_unmet_expectation_fails_its_test_and_no_other() {
    let world = world().await;
    let file = FILE
        .replace(
            "identity: ci\n    expect_failure: false",
            "identity: ci\n    expect_failure: true",
        )
        .replace("unable to find trust policy", "something else")
        .replace(
            "scope: some-org/no-app-here\n    identity: anything",
            "scope: octo-org/hello\n    identity: ci",
        );
    let (code, out, _) = probe(&world, "fails", &file, &["--output", "json"]).await;
    assert_eq!(code, 77, "{out}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let passed: Vec<_> =
        report["tests"].as_array().unwrap().iter().map(|test| test["passed"] == true).collect();
    assert_eq!(passed, [false, false, false, true], "{report}");
    assert_eq!(report["passed"], false);
    nothing_is_left(&world);

    // What the token cannot read.
    let file = FILE.replace("issues_read", "pull_requests_read");
    let (code, out, _) = probe(&world, "cannot-read", &file, &[]).await;
    assert_eq!(code, 77);
    assert!(
        out.contains("FAIL  valid token exchange with verification: verification failed"),
        "{out}"
    );
    nothing_is_left(&world);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_no_refusal() {
    let world = world().await;
    let down = format!("http://{}", world.address);
    let file = FILE.replace("expect_failure: false", "expect_failure: true");
    world.stop().await;
    let path = folder("probe-down").join("probe.yaml");
    std::fs::write(&path, file).unwrap();
    let token = super::fake::TOKEN;
    let arguments = ["probe", "--config", path.to_str().unwrap(), "--server", &down];
    let (code, out, _) = run(&arguments, &[("STS_ID_TOKEN", token)], "").await;
    assert_eq!(code, 77);
    assert!(out.ends_with("0 of 4 tests passed\n"), "{out}");
}

#[tokio::test]
async fn checks_of_one_policy_are_written_by_one_app() {
    let file = "domain: sts.example.com\ntests:\n  - {name: sticky, scope: octo-org/hello, identity: checks, sticky_repeat: 9}\n";
    let world = world().await;
    let (code, out, _) = probe(&world, "sticky", file, &[]).await;
    assert_eq!((code, out.as_str()), (0, "PASS  sticky\n1 of 1 tests passed\n"));
    assert_eq!(world.issued().len(), 9);
    nothing_is_left(&world);

    // A policy without `checks: write` is served by whichever App has the most calls left; GitHub
    // answers as it does for another App's check run.
    let refusal = json!({ "message": "Invalid app_id - check run can only be modified by the GitHub App that created it." });
    world.github.fault(Fault::on(RouteKind::UpdateCheckRun).after(3).times(1).answer(403, refusal));
    let (code, out, _) = probe(&world, "not-sticky", file, &[]).await;
    assert_eq!(code, 77);
    assert!(out.contains("FAIL  sticky: exchange 5: another App issued this token"), "{out}");
    nothing_is_left(&world);
}

#[tokio::test]
async fn a_file_that_is_none_is_refused_before_anything_is_sent() {
    let world = world().await;
    for (name, file, words) in [
        ("empty", String::new(), "is empty"),
        ("unknown", FILE.replace("expect_failure", "expects"), "unknown key"),
        (
            "once",
            FILE.replace("identity: ci\n", "identity: ci\n    sticky_repeat: 1\n"),
            "2 to 1000",
        ),
    ] {
        let (code, out, err) = probe(&world, &format!("none-{name}"), &file, &[]).await;
        assert_eq!((code, out.as_str()), (64, ""), "{err}");
        assert!(err.contains(words), "{err}");
    }
    assert_eq!(world.issued().len(), 0);
}
