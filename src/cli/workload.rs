//! What the commands for workloads have in common: their arguments, and how they tell what went
//! wrong.

use std::{path::PathBuf, sync::Arc};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::{Exit, say};
use crate::{
    client::{
        self, Class, Client, IdentityToken, Issued, Server, Target,
        ambient::{NoIdentity, Options, Source, SourceKind},
    },
    clock::{Clock, SystemClock},
    config::{Environment, Outward, variables as var},
    egress::Egress,
    name::{Audience, PolicyName, Scope},
    reason::Condition,
};

/// Whom to ask, for what, and who asks. What is not given comes from the environment.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct WorkloadArgs {
    /// The server: https://HOST [env: STS_SERVER].
    #[arg(long, value_name = "URL")]
    pub(super) server: Option<String>,
    /// What the token is for: OWNER/REPO, or OWNER [env: STS_SCOPE].
    #[arg(long)]
    pub(super) scope: Option<String>,
    /// The name of the trust policy [env: STS_IDENTITY].
    #[arg(long, value_name = "NAME")]
    pub(super) identity: Option<String>,
    /// The audience to ask an identity for [env: STS_AUDIENCE] [default: the server's host].
    #[arg(long)]
    pub(super) audience: Option<String>,
    /// Where the identity comes from; without it, the first of these that is there.
    #[arg(long, value_name = "NAME", value_parser = kinds())]
    pub(super) source: Option<SourceKind>,
    /// The file that holds the workload's own OIDC token [env: STS_TOKEN_FILE].
    #[arg(long, value_name = "PATH", conflicts_with = "source")]
    pub(super) token_file: Option<PathBuf>,
    /// A file of CA certificates to trust beside the system's; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub(super) ca_file: Vec<PathBuf>,
}

/// How much of what the policy grants.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct NarrowingArgs {
    /// Ask only for this permission of those that the policy grants; may be repeated.
    #[arg(long = "permission", value_name = "NAME:LEVEL")]
    pub(super) permissions: Vec<String>,
    /// Ask only for this repository of those that an organization's policy covers; may be
    /// repeated.
    #[arg(long = "repository", value_name = "REPO")]
    pub(super) repositories: Vec<String>,
}

pub(super) fn kinds() -> impl TypedValueParser<Value = SourceKind> {
    let names = SourceKind::ALL.iter().map(|kind| kind.name());
    PossibleValuesParser::new(names)
        .try_map(|name| SourceKind::named(&name).ok_or("it is none of these"))
}

/// A value without which there is no exchange: a flag, or the variable that stands in for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    Server,
    Scope,
    Identity,
    /// A flag alone.
    Out,
}

impl Needed {
    fn names(self) -> (&'static str, Option<&'static var::Variable>) {
        match self {
            Self::Server => ("--server", Some(&var::STS_SERVER)),
            Self::Scope => ("--scope", Some(&var::STS_SCOPE)),
            Self::Identity => ("--identity", Some(&var::STS_IDENTITY)),
            Self::Out => ("--out", None),
        }
    }
}

/// Why a command ends without what it is for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The command line or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// No identity token was found.
    #[error(transparent)]
    NoIdentity(#[from] NoIdentity),
    /// The server, or the source of the identity, refuses or does not answer.
    #[error(transparent)]
    Asked(#[from] client::Error),
}

impl From<Class> for Exit {
    fn from(class: Class) -> Self {
        match class {
            Class::Usage => Self::Usage,
            Class::Unavailable => Self::Unavailable,
            Class::Refused => Self::Refused,
            Class::Internal => Self::Internal,
        }
    }
}

impl Failure {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::NoIdentity(_) => Exit::Usage,
            Self::Asked(error) => error.class().into(),
        }
    }

    /// Tells it on stderr.
    pub(super) fn tell(&self, command: &str) -> Exit {
        say(format_args!("octo-sts {command}: {self}"));
        if let Self::Asked(error) = self {
            for condition in error.conditions.iter().filter(|condition| !condition.satisfied) {
                say(shown(condition));
            }
            hints(error).iter().for_each(|hint| say(format_args!("  hint: {hint}")));
            if let Some(wait) = error.retry_after {
                say(format_args!("  try again in {} s", wait.as_secs()));
            }
            if let Some(id) = &error.request_id {
                say(format_args!("  request id: {id}"));
            }
        }
        self.exit()
    }
}

/// A condition in a line or two.
pub(super) fn shown(condition: &Condition) -> String {
    let verdict = if condition.satisfied { "ok" } else { "not satisfied" };
    let mut line = format!("  {}: {verdict}", condition.field);
    if !condition.satisfied {
        line.push_str(&format!(", got {}", condition.got.as_deref().unwrap_or("nothing")));
        if let Some(wanted) = &condition.wanted {
            line.push_str(&format!(", wanted {wanted}"));
        }
    }
    if let Some(hint) = condition.hint.as_ref().filter(|_| !condition.satisfied) {
        line.push_str(&format!("\n    hint: {hint}"));
    }
    line
}

/// What may help beside what the server says.
fn hints(error: &client::Error) -> Vec<&'static str> {
    let mut hints = Vec::new();
    if error
        .conditions
        .iter()
        .any(|condition| condition.field == "audience" && !condition.satisfied)
    {
        hints.push("the audience to ask for is set by --audience; a token from a file has the one it was made with");
    }
    match error.reason.as_deref() {
        Some("TOKEN_EXPIRED") => {
            hints.push("the token that was shown has ended: is its file still written?")
        }
        None if error.code == 14 => {
            hints.push("is the address right, is a proxy needed (HTTPS_PROXY), is the CA known (--ca-file)?");
        }
        _ => {}
    }
    hints
}

/// Everything that is needed to ask.
pub(super) struct Workload {
    pub(super) client: Client,
    pub(super) identity: PolicyName,
    pub(super) audience: Audience,
    pub(super) source: Source,
    pub(super) egress: Egress,
    pub(super) clock: Arc<dyn Clock>,
}

impl WorkloadArgs {
    /// Puts arguments and environment together.
    pub(super) fn workload(
        &self,
        outward: &Outward,
        environment: &Environment,
    ) -> Result<Workload, Failure> {
        let url =
            self.value(Needed::Server, environment).ok_or_else(|| missing(&[Needed::Server]))?;
        let server = Server::parse(url).map_err(|error| Failure::Usage(error.to_string()))?;
        let name = self
            .value(Needed::Identity, environment)
            .ok_or_else(|| missing(&[Needed::Identity]))?;
        let identity = name.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
        let audience = match either(self.audience.as_deref(), environment, &var::STS_AUDIENCE) {
            Some(text) => text.parse().map_err(|error| Failure::Usage(format!("{error}")))?,
            None => server
                .audience()
                .ok_or_else(|| Failure::Usage("the server's host is too long".to_owned()))?,
        };
        let options = Options {
            kind: self.source,
            token_file: self.token_file.clone(),
            ..Options::default()
        };
        let source = Source::find(environment, &options)?;
        let egress = self.egress(outward)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let client = Client::new(server, &egress, Arc::clone(&clock));
        Ok(Workload { client, identity, audience, source, egress, clock })
    }

    /// The way out: the environment's proxy and roots, and the roots of `--ca-file`.
    pub(super) fn egress(&self, outward: &Outward) -> Result<Egress, Failure> {
        client::way_out(&outward.proxy, self.ca_file.clone()).map_err(Failure::Usage)
    }

    /// Refuses what is incomplete, with everything that is missing in one message.
    pub(super) fn require(
        &self,
        needed: &[Needed],
        environment: &Environment,
    ) -> Result<(), Failure> {
        let absent: Vec<_> = needed
            .iter()
            .copied()
            .filter(|needed| self.value(*needed, environment).is_none())
            .collect();
        if absent.is_empty() { Ok(()) } else { Err(missing(&absent)) }
    }

    /// What the flag or the variable says, if it says anything.
    fn value<'a>(&'a self, needed: Needed, environment: &'a Environment) -> Option<&'a str> {
        let flag = match needed {
            Needed::Server => &self.server,
            Needed::Scope => &self.scope,
            Needed::Identity => &self.identity,
            Needed::Out => return None,
        };
        either(flag.as_deref(), environment, needed.names().1?)
    }

    /// The scope, if one is set.
    pub(super) fn scope(&self, environment: &Environment) -> Result<Option<Scope>, Failure> {
        let text = self.value(Needed::Scope, environment);
        text.map(str::parse)
            .transpose()
            .map_err(|error: crate::name::NameError| Failure::Usage(error.to_string()))
    }
}

impl Workload {
    /// The workload's own token.
    pub(super) async fn token(&self) -> Result<IdentityToken, Failure> {
        Ok(self.source.token(self.audience.as_str(), &self.egress, &self.clock).await?)
    }

    /// What to ask for.
    pub(super) fn target(&self, scope: Scope, less: &NarrowingArgs) -> Result<Target, Failure> {
        let NarrowingArgs { permissions, repositories } = less;
        Target::new(scope, self.identity.clone())
            .with_repositories(repositories.iter().map(String::as_str))
            .and_then(|target| target.with_permissions(permissions.iter().map(String::as_str)))
            .map_err(|error| Failure::Usage(error.to_string()))
    }

    /// A token for GitHub.
    pub(super) async fn exchange(&self, target: &Target) -> Result<Issued, Failure> {
        Ok(self.client.exchange(&self.token().await?, target).await?)
    }
}

/// The proxy, the roots and which GitHub, by the environment.
pub(super) fn outward(environment: &Environment) -> Result<Outward, Failure> {
    Outward::read(environment).map_err(|errors| Failure::Usage(errors.to_string()))
}

/// What is missing of the arguments.
pub(super) fn missing(needed: &[Needed]) -> Failure {
    let names = needed.iter().map(|needed| match needed.names() {
        (flag, Some(variable)) => format!("{flag} (or {})", variable.name),
        (flag, None) => flag.to_owned(),
    });
    let names: Vec<_> = names.collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    Failure::Usage(format!("{} {verb} missing", names.join(", ")))
}

fn either<'a>(
    flag: Option<&'a str>,
    environment: &'a Environment,
    variable: &var::Variable,
) -> Option<&'a str> {
    flag.or_else(|| environment.text(variable.name)).map(str::trim).filter(|text| !text.is_empty())
}

/// One word of a shell.
pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}
