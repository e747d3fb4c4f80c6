//! `dev.octo-sts.exchange`: one attempt to exchange a token.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Event;

/// What an attempt was, in the members of the Go service and one more, `request_id`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ExchangeEvent {
    /// Who it was, once verified.
    pub actor: Actor,
    /// The policy as its file says it, once it was read.
    pub trust_policy: Option<Map<String, Value>>,
    /// The installation that minted; 0 if none did.
    pub installation_id: u64,
    /// As requested.
    pub scope: String,
    /// As requested.
    pub identity: String,
    /// As sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// SHA-256 of the token in hex; empty if there is none.
    pub token_sha256: String,
    /// The refusal, as Go's gRPC library writes a status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// RFC 3339.
    pub time: String,
    /// What the organization's list says, if the issuer is not on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_allowlist: Option<Allowlist>,
    /// The request id of reply and audit record.
    pub request_id: String,
}

/// Who asked.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Actor {
    /// `iss`, empty until it is verified.
    pub iss: String,
    /// `sub`, empty until it is verified.
    pub sub: String,
    /// The claims that the policy looks at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
}

/// A claim that a policy looks at.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    /// As in the policy.
    pub name: String,
    /// As text.
    pub value: String,
}

/// What the list says of an issuer that is not on it.
#[derive(Debug, Clone, Serialize)]
pub struct Allowlist {
    /// `enforce` or `audit`.
    pub mode: &'static str,
    /// Whether the exchange could go on.
    pub allowed: bool,
    /// The issuer.
    pub iss: String,
}

impl ExchangeEvent {
    /// Notes that the issuer is not on the organization's list, which is enforced or only recorded.
    pub fn not_listed(&mut self, enforced: bool) {
        self.issuer_allowlist = Some(Allowlist {
            mode: if enforced { "enforce" } else { "audit" },
            allowed: !enforced,
            iss: self.actor.iss.clone(),
        });
    }

    /// Notes a claim that the policy looks at.
    pub fn claim(&mut self, name: &str, value: &str) {
        self.actor.claims.push(Claim { name: name.to_owned(), value: value.to_owned() });
    }

    /// The event, from the server at `source`.
    pub fn into_event(self, source: &str) -> Event {
        Event {
            kind: "dev.octo-sts.exchange",
            source: source.to_owned(),
            subject: format!("{}/{}", self.scope, self.identity),
            extensions: Vec::new(),
            data: serde_json::to_string(&self).unwrap_or_default(),
        }
    }
}
