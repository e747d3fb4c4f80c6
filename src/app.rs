//! The composition root: settings in, a server out. Nothing else knows all the parts.
//!
//! [`Settings`] are inert, and [`App::build`] makes the parts of them; what a part needs of the
//! world (the time, and where records go) is handed in, so a test is the same program.

mod descriptors;
pub(crate) mod metrics_page;
mod reload;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{self, Audit, AuditSink, Stdout},
    clock::{Clock, SystemClock},
    config::{self, Apps, Config, Interface},
    deny_file::Denials,
    egress::{self, Egress},
    events::Events,
    exchange::{self, Exchange},
    github::{self, GitHub, KeyProof, Refused, SignerErrorKind},
    oidc::{self, Oidc},
    policy::Rules,
    store::{self, Store},
    telemetry::{self, Metrics, TelemetryError},
    transport,
    webhook::{self, Webhook},
};

/// Why the server did not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The roots of trust for outbound connections cannot be read.
    #[error("outbound connections: {0}")]
    Egress(String),
    /// GitHub's address is none.
    #[error(transparent)]
    GitHub(#[from] github::ApiAddressError),
    /// The App's key did not prove itself by a signature.
    #[error("the App's key: {0}")]
    Key(github::Error),
    /// Metrics cannot be kept.
    #[error(transparent)]
    Metrics(#[from] TelemetryError),
    /// The port cannot be listened on.
    #[error("{variable}: cannot listen on port {port}: {error}")]
    Listen {
        /// The variable that names the port.
        variable: &'static str,
        /// The port.
        port: u16,
        /// The system's answer.
        error: io::Error,
    },
    /// The audit thread cannot start, or the TLS files cannot be used.
    #[error("{what}: {error}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The system's answer.
        error: io::Error,
    },
}

/// Each part's settings.
#[derive(Clone)]
pub struct Settings {
    /// The way out.
    pub egress: egress::Settings,
    /// Tokens and issuers.
    pub oidc: oidc::Settings,
    /// GitHub and the App.
    pub github: github::Settings,
    /// The Apps that `github` begins with, and the file that they are from.
    pub apps: Apps,
    /// Policies and lists.
    pub store: store::Settings,
    /// The sink of CloudEvents, and the URL of this server in them.
    pub events: Option<(http::Uri, String)>,
    /// What the operator denies.
    pub denials: Denials,
    /// Records.
    pub audit: audit::Settings,
    /// The core; `None` where only the webhook is served.
    pub exchange: Option<exchange::Settings>,
    /// The webhook, if there is one.
    pub webhook: Option<webhook::Settings>,
    /// The wires.
    pub transport: transport::Settings,
    /// How long everything may take from the signal to stop.
    pub shutdown_timeout: Duration,
    /// How long a start waits for a signer that is unavailable.
    pub signer_patience: Duration,
}

/// A metadata server may need some seconds before it answers a new pod.
const SIGNER_PATIENCE: Duration = Duration::from_secs(30);

impl Settings {
    /// The settings that a configuration means.
    pub fn new(config: &Config) -> Self {
        Self {
            egress: egress_settings(config),
            oidc: oidc_settings(config),
            github: github_settings(config),
            apps: config.apps.clone(),
            store: store_settings(config),
            events: event_settings(config),
            denials: config.denials.clone(),
            audit: audit::Settings::default(),
            exchange: exchange_settings(config),
            webhook: webhook_settings(config),
            transport: transport_settings(config),
            shutdown_timeout: config.shutdown.timeout,
            signer_patience: SIGNER_PATIENCE,
        }
    }
}

fn egress_settings(config: &Config) -> egress::Settings {
    egress::Settings {
        https_proxy: config.proxy.https.as_ref().map(|proxy| proxy.expose_secret().to_owned()),
        no_proxy: config.proxy.except.clone(),
        ..egress::Settings::default()
    }
}

fn oidc_settings(config: &Config) -> oidc::Settings {
    let tokens = &config.tokens;
    oidc::Settings {
        configured: tokens.issuers.clone(),
        issuers_file: tokens.issuers_file.clone(),
        private_networks: match tokens.private_networks {
            config::PrivateNetworks::No => oidc::PrivateNetworks::Blocked,
            config::PrivateNetworks::Known => oidc::PrivateNetworks::Known,
            config::PrivateNetworks::All => oidc::PrivateNetworks::All,
        },
        max_token_bytes: tokens.max_bytes,
        leeway: tokens.leeway,
        private_origin: config.github.private_origin.clone(),
        ..oidc::Settings::new(config.github.actions_issuer.clone())
    }
}

fn github_settings(config: &Config) -> github::Settings {
    let pools = config.apps.pools(&Apps::default());
    github::Settings {
        routing: config.routing,
        environment: config.environment.clone(),
        ..github::Settings::new(config.github.api.clone(), pools)
    }
}

fn store_settings(config: &Config) -> store::Settings {
    let policies = &config.policies;
    let rules = Rules {
        organization_permissions: policies.repository_org_permissions.iter().cloned().collect(),
        require_repositories: policies.require_repositories,
    };
    store::Settings {
        ttl: policies.ttl,
        stale: policies.stale,
        rules: Arc::new(rules),
        ..store::Settings::new(policies.org_repo.clone())
    }
}

fn exchange_settings(config: &Config) -> Option<exchange::Settings> {
    let domain = config.domain.as_ref()?.to_string();
    Some(exchange::Settings {
        admission: config.rates,
        refusal_step: config.refusal_step,
        owners: config.policies.owners.clone(),
        replay: config.tokens.replay,
        ..exchange::Settings::new(domain, config.github.host.clone())
    })
}

fn event_settings(config: &Config) -> Option<(http::Uri, String)> {
    let domain = config.domain.as_ref().map(ToString::to_string);
    Some((config.event_sink.clone()?, format!("https://{}", domain.unwrap_or_default())))
}

fn webhook_settings(config: &Config) -> Option<webhook::Settings> {
    let names = webhook::Names {
        domain: config.domain.as_ref().map(ToString::to_string),
        github_host: config.github.host.clone(),
    };
    let settings = config.webhook.as_ref()?.settings.clone();
    Some(webhook::Settings { names, ..settings })
}

fn transport_settings(config: &Config) -> transport::Settings {
    let listen = &config.listen;
    transport::Settings {
        max_connections: listen.max_connections.get(),
        header_bytes: u32::try_from(listen.max_header_bytes).unwrap_or(u32::MAX),
        trusted_proxy_hops: listen.trusted_proxy_hops,
        tls: listen.tls.clone(),
        stages: transport::Stages {
            drain_delay: config.shutdown.drain_delay,
            requests: config
                .shutdown
                .timeout
                .saturating_sub(time_for_records(config.shutdown.timeout)),
        },
        ..transport::Settings::default()
    }
}

/// What is left of a shutdown, once requests have ended, for records and revocations.
fn time_for_records(shutdown: Duration) -> Duration {
    (shutdown / 5).min(Duration::from_secs(5))
}

/// What is left of a shutdown for the last log lines.
fn time_for_log(shutdown: Duration) -> Duration {
    (shutdown / 20).min(Duration::from_millis(500))
}

/// What the program takes from the world around it.
pub struct Ambient {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where audit records go.
    pub sink: Box<dyn AuditSink>,
}

impl Ambient {
    /// The machine's clock and standard output.
    pub fn real() -> Self {
        Self { clock: Arc::new(SystemClock), sink: Box::new(Stdout::default()) }
    }
}

/// The parts, put together and not yet serving.
pub struct App {
    exchange: Option<Arc<Exchange>>,
    webhook: Option<Webhook>,
    events: Option<Events>,
    oidc: Oidc,
    store: Store,
    github: GitHub,
    apps: Apps,
    denials: Denials,
    audit: Audit,
    transport: transport::Settings,
    shutdown_timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl App {
    /// Makes the parts and proves the App's key by a signature. Asks nobody anything.
    ///
    /// # Errors
    /// A part cannot be made of its settings, or the key does not sign.
    pub async fn build(settings: Settings, ambient: Ambient) -> Result<Self, AppError> {
        let Ambient { clock, sink } = ambient;
        let egress = Egress::new(settings.egress).map_err(AppError::Egress)?;
        let github = GitHub::new(settings.github, &egress, Arc::clone(&clock))?;
        await_keys(&github, settings.signer_patience, clock.as_ref()).await?;
        let events = settings
            .events
            .map(|(sink, source)| Events::start(sink, &source, &egress, github.cloud().clone()));
        let oidc = Oidc::new(settings.oidc, egress, Arc::clone(&clock));
        let rules = Arc::clone(&settings.store.rules);
        let store = Store::new(settings.store, github.clone(), Arc::clone(&clock));
        let audit = Audit::start(settings.audit, sink).map_err(io_error("the audit thread"))?;
        let denials = settings.denials;
        let exchange = settings.exchange.map(|settings| {
            let parts = exchange::Parts {
                oidc: oidc.clone(),
                store: store.clone(),
                denials: denials.clone(),
                github: github.clone(),
                audit: audit.clone(),
                reporter: events
                    .clone()
                    .map(|events| exchange::Reporter { events, code: transport::reply::code_name }),
                clock: Arc::clone(&clock),
            };
            Arc::new(Exchange::new(settings, parts))
        });
        let webhook = settings.webhook.map(|settings| {
            let parts = webhook::Parts {
                store: store.clone(),
                github: github.clone(),
                rules: Arc::clone(&rules),
                events: events.clone(),
                audit: audit.clone(),
                clock: Arc::clone(&clock),
            };
            Webhook::new(settings, parts)
        });
        Ok(Self {
            exchange,
            webhook,
            events,
            oidc,
            store,
            github,
            apps: settings.apps,
            denials,
            audit,
            transport: settings.transport,
            shutdown_timeout: settings.shutdown_timeout,
            clock,
        })
    }

    /// Whether callers should be sent here, for the port of metrics.
    fn readiness(&self, stop: &CancellationToken) -> metrics_page::Readiness {
        let (exchange, webhook, stop) = (self.exchange.clone(), self.webhook.clone(), stop.clone());
        Box::new(move || !stop.is_cancelled() && is_ready(exchange.as_deref(), webhook.as_ref()))
    }

    /// Serves until `stop`; then running exchanges finish, the last records are written, and read
    /// tokens are revoked, all within the shutdown timeout.
    ///
    /// # Errors
    /// The TLS files cannot be used.
    pub async fn serve(
        self,
        listeners: impl Into<Listeners>,
        stop: CancellationToken,
    ) -> Result<(), AppError> {
        let listeners = listeners.into();
        let following = tokio::spawn(self.oidc.reload_issuers_file());
        let reloading =
            tokio::spawn(reload::run(self.apps, self.github.clone(), Arc::clone(&self.clock)));
        let denying = tokio::spawn(self.denials.reload(Arc::clone(&self.clock)));
        let late = after(
            stop.clone(),
            self.shutdown_timeout.saturating_sub(time_for_log(self.shutdown_timeout)),
        );
        let (exchange, stopping) = (self.exchange.clone(), stop.clone());
        let draining = tokio::spawn(async move {
            stopping.cancelled().await;
            exchange.iter().for_each(|exchange| exchange.shut_down());
        });
        let webhook = self.webhook.clone();
        let of_webhook: Vec<_> = webhook
            .iter()
            .flat_map(|webhook| {
                let (secrets, sweep) = (webhook.clone(), webhook.clone());
                [tokio::spawn(secrets.reload_secrets()), tokio::spawn(sweep.sweep())]
            })
            .collect();
        let parts = (self.exchange, self.webhook);
        let served = serve(listeners, parts, self.transport, self.clock, stop.clone()).await;
        // Where serving failed, the time for the rest begins now.
        stop.cancel();
        draining.abort();
        following.abort();
        reloading.abort();
        denying.abort();
        of_webhook.iter().for_each(tokio::task::JoinHandle::abort);
        if let Some(webhook) = webhook {
            // Half of what is left for records and revocations.
            webhook.close(time_for_records(self.shutdown_timeout) / 2).await;
        }
        self.store.close();
        let recorded = async {
            if late.run_until_cancelled(self.audit.flush()).await.is_none() {
                tracing::error!(
                    lost = self.audit.depth(),
                    "the audit sink did not accept the last records in time"
                );
            }
        };
        let revoked = async {
            if late.run_until_cancelled(self.github.close(self.shutdown_timeout)).await.is_none() {
                tracing::warn!("not all tokens could be revoked before the end");
            }
        };
        let reported = async {
            if let Some(events) = self.events {
                late.run_until_cancelled(events.close(self.shutdown_timeout)).await;
            }
        };
        tokio::join!(recorded, revoked, reported);
        served.map_err(io_error("serving"))
    }
}

/// Where callers and deliveries arrive.
pub struct Listeners {
    /// Everything, or everything but deliveries.
    pub main: TcpListener,
    /// Deliveries, if they have a port of their own.
    pub webhook: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(main: TcpListener) -> Self {
        Self { main, webhook: None }
    }
}

/// Serves what there is on the ports that there are. All end together.
async fn serve(
    listeners: Listeners,
    (exchange, webhook): (Option<Arc<Exchange>>, Option<Webhook>),
    settings: transport::Settings,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> io::Result<()> {
    let deliveries = async |listener, webhook: Webhook| {
        let (ready, stopping) = (webhook.clone(), stop.clone());
        let ready = move || !stopping.is_cancelled() && ready.ready();
        let running = (Arc::clone(&clock), stop.clone());
        transport::serve_webhook(listener, webhook, &settings, ready, running).await
    };
    match (exchange, webhook, listeners.webhook) {
        (Some(exchange), Some(webhook), Some(port)) => {
            let parts = (exchange, None);
            let exchanges = transport::serve(
                listeners.main,
                parts,
                settings.clone(),
                Arc::clone(&clock),
                stop.clone(),
            );
            tokio::try_join!(exchanges, deliveries(port, webhook)).map(|_| ())
        }
        (Some(exchange), webhook, _) => {
            let parts = (exchange, webhook);
            transport::serve(
                listeners.main,
                parts,
                settings.clone(),
                Arc::clone(&clock),
                stop.clone(),
            )
            .await
        }
        (None, Some(webhook), port) => deliveries(port.unwrap_or(listeners.main), webhook).await,
        (None, None, _) => Ok(()),
    }
}

/// Whether what is served can be served.
fn is_ready(exchange: Option<&Exchange>, webhook: Option<&Webhook>) -> bool {
    match exchange {
        // A webhook that waits for its secret must not keep exchanges from being served.
        Some(exchange) => exchange.ready(),
        None => webhook.is_some_and(Webhook::ready),
    }
}

/// Proves the key of every App by a signature. One that does not sign is reported, and counts as
/// unavailable until it does: it must not keep the other Apps from serving. Where the public key
/// may not be read, `GET /app` shows whether GitHub accepts the signature.
async fn prove_keys(github: &GitHub) -> Result<(), AppError> {
    let apps = github.apps();
    // A signer that hangs delays the start by its own timeout only, not by that of every App.
    let proofs = join_all(apps.iter().map(|app| prove(github, app))).await;
    let mut failure = github::Error::NoApp;
    for proof in proofs {
        match proof {
            Ok(()) => return Ok(()),
            Err(error) if !is_unavailable(&failure) => failure = error,
            Err(_) => {}
        }
    }
    Err(AppError::Key(failure))
}

/// The same, again and again while a signer is unavailable.
async fn await_keys(
    github: &GitHub,
    patience: Duration,
    clock: &dyn Clock,
) -> Result<(), AppError> {
    let begun = clock.monotonic();
    let mut pause = Duration::from_secs(1);
    loop {
        match prove_keys(github).await {
            Err(AppError::Key(error))
                if is_unavailable(&error)
                    && clock.monotonic().since(begun).saturating_add(pause) <= patience =>
            {
                tracing::warn!(%error, wait = pause.as_secs(), "no App's key signs yet");
                clock.sleep(pause).await;
                pause = pause.saturating_mul(2);
            }
            outcome => return outcome,
        }
    }
}

fn is_unavailable(error: &github::Error) -> bool {
    matches!(error, github::Error::Signer(error) if error.kind == SignerErrorKind::Unavailable)
}

async fn prove(github: &GitHub, app: &github::App) -> Result<(), github::Error> {
    match github.prove_key(app).await? {
        KeyProof::Verified => Ok(()),
        KeyProof::Unchecked => match github.about_app(app).await {
            Ok(_) => Ok(()),
            // The key signs; whether GitHub accepts it, exchanges will show.
            Err(Refused::Other(error)) if error.is_outage() => {
                tracing::warn!(app_id = %app.id(), %error, "the App's signature could not be checked");
                Ok(())
            }
            Err(refused) => Err(github::Error::Misconfigured(refused.to_string().into())),
        },
    }
}

/// A token that is cancelled so long after `begun`.
fn after(begun: CancellationToken, wait: Duration) -> CancellationToken {
    let late = CancellationToken::new();
    let token = late.clone();
    tokio::spawn(async move {
        begun.cancelled().await;
        tokio::time::sleep(wait).await;
        token.cancel();
    });
    late
}

/// Runs the server until `stop`, then drains.
///
/// # Errors
/// The server cannot start.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), AppError> {
    let ambient = Ambient::real();
    let clock = Arc::clone(&ambient.clock);
    let mut settings = Settings::new(&config);
    settings.transport.max_connections =
        descriptors::connections(settings.transport.max_connections, descriptors::raise());
    let app = App::build(settings, ambient).await?;
    if let Some(port) = config.metrics_port {
        let listener = bind(config.listen.interface, "METRICS_PORT", port).await?;
        let metrics = Metrics::install()?;
        telemetry::zero::server();
        tokio::spawn(metrics_page::serve(listener, metrics, app.readiness(&stop), clock));
    }
    let listeners = listen(&config).await?;
    announce(&config, &listeners);
    app.serve(listeners, stop).await
}

/// Binds the ports. Where only the webhook is served, one is enough.
async fn listen(config: &Config) -> Result<Listeners, AppError> {
    let interface = config.listen.interface;
    let webhook = config.webhook.as_ref().and_then(|webhook| webhook.port);
    let webhook = match webhook {
        Some(port) => Some(bind(interface, "STS_WEBHOOK_PORT", port).await?),
        None => None,
    };
    Ok(match webhook {
        Some(main) if config.domain.is_none() => main.into(),
        webhook => Listeners { main: bind(interface, "PORT", config.listen.port).await?, webhook },
    })
}

fn announce(config: &Config, listeners: &Listeners) {
    let apps = config.apps.iter().count();
    let address = |listener: &TcpListener| listener.local_addr().map(|it| it.to_string()).ok();
    let deliveries = config
        .webhook
        .as_ref()
        .and_then(|_| listeners.webhook.as_ref().map_or_else(|| address(&listeners.main), address));
    let address = address(&listeners.main);
    match &config.domain {
        Some(domain) => tracing::info!(address, %domain, apps, deliveries, "serving"),
        None => tracing::info!(address, apps, "serving the webhook only: STS_DOMAIN is not set"),
    }
}

async fn bind(
    interface: Interface,
    variable: &'static str,
    port: u16,
) -> Result<TcpListener, AppError> {
    let bound = match interface {
        Interface::Loopback => TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await,
        Interface::All => {
            match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
                }
                bound => bound,
            }
        }
    };
    bound.map_err(|error| AppError::Listen { variable, port, error })
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> AppError {
    move |error| AppError::Io { what, error }
}
