//! Looking at what happened: requests, tokens, quotas. Nothing here shows a token.

use serde_json::Value;

use super::{
    Call, Calls, GitHub, Permissions,
    files::CheckRun,
    state::{State, Token, TokenKey, token_key},
};
use crate::{
    clock::UnixTime,
    name::{AppId, InstallationId},
};

/// A token that was minted.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRecord {
    /// The App that requested it.
    pub app: AppId,
    /// The installation it is of.
    pub installation: InstallationId,
    /// The request's body; null if it was empty.
    pub body: Value,
    /// What it may do.
    pub permissions: Permissions,
    /// The repositories it was narrowed to, by their present names; `None` is all that the
    /// installation covers.
    pub repositories: Option<Vec<String>>,
    /// The token's SHA-256 in lowercase hexadecimal.
    pub sha256: String,
    /// When it was minted.
    pub minted_at: UnixTime,
    /// When it ends.
    pub expires_at: UnixTime,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// A check run as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckRunRecord {
    /// The App that created it.
    pub app: AppId,
    /// The commit.
    pub head_sha: String,
    /// Its name.
    pub name: String,
    /// The creator's own reference.
    pub external_id: String,
    /// `queued`, `in_progress` or `completed`.
    pub status: String,
    /// How it ended.
    pub conclusion: Option<String>,
    /// The title of its output.
    pub title: Option<String>,
    /// The summary, in Markdown.
    pub summary: Option<String>,
    /// Its annotations.
    pub annotations: Vec<Value>,
}

/// The present state of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallationState {
    /// Requests counted in the present hour.
    pub quota_used: u64,
    /// Since when it is suspended.
    pub suspended_at: Option<UnixTime>,
}

impl GitHub {
    /// The check runs of a repository, oldest first.
    pub fn check_runs(&self, owner: &str, repo: &str) -> Vec<CheckRunRecord> {
        let state = self.shared.lock();
        let id = state.repository_id(owner, repo);
        let repository = id.and_then(|id| state.repositories.get(&id));
        let runs = repository.map(|repository| repository.check_runs.clone()).unwrap_or_default();
        let record = |run: CheckRun| CheckRunRecord {
            app: AppId(run.by_app),
            head_sha: run.head_sha,
            name: run.name,
            external_id: run.external_id,
            status: run.status,
            conclusion: run.conclusion,
            title: run.title,
            summary: run.summary,
            annotations: run.annotations,
        };
        runs.into_iter().map(record).collect()
    }

    /// Number of requests by operation.
    pub fn calls(&self) -> Calls {
        self.shared.lock().record.calls.clone()
    }

    /// The last 20,000 requests.
    pub fn log(&self) -> Vec<Call> {
        self.shared.lock().record.log()
    }

    /// Method and path of each request that the emulator has no answer to. A test insists that
    /// there are none.
    pub fn unknown_requests(&self) -> Vec<String> {
        self.shared.lock().record.unknown.clone()
    }

    /// The number of all tokens ever minted.
    pub fn minted_count(&self) -> usize {
        self.shared.lock().record.minted
    }

    /// The last 50,000 tokens minted, oldest first.
    pub fn minted(&self) -> Vec<TokenRecord> {
        self.tokens_where(|_, _| true)
    }

    /// The tokens that still work.
    pub fn live_tokens(&self) -> Vec<TokenRecord> {
        self.tokens_where(|state, token| {
            !token.revoked
                && token.expires_at > state.now()
                && state.installations.contains_key(&token.installation)
        })
    }

    /// The tokens that were revoked.
    pub fn revoked_tokens(&self) -> Vec<TokenRecord> {
        self.tokens_where(|_, token| token.revoked)
    }

    fn tokens_where(&self, wanted: impl Fn(&State, &Token) -> bool) -> Vec<TokenRecord> {
        let state = self.shared.lock();
        let tokens = state.tokens_in_order().filter(|(_, token)| wanted(&state, token));
        tokens.map(|(key, token)| record(&state, key, token)).collect()
    }

    /// What is known of a token.
    pub fn token(&self, token: &str) -> Option<TokenRecord> {
        let state = self.shared.lock();
        let (key, token) = state.tokens.get_key_value(&token_key(token))?;
        Some(record(&state, key, token))
    }

    /// The present state of an installation.
    pub fn installation(&self, installation: InstallationId) -> Option<InstallationState> {
        let state = self.shared.lock();
        let found = state.installations.get(&installation.0)?;
        Some(InstallationState { quota_used: found.quota.used(), suspended_at: found.suspended_at })
    }
}

fn record(state: &State, key: &TokenKey, token: &Token) -> TokenRecord {
    let name = |id: &u64| state.repositories.get(id).map(|repository| repository.name.clone());
    TokenRecord {
        app: AppId(token.app),
        installation: InstallationId(token.installation),
        body: token.body.clone(),
        permissions: token.permissions.clone(),
        repositories: token.repositories.as_ref().map(|ids| ids.iter().filter_map(name).collect()),
        sha256: hex::encode(key),
        minted_at: token.minted_at,
        expires_at: token.expires_at,
        revoked: token.revoked,
    }
}
