//! `octo-sts dev` as somebody starts it who sees it for the first time.

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use crate::harness::{Ask, Client, Reply, process};

fn dev(arguments: &[&str]) -> Command {
    let mut command = process(&[]);
    command.arg("dev").args(arguments);
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = dev(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn the_tour_goes_as_told() {
    let (code, shown, errors) = run(&["--once", "--port", "0"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{shown}");
    for line in [
        "REST exchange, scope octo-org/hello, identity ci, as repo:octo-org/hello:ref:refs/heads/main",
        "contents read, issues write on hello; until",
        "ok  200  reads README.md",
        "ok  201  opens an issue",
        "ok  403  may not write a file: Resource not accessible by integration",
        "ok  404  does not see octo-org/website",
        "ok  403  POLICY_MISMATCH: token does not satisfy the trust policy: subject",
        "wanted repo:octo-org/hello:ref:refs/heads/main",
        "gRPC exchange, scope octo-org, identity deploy, as system:serviceaccount:deploy-blue:releaser",
        "statuses write on hello, website; until",
        r#"{"type":"audit","#,
    ] {
        assert!(shown.contains(line), "{line:?} is missing in\n{shown}");
    }
    assert!(!shown.contains("NOT AS EXPECTED"), "{shown}");
    assert!(!shown.contains('\x1b'), "colour without a terminal");
    assert!(shown.lines().count() < 80, "longer than two screens");
}

#[test]
fn no_whole_token_is_shown() {
    let (_, shown, _) = run(&["--once", "--port", "0"]);
    assert!(shown.contains("ghs_"));
    for word in
        shown.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.' && c != '-')
    {
        assert!(!(word.starts_with("ghs_") && word.len() > 8), "a token of GitHub's");
        assert!(!word.starts_with("eyJ"), "an OIDC token");
    }
}

#[test]
fn policies_of_ones_own_are_tried_one_by_one() {
    for folder in ["examples/policies", "examples/tour"] {
        let files = count(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
        let (code, shown, errors) = run(&["--once", "--port", "0", "--policies", folder]);
        // A warning would be about tokens that the server read policies with and did not revoke.
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{shown}");
        // The host in the EKS example has a placeholder in capitals.
        let doubtful = shown.matches("in spite of the warnings: ghs_").count();
        assert_eq!(
            doubtful,
            shown.matches("`issuer`: no token has this issuer").count(),
            "{shown}"
        );
        assert_eq!(shown.matches("   ok  ghs_").count() + doubtful, files, "{shown}");
    }
}

fn count(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
}

/// A folder under the build's own, empty at first.
fn folder(name: &str, files: &[(&str, &str)]) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(folder.join("org")).unwrap();
    for (name, text) in files {
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.join(name), text).unwrap();
    }
    folder.to_str().unwrap().to_owned()
}

#[test]
fn every_error_of_every_policy_is_reported_with_its_place() {
    let good = "issuer: https://a.example\nsubject: x\npermissions:\n  contents: read\n";
    let broken = folder(
        "broken",
        &[
            ("good.sts.yaml", good),
            (
                "team/ci/level.sts.yaml",
                "issuer: https://a.example\nsubjects: x\npermissions:\n  contents: writ\n  id-token: write\n",
            ),
            (
                "list.sts.yaml",
                "issuer: https://a.example\nsubject: ['a.b', c]\npermissions:\n  contents: read\n",
            ),
            ("org/deep/none.sts.yaml", &format!("{good}repositories:\n")),
            ("org/trusted-token-issuers.yaml", "mode: enforced\nissuers: [https://a.example, b]\n"),
        ],
    );
    let (code, shown, errors) = run(&["--once", "--policies", &broken]);
    assert_eq!((code, shown.as_str()), (Some(64), ""));
    for error in [
        "team/ci/level.sts.yaml:2:1: unknown key; did you mean `subject`?",
        "team/ci/level.sts.yaml:4:13: a level is",
        "team/ci/level.sts.yaml:5:3: `id-token` is a permission of workflows",
        "list.sts.yaml:2:10: `subject`: expected one string, found a list",
        r"list.sts.yaml:2:10: write subject_pattern: '(?:a\.b|c)'",
        "org/deep/none.sts.yaml:5:",
        "trusted-token-issuers.yaml:1:7: `mode` is",
        "trusted-token-issuers.yaml:2:30: ",
    ] {
        assert!(errors.contains(error), "{error}: {errors}");
    }
    assert!(!errors.contains("good.sts.yaml"), "{errors}");
}

#[test]
fn policies_that_cannot_match_are_warned_about_and_never_ok() {
    let rest = "permissions:\n  contents: read\n";
    let actions = "issuer: https://token.actions.githubusercontent.com\n";
    let doubtful = folder(
        "doubtful",
        &[
            ("regex.sts.yaml", &format!("{actions}subject: repo:o/r:ref:refs/heads/.*\n{rest}")),
            (
                "team/glob.sts.yaml",
                &format!("{actions}subject_pattern: repo:o/*:ref:refs/tags/.*\n{rest}"),
            ),
            (
                "slash.sts.yaml",
                &format!("issuer: https://accounts.google.com/\nsubject: x\n{rest}"),
            ),
            (
                "org/name.sts.yaml",
                &format!(
                    "{actions}subject: repo:o/r:ref:refs/heads/main\nrepositories: []\npermissions: {{content: write}}\n"
                ),
            ),
        ],
    );
    let (code, shown, errors) = run(&["--once", "--port", "0", "--policies", &doubtful]);
    for warning in [
        "regex.sts.yaml:2:10: `subject` is compared literally; for a pattern, write `subject_pattern: ",
        "team/glob.sts.yaml:2:18: `subject_pattern`: this reads like a glob",
        "slash.sts.yaml:1:9: `issuer`: the issuer is `https://accounts.google.com`, without the slash",
        "org/name.sts.yaml:4:15: `permissions.content`: GitHub documents no permission of this name; did you mean `contents`?",
    ] {
        assert!(shown.contains("WARNING  /") && shown.contains(warning), "{warning}: {shown}");
    }
    assert!(!shown.contains("   ok  "), "{shown}");
    // A permission that does not exist is refused by GitHub.
    assert!(shown.contains("NOT AS EXPECTED  403  PERMISSION_REFUSED"), "{shown}");
    assert_eq!(code, Some(70), "{shown}{errors}");
}

#[test]
fn policies_meet_the_claims_of_real_tokens() {
    let actions = "issuer: https://token.actions.githubusercontent.com\n";
    let rest = "permissions:\n  contents: read\n";
    let real = folder(
        "real-claims",
        &[
            (
                "pull.sts.yaml",
                &format!(
                    "{actions}subject: repo:octo-org/hello:pull_request\nclaim_pattern:\n  ref: refs/heads/main\n{rest}"
                ),
            ),
            (
                "deploy.sts.yaml",
                &format!(
                    "{actions}subject: repo:octo-org/hello:environment:prod\nclaim_pattern:\n  environment: prod\n{rest}"
                ),
            ),
        ],
    );
    let (code, shown, _) = run(&["--once", "--port", "0", "--policies", &real]);
    assert_eq!(code, Some(70), "{shown}");
    assert!(shown.contains("POLICY_MISMATCH"), "{shown}");
    assert!(
        shown.contains(r#"claim_pattern.ref: got "refs/pull/1/merge", wanted "refs/heads/main""#),
        "{shown}"
    );
    assert_eq!(shown.matches("   ok  ghs_").count(), 1, "{shown}");
}

#[test]
fn a_folder_without_policies_is_a_mistake() {
    let (code, _, errors) = run(&["--once", "--policies", &folder("empty", &[("x.yaml", "")])]);
    assert_eq!(code, Some(64));
    assert!(errors.contains("holds no policy"), "{errors}");
    let (code, ..) = run(&["--once", "--policies", "/nowhere/at/all"]);
    assert_eq!(code, Some(64));
}

#[test]
fn what_does_not_go_as_told_is_shown_and_ends_with_another_code() {
    let pinned =
        "issuer: https://a.example\nsubject: x\napp: another\npermissions:\n  contents: read\n";
    let pinned = folder("pinned", &[("pinned.sts.yaml", pinned), ("notes.yaml", "")]);
    let (code, shown, _) = run(&["--once", "--port", "0", "--policies", &pinned]);
    assert_eq!(code, Some(70), "{shown}");
    assert!(shown.contains("NOT AS EXPECTED  400  APP_PIN_UNSATISFIED"), "{shown}");
    assert!(shown.contains("notes.yaml (a policy is NAME.sts.yaml)"), "{shown}");
}

#[test]
fn a_port_that_was_asked_for_and_is_taken_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, _, errors) = run(&["--once", "--port", &port]);
    assert_eq!(code, Some(69));
    assert!(errors.contains(&format!("127.0.0.1:{port} cannot be listened on")), "{errors}");
    assert!(errors.contains("--port 0"), "{errors}");
}

/// Ends with the test, whatever becomes of it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts and waits for the lines to try next; all that was shown until then.
fn started(arguments: &[&str]) -> (Running, BufReader<std::process::ChildStdout>, String) {
    let mut running = Running(dev(arguments).stdout(Stdio::piped()).spawn().unwrap());
    let mut out = BufReader::new(running.0.stdout.take().unwrap());
    let mut shown = String::new();
    while !shown.contains("# any claim can be set") {
        assert!(out.read_line(&mut shown).unwrap() > 0, "{shown}");
    }
    (running, out, shown)
}

/// What stands between the last `start` and the next `end`.
fn between(shown: &str, start: &str, end: char) -> String {
    let rest = &shown[shown.rfind(start).unwrap() + start.len()..];
    rest[..rest.find(end).unwrap()].to_owned()
}

// With threads of its own for the client: it must close its connections while the test waits.
#[tokio::test(flavor = "multi_thread")]
async fn the_lines_to_try_next_work_until_ctrl_c() {
    let (mut running, mut out, shown) = started(&["--port", "0"]);
    let (tokens, server) =
        (between(&shown, "curl -s http://", '/'), between(&shown, "\" \"http://", '/'));
    assert!(
        shown.contains(&format!("{server} chainguard.platform.oidc.SecurityTokenService/Exchange"))
    );
    let tokens = Client::new(tokens.parse().unwrap());
    let fetch = async |path: &str| {
        let Reply { body, .. } = tokens.send(http::Method::GET, path, &[], "").await;
        String::from_utf8(body.to_vec()).unwrap()
    };
    let client = Client::new(server.parse().unwrap());
    let (token, other) = (fetch("/token/ci").await, fetch("/token/ci?sub=someone-else").await);
    assert_eq!(client.exchange(&Ask::new("octo-org/hello", "ci", &token)).await.rest.code, 0);
    let denied = client.exchange(&Ask::new("octo-org/hello", "ci", &other)).await;
    assert_eq!(denied.rest.failed, ["subject"]);
    let expired = fetch("/token/ci?exp=1600000000").await;
    assert_eq!(
        client.exchange(&Ask::new("octo-org/hello", "ci", &expired)).await.rest.reason,
        "TOKEN_EXPIRED"
    );
    let org = fetch("/token/org/deploy").await;
    assert_eq!(client.exchange(&Ask::new("octo-org", "deploy", &org)).await.rest.code, 0);
    let hostile = client.exchange(&Ask::new("a\x1b[2J", "ci", &token)).await;
    assert_eq!(hostile.rest.reason, "SCOPE_INVALID");

    crate::harness::signal(&running.0, "INT");
    let status = running.0.wait().unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(rest.contains("granted  octo-org/hello ci"), "{rest}");
    assert!(rest.contains("denied  octo-org/hello ci  someone-else  POLICY_MISMATCH"), "{rest}");
    assert!(rest.contains("SCOPE_INVALID") && !rest.contains('\x1b'), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_ones_own_stands_between_the_emulators() {
    let file = format!("{}/variables", folder("env", &[]));
    let (_running, _out, shown) = started(&["--port", "0", "--env", &file]);
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "set -a; . \"$0\"; exec \"$1\" serve",
        &file,
        env!("CARGO_BIN_EXE_octo-sts"),
    ]);
    let server = shell.env_clear().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut server = Running(server);
    let mut line = String::new();
    let mut log = BufReader::new(server.0.stderr.take().unwrap());
    while !line.contains(r#""message":"serving""#) {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
    }
    let port = between(&line, "]:", '"').parse().unwrap();
    let tokens = Client::new(between(&shown, "curl -s http://", '/').parse().unwrap());
    let client = Client::new(([127, 0, 0, 1], port).into());
    for (path, scope, identity) in
        [("/token/ci", "octo-org/hello", "ci"), ("/token/org/deploy", "octo-org", "deploy")]
    {
        let token = tokens.send(http::Method::GET, path, &[], "").await.body;
        let token = String::from_utf8(token.to_vec()).unwrap();
        assert_eq!(
            client.exchange(&Ask::new(scope, identity, &token)).await.rest.code,
            0,
            "{scope}"
        );
    }
}

#[cfg(unix)]
#[test]
fn only_its_owner_reads_the_file_with_the_key() {
    use std::os::unix::fs::PermissionsExt;
    let file = format!("{}/variables", folder("env-mode", &[]));
    drop(started(&["--port", "0", "--env", &file]));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, shown, errors) = run(&["--port", "0", "--env", "/nowhere/at/all"]);
    assert_eq!(code, Some(69), "{shown}");
    assert!(errors.contains("/nowhere/at/all cannot be written"), "{errors}");
}
