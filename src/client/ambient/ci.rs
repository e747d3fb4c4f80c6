//! CI systems: the identity of the job.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use url::Url;

use super::{Error, IdentityToken, NoIdentity, Way};
use crate::{client::bearer, egress::MAX_RESPONSE_BYTES, environment::Environment};

/// What a job of GitLab needs.
pub(super) const GITLAB_HINT: &str = "this job of GitLab has no ID token. Declare it in the job: \
    `id_tokens: {STS_ID_TOKEN: {aud: HOST_OF_THE_SERVER}}`";

/// The endpoint that GitHub Actions gives to a job with `id-token: write`.
#[derive(Debug, Clone)]
pub(super) struct Actions {
    url: SecretString,
    token: SecretString,
}

impl Actions {
    pub(super) fn find(environment: &Environment) -> Result<Option<Self>, NoIdentity> {
        let url = environment.text("ACTIONS_ID_TOKEN_REQUEST_URL");
        let token = environment.text("ACTIONS_ID_TOKEN_REQUEST_TOKEN");
        match (url, token) {
            (Some(url), Some(token)) => {
                Ok(Some(Self { url: url.trim().into(), token: token.trim().into() }))
            }
            _ if environment.text("GITHUB_ACTIONS").is_some() => Err(NoIdentity::new(
                "this job of GitHub Actions may not ask for an ID token. Give it `permissions: {id-token: write}`; \
                 the permissions that are not named are then none, so name `contents: read` too where it is needed",
            )),
            _ => Ok(None),
        }
    }

    /// The token by which the job asks: another one in every job.
    pub(super) fn request_token(&self) -> &SecretString {
        &self.token
    }

    pub(super) async fn token(
        &self,
        audience: &str,
        way: &Way<'_>,
    ) -> Result<IdentityToken, Error> {
        let mut url = Url::parse(self.url.expose_secret())
            .map_err(|_| Error::usage("ACTIONS_ID_TOKEN_REQUEST_URL is not a URL"))?;
        url.query_pairs_mut().append_pair("audience", audience);
        let request = Request::get(url.as_str())
            .header(header::AUTHORIZATION, bearer("Bearer", &self.token)?)
            .header(header::ACCEPT, HeaderValue::from_static("application/json; api-version=2.0"));
        ask("GitHub Actions", way, request.body(Bytes::new()), "value").await
    }
}

/// The API of Buildkite's agents, as the agent that runs the job reaches it.
#[derive(Debug, Clone)]
pub(super) struct Buildkite {
    url: String,
    token: SecretString,
}

impl Buildkite {
    pub(super) fn find(environment: &Environment) -> Result<Option<Self>, NoIdentity> {
        if environment.text("BUILDKITE").is_none() {
            return Ok(None);
        }
        let missing = |name: &str| {
            NoIdentity(format!(
                "this job of Buildkite has no {name}, which is needed to request a token"
            ))
        };
        let needed =
            |name: &str| environment.text(name).map(str::trim).ok_or_else(|| missing(name));
        let (job, token) = (needed("BUILDKITE_JOB_ID")?, needed("BUILDKITE_AGENT_ACCESS_TOKEN")?);
        if !job.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(NoIdentity::new("BUILDKITE_JOB_ID is not a job id"));
        }
        let endpoint = environment
            .text("BUILDKITE_AGENT_ENDPOINT")
            .unwrap_or("https://agent.buildkite.com/v3")
            .trim();
        let url = format!("{}/jobs/{job}/oidc/tokens", endpoint.trim_end_matches('/'));
        Ok(Some(Self { url, token: token.into() }))
    }

    /// Where the job asks: it names the job.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) async fn token(
        &self,
        audience: &str,
        way: &Way<'_>,
    ) -> Result<IdentityToken, Error> {
        let request = Request::post(&self.url)
            .header(header::AUTHORIZATION, bearer("Token", &self.token)?)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Bytes::from(json!({ "audience": audience }).to_string()));
        ask("Buildkite", way, request, "token").await
    }
}

/// Sends a request to a CI system; the token is a member of the JSON that comes back.
async fn ask(
    whom: &str,
    way: &Way<'_>,
    request: Result<Request<Bytes>, http::Error>,
    member: &str,
) -> Result<IdentityToken, Error> {
    let request = request.map_err(|_| {
        Error::usage(format!("the address of {whom} in the environment is not a URL"))
    })?;
    let answer = way.far().send(request).await;
    let answer = answer.map_err(|failure| Error::unanswered(whom, failure))?;
    if !answer.status.is_success() {
        let message = format!("{whom} gives no ID token: it answered {}", answer.status.as_u16());
        return Err(Error::of_status(answer.status, message));
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let token = body.get(member).and_then(Value::as_str);
    let token =
        token.ok_or_else(|| Error::internal(format!("the answer of {whom} holds no ID token")))?;
    IdentityToken::parse(token)
        .map_err(|error| Error::internal(format!("{whom} answered with {error}")))
}

/// CircleCI gives each job a token for the organization, and a program that requests others.
#[derive(Debug, Clone)]
pub(super) struct Circleci {
    token: Option<IdentityToken>,
    program: PathBuf,
}

impl Circleci {
    pub(super) fn find(
        environment: &Environment,
        program: &Path,
    ) -> Result<Option<Self>, NoIdentity> {
        if environment.text("CIRCLECI").is_none() {
            return Ok(None);
        }
        let given = ["CIRCLE_OIDC_TOKEN_V2", "CIRCLE_OIDC_TOKEN"]
            .iter()
            .find_map(|name| environment.text(name));
        // What is not a token is not used; the program gives out others.
        Ok(Some(Self {
            token: given.and_then(|text| IdentityToken::parse(text).ok()),
            program: program.to_owned(),
        }))
    }

    /// The job's own token.
    pub(super) fn job_token(&self) -> Option<&SecretString> {
        self.token.as_ref().map(IdentityToken::secret)
    }

    pub(super) async fn token(
        &self,
        audience: &str,
        way: &Way<'_>,
    ) -> Result<IdentityToken, Error> {
        if let Some(token) =
            self.token.as_ref().filter(|token| is_for(token.expose_secret(), audience))
        {
            return Ok(token.clone());
        }
        let asked = tokio::time::timeout(way.far, self.ask(audience)).await;
        asked.unwrap_or_else(|_| {
            Err(Error::unavailable("circleci gives no ID token: it does not end"))
        })
    }

    /// `circleci run oidc get`, as it is on every machine of CircleCI's.
    async fn ask(&self, audience: &str) -> Result<IdentityToken, Error> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(["run", "oidc", "get", "--claims"])
            .arg(json!({ "aud": audience }).to_string());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut running = command.spawn().map_err(|error| {
            Error::usage(format!(
                "circleci gives no ID token: the program cannot be run ({}). The job's own token, \
                 CIRCLE_OIDC_TOKEN_V2, has the organization's id as its audience: to use it, name that by --audience",
                error.kind()
            ))
        })?;
        let mut output = Vec::new();
        if let Some(out) = running.stdout.take() {
            out.take(MAX_RESPONSE_BYTES as u64).read_to_end(&mut output).await.ok();
        }
        let ended = running
            .wait()
            .await
            .map_err(|error| Error::internal(format!("circleci: {}", error.kind())))?;
        let output = zeroize::Zeroizing::new(output);
        if !ended.success() {
            return Err(Error::unavailable(
                "circleci gives no ID token: `circleci run oidc get` failed",
            ));
        }
        let text = std::str::from_utf8(&output).unwrap_or_default();
        IdentityToken::parse(text)
            .map_err(|error| Error::unavailable(format!("`circleci run oidc get` printed {error}")))
    }
}

/// Whether a token says that it is for `audience`. It is ours: nothing is verified.
fn is_for(token: &str, audience: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audiences {
        One(String),
        Many(Vec<String>),
    }
    #[derive(Deserialize)]
    struct Claims {
        aud: Audiences,
    }
    let claims = token.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims = claims.and_then(|claims| serde_json::from_slice::<Claims>(&claims).ok());
    claims.is_some_and(|claims| match claims.aud {
        Audiences::One(one) => one == audience,
        Audiences::Many(many) => many.iter().any(|one| one == audience),
    })
}
