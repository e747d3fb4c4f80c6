//! GitHub, called with a token that was issued: what a workload does with it.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use secrecy::SecretString;
use serde_json::Value;

use super::{Error, bearer};
use crate::egress::{AddressRule, Answer, BoundedClient, Egress};

/// GitHub's API by one installation token.
pub struct GitHubApi<'a> {
    root: String,
    client: BoundedClient,
    token: &'a SecretString,
}

impl<'a> GitHubApi<'a> {
    /// The API at `root`. Nothing is connected to yet.
    pub fn new(root: &Uri, egress: &Egress, token: &'a SecretString) -> Self {
        let root = root.to_string().trim_end_matches('/').to_owned();
        Self { root, client: BoundedClient::new(egress, AddressRule::Any), token }
    }

    /// Calls `path`, which begins with `/`, with `body` as JSON.
    ///
    /// # Errors
    /// GitHub cannot be reached, or does not answer with a success.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let what = format!("{method} {path}");
        let answer = self.send(method, path, body).await?;
        if !answer.status.is_success() {
            return Err(refused(answer.status, &what));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|_| Error::internal(format!("GitHub's answer to {what} is not JSON")))
    }

    /// Ends the token. One that has ended already counts as ended.
    ///
    /// # Errors
    /// GitHub cannot be reached, or answers otherwise.
    pub async fn revoke(&self) -> Result<(), Error> {
        let answer = self.send(Method::DELETE, "/installation/token", None).await?;
        match answer.status {
            StatusCode::NO_CONTENT | StatusCode::UNAUTHORIZED => Ok(()),
            status => Err(Error::of_status(status, format!("GitHub answered {}", status.as_u16()))),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.root))
            .header(header::AUTHORIZATION, bearer("Bearer", self.token)?)
            .header(header::ACCEPT, HeaderValue::from_static("application/vnd.github+json"))
            .header("x-github-api-version", HeaderValue::from_static("2022-11-28"))
            .body(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default())
            .map_err(|_| Error::usage("the address of GitHub's API makes no URL"))?;
        self.client.send(request).await.map_err(|failure| Error::unanswered("GitHub", failure))
    }
}

fn refused(status: StatusCode, what: &str) -> Error {
    Error::of_status(status, format!("GitHub answered {} to {what}", status.as_u16()))
}
