//! `octo-sts probe`: an acceptance test of a running server, from a file.
//!
//! The file has the format of the Go service's smoke test. Each test exchanges this workload's own
//! token and compares what becomes of it with what the file expects; tokens are revoked afterwards.

mod file;
mod run;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use serde_json::json;

use self::{file::ProbeFile, run::Outcome};
use super::{
    Exit, block_on, say,
    workload::{Failure, WorkloadArgs, outward},
};
use crate::{client::ambient::SourceKind, config::Environment};

/// In which form results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A line for each test.
    Text,
    /// One JSON document.
    Json,
}

/// Arguments of `probe`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ProbeArgs {
    /// The file of tests.
    #[arg(long, value_name = "PATH")]
    config: PathBuf,
    /// The server to test instead of the file's domain: https://HOST.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The audience to ask an identity for [default: the file's domain].
    #[arg(long)]
    audience: Option<String>,
    /// Where the identity comes from; without it, the first source that is found.
    #[arg(long, value_name = "NAME", value_parser = super::workload::kinds())]
    source: Option<SourceKind>,
    /// The file that holds the workload's own OIDC token [env: STS_TOKEN_FILE].
    #[arg(long, value_name = "PATH", conflicts_with = "source")]
    token_file: Option<PathBuf>,
    /// A file of CA certificates to trust beside the system's; may be repeated.
    #[arg(long, value_name = "PATH")]
    ca_file: Vec<PathBuf>,
    /// In which form results are printed.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// Runs every test, whatever became of those before.
pub(super) fn probe(args: &ProbeArgs, environment: &Environment) -> Exit {
    block_on(async {
        match Box::pin(run_all(args, environment)).await {
            Ok(exit) => exit,
            Err(failure) => failure.tell("probe"),
        }
    })
}

async fn run_all(args: &ProbeArgs, environment: &Environment) -> Result<Exit, Failure> {
    let path = args.config.display();
    let text = std::fs::read(&args.config)
        .map_err(|error| Failure::Usage(format!("{path}: {}", error.kind())))?;
    let file =
        ProbeFile::parse(&text).map_err(|error| Failure::Usage(format!("{path}: {error}")))?;
    let outward = outward(environment)?;
    let workload = WorkloadArgs {
        server: Some(args.server.clone().unwrap_or_else(|| format!("https://{}", file.domain))),
        scope: None,
        // Every test names its own.
        identity: Some("probe".to_owned()),
        audience: Some(args.audience.clone().unwrap_or_else(|| file.domain.clone())),
        source: args.source,
        token_file: args.token_file.clone(),
        ca_file: args.ca_file.clone(),
    };
    let workload = workload.workload(&outward, environment)?;
    let probe = run::Probe { workload: &workload, api: &outward.github.api };
    let mut outcomes = Vec::with_capacity(file.tests.len());
    for test in &file.tests {
        let outcome = probe.run(test).await;
        if args.output == Output::Text {
            print(&outcome.line());
        }
        outcomes.push(outcome);
    }
    Ok(report(&outcomes, args.output))
}

/// The last words, and how the program ends.
fn report(outcomes: &[Outcome], output: Output) -> Exit {
    let passed = outcomes.iter().filter(|outcome| outcome.is_passed()).count();
    match output {
        Output::Text => print(&format!("{passed} of {} tests passed\n", outcomes.len())),
        Output::Json => {
            let tests: Vec<_> = outcomes.iter().map(Outcome::json).collect();
            print(&format!("{}\n", json!({ "passed": passed == outcomes.len(), "tests": tests })));
        }
    }
    if passed == outcomes.len() { Exit::Done } else { Exit::Refused }
}

fn print(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        say(format_args!("octo-sts probe: stdout cannot be written: {}", error.kind()));
    }
}
