//! `octo-sts agent`: keeps files with fresh tokens until it receives a signal to stop.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::net::TcpListener;

use super::{
    Exit, block_on, say, serve,
    workload::{Failure, NarrowingArgs, Needed, Workload, WorkloadArgs, missing, outward},
};
use crate::{
    agent::{Agent, Command, File, FileToken, Mode, Parts, Settings, Token},
    app::metrics_page,
    client::Target,
    clock::{Clock, SystemClock},
    config::{Environment, Log, Outward},
    telemetry::{self, Metrics},
};

/// Arguments of `agent`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    less: NarrowingArgs,
    /// The file that holds the token. Its folder must exist.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Who may read the file: 0600, 0640, 0660, 0400 or 0440.
    #[arg(long, default_value = "0600")]
    mode: Mode,
    /// Keep several tokens, as this file has it (YAML), instead of one.
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with_all = ["out", "mode", "server", "scope", "identity", "permissions", "repositories", "audience", "source", "token_file", "on_renewal"]
    )]
    config: Option<PathBuf>,
    /// Serve /livez, /readyz and /metrics at this address, without TLS.
    #[arg(long, value_name = "IP:PORT", conflicts_with = "once")]
    listen: Option<SocketAddr>,
    /// Write the file once and end; the exit code tells why it was not written.
    #[arg(long)]
    once: bool,
    /// At the end, leave the files and do not revoke the tokens.
    #[arg(long, conflicts_with = "once")]
    keep_on_exit: bool,
    /// Run this program, without a shell, whenever the file holds a new token. The file's path is
    /// in OCTO_STS_TOKEN_FILE.
    #[arg(last = true, value_name = "COMMAND")]
    on_renewal: Vec<String>,
}

/// Keeps files fresh until SIGTERM or Ctrl-C.
pub(super) fn agent(args: &AgentArgs, environment: &Environment) -> Exit {
    let agent = match log(environment).and_then(|()| build(args, environment)) {
        Ok(agent) => agent,
        Err(failure) => return failure.tell("agent"),
    };
    telemetry::install_panic_hook();
    block_on(async {
        let stop = serve::stop_on_signal();
        if args.once {
            return match agent.once(stop).await {
                Ok(()) => Exit::Done,
                Err(failed) => failed.class().into(),
            };
        }
        if let Some(address) = args.listen
            && let Err(failure) = listen(address, &agent).await
        {
            say(format_args!("octo-sts agent: {failure}"));
            return Exit::Unavailable;
        }
        agent.run(stop).await;
        Exit::Done
    })
}

fn log(environment: &Environment) -> Result<(), Failure> {
    let log = Log::read(environment).map_err(|errors| Failure::Usage(errors.to_string()))?;
    telemetry::install_log(&log.filter, log.format)
        .map_err(|error| Failure::Usage(error.to_string()))
}

/// Everything is read and looked for; the server is not asked yet.
fn build(args: &AgentArgs, environment: &Environment) -> Result<Agent, Failure> {
    let outward = outward(environment)?;
    let (first, tokens) = match &args.config {
        Some(path) => several(args, path, &outward, environment)?,
        None => one(args, &outward, environment)?,
    };
    let Workload { client, egress, clock, .. } = first;
    // A command that ends immediately must not end its token.
    let keep_on_exit = args.keep_on_exit || args.once;
    let settings = Settings { github: outward.github.api, keep_on_exit, tokens };
    Agent::new(settings, Parts { client, egress, clock })
        .map_err(|error| Failure::Usage(error.to_string()))
}

/// The token of the command line.
fn one(
    args: &AgentArgs,
    outward: &Outward,
    environment: &Environment,
) -> Result<(Workload, Vec<Token>), Failure> {
    let mut needed = vec![Needed::Server, Needed::Scope, Needed::Identity];
    needed.extend(args.out.is_none().then_some(Needed::Out));
    args.workload.require(&needed, environment)?;
    let scope = args.workload.scope(environment)?;
    let workload = args.workload.workload(outward, environment)?;
    let (scope, out) = scope.zip(args.out.clone()).ok_or_else(|| missing(&needed))?;
    let command = Some(&args.on_renewal).filter(|words| !words.is_empty());
    let command = command.map(|words| Command::new(words.iter().cloned())).transpose();
    let on_renewal = command.map_err(|error| Failure::Usage(error.to_string()))?;
    let target = workload.target(scope, &args.less)?;
    let token = token(&workload, target, FileOf { out, mode: args.mode, on_renewal });
    Ok((workload, vec![token]))
}

/// The tokens of a file.
fn several(
    args: &AgentArgs,
    path: &Path,
    outward: &Outward,
    environment: &Environment,
) -> Result<(Workload, Vec<Token>), Failure> {
    let wrong =
        |error: &dyn std::fmt::Display| Failure::Usage(format!("{}: {error}", path.display()));
    let text = fs::read(path).map_err(|error| wrong(&error))?;
    let file = File::parse(&text, path.parent().unwrap_or(Path::new("")))
        .map_err(|error| wrong(&error))?;
    let mut first = None;
    let mut tokens = Vec::new();
    for FileToken { target, out, mode, audience, token_file, on_renewal } in file.tokens {
        let audience = audience.as_ref().or(file.audience.as_ref());
        let asks = WorkloadArgs {
            server: file.server.as_ref().map(ToString::to_string),
            scope: None,
            identity: Some(target.identity().to_string()),
            audience: audience.map(ToString::to_string),
            source: file.source.filter(|_| token_file.is_none()),
            token_file: token_file.or_else(|| file.token_file.clone()),
            ca_file: args.workload.ca_file.clone(),
        };
        let workload = asks.workload(outward, environment)?;
        tokens.push(token(&workload, target, FileOf { out, mode, on_renewal }));
        // They all ask one server.
        first.get_or_insert(workload);
    }
    first.map(|first| (first, tokens)).ok_or_else(|| wrong(&"no tokens"))
}

/// What becomes of a token.
struct FileOf {
    out: PathBuf,
    mode: Mode,
    on_renewal: Option<Command>,
}

fn token(workload: &Workload, target: Target, file: FileOf) -> Token {
    let FileOf { out, mode, on_renewal } = file;
    Token {
        target,
        out,
        mode,
        source: workload.source.clone(),
        audience: workload.audience.to_string(),
        on_renewal,
    }
}

/// Serves probes and metrics for as long as the process lives.
async fn listen(address: SocketAddr, agent: &Agent) -> Result<(), String> {
    let failure = |error| format!("--listen {address}: {error}");
    let listener = TcpListener::bind(address).await.map_err(failure)?;
    let address = listener.local_addr().map_err(failure)?;
    let metrics = Metrics::install().map_err(|error| error.to_string())?;
    let watch = agent.watch();
    let readiness: metrics_page::Readiness = Box::new(move || watch.is_ready());
    let clock: std::sync::Arc<dyn Clock> = std::sync::Arc::new(SystemClock);
    tracing::info!(%address, "probes and metrics are served");
    telemetry::zero::agent();
    tokio::spawn(metrics_page::serve(listener, metrics, readiness, clock));
    Ok(())
}
