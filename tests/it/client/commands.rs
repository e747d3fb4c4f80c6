//! `exchange` and `git-credential` as processes.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use octo_sts::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use super::fake::{Fake, NO_TOKENS, TOKEN, said};
use crate::harness::{DOMAIN, POLICY, Setup, World, process};

/// A world in our time, since processes read the machine's clock. The organization has the policy
/// too.
async fn world() -> World {
    let setup = Setup::with_policy(POLICY).await;
    setup.clock.set(SystemClock.now());
    setup.policy(".github", "ci", POLICY);
    setup.start().await
}

/// Permissions and repositories that GitHub was asked for last.
fn asked_last(world: &World) -> (Value, Value) {
    let last = world.github.minted().pop().unwrap().body;
    (last["permissions"].clone(), last["repositories"].clone())
}

/// A folder of this test's own, empty at first.
pub(super) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("commands").join(name);
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs the program; gives its exit code, stdout and stderr.
pub(super) async fn run(
    arguments: &[&str],
    environment: &[(&str, &str)],
    stdin: &str,
) -> (i32, String, String) {
    let mut command = process(environment);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let stdin = stdin.to_owned();
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).ok();
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The usual question, by variables.
fn variables<'a>(server: &'a str, token: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("STS_SERVER", server),
        ("STS_SCOPE", "octo-org/hello"),
        ("STS_IDENTITY", "ci"),
        ("STS_ID_TOKEN", token),
        ("STS_AUDIENCE", DOMAIN),
    ]
}

#[tokio::test]
async fn a_token_is_all_that_stdout_has() {
    let world = world().await;
    let (server, token) = (format!("http://{}", world.address), world.token(json!({})));
    let environment = variables(&server, &token);
    let (code, out, err) = run(&["exchange"], &environment, "").await;
    let issued = world.issued();
    assert_eq!((code, err.as_str(), issued.len()), (0, "", 1));
    assert_eq!((sha256(out.trim_end()), out.lines().count()), (issued[0].sha256.clone(), 1));

    let (code, out, _) = run(&["exchange", "--output", "json"], &environment, "").await;
    let reply: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, out.lines().count()), (0, 1));
    assert_eq!(sha256(reply["token"].as_str().unwrap()), world.issued()[1].sha256);
    assert!(reply["expiry"].as_str().unwrap().ends_with('Z'));

    let (code, out, _) = run(&["exchange", "--output", "env"], &environment, "").await;
    let token = out.split('\'').nth(1).unwrap().to_owned();
    assert_eq!(sha256(&token), world.issued()[2].sha256);
    assert_eq!(
        (code, out),
        (0, format!("export GITHUB_TOKEN='{token}'\nexport GH_TOKEN='{token}'\n"))
    );
}

#[tokio::test]
async fn a_token_can_be_for_less_than_the_policy_grants() {
    let world = world().await;
    let (server, token) = (format!("http://{}", world.address), world.token(json!({})));
    let environment = variables(&server, &token);
    let narrowed = async |arguments: &[&str]| {
        let (code, out, err) = run(&[&["exchange"], arguments].concat(), &environment, "").await;
        assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 1), "{arguments:?}");
        asked_last(&world)
    };
    let (all, read) = (json!({"contents": "read", "issues": "write"}), json!({"contents": "read"}));
    assert_eq!(narrowed(&[]).await, (all.clone(), json!(["hello"])));
    assert_eq!(
        narrowed(&["--permission", "contents:read"]).await,
        (read.clone(), json!(["hello"]))
    );
    assert_eq!(
        narrowed(&["--permission", "issues:read", "--permission", "contents:read"]).await.0,
        json!({"contents": "read", "issues": "read"})
    );
    let organization = ["--scope", "octo-org", "--repository", "hello"];
    assert_eq!(narrowed(&organization).await, (all, json!(["hello"])));
    assert_eq!(
        narrowed(&[
            "--scope=octo-org",
            "--repository=octo-org/other",
            "--permission=contents:read"
        ])
        .await,
        (read, json!(["other"]))
    );

    let issued = world.issued().len();
    for (arguments, expected, told) in [
        (&["--permission", "contents:write"][..], 77, "PERMISSION_REFUSED"),
        (&["--permission", "packages:read"], 77, "the policy does not grant packages: read"),
        (&["--permission", "contents"], 64, "expected NAME:LEVEL"),
        (&["--permission", ""], 64, "expected NAME:LEVEL"),
        (&["--repository", "hello"], 64, "expected OWNER as the scope"),
        (&["--scope=octo-org", "--repository=other-org/hello"], 64, "of the scope's owner"),
        (&["--check", "--permission", "contents:write"], 77, ""),
    ] {
        let (code, _, err) = run(&[&["exchange"], arguments].concat(), &environment, "").await;
        assert_eq!(code, expected, "{arguments:?} {err}");
        assert!(err.contains(told), "{arguments:?} {err}");
    }
    let check = ["exchange", "--check", "--permission", "contents:read"];
    let (code, out, _) = run(&check, &environment, "").await;
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("permissions: contents: read\n"), "{out}");
    assert_eq!(world.issued().len(), issued, "a refusal and a check mint nothing");
}

#[tokio::test]
async fn flags_go_before_variables_and_files_are_read() {
    let world = world().await;
    let server = format!("http://{}", world.address);
    let file = folder("flags").join("token");
    fs::write(&file, world.token(json!({}))).unwrap();
    let wrong = [
        ("STS_SERVER", "http://127.0.0.1:1"),
        ("STS_SCOPE", "nobody/x"),
        ("STS_IDENTITY", "x"),
        ("STS_ID_TOKEN", "x.y.z"),
    ];
    let flags = [
        "exchange",
        "--server",
        &server,
        "--scope",
        "octo-org/hello",
        "--identity",
        "ci",
        "--token-file",
        file.to_str().unwrap(),
    ];
    let (code, _, err) = run(&flags, &wrong, "").await;
    assert_eq!((code, err.as_str(), world.issued().len()), (0, "", 1));
}

#[tokio::test]
async fn a_refusal_is_told_on_stderr_with_all_that_helps() {
    let world = world().await;
    let server = format!("http://{}", world.address);
    let bad =
        world.token(json!({"sub": "repo:octo-org/hello:ref:refs/heads/other", "aud": "elsewhere"}));
    let (code, out, err) = run(&["exchange"], &variables(&server, &bad), "").await;
    assert_eq!((code, out.as_str()), (77, ""));
    for wanted in [
        "octo-sts exchange: POLICY_MISMATCH: ",
        "subject: not satisfied, got repo:octo-org/hello:ref:refs/heads/other, wanted repo:octo-org/hello:ref:refs/heads/main",
        "audience: not satisfied, got elsewhere, wanted sts.example.com",
        "--audience",
        "request id: ",
    ] {
        assert!(err.contains(wanted), "{wanted:?} is missing in\n{err}");
    }
    assert!(!err.contains("eyJ"));
    assert_eq!(world.issued().len(), 0);
}

#[tokio::test]
async fn a_check_tells_each_condition_and_mints_nothing() {
    let world = world().await;
    let server = format!("http://{}", world.address);
    let (good, bad) = (world.token(json!({})), world.token(json!({"sub": "somebody"})));
    let (code, out, err) = run(&["exchange", "--check"], &variables(&server, &good), "").await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(
        out.starts_with("would be granted\n")
            && out.contains("subject: ok")
            && out.contains("issues: write"),
        "{out}"
    );
    let (code, out, _) = run(&["exchange", "--check"], &variables(&server, &bad), "").await;
    assert_eq!(code, 77);
    assert!(
        out.starts_with("would not be granted: POLICY_MISMATCH: ") && out.contains("got somebody"),
        "{out}"
    );
    let (code, out, _) =
        run(&["exchange", "--check", "--output", "json"], &variables(&server, &bad), "").await;
    let reply: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &reply["granted"], &reply["reason"]),
        (77, &json!(false), &json!("POLICY_MISMATCH"))
    );
    assert_eq!(world.issued().len(), 0);
}

#[tokio::test]
async fn exit_codes_are_by_cause() {
    let limited = Fake::start(|_| {
        (
            429,
            vec![("retry-after", "30".to_owned())],
            json!({"code": 8, "message": "m"}).to_string(),
        )
    })
    .await;
    let broken = Fake::start(|_| said(200, "{}")).await;
    let unknown = Fake::start(|_| said(400, json!({"code": 3, "message": "m"}).to_string())).await;
    for (server, wanted) in [
        ("http://127.0.0.1:1", 69),
        (&limited.url, 69),
        (&broken.url, 70),
        (&unknown.url, 70),
        ("http://sts.example.com", 64),
    ] {
        let (code, out, err) = run(&["exchange"], &variables(server, TOKEN), "").await;
        assert_eq!((code, out.as_str()), (wanted, ""), "{err}");
    }
    let (_, _, err) = run(&["exchange"], &variables(&limited.url, TOKEN), "").await;
    assert!(err.contains("try again in 30 s"), "{err}");
    for left_out in ["STS_SERVER", "STS_SCOPE", "STS_IDENTITY"] {
        let rest: Vec<_> = variables("http://127.0.0.1:1", TOKEN)
            .into_iter()
            .filter(|(name, _)| *name != left_out)
            .collect();
        let (code, _, err) = run(&["exchange"], &rest, "").await;
        assert!(code == 64 && err.contains(left_out), "{err}");
    }
    for odd in [
        ("STS_SCOPE", "a/b/c"),
        ("STS_IDENTITY", "../x"),
        ("STS_ID_TOKEN", "two words"),
        ("HTTPS_PROXY", "socks5://x"),
        ("SSL_CERT_FILE", "/nonexistent"),
    ] {
        let all: Vec<_> = variables("http://127.0.0.1:1", TOKEN)
            .into_iter()
            .filter(|(name, _)| *name != odd.0)
            .chain([odd])
            .collect();
        assert_eq!(run(&["exchange"], &all, "").await.0, 64, "{odd:?}");
    }
}

#[tokio::test]
async fn what_is_not_an_identity_token_is_never_sent() {
    let server = Fake::start(|_| said(200, json!({"token": "ghs_x"}).to_string())).await;
    let folder = folder("no-token");
    let (file, out) = (folder.join("id"), folder.join("out"));
    let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
    let question = "protocol=https\nhost=github.com\npath=octo-org/hello.git\n\n";
    for (content, kind) in NO_TOKENS {
        fs::write(file, content).unwrap();
        let mut by_file = variables(&server.url, content);
        by_file.retain(|(name, _)| *name != "STS_ID_TOKEN");
        for arguments in [
            &["exchange", "--token-file", file][..],
            &["exchange", "--check", "--token-file", file],
            &["agent", "--once", "--out", out, "--token-file", file],
            &["git-credential", "--no-cache", "--token-file", file, "get"],
        ] {
            let (code, out, err) = run(arguments, &by_file, question).await;
            assert_eq!((code, out.as_str()), (64, ""), "{arguments:?}: {err}");
            assert!(
                err.contains(kind) && err.contains(file) && !err.contains("s3cret"),
                "{arguments:?}: {err}"
            );
        }
        let (code, _, err) = run(&["exchange"], &variables(&server.url, content), "").await;
        assert!(code == 64 && err.contains(kind) && !err.contains("s3cret"), "{err}");
    }
    assert_eq!(server.heard().len(), 0);
}

#[tokio::test]
async fn a_failed_connection_names_its_cause() {
    let not_tls = Fake::start(|_| said(200, "{}")).await.url.replace("http://", "https://");
    let proxy = Fake::start(|_| said(403, "")).await.url;
    let gone = "http://127.0.0.1:1";
    for (server, proxy, cause) in [
        (gone, "", "connection refused"),
        ("https://octo-sts.invalid", "", "cannot be resolved"),
        (&not_tls, "", "does not speak TLS"),
        (
            "https://octo-sts.example.com",
            gone,
            "the proxy that HTTPS_PROXY names cannot be reached",
        ),
        (
            "https://octo-sts.example.com",
            &proxy,
            "the proxy that HTTPS_PROXY names did not connect",
        ),
    ] {
        let mut environment = variables(server, TOKEN);
        environment.extend(Some(("HTTPS_PROXY", proxy)).filter(|(_, proxy)| !proxy.is_empty()));
        let (code, _, err) = run(&["exchange"], &environment, "").await;
        assert!(code == 69 && err.contains(cause), "{server} {err}");
    }
}

/// What a shell does that evaluates the output of `exchange`.
async fn evaluated(
    shell: &str,
    options: &str,
    arguments: &str,
    environment: &[(&str, &str)],
) -> (i32, String) {
    let program = env!("CARGO_BIN_EXE_octo-sts");
    let script = format!(
        "set {options}\neval \"$('{program}' exchange {arguments})\"\nprintf '%s' \"$?:$GH_TOKEN\""
    );
    let Output { status, stdout, .. } = tokio::process::Command::new(shell)
        .args(["-c", &script])
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .await
        .unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap())
}

#[cfg(unix)]
#[tokio::test]
async fn the_shell_that_evaluates_the_output_fails_when_the_exchange_fails() {
    let world = world().await;
    let server = format!("http://{}", world.address);
    let (good, bad) = (world.token(json!({})), world.token(json!({"sub": "somebody"})));
    for shell in ["sh", "bash", "dash"] {
        if std::process::Command::new(shell).args(["-c", ":"]).output().is_err() {
            eprintln!("{shell}: skipped, it is not there");
            continue;
        }
        let (code, out) = evaluated(shell, "-e", "--output env", &variables(&server, &good)).await;
        assert!(code == 0 && out.starts_with("0:ghs_"), "{shell} {out}");
        for (arguments, environment, failed) in [
            ("--output env", variables(&server, &bad), 77),
            ("--output=env", variables("http://127.0.0.1:1", &good), 69),
            ("--output env", vec![], 64),
            ("--output env --scop x", variables(&server, &good), 64),
            ("--output=env --check", variables(&server, &bad), 64),
        ] {
            let with_e = evaluated(shell, "-e", arguments, &environment).await;
            assert_eq!(with_e, (failed, String::new()), "{shell} {arguments}");
            let without = evaluated(shell, "+e", arguments, &environment).await;
            assert_eq!(without, (0, format!("{failed}:")), "{shell} {arguments}");
        }
    }
}

#[tokio::test]
async fn everything_that_is_missing_is_named_in_one_message() {
    for (command, absent) in [
        (
            "exchange",
            &["--server (or STS_SERVER)", "--scope (or STS_SCOPE)", "--identity (or STS_IDENTITY)"]
                [..],
        ),
        (
            "agent",
            &[
                "--server (or STS_SERVER)",
                "--scope (or STS_SCOPE)",
                "--identity (or STS_IDENTITY)",
                "--out",
            ],
        ),
    ] {
        let (code, out, err) = run(&[command], &[], "").await;
        assert_eq!((code, out.as_str()), (64, ""));
        assert_eq!(err, format!("octo-sts {command}: {} are missing\n", absent.join(", ")));
        let (_, _, err) = run(
            &[command, "--server", "x", "--identity", "x", "--out", "x"]
                [..if command == "agent" { 7 } else { 5 }],
            &[],
            "",
        )
        .await;
        assert_eq!(err, format!("octo-sts {command}: --scope (or STS_SCOPE) is missing\n"));
    }
}

#[tokio::test]
async fn completions_and_manual_pages_cover_every_command() {
    let (code, help, _) = run(&["--help"], &[], "").await;
    assert_eq!(code, 0);
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<&str> =
        list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let names: Vec<&str> =
        names.into_iter().filter(|name| !name.is_empty() && *name != "help").collect();
    assert!(names.len() >= 6, "{names:?}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, script, err) = run(&["completions", shell], &[], "").await;
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        for word in names.iter().chain(&["token-file"]) {
            assert!(script.contains(word), "{shell} {word}");
        }
    }
    let folder = folder("man").join("man1");
    let (code, out, err) = run(&["man", folder.to_str().unwrap()], &[], "").await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    for name in names {
        let page = fs::read_to_string(folder.join(format!("octo-sts-{name}.1"))).unwrap();
        assert!(page.contains("Examples:"), "{name}");
    }
    assert_eq!(run(&["man", "/dev/null/x"], &[], "").await.0, 70);
}

/// git's question about a repository of github.com.
const WANTED: &str = "protocol=https\nhost=github.com\npath=octo-org/hello.git\n\n";

/// A helper with a cache of its own.
struct Helper {
    cache: PathBuf,
    arguments: Vec<String>,
}

impl Helper {
    fn new(world: &World, name: &str) -> Self {
        let folder = folder(name);
        let token = folder.join("token");
        fs::write(&token, world.token(json!({}))).unwrap();
        let cache = folder.join("cache");
        let arguments = [
            ["--server", &format!("http://{}", world.address)],
            ["--identity", "ci"],
            ["--token-file", token.to_str().unwrap()],
            ["--cache", cache.to_str().unwrap()],
        ];
        let arguments = arguments.concat().into_iter().map(str::to_owned).collect();
        Self { cache, arguments }
    }

    async fn run(
        &self,
        operation: &str,
        stdin: &str,
        environment: &[(&str, &str)],
    ) -> (i32, String, String) {
        let mut all = vec!["git-credential"];
        all.extend(self.arguments.iter().map(String::as_str));
        all.push(operation);
        run(&all, environment, stdin).await
    }

    /// The password that git gets.
    async fn get(&self) -> String {
        let (code, out, err) = self.run("get", WANTED, &[]).await;
        assert_eq!(code, 0, "{err}");
        let lines: Vec<_> = out.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, "username=x-access-token"));
        let ends: i64 = lines[2].strip_prefix("password_expiry_utc=").unwrap().parse().unwrap();
        assert!((0..=3600).contains(&(ends - SystemClock.now().as_secs())));
        lines[1].strip_prefix("password=").unwrap().to_owned()
    }

    fn entry(&self) -> PathBuf {
        let files = fs::read_dir(&self.cache).unwrap().map(|file| file.unwrap().path());
        files
            .into_iter()
            .find(|path| path.extension().is_some_and(|ending| ending == "json"))
            .unwrap()
    }
}

#[tokio::test]
async fn git_is_answered_from_the_cache_until_it_is_refused() {
    let world = world().await;
    let api = world.github.url();
    let helper = Helper::new(&world, "refused");
    let first = helper.get().await;
    assert_eq!((helper.get().await, world.issued().len()), (first.clone(), 1), "asked once");
    for ignored in ["store", "capability", "whatever"] {
        assert_eq!(helper.run(ignored, WANTED, &[]).await, (0, String::new(), String::new()));
    }
    // GITHUB_BASE_URL decides whose tokens these are, so here it is only named where GitHub is
    // asked.
    let refused = |password: &str| {
        format!(
            "protocol=https\nhost={}\npath=octo-org/hello.git\nusername=x-access-token\npassword={password}\n\n",
            api.trim_start_matches("http://")
        )
    };
    let emulated = [("GITHUB_BASE_URL", api.as_str())];
    assert_eq!(helper.run("erase", &refused("another"), &emulated).await.0, 0);
    assert!(
        !world.issued()[0].revoked && helper.get().await == first,
        "another password changes nothing"
    );
    let (code, out, err) = helper.run("erase", &refused(&first), &emulated).await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    assert!(world.issued()[0].revoked);
    assert_ne!(helper.get().await, first);
    assert_eq!(world.issued().len(), 2);
}

#[tokio::test]
async fn git_gets_a_token_for_the_repository_in_question_and_no_more() {
    let world = world().await;
    let helper = Helper::new(&world, "narrow");
    let organization = [("STS_SCOPE", "octo-org")];
    let all = json!({"contents": "read", "issues": "write"});
    let other = WANTED.replace("hello", "other");
    let pathless = "protocol=https\nhost=github.com\n\n";
    let foreign = WANTED.replace("octo-org", "other-org");
    for (wanted, repositories) in
        [(WANTED, json!(["hello"])), (&*other, json!(["other"])), (pathless, Value::Null)]
    {
        let issued = world.issued().len();
        for _ in 0..2 {
            let (code, _, err) = helper.run("get", wanted, &organization).await;
            assert_eq!(code, 0, "{err}");
        }
        assert_eq!(world.issued().len(), issued + 1, "the second is from the cache");
        assert_eq!(asked_last(&world), (all.clone(), repositories), "{wanted}");
    }
    // A repository of somebody else: as before, the token of the scope that was set.
    let issued = world.issued().len();
    assert_eq!(helper.run("get", &foreign, &organization).await.0, 0);
    assert_eq!(world.issued().len(), issued);

    let mut helper = Helper::new(&world, "read-only");
    helper.get().await;
    assert_eq!(asked_last(&world), (all, json!(["hello"])));
    helper.arguments.push("--read-only".to_owned());
    helper.get().await;
    assert_eq!(
        asked_last(&world),
        (json!({"contents": "read"}), json!(["hello"])),
        "not the cached one"
    );
}

/// Everything that changes under which key a token is kept, with and without a path.
#[tokio::test]
async fn a_refused_token_is_revoked_under_every_option() {
    let world = world().await;
    let api = world.github.url();
    let host = api.trim_start_matches("http://").to_owned();
    let with_path = format!("protocol=https\nhost={host}\npath=octo-org/hello.git\n");
    let without_path = format!("protocol=https\nhost={host}\n");
    let none: &[(&str, &str)] = &[];
    let scope = &[("STS_SCOPE", "octo-org/hello")][..];
    let all_else =
        &[("STS_SCOPE", "octo-org"), ("STS_AUDIENCE", "other"), ("STS_ID_TOKEN", "no token")][..];
    let cases = [
        ("scope", scope, &with_path, none, &with_path),
        ("no-path", scope, &without_path, none, &without_path),
        ("path-at-erase", scope, &without_path, none, &with_path),
        ("no-path-at-erase", none, &with_path, none, &without_path),
        ("other-variables", none, &with_path, all_else, &with_path),
    ];
    for (number, (name, at_get, asked, at_erase, refused)) in cases.into_iter().enumerate() {
        let mut helper = Helper::new(&world, &format!("erase-{name}"));
        let github = [("GITHUB_BASE_URL", api.as_str())];
        let (code, out, err) =
            helper.run("get", &format!("{asked}\n"), &[at_get, &github].concat()).await;
        assert_eq!(code, 0, "{name}: {err}");
        let password = out.lines().find_map(|line| line.strip_prefix("password=")).unwrap();
        // Neither the server nor the identity nor the workload's own token is needed to give a
        // token back.
        helper.arguments.truncate(0);
        helper.arguments.extend(["--cache".to_owned(), helper.cache.to_str().unwrap().to_owned()]);
        let told = format!("{refused}username=x-access-token\npassword={password}\n\n");
        let erased = helper.run("erase", &told, &[at_erase, &github].concat()).await;
        assert_eq!(erased, (0, String::new(), String::new()), "{name}");
        assert!(world.issued()[number].revoked, "{name}");
        assert!(
            !fs::read_dir(&helper.cache).unwrap().any(|file| file
                .unwrap()
                .path()
                .extension()
                .unwrap()
                == "json")
        );
    }
}

#[tokio::test]
async fn without_a_cache_a_refused_installation_token_is_revoked_and_nothing_else() {
    let world = world().await;
    let api = world.github.url();
    let environment = [("GITHUB_BASE_URL", api.as_str())];
    let question = format!("protocol=https\nhost={}\n", api.trim_start_matches("http://"));
    let helper = Helper::new(&world, "no-cache");
    let mut arguments: Vec<_> = vec!["git-credential".to_owned(), "--no-cache".to_owned()];
    arguments.extend(helper.arguments.iter().take(6).cloned());
    let command = async |operation: &str, stdin: &str| {
        let all: Vec<_> = arguments.iter().map(String::as_str).chain([operation]).collect();
        run(&all, &environment, stdin).await
    };
    let (_, out, err) = command("get", &format!("{question}path=octo-org/hello\n\n")).await;
    let password = out
        .lines()
        .find_map(|line| line.strip_prefix("password="))
        .unwrap_or_else(|| panic!("{err}"));
    for other in [
        format!("{question}username=octocat\npassword={password}\n\n"),
        format!("{question}username=x-access-token\npassword=ghp_x\n\n"),
        format!("{question}username=x-access-token\n\n"),
        format!(
            "protocol=https\nhost=github.com\nusername=x-access-token\npassword={password}\n\n"
        ),
    ] {
        assert_eq!(command("erase", &other).await, (0, String::new(), String::new()), "{other}");
        assert!(!world.issued()[0].revoked, "{other}");
    }
    let erased =
        command("erase", &format!("{question}username=x-access-token\npassword={password}\n\n"))
            .await;
    assert_eq!((erased, world.issued()[0].revoked), ((0, String::new(), String::new()), true));
}

#[tokio::test]
async fn what_git_writes_is_answered_only_if_it_is_plain_and_ours() {
    let world = world().await;
    let helper = Helper::new(&world, "protocol");
    for foreign in ["octocat", "", "x-access-token "] {
        let question = format!("username={foreign}\n{WANTED}");
        assert_eq!(
            helper.run("get", &question, &[]).await,
            (0, String::new(), String::new()),
            "{foreign}"
        );
    }
    for odd in [
        WANTED.replace('\n', "\r\n"),
        WANTED.replace("github.com", "github.com\r"),
        format!("a=\r\n{WANTED}"),
    ] {
        let (code, out, err) = helper.run("get", &odd, &[]).await;
        assert!(code == 64 && out.is_empty() && err.contains("carriage return"), "{odd:?} {err}");
    }
    assert_eq!(world.issued().len(), 0);
    let (code, out, _) =
        helper.run("get", &format!("username=x-access-token\n{WANTED}"), &[]).await;
    assert!(code == 0 && out.contains("password=ghs_"));
}

#[tokio::test]
async fn tokens_are_kept_under_absolute_paths_alone() {
    let world = world().await;
    let helper = Helper::new(&world, "relative");
    let arguments: Vec<_> = helper.arguments.iter().take(6).map(String::as_str).collect();
    let home = folder("relative-home");
    let relative = format!("target/{}", "never-made");
    for name in ["XDG_RUNTIME_DIR", "XDG_CACHE_HOME"] {
        let all = [&["git-credential"], &arguments[..], &["get"]].concat();
        let environment = [(name, relative.as_str()), ("HOME", home.to_str().unwrap())];
        let (code, out, err) = run(&all, &environment, WANTED).await;
        assert!(code == 0 && out.contains("password=ghs_"), "{err}");
        assert!(err.contains(&format!("{name} is not used: expected an absolute path")), "{err}");
    }
    assert!(home.join(".cache/octo-sts").is_dir());
    let all = [&["git-credential"], &arguments[..], &["--cache", &relative, "get"]].concat();
    let (code, out, err) = run(&all, &[], WANTED).await;
    assert!(
        code == 64 && out.is_empty() && err.contains("--cache: expected an absolute path"),
        "{err}"
    );
    assert!(!Path::new(env!("CARGO_MANIFEST_DIR")).join(&relative).exists());
}

#[cfg(unix)]
#[tokio::test]
async fn files_of_tokens_that_have_ended_are_removed_and_no_others() {
    use std::{
        os::unix::fs::PermissionsExt,
        time::{Duration, UNIX_EPOCH},
    };

    let world = world().await;
    let helper = Helper::new(&world, "prune");
    helper.get().await;
    let entry = helper.entry();
    let file = |name: &str, content: &str, age: u64| {
        let path = helper.cache.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let now = u64::try_from(SystemClock.now().as_secs()).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(now - age)).unwrap();
        path
    };
    let (a, b, c, d) = ("a".repeat(64), "b".repeat(64), "c".repeat(64), "d".repeat(64));
    let alive =
        format!("{{\"token\":\"ghs_x\",\"expires_at\":{}}}", SystemClock.now().as_secs() + 60);
    let gone = [
        file(&format!("{a}.json"), "{\"token\":\"ghs_x\",\"expires_at\":1}", 0),
        file(&format!("{a}.lock"), "", 0),
        file(&format!("{b}.lock"), "", 7200),
        file(&format!("{b}.new"), "half", 7200),
        file(&format!("{c}.json"), "broken", 7200),
        file("00000000-0000-4000-8000-000000000000.probe", "", 7200),
    ];
    let kept = [
        file(&format!("{d}.json"), &alive, 7200),
        file(&format!("{d}.lock"), "", 7200),
        file(&format!("{}.json", "e".repeat(64)), "just being written", 0),
        file(&format!("{}.lock", "f".repeat(64)), "", 0),
        file("notes.json", "{}", 7200),
        file("notes.lock", "", 7200),
        file("README", "", 7200),
    ];
    helper.get().await;
    assert!(gone.iter().all(|path| path.exists()), "an answer from the cache looks for nothing");
    fs::remove_file(&entry).unwrap();
    helper.get().await;
    for path in gone {
        assert!(!path.exists(), "{}", path.display());
    }
    for path in kept.iter().chain([&entry]) {
        assert!(path.exists(), "{}", path.display());
    }
}

#[tokio::test]
async fn several_at_once_ask_once() {
    let world = world().await;
    let helper = Helper::new(&world, "at-once");
    let all = futures_util::future::join_all((0..4).map(|_| helper.get())).await;
    assert!(all.iter().all(|password| *password == all[0]));
    assert_eq!(world.issued().len(), 1);
    let files = fs::read_dir(&helper.cache).unwrap().count();
    assert_eq!(files, 2, "an entry and its lock");
}

#[tokio::test]
async fn git_is_answered_for_the_configured_github_alone() {
    let world = world().await;
    let helper = Helper::new(&world, "hosts");
    for other in [
        "protocol=https\nhost=example.com\npath=octo-org/hello.git\n\n",
        "protocol=http\nhost=github.com\npath=octo-org/hello.git\n\n",
        "protocol=ssh\nhost=github.com\n\n",
        "",
    ] {
        assert_eq!(
            helper.run("get", other, &[]).await,
            (0, String::new(), String::new()),
            "{other}"
        );
    }
    let (code, out, err) = helper.run("get", "protocol=https\nhost=github.com\n\n", &[]).await;
    assert_eq!((code, out.as_str()), (64, ""));
    assert!(err.contains("useHttpPath") && err.contains("--scope"), "{err}");
    assert_eq!(world.issued().len(), 0);
    let scoped = helper
        .run("get", "protocol=https\nhost=github.com\n\n", &[("STS_SCOPE", "octo-org/hello")])
        .await;
    assert_eq!((scoped.0, world.issued().len()), (0, 1));
}

#[cfg(unix)]
#[tokio::test]
async fn a_cache_is_for_its_owner_alone_and_never_in_the_way() {
    use std::os::unix::fs::PermissionsExt;

    let world = world().await;
    let helper = Helper::new(&world, "modes");
    let first = helper.get().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let entry = helper.entry();
    assert_eq!((mode(&helper.cache), mode(&entry)), (0o700, 0o600));
    assert!(fs::read_to_string(&entry).unwrap().contains(&first));

    let token = |out: &str| out.lines().nth(1).unwrap().to_owned();
    let chmod =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for (path, open, closed) in [(&entry, 0o644, 0o600), (&helper.cache, 0o755, 0o700)] {
        chmod(path, open);
        let (code, out, err) = helper.run("get", WANTED, &[]).await;
        assert_eq!(code, 0);
        assert!(err.contains("is not used: others may use it"), "{err}");
        assert!(!token(&out).contains(&first));
        if path.exists() {
            chmod(path, closed);
        }
    }
    for broken in [
        "",
        "{",
        "{\"token\":\"a b\",\"expires_at\":99999999999}",
        "{\"token\":\"x\",\"expires_at\":\"never\"}",
    ] {
        fs::write(&entry, broken).unwrap();
        chmod(&entry, 0o600);
        let (code, out, err) = helper.run("get", WANTED, &[]).await;
        assert!(code == 0 && out.contains("password=ghs_") && err.contains("is not used"), "{err}");
    }
    // An entry that a token ended in is replaced without a word.
    fs::write(&entry, "{\"token\":\"old\",\"expires_at\":1}").unwrap();
    let left_behind = entry.with_extension("new");
    fs::write(&left_behind, "half of an en").unwrap();
    let fresh = helper.get().await;
    assert_eq!((helper.get().await, left_behind.exists()), (fresh, false));

    // Another's folder, however closed; only root can make one.
    if std::os::unix::fs::chown(&helper.cache, Some(65_534), None).is_ok() {
        let (code, out, err) = helper.run("get", WANTED, &[]).await;
        assert!(
            code == 0 && out.contains("password=ghs_") && err.contains("belongs to another user"),
            "{err}"
        );
    } else {
        eprintln!("a folder of somebody else's: skipped, needs root");
    }

    fs::remove_dir_all(&helper.cache).unwrap();
    fs::write(&helper.cache, "no folder").unwrap();
    let (code, out, err) = helper.run("get", WANTED, &[]).await;
    assert!(code == 0 && out.contains("password=ghs_") && err.contains("is not used"), "{err}");
}
