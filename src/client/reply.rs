//! What a server answers when it does not refuse.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

use super::error::{Error, WireCondition, plain};
use crate::{clock::UnixTime, cloud::is_token, egress::Answer, reason::Condition};

/// How long a token lives that comes without its end: GitHub's hour, less a margin.
const LIFE: Duration = Duration::from_secs(55 * 60);
/// Maximum number of conditions, permissions and repositories of a check that are read.
const MAX_ENTRIES: usize = 1024;

/// A token for GitHub.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The token: visible ASCII.
    pub token: SecretString,
    /// When it ends; where the server did not say, an hour less five minutes from when it was
    /// asked for.
    pub expires_at: UnixTime,
}

#[derive(Deserialize)]
struct Token<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    expiry: Option<String>,
}

impl Issued {
    /// `asked` is when the server was asked.
    pub(super) fn read(answer: &Answer, asked: UnixTime) -> Result<Self, Error> {
        let broken = || Error::internal("the server's answer holds no token");
        let reply: Token<'_> = serde_json::from_slice(&answer.body).map_err(|_| broken())?;
        if !is_token(&reply.token) {
            return Err(broken());
        }
        let expires_at = match reply.expiry.as_deref().filter(|expiry| !expiry.is_empty()) {
            Some(expiry) => UnixTime::parse_rfc3339(expiry).ok_or_else(|| {
                Error::internal("the server's answer has an expiry that is not a time")
            })?,
            None => asked.plus(LIFE),
        };
        Ok(Self { token: SecretString::from(&*reply.token), expires_at })
    }
}

/// What would become of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Whether a token would be granted.
    pub granted: bool,
    /// Why not: the stable word of the contract.
    pub reason: Option<String>,
    /// The same in words.
    pub message: String,
    /// Each condition of the policy, held against the token.
    pub conditions: Vec<Condition>,
    /// What the token could do, by permission.
    pub permissions: BTreeMap<String, String>,
    /// For which repositories; empty is for all of the installation.
    pub repositories: Vec<String>,
    /// By which the server's operator finds the request.
    pub request_id: Option<String>,
}

#[derive(Deserialize)]
struct Check {
    granted: bool,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    conditions: Vec<WireCondition>,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    #[serde(default)]
    repositories: Vec<String>,
}

impl Checked {
    pub(super) fn read(answer: &Answer, token: &SecretString) -> Result<Self, Error> {
        let check: Check = serde_json::from_slice(&answer.body)
            .map_err(|_| Error::internal("the server's answer is not that of a check"))?;
        let shown = |text: String| plain(&text, token);
        let permissions = check.permissions.into_iter().take(MAX_ENTRIES);
        Ok(Self {
            granted: check.granted,
            reason: Some(check.reason).filter(|reason| !reason.is_empty()).map(shown),
            message: shown(check.message),
            conditions: check
                .conditions
                .into_iter()
                .take(MAX_ENTRIES)
                .map(|c| c.plain(token))
                .collect(),
            permissions: permissions.map(|(name, level)| (shown(name), shown(level))).collect(),
            repositories: check.repositories.into_iter().take(MAX_ENTRIES).map(shown).collect(),
            request_id: answer
                .headers
                .get("x-request-id")
                .and_then(|id| id.to_str().ok())
                .map(|id| plain(id, token)),
        })
    }
}
