//! What a verified token says, and the last checks that make it one: its claims and its times.
//!
//! The times are ours, not the JWT library's: it leaves `nbf` and `iat` alone, takes claims of the
//! wrong type for absent ones, and reads a clock that cannot be set.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};

use super::{
    error::Error,
    json::{self, NotAnObject},
    keys::Signed,
    rules::{Life, Replay, Rules},
};
use crate::{
    clock::UnixTime,
    name::{Audience, Issuer, NameError, Subject},
    reason::Workload,
};

/// How long after `exp` a token is still taken.
pub const EXPIRY_LEEWAY: Duration = Duration::from_secs(30);

/// No name of Kubernetes is longer (a DNS subdomain, RFC 1123).
const LONGEST_NAME: usize = 253;

/// The end of the year 9999. A token that says it lives longer says nothing about its life.
const LAST_SECOND: i64 = 253_402_300_799;

/// How the token's issuer came to be verified against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuerKind {
    /// GitHub Actions of the configured GitHub.
    Actions,
    /// One of the other built-in issuers.
    BuiltIn,
    /// Named by the operator.
    Configured,
    /// Admitted by the gate.
    Admitted,
}

impl IssuerKind {
    /// Whether the issuer is one of the six built-in ones.
    pub fn is_built_in(self) -> bool {
        matches!(self, Self::Actions | Self::BuiltIn)
    }
}

/// What is known of the issuer whose key signed a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenOrigin {
    pub(super) kind: IssuerKind,
    /// Whether every subject of the issuer is the operator's own.
    pub(super) is_single_tenant: bool,
}

/// Requirements for a token's claims.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demands<'a> {
    pub(super) now: UnixTime,
    /// How far `nbf` and `iat` may lie ahead.
    pub(super) leeway: Duration,
    /// The operator's, for the token's issuer.
    pub(super) rules: &'a Rules,
}

/// A token whose signature, times and form were checked. Only this file makes one.
#[derive(Debug, Clone)]
pub struct VerifiedToken {
    issuer: Issuer,
    key_id: Option<Arc<str>>,
    origin: TokenOrigin,
    subject: Subject,
    audiences: Vec<Audience>,
    claims: Map<String, Value>,
    expires_at: UnixTime,
    replay: Option<Replay>,
}

impl VerifiedToken {
    /// Reads and checks the claims of a token whose signature was verified.
    pub(super) fn read(
        signed: &Signed,
        origin: TokenOrigin,
        demands: Demands<'_>,
    ) -> Result<Self, Error> {
        let token = signed.token();
        let claims = json::object(token.payload()).map_err(|error| match error {
            NotAnObject::Malformed => {
                Error::Claims("they are not a JSON object, or are nested too deeply".into())
            }
            NotAnObject::Duplicate => Error::Claims("a claim occurs twice".into()),
        })?;
        if claims.get("iss").and_then(Value::as_str) != Some(token.issuer().as_str()) {
            return Err(Error::Claims("`iss` changed after the token was read".into()));
        }
        let life = check_times(&claims, demands)?;
        let subject = match claims.get("sub") {
            Some(Value::String(subject)) => subject.parse().map_err(|error: NameError| {
                Error::Claims(format!("`sub` is not accepted: {error}").into())
            })?,
            Some(_) => return Err(Error::Claims("`sub` is not a readable string".into())),
            None => return Err(Error::Claims("`sub` is missing".into())),
        };
        let audiences = read_audiences(claims.get("aud"))?;
        demands.rules.check(token.algorithm(), &claims, life).map_err(Error::Unfit)?;
        Ok(Self {
            issuer: token.issuer().clone(),
            key_id: signed.key_id().cloned(),
            origin,
            subject,
            audiences,
            claims,
            expires_at: life.expires_at,
            replay: demands.rules.replay,
        })
    }

    /// `iss`
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The id of the key that signed, if its issuer gives it one.
    pub fn key_id(&self) -> Option<&Arc<str>> {
        self.key_id.as_ref()
    }

    /// How the issuer came to be trusted to sign.
    pub fn issuer_kind(&self) -> IssuerKind {
        self.origin.kind
    }

    /// Whether every subject of the issuer is the operator's own.
    pub fn is_single_tenant(&self) -> bool {
        self.origin.is_single_tenant
    }

    /// `sub`
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The well-formed ones of `aud`; none, where the token has none.
    pub fn audiences(&self) -> &[Audience] {
        &self.audiences
    }

    /// All claims, no two of one name at any depth.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// `exp`
    pub fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// What the operator says of a second use of this issuer's tokens.
    pub fn replay(&self) -> Option<Replay> {
        self.replay
    }

    /// `jti`, if it is a string.
    pub fn id(&self) -> Option<&str> {
        self.claims.get("jti").and_then(Value::as_str)
    }

    /// Who it speaks for by its `kubernetes.io`, if it is of a cluster; each name cut at 253 bytes,
    /// which no name of Kubernetes is longer than.
    pub fn workload(&self) -> Option<Workload> {
        let cut = |text: &str| {
            text.get(..text.floor_char_boundary(LONGEST_NAME)).unwrap_or_default().to_owned()
        };
        let cluster = self.claims.get("kubernetes.io")?;
        let name_of = |kind: &str| cluster.get(kind)?.get("name")?.as_str().map(cut);
        Some(Workload {
            namespace: cluster.get("namespace")?.as_str().map(cut)?,
            service_account: name_of("serviceaccount"),
            pod: name_of("pod"),
            node: name_of("node"),
        })
    }

    /// A token as if it had been verified, for unit tests of what comes after.
    #[cfg(test)]
    pub(crate) fn for_test(kind: IssuerKind, claims: Value) -> Self {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        let text =
            |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let audiences = match claims.get("aud") {
            Some(Value::String(one)) => one.parse().into_iter().collect(),
            Some(Value::Array(many)) => {
                many.iter().filter_map(|a| a.as_str()?.parse().ok()).collect()
            }
            _ => Vec::new(),
        };
        Self {
            issuer: text("iss").parse().unwrap(),
            origin: TokenOrigin { kind, is_single_tenant: false },
            subject: text("sub").parse().unwrap(),
            key_id: None,
            audiences,
            expires_at: UnixTime::from_secs(
                claims.get("exp").and_then(Value::as_i64).unwrap_or(i64::MAX / 2_000_000),
            ),
            claims,
            replay: None,
        }
    }
}

/// RFC 7519 sections 4.1.4 to 4.1.6: `exp` must be there; `nbf` and `iat` must be right if they
/// are.
fn check_times(claims: &Map<String, Value>, demands: Demands<'_>) -> Result<Life, Error> {
    let Demands { now, leeway, .. } = demands;
    let expires_at = moment(claims, "exp")?.ok_or(Error::Claims("`exp` is missing".into()))?;
    if expires_at > UnixTime::from_secs(LAST_SECOND) {
        return Err(Error::Claims(
            "`exp` is later than the year 9999, expected seconds since 1970".into(),
        ));
    }
    if now >= expires_at.plus(EXPIRY_LEEWAY) {
        return Err(Error::Expired);
    }
    let begun = |name| match moment(claims, name)? {
        Some(begin) if begin > now.plus(leeway) => Err(Error::NotYetValid { claim: name, leeway }),
        begin => Ok(begin),
    };
    begun("nbf")?;
    Ok(Life { now, issued_at: begun("iat")?, expires_at })
}

/// A NumericDate (RFC 7519 section 2), in whole seconds.
fn moment(claims: &Map<String, Value>, name: &str) -> Result<Option<UnixTime>, Error> {
    let seconds = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number
            .as_i64()
            // A fraction is cut off; what no i64 holds becomes the first or the last moment there
            // is.
            .or_else(|| number.as_f64().map(|float| float.floor() as i64)),
        Some(_) => None,
    };
    let is_string = claims.get(name).is_some_and(Value::is_string);
    let found = if is_string { "a string" } else { "not a number" };
    let refuse = || {
        Error::Claims(
            format!("`{name}` is {found}, expected a number of seconds since 1970").into(),
        )
    };
    seconds.map(|seconds| Some(UnixTime::from_secs(seconds))).ok_or_else(refuse)
}

/// One audience or several. An odd one among them matches nothing and harms no other.
fn read_audiences(audience: Option<&Value>) -> Result<Vec<Audience>, Error> {
    let well_formed = |audience: &Value| audience.as_str()?.parse().ok();
    match audience {
        None => Ok(Vec::new()),
        Some(one @ Value::String(_)) => Ok(well_formed(one).into_iter().collect()),
        Some(Value::Array(several)) => Ok(several.iter().filter_map(well_formed).collect()),
        Some(_) => Err(Error::Claims("`aud` is neither a string nor an array".into())),
    }
}
