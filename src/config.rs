//! The environment, read once, into settings.
//!
//! [`Config::read`] opens no socket: it parses the environment, and reads the files that contain
//! keys. It reports all errors together, each with the variable's name and what is expected, and
//! never with the value. [`variables`] lists every variable; `app` turns the settings into those of
//! each module.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;

use crate::{
    admission,
    deny_file::Denials,
    egress::Origin,
    github::Routing,
    name::{Audience, Issuer, Owner, RepoName},
    oidc::{IssuersFile, ListedIssuers, Replay},
    telemetry::{LogFilter, LogFormat},
    transport::TlsFiles,
    webhook,
};

pub mod apps;
mod key;
mod read;
mod reader;
mod value;
pub mod variables;

pub use crate::environment::Environment;
pub use apps::{Apps, AppsFile, ConfiguredApp};
pub use key::AppKey;
pub use reader::{ConfigErrors, Remark};
#[cfg(feature = "emulator")]
pub(crate) use value::duration;

/// All settings of the server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where and how connections are accepted.
    pub listen: Listen,
    /// The host by which callers reach the server: the default audience of tokens. Without it,
    /// there are no exchanges, only the webhook.
    pub domain: Option<Audience>,
    /// The webhook, if there is one.
    pub webhook: Option<Webhook>,
    /// How the server ends.
    pub shutdown: Shutdown,
    /// The Apps, and which owners they serve.
    pub apps: Apps,
    /// How the Apps of a pool share the work.
    pub routing: Routing,
    /// Names the credentials for key management services.
    pub environment: Environment,
    /// Which GitHub.
    pub github: GitHub,
    /// How policies are found and cached.
    pub policies: Policies,
    /// What tokens may be.
    pub tokens: Tokens,
    /// What the operator denies.
    pub denials: Denials,
    /// What attempts may cost before they are authorized.
    pub rates: admission::Settings,
    /// When a refusal that depends on what exists is sent: at the next whole step after its
    /// request.
    pub refusal_step: Duration,
    /// Outbound connections.
    pub proxy: Proxy,
    /// The sink of CloudEvents.
    pub event_sink: Option<http::Uri>,
    /// The port for metrics, if they are served.
    pub metrics_port: Option<u16>,
    /// What is logged, and how.
    pub log: Log,
    /// Warnings: settings that are valid but probably unintended. They are logged at start.
    pub warnings: Vec<Remark>,
}

/// On which addresses the server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// `[::]`, or `0.0.0.0` on a machine without IPv6.
    All,
    /// `127.0.0.1` only.
    Loopback,
}

/// Where and how connections are accepted.
#[derive(Debug, Clone)]
pub struct Listen {
    /// On which addresses, for metrics too.
    pub interface: Interface,
    /// The port; 0 is any free one.
    pub port: u16,
    /// TLS, if it is served.
    pub tls: Option<TlsFiles>,
    /// The maximum number of connections.
    pub max_connections: NonZeroUsize,
    /// The largest header list, in bytes.
    pub max_header_bytes: usize,
    /// How many trusted proxies stand in front and add to `X-Forwarded-For`.
    pub trusted_proxy_hops: usize,
}

/// Deliveries of GitHub's webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The secrets that sign them, and whose count.
    pub settings: webhook::Settings,
    /// A port of their own, if they have one.
    pub port: Option<u16>,
}

/// How the server ends after SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// How long everything may take.
    pub timeout: Duration,
    /// How much of that new connections are still served.
    pub drain_delay: Duration,
}

/// Which GitHub, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitHub {
    /// The root of the API. A trailing slash in its path means nothing.
    pub api: http::Uri,
    /// The host in the addresses of repositories: that of the API without a leading `api.`.
    pub host: String,
    /// Who issues the id tokens of this GitHub's Actions.
    pub actions_issuer: Issuer,
    /// The origin of a GitHub Enterprise Server, which may have a private address.
    pub private_origin: Option<Origin>,
}

/// How policies are found and cached.
#[derive(Debug, Clone)]
pub struct Policies {
    /// The repository of an organization's own policies.
    pub org_repo: RepoName,
    /// How long a policy is used before it is revalidated.
    pub ttl: Duration,
    /// How long a policy is still used after GitHub last confirmed it, while GitHub is unavailable.
    pub stale: Duration,
    /// Organization permissions, and permissions that the table lacks, that a repository's policy
    /// may grant at more than `read`.
    pub repository_org_permissions: Vec<String>,
    /// Organization policies must list repositories.
    pub require_repositories: bool,
    /// The owners that are served; all if unset.
    pub owners: Option<Vec<Owner>>,
}

/// What tokens may be.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Known issuers in addition to the built-in ones.
    pub issuers: Vec<Issuer>,
    /// The issuers file, and what it says now.
    pub issuers_file: Option<(IssuersFile, ListedIssuers)>,
    /// Whose keys may come from private addresses.
    pub private_networks: PrivateNetworks,
    /// The largest token, in bytes.
    pub max_bytes: usize,
    /// How far `nbf` and `iat` may lie in the future.
    pub leeway: Duration,
    /// What happens when a token is exchanged a second time.
    pub replay: Replay,
}

/// Whose documents and keys may be fetched from private addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivateNetworks {
    /// No issuer's.
    No,
    /// Those of known issuers.
    Known,
    /// Those of any issuer.
    All,
}

/// Outbound connections to GitHub.
#[derive(Debug, Clone, Default)]
pub struct Proxy {
    /// The proxy's URL, which may hold credentials.
    pub https: Option<SecretString>,
    /// Hosts that are reached without it, comma separated.
    pub except: Option<String>,
}

/// What the commands for workloads read of the server's variables.
#[derive(Debug, Clone)]
pub struct Outward {
    /// Outbound connections.
    pub proxy: Proxy,
    /// Which GitHub the tokens are for.
    pub github: GitHub,
}

impl Outward {
    /// Reads these variables and no others.
    ///
    /// # Errors
    /// Every error in them.
    pub fn read(environment: &Environment) -> Result<Self, ConfigErrors> {
        read::outward(environment)
    }
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct Log {
    /// Which lines.
    pub filter: LogFilter,
    /// In which form.
    pub format: LogFormat,
}

impl Log {
    /// Reads these variables and no others.
    ///
    /// # Errors
    /// Every error in them.
    pub fn read(environment: &Environment) -> Result<Self, ConfigErrors> {
        read::log_alone(environment)
    }
}

impl Config {
    /// Reads all settings.
    ///
    /// # Errors
    /// Every error in the environment.
    pub fn read(environment: &Environment) -> Result<Self, ConfigErrors> {
        read::config(environment)
    }
}

#[cfg(test)]
mod tests;
