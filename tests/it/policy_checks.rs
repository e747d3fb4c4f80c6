//! Checks of policies on pull requests and pushes, from the delivery to the check run.

use std::time::Duration;

use octo_sts::emulator::{CheckRunRecord, Fault, RouteKind};
use serde_json::{Value, json};

use crate::harness::{
    APP_PERMISSIONS, POLICY, Setup, World,
    delivery::{Delivery, SECRET, webhook},
};

const REPO: (&str, &str) = ("octo-org", "hello");
const CI: &str = ".github/chainguard/ci.sts.yaml";
const LIST: &str = ".github/chainguard/trusted-token-issuers.yaml";
const VALID: &str = "issuer: https://token.actions.githubusercontent.com\n\
    subject: repo:octo-org/hello:ref:refs/heads/main\n\
    permissions:\n  contents: read\n";

async fn world() -> World {
    let mut setup = Setup::with_policy(POLICY).await;
    setup.settings.github.first_backoff = Duration::from_millis(1);
    setup.settings.webhook = Some(webhook(&[SECRET], &[]));
    setup.start().await
}

/// A delivery about a repository, with the fields that every one has.
fn about(world: &World, event: &str, repo: (&str, &str), body: Value) -> Delivery {
    let mut all = json!({
        "repository": { "name": repo.1, "owner": { "login": repo.0 }, "default_branch": "main" },
        "installation": { "id": world.installation.0 },
    });
    all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    Delivery::new(event, all)
}

fn pull(world: &World, action: &str, number: u64, head: &str) -> Delivery {
    let pull = json!({ "number": number, "head": { "sha": head } });
    about(world, "pull_request", REPO, json!({ "action": action, "pull_request": pull }))
}

/// Sends a delivery and waits until its work is finished: its record.
async fn done(world: &World, delivery: &Delivery) -> Value {
    let (status, message) = world.deliver(delivery).await;
    assert_eq!((status, message.as_str()), (200, "accepted"));
    world.audit.find(|record| record["delivery"] == delivery.id.as_str()).await
}

/// Opens a pull request with these changes: the check run that its head gets.
async fn proposed(changes: &[(&str, Option<&str>)]) -> CheckRunRecord {
    let world = world().await;
    proposed_in(&world, REPO, changes).await
}

async fn proposed_in(
    world: &World,
    repo: (&str, &str),
    changes: &[(&str, Option<&str>)],
) -> CheckRunRecord {
    let head = world.github.commit_files(repo, "topic", changes);
    let number = world.github.open_pull(repo, (repo.0, repo.1, "topic"), "main");
    let pull = json!({ "number": number, "head": { "sha": head } });
    let opened =
        about(world, "pull_request", repo, json!({ "action": "opened", "pull_request": pull }));
    let record = done(world, &opened).await;
    let run = world.github.check_runs(repo.0, repo.1).pop().unwrap();
    assert_eq!((run.name.as_str(), &run.head_sha), ("Trust Policy Validation", &head));
    assert_eq!(run.external_id, head);
    assert_eq!(record["checks"][0]["conclusion"], json!(run.conclusion));
    assert_eq!(world.github.unknown_requests(), Vec::<String>::new());
    run
}

#[track_caller]
fn is(run: &CheckRunRecord, conclusion: &str) {
    let title = if conclusion == "success" { "Valid" } else { "Invalid" };
    assert_eq!((run.status.as_str(), run.conclusion.as_deref()), ("completed", Some(conclusion)));
    assert_eq!(run.title.clone().unwrap(), format!("{title} trust policy."));
}

fn annotations(run: &CheckRunRecord) -> Vec<(String, u64, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |it: &Value| {
        (text(&it["annotation_level"]), it["start_line"].as_u64().unwrap(), text(&it["message"]))
    };
    run.annotations.iter().map(of).collect()
}

#[tokio::test]
async fn a_broken_policy_fails_with_its_errors_on_their_lines() {
    let broken =
        VALID.replace("subject:", "subjects:").replace("contents: read", "contents: wirte");
    let run = proposed(&[(CI, Some(&broken))]).await;
    is(&run, "failure");
    let found = annotations(&run);
    assert!(found.iter().all(|(level, ..)| level == "failure"), "{found:?}");
    let lines: Vec<u64> = found.iter().map(|(_, line, _)| *line).collect();
    assert_eq!(lines, [2, 4], "{found:?}");
    let summary = run.summary.unwrap();
    let head = "Failed to validate trust policy.\n\n2 errors occurred:\n\t* .github/chainguard/ci.sts.yaml: line 2: ";
    assert!(summary.starts_with(head), "{summary}");
}

#[tokio::test]
async fn no_policy_changed_is_a_success() {
    let run =
        proposed(&[("src/main.rs", Some("fn main() {}")), (".github/CODEOWNERS", Some("*"))]).await;
    is(&run, "success");
    assert_eq!(run.summary.as_deref(), Some("No trust policy changed.\n"));
}

#[tokio::test]
async fn access_is_shown_before_and_after() {
    let world = world().await;
    let old = world.policy_text();
    let wider = old.replace("issues: write", "issues: write\n  pull_requests: write");
    let run = proposed_in(&world, REPO, &[(CI, Some(&wider))]).await;
    is(&run, "success");
    let issuer = world.issuer.url();
    let row = |sign: &str, may: &str| {
        format!(
            "| {sign} | `{CI}` | issuer `{issuer}`<br>subject `repo:octo-org/hello:ref:refs/heads/main`\
             <br>audience `the default` | {may} | this repository |\n"
        )
    };
    let may = "`contents: read`<br>`issues: write`";
    let before = row("before", may);
    let after = row("after", &format!("{may}<br>`pull_requests: write`"));
    let summary = run.summary.unwrap();
    assert!(summary.contains(&format!("{before}{after}")), "{summary}");

    let run = proposed(&[(CI, None)]).await;
    is(&run, "success");
    assert!(run.summary.unwrap().contains("| removed | `.github/chainguard/ci.sts.yaml` |"));
    let run = proposed(&[(".github/chainguard/new.sts.yaml", Some(VALID))]).await;
    assert!(run.summary.unwrap().contains("| added | `.github/chainguard/new.sts.yaml` |"));
    let world = self::world().await;
    let commented = format!("{}# nothing else\n", world.policy_text());
    let run = proposed_in(&world, REPO, &[(CI, Some(&commented))]).await;
    assert!(run.summary.unwrap().contains("The access that the policies give does not change."));
}

#[tokio::test]
async fn a_reviewer_is_told_of_what_to_look_at() {
    let admin = VALID.replace("contents: read", "contents: write\n  actions: write");
    let run = proposed(&[(CI, Some(&admin)), (".github/chainguard/b.yml", Some("x"))]).await;
    is(&run, "success");
    let found = annotations(&run);
    assert!(
        found.iter().any(|(level, line, text)| {
            level == "warning" && *line == 4 && text.contains("can change the policy itself")
        }),
        "{found:?}"
    );
    assert!(found.iter().any(|(_, _, text)| text.contains("this file is not read")), "{found:?}");
}

#[tokio::test]
async fn what_stands_where_a_policy_should_be_is_judged() {
    for (path, text, conclusion) in [
        (LIST, "issuers: []\n", "success"),
        (".github/chainguard/a/b.sts.yaml", VALID, "success"),
        (".github/chainguard/a/b.sts.yaml", "x", "failure"),
        (".github/chainguard/a b.sts.yaml", VALID, "failure"),
        (".github/chainguard/ci.sts.test.yaml", "tests: []\n", "success"),
        (".github/chainguard/README.md", "x", "success"),
    ] {
        is(&proposed(&[(path, Some(text))]).await, conclusion);
    }
    let world = world().await;
    is(
        &proposed_in(&world, ("octo-org", ".github"), &[(LIST, Some("issuers: []\n"))]).await,
        "failure",
    );
}

#[tokio::test]
async fn a_symbolic_link_is_not_a_policy() {
    let world = world().await;
    let placed = octo_sts::emulator::Placed::Symlink("other.sts.yaml".into());
    world.github.place_on("octo-org", "hello", "topic", (CI, placed));
    let run =
        proposed_in(&world, REPO, &[(".github/chainguard/other.sts.yaml", Some(VALID))]).await;
    is(&run, "failure");
    assert!(run.summary.unwrap().contains("ci.sts.yaml: not a file"));
}

#[tokio::test]
async fn every_shape_of_a_history_is_compared_with_its_base() {
    let world = world().await;
    let broken = [(CI, Some("issuer: x\n"))];
    // A fork.
    world.github.repo("outsider", "hello", octo_sts::emulator::Visibility::Public);
    let head = world.github.commit_files(("outsider", "hello"), "patch", &broken);
    let number = world.github.open_pull(REPO, ("outsider", "hello", "patch"), "main");
    done(&world, &pull(&world, "opened", number, &head)).await;
    // A branch without a common ancestor: everything in it is new.
    let head = world.github.orphan(REPO, "orphan", &broken);
    let number = world.github.open_pull(REPO, ("octo-org", "hello", "orphan"), "main");
    done(&world, &pull(&world, "synchronize", number, &head)).await;
    let runs = world.github.check_runs("octo-org", "hello");
    assert_eq!(runs.len(), 2);
    runs.iter().for_each(|run| is(run, "failure"));
    // The base has the same change by now; the branch is behind and not at fault.
    let head = world.github.commit_files(REPO, "old", &[("a", Some("1"))]);
    world.github.commit_files(REPO, "main", &broken);
    let number = world.github.open_pull(REPO, ("octo-org", "hello", "old"), "main");
    done(&world, &pull(&world, "reopened", number, &head)).await;
    is(world.github.check_runs("octo-org", "hello").last().unwrap(), "success");
    // A merge queue's commit, compared with the default branch.
    let head = world.github.commit_files(REPO, "gh-readonly-queue/main/pr-1", &[(CI, Some("x"))]);
    let group = json!({ "action": "checks_requested", "merge_group": { "head_sha": head } });
    done(&world, &about(&world, "merge_group", REPO, group)).await;
    is(world.github.check_runs("octo-org", "hello").last().unwrap(), "failure");
}

#[tokio::test]
async fn a_check_is_made_again_when_it_is_requested_or_the_base_changes() {
    let world = world().await;
    let head = world.github.commit_files(REPO, "topic", &[(CI, Some("issuer: x\n"))]);
    let number = world.github.open_pull(REPO, ("octo-org", "hello", "topic"), "main");
    let mut edited = pull(&world, "edited", number, &head);
    let reply = world.deliver(&edited).await;
    assert_eq!(reply.1, "ignored", "the title changed");
    let mut body: Value = serde_json::from_str(&edited.body).unwrap();
    body["changes"] = json!({ "base": { "ref": { "from": "other" } } });
    edited = Delivery::new("pull_request", body);
    done(&world, &edited).await;
    let pulls = json!([{ "number": number, "head": { "sha": head } }]);
    let run = json!({ "head_sha": head, "pull_requests": pulls });
    let again = json!({ "action": "rerequested", "check_run": run });
    done(&world, &about(&world, "check_run", REPO, again)).await;
    let again = json!({ "action": "rerequested", "check_suite": run });
    done(&world, &about(&world, "check_suite", REPO, again)).await;
    let runs = world.github.check_runs("octo-org", "hello");
    assert_eq!(runs.len(), 3);
    runs.iter().for_each(|run| is(run, "failure"));
    // What our own check run causes is not answered with another one.
    for (event, action) in
        [("check_run", "created"), ("check_run", "completed"), ("check_suite", "completed")]
    {
        let echo = json!({ "action": action, event: run });
        assert_eq!(world.deliver(&about(&world, event, REPO, echo)).await.1, "ignored");
    }
}

#[tokio::test]
async fn a_push_to_the_default_branch_gets_a_check_and_what_it_hides_is_invalidated() {
    let world = world().await;
    assert_eq!(world.usual().await.rest.code, 0);
    let before = world.github.head_of("octo-org", "hello", "main").unwrap();
    let after = world.github.commit_files(REPO, "main", &[(CI, None)]);
    // A merge commit of its own: none of the listed commits names the policy.
    let body = json!({
        "ref": "refs/heads/main", "before": before, "after": after, "commits": [{ "modified": ["a"] }],
    });
    let record = done(&world, &about(&world, "push", REPO, body)).await;
    assert_eq!((&record["result"], &record["invalidated"]), (&json!("done"), &json!(1)));
    assert_eq!(world.usual().await.reason(), "POLICY_NOT_FOUND");
    is(world.github.check_runs("octo-org", "hello").last().unwrap(), "success");
}

#[tokio::test]
async fn while_github_lags_behind_a_push_its_commits_tell_what_is_old() {
    let world = world().await;
    assert_eq!(world.usual().await.rest.code, 0);
    let before = world.github.head_of("octo-org", "hello", "main").unwrap();
    world.github.lag_behind("octo-org", "hello");
    let changed = format!("{}# the same otherwise\n", world.policy_text());
    let after = world.github.commit_files(REPO, "main", &[(CI, Some(&changed))]);
    let body = json!({
        "ref": "refs/heads/main", "before": before, "after": after, "commits": [{ "modified": [CI] }],
    });
    done(&world, &about(&world, "push", REPO, body.clone())).await;
    assert_eq!(world.usual().await.reason(), "GITHUB_UNAVAILABLE");
    world.github.catch_up("octo-org", "hello");
    assert_eq!(world.usual().await.rest.code, 0);
    // The next delivery is late: what is cached is what it left, which its commit confirms.
    let mut again = body;
    again["sender"] = json!("redelivered");
    done(&world, &about(&world, "push", REPO, again)).await;
    assert_eq!(world.usual().await.rest.code, 0);
}

#[tokio::test]
async fn more_than_fifty_notes_need_several_requests() {
    let broken =
        VALID.replace("permissions:", &(0..16).map(|n| format!("x{n}: y\n")).collect::<String>());
    let names: Vec<String> = (0..5).map(|n| format!(".github/chainguard/{n}.sts.yaml")).collect();
    let changes: Vec<(&str, Option<&str>)> =
        names.iter().map(|name| (name.as_str(), Some(broken.as_str()))).collect();
    let run = proposed(&changes).await;
    is(&run, "failure");
    assert!(run.annotations.len() > 50, "{}", run.annotations.len());
}

#[tokio::test]
async fn what_github_does_not_list_in_full_fails_and_does_not_pass() {
    let world = world().await;
    world.github.set(|options| options.max_tree_entries = Some(1));
    let run = proposed_in(&world, REPO, &[(".github/chainguard/b.sts.yaml", Some(VALID))]).await;
    is(&run, "failure");
    assert!(run.summary.unwrap().contains("more files than GitHub lists"));
}

#[tokio::test]
async fn a_check_waits_while_the_quota_is_low_and_says_so() {
    let world = world().await;
    assert_eq!(world.usual().await.rest.code, 0);
    world.github.set_hourly_limit(world.installation, 5_000);
    world.github.spend_quota(world.installation, 3_000);
    let head = world.github.commit_files(REPO, "topic", &[(CI, Some("x"))]);
    let number = world.github.open_pull(REPO, ("octo-org", "hello", "topic"), "main");
    // A read that reports the quota.
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(world.usual().await.rest.code, 0);
    world.deliver(&pull(&world, "opened", number, &head)).await;
    let run = || world.github.check_runs("octo-org", "hello").pop();
    let wait = async {
        while run().is_none_or(|run| run.status != "queued") {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    // It goes on with a new token, from where on the clock must not run away from the work.
    let mints = world.calls().0;
    let wait = async {
        while world.calls().0 == mints {
            world.clock.advance(Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while run().is_none_or(|run| run.status != "completed") {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    is(&run().unwrap(), "failure");
    assert_eq!(world.github.check_runs("octo-org", "hello").len(), 1);
}

#[tokio::test]
async fn work_is_repeated_after_an_outage() {
    let world = world().await;
    let head = world.github.commit_files(REPO, "topic", &[(CI, Some("x"))]);
    let number = world.github.open_pull(REPO, ("octo-org", "hello", "topic"), "main");
    world.github.fault(Fault::on(RouteKind::CreateCheckRun).times(3).status(503));
    world.deliver(&pull(&world, "opened", number, &head)).await;
    let wait = async {
        while world.github.check_runs("octo-org", "hello").is_empty() {
            world.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    is(world.github.check_runs("octo-org", "hello").last().unwrap(), "failure");
}

#[tokio::test]
async fn checks_use_one_app_and_a_token_that_can_do_nothing_else() {
    let world = world().await;
    let head = world.github.commit_files(REPO, "topic", &[(CI, Some(VALID))]);
    let number = world.github.open_pull(REPO, ("octo-org", "hello", "topic"), "main");
    done(&world, &pull(&world, "opened", number, &head)).await;
    let minted = world.github.minted();
    let token = minted.last().unwrap();
    let permissions: Vec<_> =
        token.permissions.iter().map(|(name, level)| format!("{name}:{level}")).collect();
    assert_eq!(
        permissions,
        ["checks:write", "contents:read", "metadata:read", "pull_requests:read"]
    );
    assert_eq!(token.repositories, Some(vec!["hello".to_owned()]));
    assert!(APP_PERMISSIONS.iter().any(|(name, _)| *name == "checks"));
}

#[tokio::test]
async fn the_examples_of_a_policy_are_run_whichever_of_the_two_changed() {
    const EXAMPLES: &str = ".github/chainguard/ci.sts.test.yaml";
    let test = |expect: &str| {
        format!(
            "tests:\n  - name: main\n    claims:\n      iss: https://token.actions.githubusercontent.com\n      \
             sub: repo:octo-org/hello:ref:refs/heads/main\n      aud: sts.example.com\n    expect: {expect}\n"
        )
    };
    for (on_main, changes, conclusion) in [
        (None, vec![(CI, VALID.to_owned()), (EXAMPLES, test("granted"))], "success"),
        (None, vec![(CI, VALID.to_owned()), (EXAMPLES, test("denied"))], "failure"),
        (Some(test("granted")), vec![(CI, VALID.replace("main", "release"))], "failure"),
        (Some(test("denied")), vec![(CI, VALID.replace("main", "release"))], "success"),
        (None, vec![(CI, VALID.to_owned()), (EXAMPLES, "tests: 1\n".to_owned())], "failure"),
        (None, vec![(".github/chainguard/none.sts.test.yaml", test("granted"))], "success"),
    ] {
        let world = world().await;
        if let Some(text) = &on_main {
            world.github.put_file("octo-org", "hello", EXAMPLES, text);
        }
        let changes: Vec<(&str, Option<&str>)> =
            changes.iter().map(|(path, text)| (*path, Some(text.as_str()))).collect();
        let run = proposed_in(&world, REPO, &changes).await;
        assert_eq!(run.conclusion.as_deref(), Some(conclusion), "{changes:?} {:?}", run.summary);
    }
}

#[tokio::test]
async fn a_commit_of_the_default_branch_that_is_checked_again_is_judged_whole() {
    let world = world().await;
    let head = world.github.commit_files(REPO, "main", &[(CI, Some("issuer: x\n"))]);
    let run = json!({ "head_sha": head, "pull_requests": [] });
    let again = json!({ "action": "rerequested", "check_run": run });
    done(&world, &about(&world, "check_run", REPO, again)).await;
    is(world.github.check_runs("octo-org", "hello").last().unwrap(), "failure");
}

#[tokio::test]
async fn an_outdated_head_is_not_checked() {
    let world = world().await;
    let old = world.github.commit_files(REPO, "topic", &[(CI, Some("x"))]);
    let number = world.github.open_pull(REPO, ("octo-org", "hello", "topic"), "main");
    world.github.commit_files(REPO, "topic", &[(CI, Some(VALID))]);
    let record = done(&world, &pull(&world, "synchronize", number, &old)).await;
    assert_eq!((&record["result"], record.get("checks")), (&json!("done"), None));
    assert_eq!(world.github.check_runs("octo-org", "hello"), []);
}

#[tokio::test]
async fn an_event_of_one_owner_costs_the_others_nothing() {
    let world = world().await;
    assert_eq!(world.usual().await.rest.code, 0);
    let mints = || world.github.calls().of(RouteKind::Mint);
    let before = mints();
    for action in ["suspend", "unsuspend", "deleted"] {
        let installation = json!({ "id": 1, "account": { "login": "outsider" } });
        let body = json!({ "action": action, "installation": installation });
        assert_eq!(world.deliver(&Delivery::new("installation", body)).await.1, "accepted");
    }
    assert_eq!(world.usual().await.rest.code, 0);
    assert_eq!(mints(), before + 2, "one for each wire, and none to read with");
}

#[tokio::test]
async fn deliveries_to_several_apps_of_a_pool_make_one_check() {
    let world = world().await;
    let head = world.github.commit_files(REPO, "topic", &[(CI, Some("x"))]);
    let number = world.github.open_pull(REPO, ("octo-org", "hello", "topic"), "main");
    for installation in [world.installation.0, 7, 8] {
        let opened = pull(&world, "opened", number, &head);
        let mut body: Value = serde_json::from_str(&opened.body).unwrap();
        body["installation"]["id"] = json!(installation);
        done(&world, &Delivery::new("pull_request", body)).await;
    }
    assert_eq!(world.github.check_runs("octo-org", "hello").len(), 1);
}

#[tokio::test]
async fn a_commit_that_github_does_not_show_yet_does_not_pass() {
    let world = world().await;
    // 404 for everything that a fresh token asks for at first.
    for path in ["contents/.github", "git/trees", "/pulls/", "/compare/"] {
        let fault = Fault::anything().path_with(path).times(1);
        world.github.fault(fault.status(404));
    }
    let head = world.github.commit_files(REPO, "topic", &[(CI, Some("issuer: x\n"))]);
    let number = world.github.open_pull(REPO, ("octo-org", "hello", "topic"), "main");
    world.deliver(&pull(&world, "opened", number, &head)).await;
    let wait = async {
        while world.github.check_runs("octo-org", "hello").is_empty() {
            world.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    is(world.github.check_runs("octo-org", "hello").last().unwrap(), "failure");
    // A repository without such a folder.
    let world = self::world().await;
    world.github.repo("octo-org", "plain", octo_sts::emulator::Visibility::Private);
    let run = proposed_in(&world, ("octo-org", "plain"), &[("README.md", Some("x"))]).await;
    is(&run, "success");
}
