//! AWS, Google Cloud and Azure as this process reaches them: credentials and authenticated
//! requests.
//!
//! Nothing here knows GitHub or an exchange. Signers ask the key management services through it, and
//! clients request identity tokens from AWS. Credentials are looked up for every use: a signature is
//! needed every eight minutes for each App, so a cache would save little, and a rotated credential
//! is used immediately.

pub mod aws;
#[cfg(feature = "kms-azure")]
pub mod azure;
#[cfg(feature = "kms-gcp")]
pub mod gcp;
mod identity;
#[cfg(any(feature = "kms-azure", feature = "kms-gcp"))]
mod oauth;
mod token_file;

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::StatusCode;

pub(crate) use self::identity::{is_token, secret_text};
pub use self::{
    identity::{IdentityToken, NotAnIdentityToken},
    token_file::{TokenFile, firmware_says},
};
use crate::{
    clock::Clock,
    egress::{self, AddressRule, Answer, BoundedClient, Egress},
    environment::Environment,
    name::is_loopback,
};

/// Why a cloud service was of no use. Texts name what is wrong and never hold a credential or what
/// the service wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What this process was given cannot work, whatever the service says.
    #[error("{0}")]
    Configuration(String),
    /// There was no response.
    #[error("no answer from {whom}: {failure}")]
    Unanswered {
        /// The service.
        whom: String,
        /// What happened to the request.
        failure: egress::Error,
    },
    /// The service refused.
    #[error("{text}")]
    Refused {
        /// The response's status.
        status: StatusCode,
        /// The service's own word for it, checked to be one word.
        code: Option<String>,
        /// The whole sentence.
        text: String,
    },
    /// The response is not what the service documents.
    #[error("{0}")]
    Unusable(String),
}

impl Error {
    /// What cannot work as it is set up.
    pub fn configuration(text: impl Into<String>) -> Self {
        Self::Configuration(text.into())
    }

    /// What a service cannot have meant.
    pub fn unusable(text: impl Into<String>) -> Self {
        Self::Unusable(text.into())
    }

    /// Whether the service refused for want of a permission.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Refused { status, code, .. } => {
                *status == StatusCode::FORBIDDEN
                    // AWS refuses with status 400.
                    || code.as_deref().is_some_and(|code| code.starts_with("AccessDenied"))
            }
            Self::Configuration(_) | Self::Unanswered { .. } | Self::Unusable(_) => false,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Configuration(_) | Self::Unusable(_) => false,
            Self::Unanswered { failure, .. } => {
                !matches!(failure, egress::Error::Refused | egress::Error::Url)
            }
            Self::Refused { status, code, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    // AWS throttles with status 400.
                    || code.as_deref().is_some_and(|code| code.contains("Throttling"))
            }
        }
    }
}

/// Access to clouds: the way there, and what the environment says.
#[derive(Clone)]
pub struct Access {
    /// How services are reached.
    pub network: Network,
    /// Names credentials and addresses.
    pub environment: Environment,
    /// Where things are that no variable names.
    pub endpoints: Endpoints,
}

impl Access {
    /// The usual time limits: a metadata server has 2 s, a service 4 s.
    pub fn new(egress: Egress, clock: Arc<dyn Clock>, environment: Environment) -> Self {
        let network = Network {
            egress,
            clock,
            metadata_time: Duration::from_secs(2),
            service_time: Duration::from_secs(4),
        };
        Self { network, environment, endpoints: Endpoints::default() }
    }
}

/// Where metadata servers are. Only tests have others than the default.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// What the firmware says about the machine: a folder of small files.
    pub firmware: PathBuf,
    /// The root of the metadata server of AWS's machines.
    pub aws_machine: String,
    /// The root of that of AWS's containers.
    pub aws_container: String,
    /// The root of AWS's STS in place of the region's.
    pub aws_sts: Option<String>,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            firmware: "/sys/class/dmi/id".into(),
            aws_machine: "http://169.254.169.254".into(),
            aws_container: "http://169.254.170.2".into(),
            aws_sts: None,
        }
    }
}

/// How cloud services are reached.
#[derive(Clone)]
pub struct Network {
    /// The way out.
    pub egress: Egress,
    /// The time, for signatures.
    pub clock: Arc<dyn Clock>,
    /// How long a metadata server may take, which is on this machine or next to it.
    pub metadata_time: Duration,
    /// How long a service may take.
    pub service_time: Duration,
}

impl Network {
    /// A client for a metadata server.
    pub fn metadata(&self, rule: AddressRule) -> BoundedClient {
        BoundedClient::new(&self.egress, rule).within(self.metadata_time)
    }

    /// A client for an address that the environment names: over TLS or on loopback any, else a
    /// metadata server.
    fn local(&self, url: &str) -> BoundedClient {
        let uri = url.parse::<http::Uri>().ok();
        let is_metadata = uri.is_some_and(|uri| {
            uri.scheme_str() == Some("http") && !uri.host().is_some_and(is_loopback)
        });
        if is_metadata { self.metadata(AddressRule::Metadata) } else { self.service() }
    }

    /// A client for a service.
    pub fn service(&self) -> BoundedClient {
        BoundedClient::new(&self.egress, AddressRule::Any).within(self.service_time)
    }
}

/// The response of `whom`, whatever its status.
async fn send(
    whom: &str,
    client: &BoundedClient,
    request: http::Request<bytes::Bytes>,
) -> Result<Answer, Error> {
    let answer = client.send(request).await;
    answer.map_err(|failure| Error::Unanswered { whom: whom.to_owned(), failure })
}

/// A refusal by `whom`. The service's code is repeated if it is one word.
fn refusal(whom: &str, status: StatusCode, code: Option<&str>) -> Error {
    let is_word = |code: &&str| {
        (1..=64).contains(&code.len())
            && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let code = code.filter(is_word).map(str::to_owned);
    let told = code.as_deref().map(|code| format!(", {code}")).unwrap_or_default();
    Error::Refused { status, text: format!("{whom} answered {}{told}", status.as_u16()), code }
}

/// The value of a header that is a secret, so that no `Debug` shows it. `None` if it cannot be in a
/// header.
fn secret_value(secret: &secrecy::SecretString) -> Option<http::HeaderValue> {
    use secrecy::ExposeSecret;
    let mut value = http::HeaderValue::from_str(secret.expose_secret()).ok()?;
    value.set_sensitive(true);
    Some(value)
}
