//! The commands, their arguments, and how each ends.
//!
//! Without a command the program serves if it is configured to, because containers of the Go
//! service start it so, those of its webhook too; else it shows its help.

use std::{
    ffi::OsString,
    future::Future,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    config::{Environment, variables},
    telemetry,
};

mod agent;
#[cfg(feature = "emulator")]
mod dev;
mod doctor;
mod exchange;
mod generate;
mod git_credential;
mod help;
mod policy;
mod policy_folder;
mod probe;
mod serve;
mod workload;

/// How long the last log lines may take at the end.
const LOG_FLUSH: Duration = Duration::from_millis(500);

/// How the program ends: `sysexits.h`, as the contract of commands has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// As it should.
    Done,
    /// The command line or the configuration is wrong.
    Usage,
    /// Something that is needed cannot be reached now.
    Unavailable,
    /// Our fault, or nothing that another code stands for.
    Internal,
    /// The caller may not.
    Refused,
}

impl Exit {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::Refused => 77,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A Security Token Service for GitHub.
///
/// A workload shows an OIDC token and names a trust policy in a repository; if the token satisfies
/// it, the workload gets a short-lived GitHub token with the policy's permissions.
#[derive(Debug, Parser)]
#[command(name = "octo-sts", version = help::version(), after_help = help::PROGRAM, max_term_width = help::MAX_WIDTH)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server. It is configured by environment variables, which `serve --help` lists.
    #[command(after_help = help::SERVE, after_long_help = help::serve())]
    Serve,
    /// Say what is wrong with the configuration and with what it leads to, and what to do.
    ///
    /// Reads the environment of `serve`, and asks GitHub and the issuers that are known.
    #[command(after_help = help::DOCTOR)]
    Doctor(doctor::DoctorArgs),
    /// Exchange this workload's own OIDC token for a GitHub token.
    #[command(after_help = help::exchange())]
    Exchange(exchange::ExchangeArgs),
    /// Check trust policies on disk, before they are merged.
    #[command(after_help = help::POLICY)]
    Policy(policy::PolicyArgs),
    /// Test a running server by a file of exchanges and what is expected of them.
    ///
    /// The file has the format of the Go service's smoke test.
    #[command(after_help = help::PROBE)]
    Probe(probe::ProbeArgs),
    /// Keep files with fresh GitHub tokens for this workload's programs.
    #[command(after_help = help::agent())]
    Agent(agent::AgentArgs),
    /// Answer git as a credential helper, with GitHub tokens for this workload.
    #[command(name = "git-credential", after_help = help::git_credential())]
    GitCredential(git_credential::GitCredentialArgs),
    /// Show an exchange from end to end on this machine, without an account anywhere.
    #[cfg(feature = "emulator")]
    #[command(after_help = help::DEV)]
    Dev(dev::DevArgs),
    /// Print completions of these commands for a shell.
    #[command(after_help = help::COMPLETIONS)]
    Completions(generate::CompletionsArgs),
    /// Write manual pages of these commands to a folder.
    #[command(hide = true)]
    Man(generate::ManArgs),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let exit = run(std::env::args_os(), &Environment::of_process());
    telemetry::flush_log(LOG_FLUSH);
    exit.into()
}

/// Runs the command that `arguments` spell, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => match cli.command_in(environment) {
            Some(command) => command.run(environment),
            None => {
                say(Cli::command().render_help());
                Exit::Usage
            }
        },
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // Help goes to stdout, the rest to stderr; if nobody reads it, that is their choice.
            error.print().ok();
            if exit != Exit::Done {
                exchange::fail_in_shell_of(&arguments, exit);
            }
            exit
        }
    }
}

impl Cli {
    /// The command that is given, or meant where none is given.
    fn command_in(self, environment: &Environment) -> Option<Command> {
        let is_configured = [variables::STS_DOMAIN, variables::GITHUB_WEBHOOK_SECRET]
            .iter()
            .any(|variable| environment.has(variable.name));
        self.command.or_else(|| is_configured.then_some(Command::Serve))
    }
}

impl Command {
    fn run(self, environment: &Environment) -> Exit {
        match self {
            Self::Serve => serve::serve(environment),
            Self::Doctor(args) => doctor::doctor(&args, environment),
            Self::Exchange(args) => exchange::exchange(&args, environment),
            Self::Policy(args) => policy::policy(&args),
            Self::Probe(args) => probe::probe(&args, environment),
            Self::Agent(args) => agent::agent(&args, environment),
            Self::GitCredential(args) => git_credential::git_credential(&args, environment),
            #[cfg(feature = "emulator")]
            Self::Dev(args) => dev::dev(args, environment),
            Self::Completions(args) => generate::completions(args),
            Self::Man(args) => generate::man(&args),
        }
    }
}

/// Runs `work` on a runtime of its own.
fn block_on(work: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(work);
            // A name lookup that the system does not answer must not delay the end.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            say(format_args!("octo-sts: the runtime cannot start: {error}"));
            Exit::Internal
        }
    }
}

/// Tells the operator on stderr, where logging is not set up or not meant.
fn say(text: impl std::fmt::Display) {
    // A stderr that is gone is no reason to end otherwise.
    writeln!(io::stderr(), "{text}").ok();
}

#[cfg(test)]
mod tests;
