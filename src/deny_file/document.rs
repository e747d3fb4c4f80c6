//! The deny file as written: every key with its place.

use serde::Deserialize;

use super::Entry;
use crate::{
    clock::UnixTime,
    name::{NameError, Owner, PolicyName, RepoName},
    pattern::Pattern,
    yaml::{At, Invalid, present},
};

/// The longest reason, in bytes.
const MAX_REASON: usize = 512;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map with `deny`")]
pub(super) struct Document {
    deny: Vec<At<Item>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map that describes what is denied")]
struct Item {
    #[serde(default, deserialize_with = "present")]
    issuer: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    subject: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    subject_pattern: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    key_id: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    owner: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    repository: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    policy: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    reason: Option<At<String>>,
    #[serde(default, deserialize_with = "present")]
    until: Option<At<String>>,
}

impl Document {
    /// The entries.
    pub(super) fn entries(self) -> Result<Vec<Entry>, Invalid> {
        self.deny.iter().map(entry).collect()
    }
}

fn entry(item: &At<Item>) -> Result<Entry, Invalid> {
    let Item { issuer, subject, subject_pattern, key_id, .. } = &item.value;
    let Item { owner, repository, policy, reason, until, .. } = &item.value;
    let named = [issuer, subject, subject_pattern, key_id, owner, repository, policy];
    if named.iter().all(|key| key.is_none()) {
        return Err(item.refuse(
            "expected at least one of `issuer`, `subject`, `subject_pattern`, `key_id`, `owner`, `repository` and `policy`",
        ));
    }
    if let (Some(_), Some(pattern)) = (subject, subject_pattern) {
        return Err(pattern.refuse("expected `subject` or `subject_pattern`, not both"));
    }
    let Some(reason) = reason else { return Err(item.refuse("expected `reason`")) };
    if reason.value.trim().is_empty() || reason.value.len() > MAX_REASON {
        return Err(reason.refuse(format!("expected a reason of 1 to {MAX_REASON} bytes")));
    }
    Ok(Entry {
        line: item.mark.line,
        issuer: parse(issuer, str::parse)?,
        subject: parse(subject, str::parse)?,
        subject_pattern: subject_pattern.as_ref().map(pattern).transpose()?,
        key_id: key_id.as_ref().map(key).transpose()?,
        owner: parse(owner, str::parse)?,
        repository: parse(repository, repository_name)?,
        policy: parse(policy, policy_place)?,
        reason: reason.value.clone(),
        until: until.as_ref().map(end).transpose()?,
    })
}

fn parse<T>(
    text: &Option<At<String>>,
    read: impl Fn(&str) -> Result<T, NameError>,
) -> Result<Option<T>, Invalid> {
    let Some(text) = text else { return Ok(None) };
    read(&text.value).map(Some).map_err(|error| text.refuse(error.to_string()))
}

fn repository_name(text: &str) -> Result<(Owner, RepoName), NameError> {
    let (owner, repo) = text.split_once('/').unwrap_or((text, ""));
    Ok((owner.parse()?, repo.parse()?))
}

/// `OWNER/REPO/NAME`; the name may have slashes of its own.
fn policy_place(text: &str) -> Result<(Owner, RepoName, PolicyName), NameError> {
    let (owner, rest) = text.split_once('/').unwrap_or((text, ""));
    let (repo, name) = rest.split_once('/').unwrap_or((rest, ""));
    Ok((owner.parse()?, repo.parse()?, name.parse()?))
}

fn pattern(text: &At<String>) -> Result<Pattern, Invalid> {
    Pattern::compile(&text.value).map_err(|error| text.refuse(error.to_string()))
}

fn key(text: &At<String>) -> Result<String, Invalid> {
    if text.value.is_empty() {
        return Err(text.refuse("expected the id of a key (`kid`)"));
    }
    Ok(text.value.clone())
}

fn end(text: &At<String>) -> Result<UnixTime, Invalid> {
    UnixTime::parse_rfc3339(&text.value)
        .ok_or_else(|| text.refuse("expected a time such as \"2026-12-01T00:00:00Z\", in quotes"))
}
