//! `octo-sts dev`: everything that an exchange needs, on loopback, and a tour through it.
//!
//! A GitHub API and an OIDC issuer are emulated; the server between them is the real one, over real
//! sockets. The tour checks each step that it shows: if a result differs from the text, it says so
//! and the program ends with another code than 0. Then the server stays up to be tried.

mod caller;
mod deliveries;
mod page;
mod policies;
mod sample;
mod tokens;
mod tour;
mod variables;
mod world;

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use tokio::net::TcpListener;

use self::{page::Page, policies::Policies, tokens::Tokens, tour::Tour, world::World};
use super::{Exit, block_on, say, serve};
use crate::config::{self, Environment};

/// The default port.
const PORT: u16 = 8080;

/// Arguments of `dev`.
#[derive(Debug, clap::Args)]
pub(super) struct DevArgs {
    /// End after the tour; the exit code says whether every step had the expected result.
    #[arg(long)]
    pub(super) once: bool,
    /// Take the trust policies from this folder instead of the samples: DIR/NAME.sts.yaml for
    /// octo-org/hello, DIR/org/NAME.sts.yaml for the organization.
    #[arg(long, value_name = "DIR")]
    pub(super) policies: Option<PathBuf>,
    /// Listen on this port of 127.0.0.1; 0 takes any free one [default: 8080, or a free one].
    #[arg(long, value_name = "N")]
    pub(super) port: Option<u16>,
    /// Write to this file the environment in which a server of your own, `octo-sts serve`, stands
    /// between the emulators; read it with `set -a; . FILE`.
    #[arg(long, value_name = "FILE", conflicts_with = "once")]
    pub(super) env: Option<PathBuf>,
    /// Let the emulated GitHub's tokens live for so long (`30s`, `5m`; GitHub's live 1h), to see
    /// what becomes of programs whose token ends.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = token_life)]
    pub(super) token_life: Duration,
}

/// Long enough for the tour, and no longer than GitHub's.
fn token_life(text: &str) -> Result<Duration, String> {
    config::duration(text, Duration::from_secs(5)..=Duration::from_secs(3600))
}

/// Why there is no tour.
#[derive(Debug, thiserror::Error)]
enum DevError {
    /// An error of the operator, in full.
    #[error("{0}")]
    Usage(String),
    /// The machine does not give what is needed.
    #[error("{0}")]
    Unavailable(String),
    /// Our fault.
    #[error("{0}")]
    Internal(String),
}

impl DevError {
    fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Unavailable(_) => Exit::Unavailable,
            Self::Internal(_) => Exit::Internal,
        }
    }
}

/// Shows an exchange from end to end.
pub(super) fn dev(args: DevArgs, environment: &Environment) -> Exit {
    let page = Page::on_stdout(environment);
    block_on(async move {
        match Box::pin(run(args, environment, page)).await {
            Ok(exit) => exit,
            Err(error) => {
                say(format_args!("octo-sts dev: {error}"));
                error.exit()
            }
        }
    })
}

async fn run(args: DevArgs, environment: &Environment, mut page: Page) -> Result<Exit, DevError> {
    let own = args.policies.is_some();
    let policies = match &args.policies {
        Some(folder) => Policies::read(folder)?,
        None => Policies::samples()?,
    };
    let listener = listen(args.port, PORT).await?;
    let stop = serve::stop_on_signal();
    let mut world =
        Box::pin(World::start(policies, listener, environment, args.token_life)).await?;
    let mut tour = Tour { world: &mut world, page: &mut page };
    let as_expected = if own { tour.of_policies().await } else { tour.of_samples().await };
    if !args.once && !stop.is_cancelled() {
        if let Some(file) = &args.env {
            variables::write(file, &world)?;
        }
        let tokens = Tokens::start(&world).await?;
        page.invite(&world, &tokens);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(record) = world.audit.recv() => page.attempt(&record),
            }
        }
    }
    for record in world.stop().await? {
        page.attempt(&record);
    }
    Ok(if as_expected { Exit::Done } else { Exit::Internal })
}

/// The requested port, or the default one, or, where that is in use and none was requested,
/// any.
async fn listen(asked: Option<u16>, usual: u16) -> Result<TcpListener, DevError> {
    let port = asked.unwrap_or(usual);
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => Ok(listener),
        Err(error) => {
            let failure = format!("127.0.0.1:{port} cannot be listened on: {error}");
            if asked.is_some() {
                return Err(DevError::Unavailable(format!(
                    "{failure}\nChoose another with --port N, or any free one with --port 0."
                )));
            }
            say(format_args!(
                "octo-sts dev: {failure}; using a free port. To choose one: --port N"
            ));
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
            free.map_err(|error| {
                DevError::Unavailable(format!("no port of 127.0.0.1 can be listened on: {error}"))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_port_that_was_asked_for_must_be_free() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let other = listen(None, port).await.unwrap().local_addr().unwrap();
        assert!(other.ip().is_loopback() && other.port() != port);
        let refused = listen(Some(port), 0).await.unwrap_err();
        assert_eq!(refused.exit(), Exit::Unavailable);
        assert!(refused.to_string().contains("--port 0"), "{refused}");
    }
}
