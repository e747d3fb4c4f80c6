//! Who the workload can say that it is.
//!
//! [`Source::find`] looks for the place from which this process gets its identity, by its
//! environment and by files of the machine: nothing is asked of any address before
//! [`Source::token`]. The first place that is there counts: a token that was given, then the CI
//! system that runs the job, then the files of a pod, then the machine. Where a job runs under a CI
//! system that gives it no identity, the search ends with what to do about it: the next one found
//! would be the runner's, and not the job's.

mod aws;
mod ci;
mod gcp;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use self::{aws::Aws, gcp::Gcp};
use super::{Error, IdentityToken};
use crate::{
    clock::Clock,
    cloud::{self, Network, TokenFile, firmware_says},
    config::variables as var,
    egress::{AddressRule, BoundedClient, Egress, USUAL_TIME},
    environment::Environment,
};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The kinds of places.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum SourceKind { $($(#[$doc])* $variant,)* }

        impl SourceKind {
            /// Every kind, in the order in which they are looked for.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name by which `--source` selects it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

kinds! {
    /// A file that was named.
    File = "file",
    /// `STS_ID_TOKEN`, the token itself.
    Variable = "env",
    /// GitHub Actions.
    Actions = "github-actions",
    /// GitLab CI.
    Gitlab = "gitlab",
    /// Buildkite.
    Buildkite = "buildkite",
    /// CircleCI.
    Circleci = "circleci",
    /// The projected token file of a Kubernetes pod.
    Kubernetes = "kubernetes",
    /// The metadata server of Google Cloud.
    Gcp = "gcp",
    /// AWS: a token from STS for what the machine, the container or the environment may sign with.
    Aws = "aws",
}

impl SourceKind {
    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No identity token was found. The text says what is missing, and how to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoIdentity(String);

impl NoIdentity {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<cloud::Error> for NoIdentity {
    fn from(error: cloud::Error) -> Self {
        Self(error.to_string())
    }
}

/// What is known before the search.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only this kind will do.
    pub kind: Option<SourceKind>,
    /// The file that holds the token; it goes before `STS_TOKEN_FILE`.
    pub token_file: Option<PathBuf>,
    /// Where things are.
    pub places: Places,
}

/// Where things are on the machines that this is for. Tests have others; no variable sets them.
#[derive(Debug, Clone)]
pub struct Places {
    /// Token files of pods, in the order in which they are looked for.
    pub pod_files: Vec<PathBuf>,
    /// The pod's token for its own API server, which is never used.
    pub api_token: PathBuf,
    /// What the firmware says about the machine: a folder of small files.
    pub firmware: PathBuf,
    /// The program that asks CircleCI for tokens.
    pub circleci: PathBuf,
    /// The root of Google Cloud's metadata server.
    pub gcp: String,
    /// The root of the metadata server of AWS's machines.
    pub aws_machine: String,
    /// The root of that of AWS's containers.
    pub aws_container: String,
    /// The root of AWS's STS in place of the region's.
    pub aws_sts: Option<String>,
    /// How long a metadata server may take, which is on this machine or next to it.
    pub near: Duration,
    /// How long any other place may take.
    pub far: Duration,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            pod_files: vec![
                "/var/run/secrets/octo-sts/token".into(),
                "/var/run/secrets/tokens/github-token".into(),
            ],
            api_token: "/var/run/secrets/kubernetes.io/serviceaccount/token".into(),
            firmware: "/sys/class/dmi/id".into(),
            circleci: "circleci".into(),
            gcp: "http://169.254.169.254".into(),
            aws_machine: "http://169.254.169.254".into(),
            aws_container: "http://169.254.170.2".into(),
            aws_sts: None,
            near: Duration::from_secs(5),
            far: USUAL_TIME,
        }
    }
}

impl Places {
    fn endpoints(&self) -> cloud::Endpoints {
        cloud::Endpoints {
            firmware: self.firmware.clone(),
            aws_machine: self.aws_machine.clone(),
            aws_container: self.aws_container.clone(),
            aws_sts: self.aws_sts.clone(),
        }
    }
}

/// A place that says who the workload is.
#[derive(Debug, Clone)]
pub struct Source {
    kind: SourceKind,
    how: How,
    near: Duration,
    far: Duration,
}

#[derive(Debug, Clone)]
enum How {
    File(TokenFile),
    Token(IdentityToken),
    Actions(ci::Actions),
    Buildkite(ci::Buildkite),
    Circleci(ci::Circleci),
    Gcp(Gcp),
    Aws(Box<Aws>),
}

impl Source {
    /// Looks for the place from which this process gets its identity.
    ///
    /// # Errors
    /// There is none, or not the requested one; the text says how to fix it.
    pub fn find(environment: &Environment, options: &Options) -> Result<Self, NoIdentity> {
        let search = Search { environment, options };
        let found =
            |kind, how| Self { kind, how, near: options.places.near, far: options.places.far };
        if let Some(kind) = options.kind {
            let how = search.of(kind)?.ok_or_else(|| search.absent(kind))?;
            return Ok(found(kind, how));
        }
        if search.token_file().is_some()
            && options.token_file.is_none()
            && environment.has(var::STS_ID_TOKEN.name)
        {
            return Err(NoIdentity::new(
                "STS_TOKEN_FILE and STS_ID_TOKEN are both set: which is meant?",
            ));
        }
        for kind in SourceKind::ALL {
            if let Some(how) = search.of(*kind)? {
                return Ok(found(*kind, how));
            }
        }
        Err(search.nothing())
    }

    /// Of which kind it is.
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// A string that distinguishes this source from others, and one job's from another's; no secret
    /// can be got back from it.
    pub fn mark(&self) -> String {
        let secret = |token: &SecretString| {
            hex::encode(aws_lc_rs::digest::digest(
                &aws_lc_rs::digest::SHA256,
                token.expose_secret().as_bytes(),
            ))
        };
        let what = match &self.how {
            How::File(file) => file.path().display().to_string(),
            How::Token(token) => secret(token.secret()),
            How::Actions(actions) => secret(actions.request_token()),
            How::Buildkite(buildkite) => buildkite.url().to_owned(),
            How::Circleci(circleci) => circleci.job_token().map(secret).unwrap_or_default(),
            How::Gcp(_) => String::new(),
            How::Aws(aws) => aws.mark().to_owned(),
        };
        format!("{}:{what}", self.kind)
    }

    /// A token for `audience`, read or asked for anew each time. A place that gives out one token
    /// only gives that, whatever its audience.
    ///
    /// # Errors
    /// The place does not give one, or what it gives is not an identity token.
    pub async fn token(
        &self,
        audience: &str,
        egress: &Egress,
        clock: &Arc<dyn Clock>,
    ) -> Result<IdentityToken, Error> {
        let way = Way { egress, clock, near: self.near, far: self.far };
        match &self.how {
            How::File(file) => Ok(file.read()?),
            How::Token(token) => Ok(token.clone()),
            How::Actions(actions) => actions.token(audience, &way).await,
            How::Buildkite(buildkite) => buildkite.token(audience, &way).await,
            How::Circleci(circleci) => circleci.token(audience, &way).await,
            How::Gcp(gcp) => gcp.token(audience, &way).await,
            How::Aws(aws) => Box::pin(aws.token(audience, &way)).await,
        }
    }
}

/// What a place is asked by.
struct Way<'a> {
    egress: &'a Egress,
    clock: &'a Arc<dyn Clock>,
    near: Duration,
    far: Duration,
}

impl Way<'_> {
    fn network(&self) -> Network {
        Network {
            egress: self.egress.clone(),
            clock: Arc::clone(self.clock),
            metadata_time: self.near,
            service_time: self.far,
        }
    }

    /// For a metadata server.
    fn near(&self, rule: AddressRule) -> BoundedClient {
        self.network().metadata(rule)
    }

    /// For a service.
    fn far(&self) -> BoundedClient {
        self.network().service()
    }
}

/// One search.
struct Search<'a> {
    environment: &'a Environment,
    options: &'a Options,
}

impl Search<'_> {
    /// The place of that kind, if it is there.
    fn of(&self, kind: SourceKind) -> Result<Option<How>, NoIdentity> {
        let (environment, places) = (self.environment, &self.options.places);
        Ok(match kind {
            SourceKind::File => self
                .token_file()
                .map(TokenFile::new)
                .transpose()
                .map_err(with_advice)?
                .map(How::File),
            SourceKind::Variable => self.given()?.map(How::Token),
            SourceKind::Actions => ci::Actions::find(environment)?.map(How::Actions),
            SourceKind::Gitlab if environment.text("GITLAB_CI").is_none() => None,
            // Found by its kind alone: otherwise the variable is found before.
            SourceKind::Gitlab => {
                Some(How::Token(self.given()?.ok_or_else(|| NoIdentity::new(ci::GITLAB_HINT))?))
            }
            SourceKind::Buildkite => ci::Buildkite::find(environment)?.map(How::Buildkite),
            SourceKind::Circleci => {
                ci::Circleci::find(environment, &places.circleci)?.map(How::Circleci)
            }
            SourceKind::Kubernetes => {
                let there = places.pod_files.iter().find(|path| path.exists());
                there.cloned().map(TokenFile::new).transpose().map_err(with_advice)?.map(How::File)
            }
            SourceKind::Gcp => (self.is_forced() || gcp::is_here(environment, &places.firmware))
                .then(|| How::Gcp(Gcp::new(places.gcp.clone()))),
            SourceKind::Aws => {
                Aws::find(environment, places, self.is_forced())?.map(|aws| How::Aws(Box::new(aws)))
            }
        })
    }

    fn is_forced(&self) -> bool {
        self.options.kind.is_some()
    }

    fn token_file(&self) -> Option<PathBuf> {
        let named = || {
            self.environment.text(var::STS_TOKEN_FILE.name).map(|path| PathBuf::from(path.trim()))
        };
        self.options.token_file.clone().or_else(named)
    }

    fn given(&self) -> Result<Option<IdentityToken>, NoIdentity> {
        let given = self.environment.text(var::STS_ID_TOKEN.name);
        let parsed = given.map(IdentityToken::parse).transpose();
        parsed.map_err(|error| NoIdentity(format!("STS_ID_TOKEN holds {error}")))
    }

    fn absent(&self, kind: SourceKind) -> NoIdentity {
        let missing = match kind {
            SourceKind::File => "no file is named: --token-file or STS_TOKEN_FILE",
            SourceKind::Variable => "STS_ID_TOKEN is not set",
            SourceKind::Actions => "this is not a job of GitHub Actions: GITHUB_ACTIONS is not set",
            SourceKind::Gitlab => "this is not a job of GitLab: GITLAB_CI is not set",
            SourceKind::Buildkite => "this is not a job of Buildkite: BUILDKITE is not set",
            SourceKind::Circleci => "this is not a job of CircleCI: CIRCLECI is not set",
            SourceKind::Kubernetes => return self.no_pod_file(),
            SourceKind::Gcp | SourceKind::Aws => "it is not there",
        };
        NoIdentity(format!("--source {kind}: {missing}"))
    }

    fn no_pod_file(&self) -> NoIdentity {
        let places: Vec<_> =
            self.options.places.pod_files.iter().map(|path| path.display().to_string()).collect();
        let mut text = format!("no token file at {}. ", places.join(" or "));
        if self.options.places.api_token.exists() {
            text.push_str(
                "The pod's token for its own API server is there, but must not be shown to anyone else: \
                 with it, anyone can act in the cluster as the pod. ",
            );
        }
        text.push_str(PROJECT);
        NoIdentity(text)
    }

    fn nothing(&self) -> NoIdentity {
        if self.options.places.api_token.exists() {
            return self.no_pod_file();
        }
        NoIdentity::new(
            "found nothing that says who this workload is: no CI system, no projected token file, not a machine of \
             Google Cloud, nothing of AWS. Name a file by --token-file, put a token into STS_ID_TOKEN, or name the \
             place by --source",
        )
    }
}

/// The refusal of the API server's token, and what to use instead.
fn with_advice(error: cloud::Error) -> NoIdentity {
    NoIdentity(format!("{error}. {PROJECT}"))
}

/// How to have a token of its own, for people.
const PROJECT: &str = "Project a token of its own into the pod: a volume \
    `projected: {sources: [{serviceAccountToken: {path: token, audience: HOST_OF_THE_SERVER, expirationSeconds: 3600}}]}`, \
    mounted at /var/run/secrets/octo-sts";
