//! The emulators with the policies in them, and the real server between them.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    DevError,
    caller::Caller,
    policies::{ACTIONS, DOMAIN, ORG, Policies},
};
use crate::{
    app::{Ambient, App, AppError, Settings},
    audit::AuditSink,
    clock::SystemClock,
    config::{Config, Environment},
    emulator::{GitHub, Issuer, Options, Selection, Visibility},
    name::{self, AppId, InstallationId},
    oidc::PrivateNetworks,
    policy::PolicyKind,
    telemetry::{self, LogFormat},
};

/// Signs the emulated GitHub's deliveries. It opens nothing else.
pub(super) const WEBHOOK_SECRET: &str = "octo-sts-dev";

/// Everything that runs.
pub(super) struct World {
    /// The server's address.
    pub(super) server: String,
    pub(super) github: GitHub,
    /// The one that plays GitHub Actions; others are paths of it.
    pub(super) issuer: Issuer,
    /// As they were written.
    pub(super) policies: Policies,
    pub(super) caller: Caller,
    /// As they are in the emulated repositories.
    pub(super) placed: Vec<String>,
    /// The App's installation.
    pub(super) installation: InstallationId,
    /// The App that mints, and its private key (PEM).
    pub(super) app: AppId,
    pub(super) key: String,
    /// Audit records as they are written.
    pub(super) audit: UnboundedReceiver<String>,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), AppError>>,
}

impl World {
    /// Starts it all.
    pub(super) async fn start(
        policies: Policies,
        listener: TcpListener,
        environment: &Environment,
        token_life: Duration,
    ) -> Result<Self, DevError> {
        let clock = Arc::new(SystemClock);
        let no_port =
            |error: io::Error| DevError::Unavailable(format!("an emulator cannot start: {error}"));
        let github =
            GitHub::start_with(clock.clone(), Options { token_life, ..Options::default() })
                .await
                .map_err(no_port)?;
        let issuer = Issuer::start(clock.clone()).await.map_err(no_port)?;
        github
            .serve_git(std::env::temp_dir().join(format!("octo-sts-dev-{}", uuid::Uuid::new_v4())));
        let (app_id, key) = github.app("octo-sts-dev");
        let installation = furnish(&github, app_id, &policies);
        let settings = settings(&github, (app_id, &key), &issuer, environment)?;
        let (policies, placed) = place(&github, &issuer, policies);
        let (sender, audit) = unbounded_channel();
        let app = App::build(settings, Ambient { clock, sink: Box::new(Records(sender)) }).await;
        let app = app.map_err(|error| DevError::Internal(error.to_string()))?;
        let address = listener.local_addr().map_err(no_port)?;
        github.set_webhook(app_id, &format!("http://{address}/webhook"), WEBHOOK_SECRET);
        let stop = CancellationToken::new();
        Ok(Self {
            placed,
            installation,
            server: format!("http://{address}"),
            github,
            issuer,
            policies,
            caller: Caller::new(),
            app: app_id,
            key,
            audit,
            serving: tokio::spawn(app.serve(listener, stop.clone())),
            stop,
        })
    }

    /// Who plays an issuer that policies name.
    pub(super) fn issuer_of(&self, written: &str) -> Issuer {
        player(&self.issuer, written)
    }

    /// The identifiers of all issuers that sign here.
    pub(super) fn issuers(&self) -> Vec<String> {
        self.policies.issuers().iter().map(|written| self.issuer_of(written).url()).collect()
    }

    /// The next audit record; empty if none comes.
    pub(super) async fn record(&mut self) -> String {
        let record = tokio::time::timeout(Duration::from_secs(5), self.audit.recv()).await;
        record.ok().flatten().unwrap_or_default()
    }

    /// Drains the server. Returns the audit records that were not shown yet.
    pub(super) async fn stop(mut self) -> Result<Vec<String>, DevError> {
        self.stop.cancel();
        match self.serving.await {
            Ok(Ok(())) => Ok(std::iter::from_fn(|| self.audit.try_recv().ok()).collect()),
            Ok(Err(error)) => Err(DevError::Internal(error.to_string())),
            Err(error) => Err(DevError::Internal(error.to_string())),
        }
    }
}

/// The organization, its repositories, and the App installed in it.
fn furnish(github: &GitHub, app: AppId, policies: &Policies) -> InstallationId {
    github.org(ORG);
    github.repo(ORG, ".github", Visibility::Public);
    for name in ["hello", "website"] {
        github.repo(ORG, name, Visibility::Private);
    }
    for name in policies.files.iter().flat_map(|file| file.written.repository_names()) {
        github.repo(ORG, &name, Visibility::Private);
    }
    let mut permissions = policies.permissions();
    // What checks need.
    permissions.entry("checks").or_insert("write");
    permissions.entry("pull_requests").or_insert("read");
    let permissions: Vec<(&str, &str)> = permissions.into_iter().collect();
    github.install(app, ORG, &Selection::All, &permissions)
}

/// The settings of a server that mints by the App.
fn settings(
    github: &GitHub,
    (app, key): (AppId, &str),
    issuer: &Issuer,
    environment: &Environment,
) -> Result<Settings, DevError> {
    let variables = [
        ("STS_DOMAIN", DOMAIN.to_owned()),
        ("GITHUB_APP_IDS", app.to_string()),
        ("APP_SECRET_CERTIFICATE_ENV_VAR", key.to_owned()),
        ("GITHUB_BASE_URL", github.url()),
        ("GITHUB_WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned()),
        ("RUST_LOG", environment.text("RUST_LOG").unwrap_or("warn").to_owned()),
    ];
    let config = Config::read(&variables.into_iter().collect())
        .map_err(|wrong| DevError::Usage(wrong.to_string()))?;
    // A test may have set up a log of its own; then that one is meant.
    telemetry::install_log(&config.log.filter, LogFormat::Text).ok();
    let mut settings = Settings::new(&config);
    // Policies may name repositories as the audience by the address that they have on GitHub.
    if let Some(exchange) = &mut settings.exchange {
        exchange.github_host = "github.com".to_owned();
    }
    settings.oidc.private_networks = PrivateNetworks::All;
    settings.oidc.actions_issuer = issuer.url().parse().map_err(|error: name::NameError| {
        DevError::Internal(format!("the emulated issuer: {error}"))
    })?;
    Ok(settings)
}

/// Commits the policies, with the issuers that play those they name. Returns them as written, and
/// the texts as committed.
fn place(github: &GitHub, issuer: &Issuer, mut policies: Policies) -> (Policies, Vec<String>) {
    let written: Vec<String> = policies.files.iter().map(|file| file.text.clone()).collect();
    // Longer ones first: one issuer's name may be the start of another's.
    let mut issuers: Vec<String> = policies.issuers().into_iter().collect();
    issuers.sort_by_key(|issuer| std::cmp::Reverse(issuer.len()));
    for name in &issuers {
        policies.play(name, &player(issuer, name).url());
    }
    policies.play_owner();
    let mut placed = Vec::new();
    for (file, written) in policies.files.iter_mut().zip(written) {
        let played = std::mem::replace(&mut file.text, written);
        github.put_file(ORG, file.repository(), &file.name.path(), &played);
        placed.push(played);
    }
    if let Some(list) = &policies.list {
        github.put_file(ORG, ".github", ".github/chainguard/trusted-token-issuers.yaml", list);
    }
    (policies, placed)
}

/// GitHub Actions is the emulator's root, since the server knows that one; others are paths.
fn player(root: &Issuer, written: &str) -> Issuer {
    let path = written.split_once("://").map_or(written, |(_, path)| path);
    if written == ACTIONS { root.clone() } else { root.at(&format!("/{path}")) }
}

/// Hands audit records on.
struct Records(UnboundedSender<String>);

impl AuditSink for Records {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        for line in String::from_utf8_lossy(lines).lines() {
            // Once the page is gone, they are not kept.
            self.0.send(line.to_owned()).ok();
        }
        Ok(())
    }
}

/// The repository that holds policies of a kind.
pub(super) fn place_of(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::Repository => "octo-org/hello",
        PolicyKind::Organization => "octo-org/.github",
    }
}
