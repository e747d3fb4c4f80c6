//! A server with a GitHub, an issuer and a clock of its own, and callers on both wires.
//!
//! [`Setup::new`] is the happy path; a test changes one thing and calls [`Setup::start`]. Whatever
//! is asked goes over gRPC and over REST, and the answers must agree.

mod client;
pub mod delivery;
#[path = "../../src/tests.rs"]
mod shared;
pub mod tls;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use octo_sts::{
    app::{Ambient, App, Settings},
    audit::AuditSink,
    clock::{ManualClock, UnixTime},
    config::{Config, Environment},
    emulator::{GitHub, Issuer, RouteKind, Selection, TokenRecord, Visibility, claims},
    name::{AppId, InstallationId},
    oidc::PrivateNetworks,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use client::{Answer, Ask, Check, Client, Outcome, Reply};
pub(crate) use shared::{Folder, alone};

/// The audience that tokens have by default.
pub const DOMAIN: &str = "sts.example.com";
/// What the App may do in `octo-org`.
pub const APP_PERMISSIONS: &[(&str, &str)] = &[
    ("contents", "write"),
    ("issues", "write"),
    ("pull_requests", "write"),
    ("statuses", "write"),
    ("checks", "write"),
    ("members", "read"),
    ("organization_administration", "write"),
];

/// A world that is ready and not yet served.
pub struct Setup {
    pub settings: Settings,
    pub github: GitHub,
    pub issuer: Issuer,
    pub clock: ManualClock,
    pub app: AppId,
    pub installation: InstallationId,
}

impl Setup {
    /// `octo-org` with a public `.github`, a private `hello` and a private `other`, an App
    /// installed on all of them, and an issuer that stands in for GitHub Actions.
    pub async fn new() -> Self {
        let clock = ManualClock::at(UnixTime::from_secs(1_790_000_000));
        let github = GitHub::start(Arc::new(clock.clone())).await.unwrap();
        let issuer = Issuer::start(Arc::new(clock.clone())).await.unwrap();
        let (app, pem) = github.app("octo-sts");
        github.org("octo-org");
        github.repo("octo-org", ".github", Visibility::Public);
        github.repo("octo-org", "hello", Visibility::Private);
        github.repo("octo-org", "other", Visibility::Private);
        let installation = github.install(app, "octo-org", &Selection::All, APP_PERMISSIONS);
        let settings = settings(&[
            ("STS_DOMAIN", DOMAIN),
            ("GITHUB_APP_IDS", &app.to_string()),
            ("APP_SECRET_CERTIFICATE_ENV_VAR", &pem),
            ("GITHUB_BASE_URL", &github.url()),
        ]);
        let mut setup = Self { settings, github, issuer, clock, app, installation };
        setup.settings.oidc.actions_issuer = setup.issuer.url().parse().unwrap();
        setup.settings.oidc.private_networks = PrivateNetworks::All;
        // The clock stands still, and a refusal would wait for it.
        setup.exchange().refusal_step = Duration::ZERO;
        setup
    }

    /// The same, with `policy` as `octo-org/hello`'s policy `ci`.
    pub async fn with_policy(policy: &str) -> Self {
        let setup = Self::new().await;
        setup.policy("hello", "ci", policy);
        setup
    }

    /// The settings of the core.
    pub fn exchange(&mut self) -> &mut octo_sts::exchange::Settings {
        self.settings.exchange.as_mut().unwrap()
    }

    /// Puts a policy into one of the organization's repositories. `${ISSUER}` is the issuer's URL.
    pub fn policy(&self, repo: &str, name: &str, text: &str) {
        let text = text.replace("${ISSUER}", &self.issuer.url());
        self.github.put_file(
            "octo-org",
            repo,
            &format!(".github/chainguard/{name}.sts.yaml"),
            &text,
        );
    }

    /// Puts the organization's list of trusted issuers where it belongs.
    pub fn list(&self, text: &str) {
        let text = text.replace("${ISSUER}", &self.issuer.url());
        self.github.put_file(
            "octo-org",
            ".github",
            ".github/chainguard/trusted-token-issuers.yaml",
            &text,
        );
    }

    /// Serves.
    pub async fn start(self) -> World {
        let audit = AuditLines::default();
        self.start_with(Box::new(audit.clone()), audit).await
    }

    /// Serves with another sink, which may pass records on to `audit`.
    pub async fn start_with(self, sink: Box<dyn AuditSink>, audit: AuditLines) -> World {
        let ambient = Ambient { clock: Arc::new(self.clock.clone()), sink };
        let app = App::build(self.settings, ambient).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(app.serve(listener, stop.clone()));
        World {
            github: self.github,
            issuer: self.issuer,
            clock: self.clock,
            installation: self.installation,
            app: self.app,
            audit,
            client: Client::new(address),
            address,
            stop,
            serving,
        }
    }
}

/// The settings that an environment means.
pub fn settings(environment: &[(&str, &str)]) -> Settings {
    let environment: Environment =
        environment.iter().map(|(name, value)| (*name, *value)).collect();
    Settings::new(&Config::read(&environment).unwrap())
}

/// A policy of `octo-org/hello` that the token of [`World::claims`] satisfies.
pub const POLICY: &str = "issuer: ${ISSUER}\n\
    subject: repo:octo-org/hello:ref:refs/heads/main\n\
    permissions:\n  contents: read\n  issues: write\n";

/// A running server and all that it talks to.
pub struct World {
    pub github: GitHub,
    pub issuer: Issuer,
    pub clock: ManualClock,
    pub installation: InstallationId,
    pub app: AppId,
    pub audit: AuditLines,
    pub client: Client,
    pub address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), octo_sts::app::AppError>>,
}

impl World {
    /// The claims of a workflow on `octo-org/hello`'s main branch, for this server.
    pub fn claims(&self) -> Value {
        let mut claims = claims::github_actions("octo-org", "hello", "refs/heads/main");
        claims["aud"] = json!(DOMAIN);
        claims
    }

    /// A token with those claims, some of them replaced; null leaves one out.
    pub fn token(&self, changes: Value) -> String {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.issuer.sign(&claims)
    }

    /// Asks for `identity` in `scope` on both wires; they must agree.
    pub async fn exchange(&self, scope: &str, identity: &str, token: &str) -> Outcome {
        self.client.exchange(&Ask::new(scope, identity, token)).await
    }

    /// Asks on both wires whether it would be granted; they must agree, and nothing may be minted.
    pub async fn check(&self, scope: &str, identity: &str, token: &str) -> Check {
        let issued = self.issued().len();
        let check = self.client.check(&Ask::new(scope, identity, token)).await;
        assert_eq!(self.issued().len(), issued, "a check minted");
        check
    }

    /// As [`World::exchange`] with the usual token, scope and identity.
    pub async fn usual(&self) -> Outcome {
        self.exchange("octo-org/hello", "ci", &self.token(json!({}))).await
    }

    /// Tokens that were minted for callers: all but those that only read policies.
    pub fn issued(&self) -> Vec<TokenRecord> {
        self.github.minted().into_iter().filter(|token| !is_policy_read(token)).collect()
    }

    /// How often GitHub was asked to mint, and for anything.
    pub fn calls(&self) -> (usize, usize) {
        let calls = self.github.calls();
        (calls.of(RouteKind::Mint), calls.total())
    }

    /// Tells the server to stop, as a signal does.
    pub fn terminate(&self) {
        self.stop.cancel();
    }

    /// Ends the server and waits for it.
    pub async fn stop(self) -> AuditLines {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
        self.audit
    }
}

/// `contents: read` on one repository: what the server reads policies with.
fn is_policy_read(token: &TokenRecord) -> bool {
    let asked = &token.body;
    asked["permissions"] == json!({"contents": "read"})
        && asked["repositories"].as_array().is_some_and(|r| r.len() == 1)
}

/// Audit records as they were written.
#[derive(Clone, Default)]
pub struct AuditLines(Arc<Mutex<Vec<Value>>>);

impl AuditSink for AuditLines {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let lines = std::str::from_utf8(lines).unwrap().lines();
        self.0
            .lock()
            .unwrap()
            .extend(lines.map(|line| serde_json::from_str::<Value>(line).unwrap()));
        Ok(())
    }
}

impl AuditLines {
    /// The first record that is so, once there is one.
    pub async fn find(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut n = 0;
        loop {
            let records = self.at_least(n + 1).await;
            if let Some(record) = records.iter().find(|record| is_so(record)) {
                return record.clone();
            }
            n = records.len();
        }
    }

    /// The records so far, once there are `n`.
    pub async fn at_least(&self, n: usize) -> Vec<Value> {
        let wait = async {
            loop {
                let lines = self.0.lock().unwrap().clone();
                if lines.len() >= n {
                    return lines;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the records are written")
    }
}

/// The program, with this environment and nothing else of the test's.
pub fn process(environment: &[(&str, &str)]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_octo-sts"));
    command.env_clear().envs(environment.iter().copied()).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// Sends a signal by its name without `SIG`.
pub fn signal(process: &std::process::Child, name: &str) {
    let sent =
        std::process::Command::new("kill").args(["-s", name, &process.id().to_string()]).status();
    assert!(sent.unwrap().success());
}
