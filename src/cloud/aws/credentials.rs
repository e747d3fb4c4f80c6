//! What AWS gives to a workload to sign with.

use std::{borrow::Cow, path::PathBuf};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Aws, Endpoints, Error, Network, Region, STS_VERSION, element, secret_value, send};
use crate::{
    cloud::{TokenFile, firmware_says, is_token},
    egress::{AddressRule, Answer, BoundedClient},
    environment::Environment,
};

/// An access key.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub(super) id: String,
    pub(super) secret: SecretString,
    pub(super) session: Option<SecretString>,
}

impl Credentials {
    /// The key's id, which is no secret.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Takes what was read; the texts end up in headers.
    fn new(id: &str, secret: &str, session: Option<&str>) -> Option<Self> {
        let fits = is_token(id) && is_token(secret) && session.is_none_or(is_token);
        fits.then(|| Self {
            id: id.to_owned(),
            secret: secret.into(),
            session: session.map(Into::into),
        })
    }
}

/// Where an access key comes from.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// The environment itself.
    Given(Credentials),
    /// STS, for a token in a file.
    WebIdentity { file: TokenFile, role: String, session: String },
    /// The endpoint that the container's environment names.
    Container { url: String, authorization: Authorization },
    /// The machine's metadata server.
    Machine { root: String },
}

/// What the container's endpoint wants to be shown.
#[derive(Debug, Clone)]
pub(super) enum Authorization {
    None,
    Given(SecretString),
    File(TokenFile),
}

impl Origin {
    pub(super) fn find(
        environment: &Environment,
        endpoints: &Endpoints,
        assume_machine: bool,
    ) -> Result<Option<Self>, Error> {
        let text = |name: &str| environment.text(name).map(str::trim);
        if let (Some(id), Some(secret)) = (text("AWS_ACCESS_KEY_ID"), text("AWS_SECRET_ACCESS_KEY"))
        {
            let given = Credentials::new(id, secret, text("AWS_SESSION_TOKEN"));
            let given = given.ok_or_else(|| {
                Error::configuration("AWS_ACCESS_KEY_ID and its like hold no credentials")
            })?;
            return Ok(Some(Self::Given(given)));
        }
        if let (Some(file), Some(role)) =
            (text("AWS_WEB_IDENTITY_TOKEN_FILE"), text("AWS_ROLE_ARN"))
        {
            let session = text("AWS_ROLE_SESSION_NAME").unwrap_or("octo-sts").to_owned();
            return Ok(Some(Self::WebIdentity {
                file: TokenFile::new(file.into())?,
                role: role.to_owned(),
                session,
            }));
        }
        let relative =
            text("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").filter(|path| path.starts_with('/'));
        let url = relative.map(|path| format!("{}{path}", endpoints.aws_container));
        if let Some(url) =
            url.or_else(|| text("AWS_CONTAINER_CREDENTIALS_FULL_URI").map(str::to_owned))
        {
            return Ok(Some(Self::Container {
                url,
                authorization: Authorization::find(environment)?,
            }));
        }
        let shut =
            text("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let there =
            assume_machine || firmware_says(&endpoints.firmware, "sys_vendor", "Amazon EC2");
        Ok((there && !shut).then(|| Self::Machine { root: endpoints.aws_machine.clone() }))
    }

    /// An access key, requested anew.
    pub(super) async fn credentials(
        &self,
        aws: &Aws,
        region: &Region,
        network: &Network,
    ) -> Result<Credentials, Error> {
        match self {
            Self::Given(credentials) => Ok(credentials.clone()),
            Self::WebIdentity { file, role, session } => {
                let token = file.read()?;
                let parameters = [
                    ("Action", "AssumeRoleWithWebIdentity"),
                    STS_VERSION,
                    ("RoleArn", role.as_str()),
                    ("RoleSessionName", session.as_str()),
                    ("WebIdentityToken", token.expose_secret()),
                ];
                of_xml(&aws.post_form(region, None, &parameters, network).await?)
            }
            Self::Container { url, authorization } => container(url, authorization, network).await,
            Self::Machine { root } => Machine::new(root, network).credentials().await,
        }
    }
}

impl Authorization {
    fn find(environment: &Environment) -> Result<Self, Error> {
        if let Some(file) = environment.text("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            return Ok(Self::File(TokenFile::new(PathBuf::from(file.trim()))?));
        }
        let given = environment.text("AWS_CONTAINER_AUTHORIZATION_TOKEN");
        Ok(given.map_or(Self::None, |given| Self::Given(given.trim().into())))
    }

    fn value(&self) -> Result<Option<HeaderValue>, Error> {
        let secret = match self {
            Self::None => return Ok(None),
            Self::Given(secret) => secret.clone(),
            Self::File(file) => file.read_credential()?,
        };
        let value = secret_value(&secret);
        value.map(Some).ok_or_else(|| {
            Error::configuration("AWS_CONTAINER_AUTHORIZATION_TOKEN is not plain text")
        })
    }
}

/// Calls the endpoint that the container's environment names. Without TLS it is one of AWS's own
/// addresses or loopback: the egress rule ensures that.
async fn container(
    url: &str,
    authorization: &Authorization,
    network: &Network,
) -> Result<Credentials, Error> {
    let mut request = Request::get(url)
        .body(Bytes::new())
        .map_err(|_| Error::configuration("AWS_CONTAINER_CREDENTIALS_FULL_URI is not a URL"))?;
    if let Some(value) = authorization.value()? {
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let whom = "the container's endpoint for AWS credentials";
    of_json(whom, &ok(whom, send(whom, &network.local(url), request).await?)?)
}

/// A machine's metadata server, in its second version alone: the first can be tricked into
/// answering.
pub(super) struct Machine<'a> {
    root: &'a str,
    client: BoundedClient,
}

const MACHINE: &str = "AWS's metadata server";
const SESSION_LIFE: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const SESSION: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");

impl<'a> Machine<'a> {
    pub(super) fn new(root: &'a str, network: &Network) -> Self {
        Self { root, client: network.metadata(AddressRule::Metadata) }
    }

    pub(super) async fn region(&self) -> Result<String, Error> {
        let session = self.session().await?;
        self.get("/latest/meta-data/placement/region", &session).await.map(|answer| text(&answer))
    }

    async fn credentials(&self) -> Result<Credentials, Error> {
        let session = self.session().await?;
        let path = "/latest/meta-data/iam/security-credentials/";
        let roles = text(&self.get(path, &session).await?);
        let role = roles.lines().next().unwrap_or_default().trim();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
        if role.is_empty() || !role.bytes().all(fits) {
            return Err(Error::configuration("this machine of AWS has no role"));
        }
        of_json(MACHINE, &self.get(&format!("{path}{role}"), &session).await?)
    }

    /// Opens a session, without which nothing is answered.
    async fn session(&self) -> Result<HeaderValue, Error> {
        let answer = self
            .ask(Method::PUT, "/latest/api/token", SESSION_LIFE, HeaderValue::from_static("60"))
            .await?;
        let session = answer.text().map(str::trim).filter(|text| is_token(text));
        let session = session.and_then(|text| secret_value(&text.into()));
        session.ok_or_else(|| Error::unusable(format!("the answer of {MACHINE} is not a session")))
    }

    async fn get(&self, path: &str, session: &HeaderValue) -> Result<Answer, Error> {
        self.ask(Method::GET, path, SESSION, session.clone()).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        name: HeaderName,
        value: HeaderValue,
    ) -> Result<Answer, Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.root))
            .header(name, value)
            .body(Bytes::new())
            .map_err(|_| Error::unusable(format!("the address of {MACHINE} is not a URL")))?;
        ok(MACHINE, send(MACHINE, &self.client, request).await?)
    }
}

fn text(answer: &Answer) -> String {
    answer.text().unwrap_or_default().to_owned()
}

fn ok(whom: &str, answer: Answer) -> Result<Answer, Error> {
    match answer.status {
        StatusCode::OK => Ok(answer),
        status => Err(Error::Refused {
            status,
            code: None,
            text: format!("{whom} gives nothing: it answered {}", status.as_u16()),
        }),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given<'a> {
    #[serde(borrow)]
    access_key_id: Cow<'a, str>,
    #[serde(borrow)]
    secret_access_key: Cow<'a, str>,
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
}

/// Credentials as containers and machines get them.
fn of_json(whom: &str, answer: &Answer) -> Result<Credentials, Error> {
    let given: Option<Given<'_>> = serde_json::from_slice(&answer.body).ok();
    given
        .and_then(|given| {
            Credentials::new(&given.access_key_id, &given.secret_access_key, given.token.as_deref())
        })
        .ok_or_else(|| Error::unusable(format!("the answer of {whom} holds no credentials")))
}

/// Credentials as STS gives them.
fn of_xml(answer: &Answer) -> Result<Credentials, Error> {
    let xml = answer.text().unwrap_or_default();
    let (id, secret) = (element(xml, "AccessKeyId"), element(xml, "SecretAccessKey"));
    id.zip(secret)
        .and_then(|(id, secret)| Credentials::new(id, secret, element(xml, "SessionToken")))
        .ok_or_else(|| Error::unusable("AWS's answer holds no credentials"))
}
