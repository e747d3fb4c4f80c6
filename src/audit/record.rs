//! The audit record: what it says, and that it never says a token.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    clock::UnixTime,
    reason::{Condition, Refusal, Workload},
};

/// The maximum length of anything in a record that an unverified caller sent, in bytes.
const LONGEST: usize = 256;

/// One attempt. Written as one line of JSON with `"type":"audit"`; fields that do not apply are
/// left out.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    #[serde(rename = "type")]
    kind: &'static str,
    /// When the attempt began, RFC 3339.
    pub time: String,
    /// The request id in the reply.
    pub request_id: String,
    /// What was asked for. A check never issues a token, whatever its result.
    pub operation: Operation,
    /// `granted`, `denied`, or `abandoned` where the caller hung up.
    pub result: Outcome,
    /// The stable word of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The cause, for operators; the caller's message says less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// From start to end, in milliseconds.
    pub duration_ms: f64,
    /// `grpc` or `rest`.
    pub protocol: &'static str,
    /// The client's address, trusted proxy hops taken into account.
    pub client_address: String,
    /// As sent, cut at 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// As asked, cut at 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// As asked, cut at 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// As asked, cut at 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap: Option<String>,
    /// Whether the token's signature was verified. If not, what follows is only claimed.
    pub verified: bool,
    /// `iss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `jti`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Who it speaks for, of a Kubernetes token that was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Workload>,
    /// The policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    /// What the organization's trusted-issuer list said, where it did not simply admit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_issuers: Option<&'static str>,
    /// Each condition of the policy, as it was held against the token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ConditionRecord>,
    /// The token was exchanged before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
    /// Calls to mint that GitHub may have seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mint_calls: Option<u32>,
    /// Nothing was issued, but the outcome of a call to mint is unknown: a token may exist. One
    /// that arrives later is revoked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub may_have_minted: bool,
    /// What was minted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenRecord>,
}

/// What an attempt was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// A token.
    Exchange,
    /// Only the answer whether a token would be issued.
    Check,
}

impl Operation {
    /// As in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Check => "check",
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A token was issued, or for a check: would be.
    Granted,
    /// It was refused; see the reason.
    Denied,
    /// The caller hung up before it ended; nothing was issued, or what was has been revoked.
    Abandoned,
}

impl Outcome {
    /// As in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Which file decided, in which version.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyRef {
    /// The repository that holds it, with its owner.
    pub repository: String,
    /// Its path there.
    pub path: String,
    /// The git blob id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
    /// SHA-256 of the file's bytes, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A condition and how it came out.
#[derive(Debug, Clone, Serialize)]
pub struct ConditionRecord {
    field: String,
    satisfied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    got: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<String>,
}

/// What was minted; the token itself only as digests.
#[derive(Debug, Clone, Serialize)]
pub struct TokenRecord {
    /// By which installation.
    pub installation: u64,
    /// SHA-256 of the token, in hex.
    pub sha256: String,
    /// The same in base64, as GitHub's audit log has it (`hashed_token`).
    pub sha256_base64: String,
    /// When it ends, RFC 3339.
    pub expires_at: String,
    /// As GitHub says.
    pub permissions: BTreeMap<String, &'static str>,
    /// As GitHub says. `None` is written as `"all"`: all that the installation sees.
    #[serde(serialize_with = "names_or_all")]
    pub repositories: Option<Vec<String>>,
}

fn names_or_all<S: serde::Serializer>(
    names: &Option<Vec<String>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match names {
        Some(names) => names.serialize(serializer),
        None => serializer.serialize_str("all"),
    }
}

impl Record {
    /// The record of an attempt that has just begun; until it is closed it counts as abandoned.
    pub fn begin(
        now: UnixTime,
        operation: Operation,
        request_id: String,
        protocol: &'static str,
        client_address: String,
    ) -> Self {
        Self {
            kind: "audit",
            time: now.rfc3339_millis(),
            request_id,
            operation,
            result: Outcome::Abandoned,
            reason: None,
            cause: None,
            duration_ms: 0.0,
            protocol,
            client_address,
            user_agent: None,
            scope: None,
            identity: None,
            cap: None,
            verified: false,
            issuer: None,
            subject: None,
            jti: None,
            kubernetes: None,
            policy: None,
            trusted_issuers: None,
            conditions: Vec::new(),
            replayed: false,
            mint_calls: None,
            may_have_minted: false,
            token: None,
        }
    }

    /// Sets the outcome to a refusal.
    pub fn deny(&mut self, refusal: &Refusal) {
        self.result = Outcome::Denied;
        self.reason = Some(refusal.reason.as_str());
        self.cause = refusal.cause.as_deref().map(cut);
    }

    /// Notes the conditions.
    pub fn hold(&mut self, conditions: &[Condition]) {
        self.conditions = conditions.iter().map(ConditionRecord::from).collect();
    }

    /// Notes the calls to mint.
    pub fn minting(&mut self, calls: u32, may_have_minted: bool) {
        self.mint_calls = Some(calls).filter(|calls| *calls > 0);
        self.may_have_minted = may_have_minted && self.result != Outcome::Granted;
    }

    /// Notes how long the attempt took.
    pub fn took(&mut self, duration: Duration) {
        self.duration_ms = millis(duration);
    }

    pub(super) fn to_line(&self) -> Vec<u8> {
        line(self)
    }
}

/// One webhook delivery. Written as one line of JSON with `"type":"audit"` and
/// `"operation":"delivery"`.
#[derive(Debug, Clone, Serialize)]
pub struct DeliveryRecord {
    #[serde(rename = "type")]
    kind: &'static str,
    operation: &'static str,
    /// When it arrived, RFC 3339.
    pub time: String,
    /// What became of it.
    pub result: DeliveryOutcome,
    /// Why it was refused, or what failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The delivery's id at GitHub. A redelivery keeps it.
    pub delivery: String,
    /// The event's name.
    pub event: String,
    /// The event's action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The installation of the App that was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installation: Option<u64>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Copies of policies and lists that it removed.
    pub invalidated: usize,
    /// The check runs that were written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckRecord>,
    /// The sender's address, trusted proxy hops taken into account.
    pub client_address: String,
    /// From its arrival until its work was finished, in milliseconds.
    pub duration_ms: f64,
}

/// A check run that was written.
#[derive(Debug, Clone, Serialize)]
pub struct CheckRecord {
    /// Its id at GitHub.
    pub id: u64,
    /// The commit.
    pub commit: String,
    /// `success` or `failure`.
    pub conclusion: &'static str,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryOutcome {
    /// Its work is finished.
    Done,
    /// Its work failed; it is done again when GitHub redelivers it.
    Failed,
    /// It concerns nothing that is done here.
    Ignored,
    /// It was here before.
    Replayed,
    /// Too much work was waiting.
    Busy,
    /// It is not signed, or no event. What it says is only claimed.
    Refused,
}

impl DeliveryRecord {
    /// The record of a delivery that has just arrived, with its id and the event's name.
    pub fn begin(now: UnixTime, (delivery, event): (&str, &str), client_address: String) -> Self {
        Self {
            kind: "audit",
            operation: "delivery",
            time: now.rfc3339_millis(),
            result: DeliveryOutcome::Refused,
            cause: None,
            delivery: cut(delivery),
            event: cut(event),
            action: None,
            installation: None,
            owner: None,
            repository: None,
            invalidated: 0,
            checks: Vec::new(),
            client_address,
            duration_ms: 0.0,
        }
    }

    /// Notes how long it took.
    pub fn took(&mut self, duration: Duration) {
        self.duration_ms = millis(duration);
    }

    pub(super) fn to_line(&self) -> Vec<u8> {
        line(self)
    }
}

/// One line of JSON. Strings, numbers and string-keyed maps always serialize.
fn line(record: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl From<&Condition> for ConditionRecord {
    fn from(condition: &Condition) -> Self {
        Self {
            field: cut(&condition.field),
            satisfied: condition.satisfied,
            got: condition.got.as_deref().map(cut),
            wanted: condition.wanted.as_deref().map(cut),
        }
    }
}

/// At most 256 bytes of `text`, cut between characters.
pub fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default().to_owned()
}

/// What a caller wrote where a name belongs, cut. A token that was put there by mistake is not
/// kept.
pub fn name(text: &str) -> String {
    const GITHUB: [&str; 6] = ["ghs_", "ghp_", "gho_", "ghu_", "ghr_", "github_pat_"];
    // A JWT starts with `{"` in base64url, in which no slash can stand; a name of that kind is
    // short.
    let is_jwt = text.starts_with("eyJ") && text.len() > 100 && !text.contains('/');
    if is_jwt || GITHUB.iter().any(|prefix| text.starts_with(prefix)) {
        "[a token]".to_owned()
    } else {
        cut(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_the_place_of_a_name_is_not_kept() {
        let jwt = format!("eyJhbGciOiJFUzI1NiJ9.{}.c2ln", "A".repeat(100));
        for token in [&jwt, "ghs_0123456789abcdefghijklmnopqrstuvwxyzAB", "github_pat_0123"] {
            assert_eq!(name(token), "[a token]");
        }
        for text in
            ["octo-org/hello", "eyJay/repo.name", "eyJay", "deploy.production", "", "a/ghs_x"]
        {
            assert_eq!(name(text), text);
        }
        assert_eq!(name(&"é".repeat(200)).len(), 256);
    }
}
