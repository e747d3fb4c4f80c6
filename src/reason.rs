//! Why an exchange did not end with a token: the stable words of the contract.
//!
//! One word serves the wire (`google.rpc.ErrorInfo.reason`), the audit record, the metrics and the
//! tests. The message may change, the word may not. Each capability has an error type of its own
//! and says which of these words it comes to; which status codes a word has is the business of
//! `transport::reply` alone.

use std::{borrow::Cow, fmt, time::Duration};

use serde::Serialize;

macro_rules! reasons {
    ($($variant:ident = $word:literal,)*) => {
        /// The stable reason of a refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the words are the contract; docs/errors.md explains each")]
        pub enum Reason { $($variant,)* }

        impl Reason {
            /// Every reason there is, in the order of the contract's table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word on the wire: `[A-Z][A-Z0-9_]+[A-Z0-9]` (AIP-193).
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

reasons! {
    CredentialMissing = "CREDENTIAL_MISSING",
    CredentialAmbiguous = "CREDENTIAL_AMBIGUOUS",
    TokenMalformed = "TOKEN_MALFORMED",
    TokenTooLarge = "TOKEN_TOO_LARGE",
    ScopeInvalid = "SCOPE_INVALID",
    IdentityInvalid = "IDENTITY_INVALID",
    ScopesConflict = "SCOPES_CONFLICT",
    RequestInvalid = "REQUEST_INVALID",
    SignatureInvalid = "SIGNATURE_INVALID",
    TokenExpired = "TOKEN_EXPIRED",
    TokenNotYetValid = "TOKEN_NOT_YET_VALID",
    TokenClaimsInvalid = "TOKEN_CLAIMS_INVALID",
    TokenReplayed = "TOKEN_REPLAYED",
    IssuerNotTrusted = "ISSUER_NOT_TRUSTED",
    NoApp = "NO_APP",
    NotInstalled = "NOT_INSTALLED",
    RepositoryNotAccessible = "REPOSITORY_NOT_ACCESSIBLE",
    PolicyNotFound = "POLICY_NOT_FOUND",
    PolicyInvalid = "POLICY_INVALID",
    PolicyMismatch = "POLICY_MISMATCH",
    IssuerNotPermitted = "ISSUER_NOT_PERMITTED",
    InstallationSuspended = "INSTALLATION_SUSPENDED",
    PolicyForbidden = "POLICY_FORBIDDEN",
    PermissionRefused = "PERMISSION_REFUSED",
    RepositoryRefused = "REPOSITORY_REFUSED",
    DeniedByOperator = "DENIED_BY_OPERATOR",
    TrustedIssuersInvalid = "TRUSTED_ISSUERS_INVALID",
    AppPinUnsatisfied = "APP_PIN_UNSATISFIED",
    GithubRateLimited = "GITHUB_RATE_LIMITED",
    RateLimited = "RATE_LIMITED",
    Overloaded = "OVERLOADED",
    GithubUnavailable = "GITHUB_UNAVAILABLE",
    IssuerMisconfigured = "ISSUER_MISCONFIGURED",
    IssuerUnavailable = "ISSUER_UNAVAILABLE",
    TrustedIssuersUnavailable = "TRUSTED_ISSUERS_UNAVAILABLE",
    SignerUnavailable = "SIGNER_UNAVAILABLE",
    AuditUnavailable = "AUDIT_UNAVAILABLE",
    Deadline = "DEADLINE",
    Internal = "INTERNAL",
    Unimplemented = "UNIMPLEMENTED",
}

impl Reason {
    /// Whether it says that something failed, and not what was decided: asked again, with nothing
    /// changed by anybody, the answer may be another.
    pub const fn is_fault(self) -> bool {
        matches!(
            self,
            Self::GithubRateLimited
                | Self::RateLimited
                | Self::Overloaded
                | Self::GithubUnavailable
                | Self::IssuerMisconfigured
                | Self::IssuerUnavailable
                | Self::TrustedIssuersUnavailable
                | Self::SignerUnavailable
                | Self::AuditUnavailable
                | Self::Deadline
                | Self::Internal
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One condition of a policy, held against a token, as a caller may be shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The policy's field: `issuer`, `subject`, `audience`, `claim_pattern.NAME`.
    pub field: String,
    /// Whether the token satisfied it.
    pub satisfied: bool,
    /// The token's own value, if it has one.
    pub got: Option<String>,
    /// What the policy asks for; only for those who may read the policy.
    pub wanted: Option<String>,
    /// A hint for the policy's author; shown and hidden with `wanted`.
    pub hint: Option<String>,
}

/// Who a token of a Kubernetes cluster speaks for, as the cluster names them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Workload {
    /// The namespace.
    pub namespace: String,
    /// The service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// The pod, where the token is bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The node that the pod was on, where the cluster tells it (from Kubernetes 1.30).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// An exchange's refusal: a word for programs, fixed text for the caller, the cause for operators.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The stable word.
    pub reason: Reason,
    /// The message for the caller. It never contains text of a remote service or of a file.
    pub message: Cow<'static, str>,
    /// The cause, for operators only, in the log and the audit record.
    pub cause: Option<String>,
    /// How long to wait before a retry can help.
    pub retry_after: Option<Duration>,
    /// The conditions of the policy that was held against the token, if it came that far.
    pub conditions: Vec<Condition>,
    /// Who the token that was held against them speaks for, if it is of a Kubernetes cluster.
    pub workload: Option<Box<Workload>>,
    /// Whether GitHub may have minted a token that nobody has. Such an exchange is better not
    /// repeated.
    pub may_have_minted: bool,
}

impl Refusal {
    /// A refusal with its public text.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            message: message.into(),
            cause: None,
            retry_after: None,
            conditions: Vec::new(),
            workload: None,
            may_have_minted: false,
        }
    }

    /// Adds what operators should know.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Adds how long to wait.
    #[must_use]
    pub fn retry_after(mut self, wait: impl Into<Option<Duration>>) -> Self {
        self.retry_after = wait.into();
        self
    }
}
