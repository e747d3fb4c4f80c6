//! Who the workload can say that it is.
//!
//! [`Source::find`] looks for the place from which this process gets its identity, by its environment
//! alone: nothing is asked of any address before [`Source::token`]. The first place that is there
//! counts: a token that was given, then the CI system that runs the job, then the files of a pod, then
//! the machine. Where a job runs under a CI system that gives it no identity, the search ends with what
//! to do about it: the next one found would be the runner's, and not the job's.

mod file;

use std::{fmt, path::PathBuf, sync::Arc};

use secrecy::SecretString;

use self::file::TokenFile;
use super::{Error, token};
use crate::{
    clock::Clock,
    config::{Environment, variables as var},
    egress::Egress,
};

/// The kinds of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file that was named.
    File,
    /// `STS_ID_TOKEN`, the token itself.
    Variable,
    /// The projected token file of a Kubernetes pod.
    Kubernetes,
}

impl Kind {
    /// Every kind, in the order in which they are looked for.
    pub const ALL: &'static [Self] = &[Self::File, Self::Variable, Self::Kubernetes];

    /// The name by which one is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Variable => "env",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no identity: what was missing, and what would help, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoIdentity(String);

/// What is known before the search.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only this kind will do.
    pub kind: Option<Kind>,
    /// The file that holds the token; it goes before `STS_TOKEN_FILE`.
    pub token_file: Option<PathBuf>,
    /// Where things are.
    pub places: Places,
}

/// Where things are on the machines that this is for. Only tests have others: no variable sets them.
#[derive(Debug, Clone)]
pub struct Places {
    /// Token files of pods, in the order in which they are looked for.
    pub pod_files: Vec<PathBuf>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            pod_files: ["/var/run/secrets/octo-sts/token", "/var/run/secrets/tokens/github-token"]
                .map(PathBuf::from)
                .to_vec(),
        }
    }
}

/// A place that says who the workload is.
#[derive(Debug, Clone)]
pub struct Source {
    kind: Kind,
    how: How,
}

#[derive(Debug, Clone)]
enum How {
    File(TokenFile),
    Token(SecretString),
}

impl Source {
    /// Looks for the place from which this process gets its identity.
    ///
    /// # Errors
    /// There is none, or not the one that was asked for; the text says what would help.
    pub fn find(environment: &Environment, options: &Options) -> Result<Self, NoIdentity> {
        let found = |kind, how| Self { kind, how };
        let named =
            options.token_file.clone().or_else(|| environment.text(var::STS_TOKEN_FILE.name).map(PathBuf::from));
        let given = environment.text(var::STS_ID_TOKEN.name);
        match (named, given) {
            (Some(path), _) => return Ok(found(Kind::File, How::File(TokenFile::new(path)?))),
            (None, Some(given)) => {
                let given = token(given).ok_or_else(|| NoIdentity("STS_ID_TOKEN holds no token".to_owned()))?;
                return Ok(found(Kind::Variable, How::Token(given)));
            }
            (None, None) => {}
        }
        let pod = options.places.pod_files.iter().find(|path| path.exists());
        match pod {
            Some(path) => Ok(found(Kind::Kubernetes, How::File(TokenFile::new(path.clone())?))),
            None => Err(NoIdentity("found nothing that says who this workload is".to_owned())),
        }
    }

    /// Of which kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A token for `audience`, read or asked for anew each time. Where the place gives out one token
    /// only, that token, whatever its audience.
    ///
    /// # Errors
    /// The place does not give one.
    pub async fn token(
        &self,
        _audience: &str,
        _egress: &Egress,
        _clock: &Arc<dyn Clock>,
    ) -> Result<SecretString, Error> {
        match &self.how {
            How::File(file) => file.read(),
            How::Token(token) => Ok(token.clone()),
        }
    }
}
