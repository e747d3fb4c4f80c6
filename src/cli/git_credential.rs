//! `octo-sts git-credential`: a credential helper for git (gitcredentials(7)).
//!
//! git writes what it wants to reach and reads a user name and a password. Answered are https and
//! the configured GitHub alone; to anything else the answer is silence, so that other helpers get
//! their turn. A token is kept until shortly before it ends, because git asks for every fetch and
//! push.
//!
//! `erase` revokes the refused token if it is ours, whichever scope, identity or server the helper
//! is called with: an entry of the cache is found by its token. Without a cache no tokens are
//! remembered, so there an installation token under our user name counts as ours.

mod cache;
mod protocol;

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use self::{
    cache::{Cache, Entry, Key},
    protocol::Wanted,
};
use super::{
    Exit, block_on, say,
    workload::{Failure, NarrowingArgs, Workload, WorkloadArgs, outward},
};
use crate::{
    client::{self, Target},
    clock::{Clock, SystemClock},
    config::{Environment, Outward},
    name::Scope,
};

/// What git writes is short.
const MAX_BYTES: u64 = 64 << 10;
/// The user name that GitHub expects with a token of an App.
const USERNAME: &str = "x-access-token";
/// How an installation token begins.
const INSTALLATION_TOKEN: &str = "ghs_";

/// Arguments of `git-credential`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct GitCredentialArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    /// Ask only for `contents: read`: git does not say whether it is going to read or to write.
    #[arg(long)]
    read_only: bool,
    /// The folder in which tokens are kept until they end, as an absolute path [default: octo-sts
    /// in $XDG_RUNTIME_DIR, $XDG_CACHE_HOME or ~/.cache].
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Keep no token.
    #[arg(long)]
    no_cache: bool,
    /// What git wants: get, store or erase; git says it last.
    #[arg(value_name = "get|store|erase")]
    operation: String,
}

/// Answers git.
pub(super) fn git_credential(args: &GitCredentialArgs, environment: &Environment) -> Exit {
    block_on(async {
        match Box::pin(run(args, environment)).await {
            Ok(()) => Exit::Done,
            Err(failure) => failure.tell("git-credential"),
        }
    })
}

async fn run(args: &GitCredentialArgs, environment: &Environment) -> Result<(), Failure> {
    // git's own tokens come from here: there is nothing to store. What else git may come to say is
    // to be ignored, as gitcredentials(7) has it.
    if !matches!(args.operation.as_str(), "get" | "erase") {
        return Ok(());
    }
    let wanted = read()?;
    let outward = outward(environment)?;
    if !wanted.is_of(&outward.github) || !wanted.is_for(USERNAME) {
        return Ok(());
    }
    let cache = args.folder(environment)?.map(Cache::new);
    if args.operation == "erase" {
        return args.erase(cache, &wanted, &outward).await;
    }
    let (scope, repository) = args.scope(&wanted, environment)?;
    let workload = args.workload.workload(&outward, environment)?;
    let less = NarrowingArgs {
        permissions: args.read_only.then(|| "contents:read".to_owned()).into_iter().collect(),
        repositories: repository.into_iter().collect(),
    };
    let target = workload.target(scope, &less)?;
    Credential { cache, workload, target }.get().await
}

impl GitCredentialArgs {
    /// The scope, and for an organization's policy the one repository that git wants to reach, if
    /// git names it.
    fn scope(
        &self,
        wanted: &Wanted,
        environment: &Environment,
    ) -> Result<(Scope, Option<String>), Failure> {
        let Some(scope) = self.workload.scope(environment)? else {
            let scope = wanted.scope().map_err(|text| Failure::Usage(text.to_owned()))?;
            return Ok((scope, None));
        };
        let repository = wanted
            .scope()
            .ok()
            .filter(|wanted| scope.repo().is_none() && wanted.owner() == scope.owner());
        Ok((scope, repository.map(|repository| repository.to_string())))
    }

    /// Where tokens are kept. git runs helpers in the repository's folder, so a relative path would
    /// put tokens there.
    fn folder(&self, environment: &Environment) -> Result<Option<PathBuf>, Failure> {
        if self.no_cache {
            return Ok(None);
        }
        if let Some(folder) = &self.cache {
            let refused = || Failure::Usage("--cache: expected an absolute path".to_owned());
            return folder.is_absolute().then(|| Some(folder.clone())).ok_or_else(refused);
        }
        let places = [
            ("XDG_RUNTIME_DIR", "octo-sts"),
            ("XDG_CACHE_HOME", "octo-sts"),
            ("HOME", ".cache/octo-sts"),
        ];
        for (name, below) in places {
            match environment.text(name).map(Path::new) {
                Some(folder) if folder.is_absolute() => return Ok(Some(folder.join(below))),
                Some(_) => say(format_args!(
                    "octo-sts git-credential: {name} is not used: expected an absolute path"
                )),
                None => {}
            }
        }
        Ok(None)
    }

    /// Drops and revokes the token that git was refused with, if it is ours.
    async fn erase(
        &self,
        cache: Option<Cache>,
        wanted: &Wanted,
        outward: &Outward,
    ) -> Result<(), Failure> {
        let Some(refused) = &wanted.password else { return Ok(()) };
        let is_ours = match cache {
            Some(cache) => {
                let clock: Arc<dyn Clock> = Arc::new(SystemClock);
                cache.forget(refused, &clock).await
            }
            None => refused.expose_secret().starts_with(INSTALLATION_TOKEN),
        };
        if !is_ours {
            return Ok(());
        }
        let egress = self.workload.egress(outward)?;
        Ok(client::revoke(&outward.github.api, &egress, refused).await?)
    }
}

fn read() -> Result<Wanted, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text);
    read.map_err(|_| Failure::Usage("what git wants cannot be read from stdin".to_owned()))?;
    Wanted::parse(&text).map_err(|text| Failure::Usage(text.to_owned()))
}

/// One credential.
struct Credential {
    cache: Option<Cache>,
    workload: Workload,
    target: Target,
}

impl Credential {
    async fn get(&self) -> Result<(), Failure> {
        let key = self.key();
        let now = self.workload.clock.now();
        // Held until the token is there: of several processes that git starts concurrently, one
        // calls the server.
        let slot = match &self.cache {
            Some(cache) => cache.slot(&key, &self.workload.clock).await,
            None => None,
        };
        if let Some(entry) =
            slot.as_ref().and_then(|slot| slot.read()).filter(|entry| entry.is_fresh(now))
        {
            return answer(&entry);
        }
        let issued = self.workload.exchange(&self.target).await?;
        let entry = Entry { token: issued.token, expires_at: issued.expires_at };
        if let Some(slot) = slot {
            slot.write(&entry);
            if let Some(cache) = &self.cache {
                cache.prune(&slot, now);
            }
        }
        answer(&entry)
    }

    fn key(&self) -> Key {
        Key::of(&[
            &self.workload.client.server().to_string(),
            &self.target.key(),
            self.workload.audience.as_str(),
            &self.workload.source.mark(),
        ])
    }
}

fn answer(entry: &Entry) -> Result<(), Failure> {
    let text = Zeroizing::new(format!(
        "username={USERNAME}\npassword={}\npassword_expiry_utc={}\n",
        entry.token.expose_secret(),
        entry.expires_at.as_secs()
    ));
    let mut out = io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        say("octo-sts git-credential: git does not read the answer");
    }
    Ok(())
}
