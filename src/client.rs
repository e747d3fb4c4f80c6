//! Asks one server for tokens, as a workload does.
//!
//! [`Client`] speaks REST to an octo-sts server, this one or the Go service: the parameters stand
//! in the query of a POST, which both read. [`ambient`] finds out who the workload can say that it
//! is. Nothing here writes to a terminal, and no token gets into an error.

pub mod ambient;
mod error;
mod github;
mod reply;
mod target;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

pub use self::{
    error::{Class, Error},
    github::GitHubApi,
    reply::{Checked, Issued},
    target::{Target, TargetError},
};
pub use crate::cloud::{IdentityToken, NotAnIdentityToken};
use crate::{
    clock::Clock,
    config::Proxy,
    egress::{self, AddressRule, Answer, BoundedClient, Egress},
    name::{Audience, is_loopback},
};

/// Attempts after the first.
const RETRIES: usize = 2;
/// Before the second attempt; about twice that before the third.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// A longer `Retry-After` is returned, not waited for.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Why a text is not the address of a server. The text is not repeated: it may hold credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ServerError(&'static str);

/// The address of a server: `https://HOST[:PORT]`, or http on loopback. A path before `/sts/…` is
/// kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Without a slash at its end.
    root: String,
    host: String,
}

impl Server {
    /// Reads `url`; a host alone is taken as `https://HOST`.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(url: &str) -> Result<Self, ServerError> {
        const WANTED: ServerError =
            ServerError("the server is a URL such as https://octo-sts.example.com");
        let spelled = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let url = Url::parse(&spelled).map_err(|_| WANTED)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(WANTED)?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(host) => {}
            "http" => {
                return Err(ServerError(
                    "the server's URL starts with https:// (http:// is for loopback only)",
                ));
            }
            _ => return Err(WANTED),
        }
        if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(ServerError("the server's URL has no credentials, query or fragment"));
        }
        let root = url.as_str().trim_end_matches('/').to_owned();
        root.parse::<Uri>().map_err(|_| WANTED)?;
        Ok(Self { root, host: host.to_owned() })
    }

    /// The host, without port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What tokens for the server say in `aud` where nothing else is agreed: its host.
    pub fn audience(&self) -> Option<Audience> {
        self.host.parse().ok()
    }

    fn at(&self, path: &str, target: &Target) -> String {
        format!("{}{path}?{}", self.root, target.query())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.root)
    }
}

/// The way out of a command for workloads: the environment's proxy, the system's roots or those of
/// `SSL_CERT_FILE`, and the roots in `ca_files`.
///
/// # Errors
/// What is wrong with them.
pub fn way_out(proxy: &Proxy, ca_files: Vec<PathBuf>) -> Result<Egress, String> {
    Egress::new(egress::Settings {
        ca_files,
        https_proxy: proxy.https.as_ref().map(|proxy| proxy.expose_secret().to_owned()),
        no_proxy: proxy.except.clone(),
        ..egress::Settings::default()
    })
}

/// Asks one server.
#[derive(Clone)]
pub struct Client {
    server: Server,
    client: BoundedClient,
    clock: Arc<dyn Clock>,
}

impl Client {
    /// A client of `server`. Nothing is connected to yet.
    pub fn new(server: Server, egress: &Egress, clock: Arc<dyn Clock>) -> Self {
        Self { server, client: BoundedClient::new(egress, AddressRule::Any), clock }
    }

    /// The same with another limit for one request than 20 seconds.
    #[must_use]
    pub fn within(self, time: Duration) -> Self {
        Self { client: self.client.within(time), ..self }
    }

    /// The server that is asked.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Exchanges `token` for a GitHub token for `target`. After a failed connection and 502 to 504
    /// there are two more attempts, unless the server asks for a longer wait than two seconds.
    /// Nothing is repeated that may have led to a token: not an exchange of which the server says
    /// so, and not a request whose connection broke after it was sent.
    ///
    /// # Errors
    /// A refusal as the server words it, or why there is no answer.
    pub async fn exchange(&self, token: &IdentityToken, target: &Target) -> Result<Issued, Error> {
        let url = self.server.at("/sts/exchange", target);
        // By hand: what backon makes of this the compiler does not let go to another thread.
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(FIRST_BACKOFF)
            .with_max_times(RETRIES)
            .with_jitter()
            .build();
        loop {
            let error = match self.exchange_once(&url, token).await {
                Ok(issued) => return Ok(issued),
                Err(error) => error,
            };
            let ours = pauses.next().filter(|_| error.is_repeatable());
            let pause = match error.retry_after {
                Some(server) => ours.filter(|_| server <= MAX_WAIT).map(|ours| ours.max(server)),
                None => ours,
            };
            let Some(pause) = pause else { return Err(error) };
            self.clock.sleep(pause).await;
        }
    }

    async fn exchange_once(&self, url: &str, token: &IdentityToken) -> Result<Issued, Error> {
        let asked = self.clock.now();
        let answer = self.ask(url, token).await?;
        Issued::read(&answer, asked)
    }

    /// Asks whether `token` would be granted, and holds it against each condition; nothing is
    /// minted.
    ///
    /// # Errors
    /// A fault, or that the token itself is not taken. A token that is taken and would not be
    /// granted is not an error. The message says if the server does not offer checks.
    pub async fn check(&self, token: &IdentityToken, target: &Target) -> Result<Checked, Error> {
        let url = self.server.at("/sts/check", target);
        let answer = self.ask(&url, token).await.map_err(|error| match error.code {
            _ if error.reason.is_some() => error,
            5 | 12 => error.saying(12, "this server cannot check without minting"),
            _ => error,
        })?;
        Checked::read(&answer, token.secret())
    }

    /// A POST with nothing in its body; an answer of 200.
    async fn ask(&self, url: &str, token: &IdentityToken) -> Result<Answer, Error> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(header::AUTHORIZATION, bearer("Bearer", token.secret())?)
            .header(header::ACCEPT, HeaderValue::from_static("application/json"))
            .body(Bytes::new())
            .map_err(|_| Error::usage("the server's address makes no URL"))?;
        let answer = self.client.send(request).await.map_err(|failure| self.unanswered(failure))?;
        if answer.status == StatusCode::OK {
            Ok(answer)
        } else {
            Err(Error::of_answer(&answer, token.secret()))
        }
    }

    fn unanswered(&self, failure: egress::Error) -> Error {
        Error::unanswered(&format!("the server {}", self.server), failure)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Ends an installation token at GitHub, whose API's root is `api`. A token that has ended already
/// counts as ended.
///
/// # Errors
/// GitHub cannot be reached, or answers otherwise.
pub async fn revoke(api: &Uri, egress: &Egress, token: &SecretString) -> Result<(), Error> {
    GitHubApi::new(api, egress, token).revoke().await
}

/// The value of an `authorization` header, marked so that nothing on its way shows it.
fn bearer(scheme: &str, token: &SecretString) -> Result<HeaderValue, Error> {
    let value = zeroize::Zeroizing::new(format!("{scheme} {}", token.expose_secret()));
    let mut value =
        HeaderValue::from_str(&value).map_err(|_| Error::usage("the token is not plain text"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether the two are one token, without telling by the time it takes where they differ.
pub(crate) fn same(one: &SecretString, other: &SecretString) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(
        one.expose_secret().as_bytes(),
        other.expose_secret().as_bytes(),
    )
    .is_ok()
}
