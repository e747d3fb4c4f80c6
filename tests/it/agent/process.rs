//! The agent as a process: killed, told to stop, and cut off at every step, while this process
//! reads its file all the time.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Method;
use octo_sts::{
    clock::{Clock, SystemClock},
    emulator::{Fault, RouteKind},
};

use super::scene::{Impostor, Reader, Scene, until};
use crate::harness::{Client, DOMAIN, POLICY, process, signal};

/// A running agent. What it logs is kept, and holds no token.
struct Agent {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Agent {
    fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Self { child, log }
    }

    fn start(scene: &Scene, more: &[&str]) -> Self {
        Self::spawn(command(scene, more))
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    async fn says(&self, text: &str) {
        until(text, || self.log().contains(text)).await;
    }

    /// Sends a signal and waits for the end.
    async fn end(mut self, name: &str) -> ExitStatus {
        signal(&self.child, name);
        let begun = SystemClock.now();
        let mut status = None;
        until("the agent ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert!(
            SystemClock.now().since(begun) < Duration::from_secs(12),
            "{:?}",
            SystemClock.now().since(begun)
        );
        let log = self.log();
        assert!(!log.contains("ghs_") && !log.contains("eyJ"), "{log}");
        status.unwrap()
    }

    /// Told to stop, it ends well.
    async fn stop(self) {
        assert_eq!(self.end("TERM").await.code(), Some(0));
    }

    async fn kill(self) {
        assert_eq!(self.end("KILL").await.code(), None);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// `octo-sts agent` for the scene's server, with `more` at its end.
fn command(scene: &Scene, more: &[&str]) -> Command {
    let mut command =
        process(&[("GITHUB_BASE_URL", &scene.github.url()), ("PATH", "/usr/bin:/bin")]);
    command.args(["agent", "--server", &format!("http://{}", scene.address), "--audience", DOMAIN]);
    if !more.contains(&"--config") {
        command.args([
            "--scope",
            "octo-org/hello",
            "--identity",
            "ci",
            "--out",
            &text(&scene.out()),
        ]);
        if !more.contains(&"--source") {
            command.args(["--token-file", &text(&scene.id_file())]);
        }
    }
    command.args(more);
    command
}

/// Where the agent is when something happens to it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// It asks who it is.
    Identity,
    /// It waits for its token, which GitHub does not give yet.
    Exchange,
    /// The token is there, and the command on renewal runs.
    Command,
    /// There is nothing to do.
    Waiting,
}

const STEPS: [Step; 4] = [Step::Identity, Step::Exchange, Step::Command, Step::Waiting];

/// An agent that stands at `step`, and what keeps it there.
async fn agent_at(step: Step, scene: &Scene) -> (Agent, Option<Impostor>) {
    let started = scene.folder.join("started");
    fs::remove_file(&started).ok();
    match step {
        Step::Identity => {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/?x=1", listener.local_addr().unwrap());
            let silent = Impostor::start(listener, "");
            let mut command = command(scene, &["--source", "github-actions"]);
            command.envs([
                ("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()),
                ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "x"),
            ]);
            let agent = Agent::spawn(command);
            until("it asks who it is", || silent.requests() > 0).await;
            (agent, Some(silent))
        }
        Step::Exchange => {
            let mints = || scene.github.calls().of(RouteKind::Mint);
            let before = mints();
            scene.github.fault(Fault::on(RouteKind::Mint).stall());
            let agent = Agent::start(scene, &[]);
            until("the mint is under way", || mints() > before).await;
            (agent, None)
        }
        Step::Command => {
            let agent = Agent::start(
                scene,
                &["--", "sh", "-c", &format!("> {}; exec sleep 20", text(&started))],
            );
            until("the command runs", || started.exists()).await;
            (agent, None)
        }
        Step::Waiting => {
            let agent = Agent::start(scene, &[]);
            agent.says("a new token is in its file").await;
            (agent, None)
        }
    }
}

/// A file with a living token, left by an agent that was killed.
async fn left(scene: &Scene) {
    let agent = Agent::start(scene, &[]);
    agent.says("a new token is in its file").await;
    agent.kill().await;
    assert!(scene.held().is_some());
}

/// Whatever happened, the next agent has a new token in the file, and nothing beside it.
async fn recovers(scene: &Scene) {
    let before = scene.held();
    let agent = Agent::start(scene, &[]);
    agent.says("a new token is in its file").await;
    assert!(scene.held().is_some() && scene.held() != before);
    assert_eq!(scene.leftovers(), [""; 0]);
    agent.stop().await;
    assert!(scene.held().is_none() && !scene.out().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_leaves_a_living_token_in_the_file() {
    let scene = Scene::real("kill").await;
    let reader = Reader::start(&scene);
    for step in STEPS {
        left(&scene).await;
        let before = scene.held();
        let (agent, _stuck) = agent_at(step, &scene).await;
        agent.kill().await;
        assert!(scene.held().is_some(), "{step:?}");
        let is_new = scene.held() != before;
        assert_eq!(is_new, matches!(step, Step::Command | Step::Waiting), "{step:?}");
        scene.github.heal();
        recovers(&scene).await;
    }
    assert!(reader.stop() >= 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_while_it_writes_leaves_a_whole_token_and_no_leftover_for_long() {
    let scene = Scene::real("write").await;
    let reader = Reader::start(&scene);
    left(&scene).await;
    let mut caught = 0;
    for _ in 0..12 {
        let agent = Agent::start(&scene, &[]);
        // The first draft is the proof that the folder takes files; the second one is the token's.
        let beside =
            || scene.leftovers().first().is_some_and(|name| size(&scene.folder.join(name)) > 0);
        let begun = SystemClock.now();
        while !beside() && !agent.log().contains("a new token is in its file") {
            assert!(SystemClock.now().since(begun) < Duration::from_secs(30));
        }
        agent.kill().await;
        caught += scene.leftovers().len();
        assert!(scene.held().is_some());
    }
    eprintln!("{caught} of 12 kills left a draft behind");
    recovers(&scene).await;
    reader.stop();
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_at_any_step_leaves_no_file_and_no_living_token() {
    let scene = Scene::real("stop").await;
    let reader = Reader::start(&scene);
    for step in STEPS {
        for name in ["TERM", "INT"] {
            left(&scene).await;
            let (agent, _stuck) = agent_at(step, &scene).await;
            assert_eq!(agent.end(name).await.code(), Some(0), "{step:?}");
            assert!(!scene.out().exists(), "{step:?}");
            // The server hears that nobody waits for the token any more, and revokes it.
            scene.github.heal();
            until("no token is left", || scene.alive().is_empty()).await;
        }
    }
    recovers(&scene).await;
    reader.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_in_time_although_github_does_not_answer() {
    let scene = Scene::real("drain").await;
    let (agent, _) = agent_at(Step::Waiting, &scene).await;
    scene.github.fault(Fault::on(RouteKind::Revoke).stall());
    let log = Arc::clone(&agent.log);
    agent.stop().await;
    assert!(!scene.out().exists());
    until("it says so", || {
        log.lock().unwrap().contains("not every token could be revoked in time")
    })
    .await;
    // Killed in the middle of it, the file is gone already.
    scene.github.heal();
    let (agent, _) = agent_at(Step::Waiting, &scene).await;
    scene.github.fault(Fault::on(RouteKind::Revoke).stall());
    let revocations = || scene.github.calls().of(RouteKind::Revoke);
    let before = revocations();
    signal(&agent.child, "TERM");
    until("it revokes", || revocations() > before).await;
    assert!(!scene.out().exists());
    agent.kill().await;
    scene.github.heal();
    recovers(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_lives_through_an_outage_that_is_longer_than_a_token() {
    let mut scene = Scene::real("outage").await;
    scene.github.set(|options| options.token_life = Duration::from_secs(10));
    let reader = Reader::start(&scene);
    let agent = Agent::start(&scene, &[]);
    until("it has renewed twice", || scene.issued().len() >= 3).await;
    agent.says("a new token is in its file").await;
    assert!(scene.held().is_some(), "renewed in time");
    scene.down().await;
    until("the token has ended, and its file with it", || !scene.out().exists()).await;
    agent.says("the token ended before there was a new one").await;
    until("all of them have ended", || scene.alive().is_empty()).await;
    scene.up().await;
    until("there is a new one", || scene.held().is_some()).await;
    agent.stop().await;
    assert!(scene.alive().is_empty());
    assert!(reader.stop() >= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_metrics_tell_how_the_files_stand() {
    let mut scene = Scene::real("probes").await;
    scene.down().await;
    let agent = Agent::start(&scene, &["--listen", "127.0.0.1:0"]);
    agent.says("no new token").await;
    let log = agent.log();
    let address = log.split("\"address\":\"").nth(1).unwrap().split('"').next().unwrap();
    let client = Client::new(address.parse().unwrap());
    let status = async |path| client.send(Method::GET, path, &[], "").await.status;
    assert_eq!((status("/livez").await, status("/readyz").await), (200, 503));
    scene.up().await;
    agent.says("a new token is in its file").await;
    assert_eq!((status("/livez").await, status("/readyz").await), (200, 200));
    let page = String::from_utf8(client.send(Method::GET, "/metrics", &[], "").await.body.to_vec())
        .unwrap();
    let file = text(&scene.out());
    let expiry = scene.held().unwrap().expires_at.as_secs();
    for line in [
        format!("octosts_agent_renewals_total{{file=\"{file}\",outcome=\"done\"}} 1"),
        format!("octosts_agent_renewals_total{{file=\"{file}\",outcome=\"unavailable\"}} "),
        format!("octosts_agent_token_expiry_timestamp_seconds{{file=\"{file}\"}} {expiry}"),
    ] {
        assert!(page.lines().any(|found| found.starts_with(&line)), "{line:?} is not in\n{page}");
    }
    assert!(!page.contains("ghs_"));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_several_tokens_with_modes_and_commands() {
    let scene = Scene::real("config").await;
    let config = scene.folder.join("agent.yaml");
    let seen = text(&scene.folder.join("seen"));
    let file = format!(
        "server: http://{}\naudience: {DOMAIN}\ntoken_file: id\ntokens:\n\
         - {{scope: octo-org/hello, identity: ci, out: token}}\n\
         - scope: octo-org/hello\n  identity: ci\n  out: shared\n  mode: \"0640\"\n  \
         on_renewal: [sh, -c, 'env > \"$0.new\"; tr \"\\0\" \" \" < /proc/$$/cmdline >> \"$0.new\"; mv \"$0.new\" \"$0\"', {seen}]\n",
        scene.address
    );
    fs::write(&config, file).unwrap();
    let mut command =
        process(&[("GITHUB_BASE_URL", &scene.github.url()), ("PATH", "/usr/bin:/bin")]);
    command.args(["agent", "--config", &text(&config)]);
    let agent = Agent::spawn(command);
    until("the command has run", || Path::new(&seen).exists()).await;
    until("both are there", || scene.alive().len() == 2 && scene.held().is_some()).await;
    let mode =
        |name: &str| fs::metadata(scene.folder.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("token"), mode("shared")), (0o600, 0o640));
    let told = fs::read_to_string(&seen).unwrap();
    let file = format!("OCTO_STS_TOKEN_FILE={}", text(&scene.folder.join("shared")));
    for line in [
        file.as_str(),
        "OCTO_STS_SCOPE=octo-org/hello",
        "OCTO_STS_IDENTITY=ci",
        "OCTO_STS_EXPIRES_AT=",
    ] {
        assert!(told.lines().any(|found| found.starts_with(line)), "{line}\n{told}");
    }
    assert!(!told.contains("ghs_") && !told.contains("eyJ"), "{told}");
    agent.stop().await;
    assert!(!scene.folder.join("shared").exists() && scene.alive().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_logged_at_any_level() {
    let scene = Scene::real("trace").await;
    let mut command = command(&scene, &["--", "true"]);
    command.env("RUST_LOG", "trace");
    let agent = Agent::spawn(command);
    agent.says("the command on renewal has run").await;
    scene.github.fault(Fault::on(RouteKind::Revoke).status(503));
    let token = fs::read_to_string(scene.out()).unwrap();
    let log = Arc::clone(&agent.log);
    // It looks for the prefixes of both kinds of tokens.
    agent.stop().await;
    until("it says so", || log.lock().unwrap().contains("a token could not be revoked")).await;
    let log = log.lock().unwrap();
    assert!(
        log.contains("TRACE")
            && !log.contains(&token[8..24])
            && !log.contains("ghs_")
            && !log.contains("eyJ")
    );
}

/// Runs to the end; its exit code and what it told.
async fn run(mut command: Command) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty() && !told.contains("ghs_") && !told.contains("eyJ"), "{told}");
    (output.status.code(), told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_writes_once_and_its_code_tells_why_not() {
    let mut scene = Scene::real("once").await;
    assert_eq!(run(command(&scene, &["--once"])).await.0, Some(0));
    assert!(scene.held().is_some());
    assert_eq!(scene.alive().len(), 1, "it is for others to use");
    let held = scene.held();
    assert_eq!(
        run(command(&scene, &["--once", "--permission", "contents:write"])).await.0,
        Some(77),
        "more than the policy grants"
    );

    scene.policy(&POLICY.replace("heads/main", "heads/other"));
    scene.clock.advance(Duration::from_secs(0));
    scene.down().await;
    scene.up().await;
    let (code, told) = run(command(&scene, &["--once"])).await;
    assert_eq!(code, Some(77), "{told}");
    assert!(told.contains("POLICY_MISMATCH"), "{told}");
    scene.policy(POLICY);
    scene.down().await;
    assert_eq!(run(command(&scene, &["--once"])).await.0, Some(69));
    scene.up().await;
    assert_eq!(scene.held(), held, "what was there is left alone");

    fs::remove_file(scene.id_file()).unwrap();
    assert_ne!(run(command(&scene, &["--once"])).await.0, Some(0));
    scene.show_identity();
    assert_eq!(scene.issued().len(), 1, "nothing was minted for any of these");

    let mut full = Command::new("sh");
    let once = command(&scene, &["--once"]);
    full.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"])
        .arg(once.get_program())
        .args(once.get_args());
    full.env_clear().envs(once.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (code, told) = run(full).await;
    assert_eq!(code, Some(70), "{told}");
    assert_eq!(scene.held(), held);
    assert_eq!(
        (scene.issued().len(), scene.alive().len()),
        (2, 1),
        "what cannot be written is given back"
    );
    assert_eq!(scene.leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_costs_one_token() {
    let scene = Scene::real("full").await;
    let usual = command(&scene, &[]);
    let mut full = Command::new("sh");
    full.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"])
        .arg(usual.get_program())
        .args(usual.get_args());
    full.env_clear().envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let agent = Agent::spawn(full);
    until("it has tried three times", || agent.log().matches("no new token").count() >= 3).await;
    assert_eq!((scene.issued().len(), scene.held()), (1, None));
    assert_eq!(scene.leftovers(), [""; 0]);
    agent.stop().await;
    assert!(scene.alive().is_empty());
}

#[test]
fn mistakes_are_told_before_anything_is_asked() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("agent-mistakes");
    fs::create_dir_all(&folder).unwrap();
    let (id, config) = (folder.join("id"), folder.join("agent.yaml"));
    fs::write(&id, "eyJ").unwrap();
    fs::write(&config, "server: https://sts.example.com\ntokens:\n  - scope: a/b\n    identity: ci\n    output: x\n")
        .unwrap();
    let (id, config) = (text(&id), text(&config));
    let one = [
        "--server",
        "https://sts.example.com",
        "--scope",
        "a/b",
        "--identity",
        "ci",
        "--token-file",
        &id,
    ];
    let with = |more: &[&str]| {
        [one.as_slice(), more].concat().iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()
    };
    for (arguments, told) in [
        (with(&["--out", "/nowhere/at/all"]), "/nowhere/at: No such file"),
        (with(&["--out", &text(&folder)]), "a folder"),
        (with(&["--out", "x", "--mode", "0644"]), "a mode is 0600"),
        (with(&[]), "--out"),
        (with(&["--config", &config]), "cannot be used with"),
        (with(&["--out", "x", "--once", "--listen", "127.0.0.1:0"]), "cannot be used with"),
        (vec!["--config".to_owned(), config.clone()], "agent.yaml: line 5, column 5: unknown key"),
        (vec!["--config".to_owned(), "/nowhere.yaml".to_owned()], "/nowhere.yaml: No such file"),
    ] {
        let output = process(&[]).arg("agent").args(&arguments).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}\n{errors}");
        assert!(errors.contains(told), "{arguments:?}\n{errors}");
    }
}
