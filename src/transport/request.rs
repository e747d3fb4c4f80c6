//! The request of either wire, parsed into what the core takes.
//!
//! Everything here is a pure function of the request. A fault does not end the reading: what was
//! asked for stands in the audit record, and a fault of the credential is told before one of the
//! request, whichever was met first.

use std::collections::HashSet;

use crate::{
    exchange::{Attempt, Caller, ParsedRequest},
    name::{PolicyName, RepoName, Scope},
    oidc::Unverified,
    policy::Narrowing,
    proto::{octosts::v1::CheckRequest, oidc::ExchangeRequest},
    reason::{Reason, Refusal},
    transport::reply,
};

/// A field of the request message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field {
    /// Ignored.
    Aud,
    /// Singular, deprecated in favour of `scopes`.
    Scope,
    /// Singular.
    Identity,
    /// Repeated.
    Cap,
    /// Singular, ignored.
    IdentityProvider,
    /// Repeated.
    Scopes,
}

impl Field {
    /// The field of that name, in snake_case or camelCase.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "aud" => Some(Self::Aud),
            "scope" => Some(Self::Scope),
            "identity" => Some(Self::Identity),
            "cap" => Some(Self::Cap),
            "identity_provider" | "identityProvider" => Some(Self::IdentityProvider),
            "scopes" => Some(Self::Scopes),
            _ => None,
        }
    }

    /// Whether the field is a list.
    pub(super) fn is_repeated(self) -> bool {
        match self {
            Self::Aud | Self::Cap | Self::Scopes => true,
            Self::Scope | Self::Identity | Self::IdentityProvider => false,
        }
    }
}

/// The fields as given, and the first fault in how they were given.
#[derive(Debug, Default)]
pub(super) struct Fields {
    scope: Option<String>,
    identity: Option<String>,
    identity_provider: Option<String>,
    scopes: Vec<String>,
    cap: Vec<String>,
    fault: Option<Refusal>,
}

impl Fields {
    /// Takes one value. An empty one counts as absent; a singular field given twice is a fault.
    pub(super) fn put(&mut self, field: Field, value: String) {
        if value.is_empty() {
            return;
        }
        let singular = match field {
            Field::Aud => return,
            Field::Cap => return self.cap.push(value),
            Field::Scopes => return self.scopes.push(value),
            Field::Scope => &mut self.scope,
            Field::Identity => &mut self.identity,
            Field::IdentityProvider => &mut self.identity_provider,
        };
        if singular.replace(value).is_some() {
            self.fault("scope, identity and identity_provider can be given once");
        }
    }

    /// Takes note that the request is malformed; the first note is the one in the reply.
    pub(super) fn fault(&mut self, message: &'static str) {
        self.fault.get_or_insert_with(|| Refusal::new(Reason::RequestInvalid, message));
    }

    /// Every scope given, the deprecated field first.
    fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.iter().chain(&self.scopes).map(String::as_str)
    }

    /// What the request is for.
    ///
    /// # Errors
    /// `REQUEST_INVALID`, `SCOPE_INVALID`, `SCOPES_CONFLICT` or `IDENTITY_INVALID`.
    pub(super) fn parse(&self) -> Result<Asked, Refusal> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let (scope, repositories) = self.scope()?;
        let identity = self
            .identity
            .as_deref()
            .ok_or_else(|| Refusal::new(Reason::IdentityInvalid, "identity must be provided"))?
            .parse()
            .map_err(|error| {
                Refusal::new(Reason::IdentityInvalid, format!("identity is invalid: {error}"))
            })?;
        // Names of another product's capabilities have no colon; they ask for nothing here.
        let permissions = self.cap.iter().map(String::as_str).filter(|cap| cap.contains(':'));
        let narrowing = Narrowing::default()
            .with_permissions(permissions)
            .and_then(|narrowing| narrowing.with_repositories(repositories))
            .map_err(|error| {
                Refusal::new(Reason::RequestInvalid, format!("cap or scopes: {error}"))
            })?;
        Ok(Asked { scope, identity, narrowing })
    }

    /// The one scope, or an owner and the repositories that its policy is narrowed to.
    fn scope(&self) -> Result<(Scope, Vec<RepoName>), Refusal> {
        // Names compare without ASCII case, so two spellings of one scope are one scope.
        let (mut distinct, mut seen) = (Vec::new(), HashSet::new());
        for text in self.scopes() {
            let scope: Scope = text.parse().map_err(|error| {
                Refusal::new(Reason::ScopeInvalid, format!("scope is invalid: {error}"))
            })?;
            if seen.insert(scope.clone()) {
                distinct.push(scope);
            }
        }
        let conflict =
            || Refusal::new(Reason::ScopesConflict, "exactly one scope must be provided");
        if distinct.len() > 1 {
            // The owner itself must be named too: nobody gets an organization's policy by accident.
            let owner = distinct.iter().position(|scope| scope.repo().is_none());
            let scope = distinct.remove(owner.ok_or_else(conflict)?);
            let repositories: Option<Vec<_>> = distinct
                .into_iter()
                .map(|other| other.repo().filter(|_| other.owner() == scope.owner()).cloned())
                .collect();
            return Ok((scope, repositories.ok_or_else(conflict)?));
        }
        match distinct.pop() {
            Some(scope) => Ok((scope, Vec::new())),
            None => Err(Refusal::new(Reason::ScopeInvalid, "scope must be provided")),
        }
    }
}

/// What a request is for.
#[derive(Debug)]
pub(super) struct Asked {
    scope: Scope,
    identity: PolicyName,
    narrowing: Narrowing,
}

#[cfg(test)]
impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.scope, self.identity)
    }
}

impl From<ExchangeRequest> for Fields {
    fn from(message: ExchangeRequest) -> Self {
        let mut fields = Self::default();
        #[expect(deprecated, reason = "published clients still send it")]
        fields.put(Field::Scope, message.scope);
        fields.put(Field::Identity, message.identity);
        message.scopes.into_iter().for_each(|scope| fields.put(Field::Scopes, scope));
        message.cap.into_iter().for_each(|cap| fields.put(Field::Cap, cap));
        fields
    }
}

impl From<CheckRequest> for Fields {
    fn from(CheckRequest { scope, identity, cap, scopes }: CheckRequest) -> Self {
        #[expect(deprecated, reason = "the same field under the same name")]
        let same = ExchangeRequest {
            scope,
            identity,
            cap,
            scopes,
            aud: Vec::new(),
            identity_provider: String::new(),
        };
        same.into()
    }
}

/// The attempt that a request comes to. Raw texts are cut for the record; no valid one is that
/// long.
pub(super) fn attempt(
    caller: Caller,
    token: Result<Unverified, Refusal>,
    fields: &Fields,
) -> Attempt {
    let given: Vec<&str> = fields.scopes().collect();
    let asked = token.and_then(|token| {
        let Asked { scope, identity, narrowing } = fields.parse()?;
        Ok(ParsedRequest { token, scope, identity, narrowing })
    });
    Attempt {
        caller,
        scope: (!given.is_empty()).then(|| reply::cut(&given.join(","))),
        identity: fields.identity.as_deref().map(reply::cut),
        cap: (!fields.cap.is_empty()).then(|| reply::cut(&fields.cap.join(","))),
        asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::RequestId;

    fn read(given: &[(Field, &str)]) -> Result<(String, String), Reason> {
        let mut fields = Fields::default();
        given.iter().for_each(|(field, value)| fields.put(*field, (*value).to_owned()));
        fields
            .parse()
            .map(|asked| (asked.scope.to_string(), asked.identity.to_string()))
            .map_err(|refusal| refusal.reason)
    }

    fn ok(scope: &str, identity: &str) -> Result<(String, String), Reason> {
        Ok((scope.to_owned(), identity.to_owned()))
    }

    use Field::{Aud, Cap, Identity, IdentityProvider, Scope as S, Scopes};

    #[test]
    fn scope_and_scopes_mean_their_union() {
        assert_eq!(read(&[(S, "o/r"), (Identity, "i")]), ok("o/r", "i"));
        assert_eq!(read(&[(Scopes, "o/r"), (Identity, "i")]), ok("o/r", "i"));
        assert_eq!(
            read(&[(S, "o/r"), (Scopes, "o/r"), (Scopes, "o/r"), (Identity, "i")]),
            ok("o/r", "i")
        );
        assert_eq!(read(&[(Scopes, "O/R"), (Scopes, "o/r"), (Identity, "i")]), ok("O/R", "i"));
        assert_eq!(read(&[(S, ""), (Scopes, ""), (Scopes, "o"), (Identity, "i")]), ok("o", "i"));
    }

    #[test]
    fn one_distinct_scope_is_required() {
        assert_eq!(
            read(&[(S, "o/r"), (Scopes, "o/s"), (Identity, "i")]),
            Err(Reason::ScopesConflict)
        );
        assert_eq!(read(&[(Identity, "i")]), Err(Reason::ScopeInvalid));
        assert_eq!(read(&[(S, ""), (Identity, "i")]), Err(Reason::ScopeInvalid));
    }

    #[test]
    fn malformed_names_end_here() {
        for scope in ["/", "o/", "a/b/c", "o/..", "o r"] {
            assert_eq!(read(&[(S, scope), (Identity, "i")]), Err(Reason::ScopeInvalid), "{scope}");
        }
        for identity in ["", "../x", "a//b", "a b"] {
            assert_eq!(
                read(&[(S, "o"), (Identity, identity)]),
                Err(Reason::IdentityInvalid),
                "{identity}"
            );
        }
    }

    #[test]
    fn a_singular_field_given_twice_is_a_fault_even_if_ignored() {
        for field in [S, Identity, IdentityProvider] {
            let given = [(S, "o"), (Identity, "i"), (IdentityProvider, "p"), (field, "o")];
            assert_eq!(read(&given), Err(Reason::RequestInvalid), "{field:?}");
        }
        assert_eq!(read(&[(S, ""), (S, "o"), (Identity, "i")]), ok("o", "i"));
    }

    #[test]
    fn audience_and_identity_provider_are_ignored() {
        let given = [(S, "o"), (Identity, "i"), (Aud, "x"), (Aud, "y"), (IdentityProvider, "z")];
        assert_eq!(read(&given), ok("o", "i"));
    }

    fn narrowed(given: &[(Field, &str)]) -> Result<(String, String, String), Reason> {
        let mut fields = Fields::default();
        given.iter().for_each(|(field, value)| fields.put(*field, (*value).to_owned()));
        let asked = fields.parse().map_err(|refusal| refusal.reason)?;
        let permissions: Vec<_> = asked.narrowing.permissions().collect();
        let repositories: Vec<_> =
            asked.narrowing.repositories().iter().map(ToString::to_string).collect();
        Ok((asked.scope.to_string(), permissions.join(" "), repositories.join(" ")))
    }

    #[test]
    fn only_capabilities_with_a_level_narrow() {
        let read = |cap: &[&str]| {
            let caps = cap.iter().map(|cap| (Cap, *cap));
            let given: Vec<_> = [(S, "o"), (Identity, "i")].into_iter().chain(caps).collect();
            narrowed(&given).map(|(_, permissions, _)| permissions)
        };
        assert_eq!(read(&["groups.list", ""]).as_deref(), Ok(""));
        assert_eq!(
            read(&["issues:write", "groups.list", "contents:read", "issues:write"]).as_deref(),
            Ok("contents:read issues:write")
        );
        for wrong in ["contents:", ":", "contents:all", "contents:read,issues:read"] {
            assert_eq!(read(&["issues:read", wrong]), Err(Reason::RequestInvalid), "{wrong}");
        }
        assert_eq!(read(&["issues:read", "issues:write"]), Err(Reason::RequestInvalid));
    }

    #[test]
    fn an_owner_with_repositories_of_its_own_is_one_scope() {
        let read = |scopes: &[&str]| {
            let scopes = scopes.iter().map(|scope| (Scopes, *scope));
            let given: Vec<_> = [(Identity, "i")].into_iter().chain(scopes).collect();
            narrowed(&given).map(|(scope, _, repositories)| format!("{scope}: {repositories}"))
        };
        for (scopes, expected) in [
            (&["o"][..], Ok("o: ")),
            (&["o", "O"], Ok("o: ")),
            (&["o", "o/a"], Ok("o: a")),
            (&["O/b", "o", "o/a", "o/B"], Ok("o: b a")),
            (&["o", "o/.github"], Ok("o: .github")),
            (&["o/a", "o/b"], Err(Reason::ScopesConflict)),
            (&["o/.github", "o/b"], Err(Reason::ScopesConflict)),
            (&["o", "p"], Err(Reason::ScopesConflict)),
            (&["o", "p/a"], Err(Reason::ScopesConflict)),
            (&["o", "o/a", "p"], Err(Reason::ScopesConflict)),
            (&["o", "o/a", "p/a"], Err(Reason::ScopesConflict)),
            (&["o", "o/a/b"], Err(Reason::ScopeInvalid)),
        ] {
            assert_eq!(read(scopes), expected.map(ToOwned::to_owned), "{scopes:?}");
        }
    }

    #[test]
    fn a_message_reads_as_its_fields() {
        #[expect(deprecated, reason = "published clients still send it")]
        let message = ExchangeRequest {
            aud: vec!["a".into()],
            scope: "o/r".into(),
            identity: "i".into(),
            cap: vec!["x".into()],
            identity_provider: "p".into(),
            scopes: vec!["O/r".into(), String::new()],
        };
        let asked = Fields::from(message).parse().unwrap();
        assert_eq!(
            (asked.scope.to_string(), asked.identity.to_string()),
            ("o/r".into(), "i".into())
        );
    }

    #[test]
    fn a_credential_fault_is_told_before_a_request_fault_and_the_texts_are_kept() {
        let mut fields = Fields::default();
        fields.put(S, "a b".into());
        fields.put(Scopes, "c".into());
        fields.put(Identity, "é".repeat(400));
        let address = "192.0.2.1".parse().unwrap();
        let expired = Default::default();
        let caller = Caller {
            request_id: RequestId::random(),
            address,
            user_agent: None,
            protocol: "rest",
            expired,
        };
        let attempt = attempt(caller, Err(Refusal::new(Reason::CredentialMissing, "")), &fields);
        assert_eq!(attempt.asked.unwrap_err().reason, Reason::CredentialMissing);
        assert_eq!(attempt.scope.as_deref(), Some("a b,c"));
        assert_eq!(attempt.identity.unwrap(), "é".repeat(128));
    }
}
