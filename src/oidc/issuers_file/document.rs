//! The issuers file as written: every key with its place.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Rules;
use crate::{
    clock::parse_duration,
    oidc::{
        Replay,
        algorithm::{self, Algorithm},
    },
    yaml::{At, Invalid, Mark, present},
};

/// Claims that one entry may require.
const MAX_CLAIMS: usize = 64;

/// The longest span that a rule may allow.
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map with `issuers`")]
pub(super) struct Document {
    #[serde(default, deserialize_with = "present")]
    pub(super) issuers: Option<At<Vec<At<Item>>>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) only_listed: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map that describes an issuer")]
pub(super) struct Item {
    #[serde(default, deserialize_with = "present")]
    pub(super) issuer: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) issuer_pattern: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) in_cluster: Option<At<bool>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) jwks_uri: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) jwks_file: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) jwks: Option<At<Value>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) ca_file: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) bearer_token_file: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) private_network: Option<At<bool>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) proxy: Option<At<bool>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) single_tenant: Option<At<bool>>,
    #[serde(default, deserialize_with = "present")]
    algorithms: Option<At<Vec<At<String>>>>,
    #[serde(default, deserialize_with = "present")]
    max_lifetime: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    max_age: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    require_jti: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    require_claims: Option<At<Vec<At<String>>>>,
    #[serde(default, deserialize_with = "present")]
    replay: Option<At<String>>,
}

impl Item {
    /// Requirements for tokens.
    pub(super) fn rules(&self) -> Result<Rules, Invalid> {
        Ok(Rules {
            algorithms: self.algorithms.as_ref().map(algorithms).transpose()?,
            max_lifetime: self.max_lifetime.as_ref().map(span).transpose()?,
            max_age: self.max_age.as_ref().map(span).transpose()?,
            require_jti: self.require_jti.unwrap_or(false),
            require_claims: self
                .require_claims
                .as_ref()
                .map(claims)
                .transpose()?
                .unwrap_or_default(),
            replay: self.replay.as_ref().map(replay).transpose()?,
        })
    }

    /// Refuses whatever says where keys are or how they are reached.
    pub(super) fn refuse_means(&self, rule: &'static str) -> Result<(), Invalid> {
        let keys = [mark(&self.jwks_uri), mark(&self.jwks_file), mark(&self.jwks)];
        refuse_any(&keys, rule).and_then(|()| self.refuse_reach(rule))
    }

    /// Refuses whatever says how keys are reached.
    pub(super) fn refuse_reach(&self, rule: &'static str) -> Result<(), Invalid> {
        let reach = [
            mark(&self.ca_file),
            mark(&self.bearer_token_file),
            mark(&self.private_network),
            mark(&self.proxy),
        ];
        refuse_any(&reach, rule)
    }
}

fn replay(word: &At<String>) -> Result<Replay, Invalid> {
    let known = Replay::NAMES.iter().find(|(name, _)| *name == word.value);
    known
        .map(|(_, replay)| *replay)
        .ok_or_else(|| word.refuse("expected \"off\" (in quotes), warn or enforce"))
}

fn mark<T>(key: &Option<At<T>>) -> Option<Mark> {
    key.as_ref().map(|key| key.mark)
}

fn refuse_any(keys: &[Option<Mark>], rule: &'static str) -> Result<(), Invalid> {
    match keys.iter().flatten().next() {
        Some(mark) => Err(Invalid::at(*mark, rule)),
        None => Ok(()),
    }
}

fn algorithms(list: &At<Vec<At<String>>>) -> Result<Vec<Algorithm>, Invalid> {
    if list.value.is_empty() {
        return Err(list.refuse("at least one algorithm is expected here"));
    }
    let one = |name: &At<String>| {
        Algorithm::from_name(&name.value)
            .ok_or_else(|| name.refuse(format!("expected {}", algorithm::EXPECTED)))
    };
    list.value.iter().map(one).collect()
}

fn claims(list: &At<Vec<At<String>>>) -> Result<Vec<String>, Invalid> {
    if list.value.is_empty() || list.value.len() > MAX_CLAIMS {
        return Err(list.refuse("1 to 64 names of claims are expected here"));
    }
    match list.value.iter().find(|name| name.value.is_empty()) {
        Some(empty) => Err(empty.refuse("the name of a claim is expected here")),
        None => Ok(list.value.iter().map(|name| name.value.clone()).collect()),
    }
}

fn span(text: &At<String>) -> Result<Duration, Invalid> {
    let span =
        parse_duration(&text.value).filter(|span| (Duration::from_secs(1)..=YEAR).contains(span));
    span.ok_or_else(|| {
        text.refuse("a duration such as 90s or 1h30m is expected here, of at most a year")
    })
}
