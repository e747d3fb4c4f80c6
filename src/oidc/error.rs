//! Why a token was not verified.

use std::time::Duration;

use crate::{egress, reason::Reason};

/// Why a token was not verified. The text is for operators; none of it comes from the token or the
/// issuer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Larger than the limit, in bytes.
    #[error("the token is larger than {0} bytes")]
    TooLarge(usize),
    /// Not a JWS in three parts of JSON.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// The algorithm, the key or the signature does not fit, or the header asks for what we do not do.
    #[error("the signature cannot be accepted: {0}")]
    Signature(&'static str),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// The named claim (`nbf` or `iat`) is still to come.
    #[error("the token's {0} is still to come")]
    NotYetValid(&'static str),
    /// Another claim is missing or is not what it must be.
    #[error("the token's claims cannot be accepted: {0}")]
    Claims(&'static str),
    /// It lacks what the operator asks of this issuer's tokens.
    #[error("the token does not meet the rules for its issuer: {0}")]
    Unfit(Unfit),
    /// The operator lists issuers, and only those listed are taken; this one is not.
    #[error("the issuers file does not list the issuer")]
    NotListed,
    /// The issuer's keys cannot be had now.
    #[error("the issuer's keys cannot be had: {cause}")]
    Unavailable {
        /// What went wrong.
        cause: Fault,
        /// After which another attempt is made.
        retry_after: Duration,
    },
    /// The token is of another issuer than the one that was admitted.
    #[error("the issuer was not admitted")]
    NotAdmitted,
}

impl Error {
    /// The stable word.
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLarge(_) => Reason::TokenTooLarge,
            Self::Malformed(_) => Reason::TokenMalformed,
            Self::Signature(_) => Reason::SignatureInvalid,
            Self::Expired => Reason::TokenExpired,
            Self::NotYetValid(_) => Reason::TokenNotYetValid,
            Self::Claims(_) | Self::Unfit(_) => Reason::TokenClaimsInvalid,
            Self::Unavailable { .. } => Reason::IssuerUnavailable,
            Self::NotListed | Self::NotAdmitted => Reason::IssuerNotTrusted,
        }
    }

    /// How long to wait before a retry can help, where one can; never zero.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => Some((*retry_after).max(Duration::from_secs(1))),
            Self::TooLarge(_)
            | Self::Malformed(_)
            | Self::Signature(_)
            | Self::Expired
            | Self::NotYetValid(_)
            | Self::Claims(_)
            | Self::Unfit(_)
            | Self::NotListed
            | Self::NotAdmitted => None,
        }
    }
}

/// Which rule of the operator's a token does not meet. Whoever holds the token may know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is signed by another algorithm.
    #[error("its algorithm is not one of those allowed")]
    Algorithm,
    /// From `iat` to `exp` it is longer than this.
    #[error("it lives longer than {0}")]
    LongLived(String),
    /// It was issued longer ago than this.
    #[error("it was issued more than {0} ago")]
    Old(String),
    /// A claim that must be there, by its name or path, is not, or is empty.
    #[error("`{0}` is missing")]
    Missing(String),
}

/// Why an issuer's keys cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The discovery document cannot be fetched.
    #[error("discovery: {0}")]
    Discovery(egress::Error),
    /// What came is not a discovery document.
    #[error("discovery: not a discovery document")]
    NotDiscovery,
    /// The discovery document is another issuer's (OpenID Connect Discovery 1.0 section 4.3).
    #[error("discovery: the document names another issuer")]
    OtherIssuer,
    /// The keys cannot be fetched.
    #[error("keys: {0}")]
    Keys(egress::Error),
    /// What came is not a set of keys.
    #[error("keys: not a key set")]
    NotKeys,
    /// The file that holds the credential for the issuer cannot be read, or holds none.
    #[error("`bearer_token_file` cannot be read or holds no token")]
    Bearer,
    /// All of it together took too long.
    #[error("discovery and keys took too long")]
    TooSlow,
    /// The task that fetched ended before its time.
    #[error("the fetch was interrupted")]
    Interrupted,
    /// The key is not among those held, and they were fetched anew on such account a moment ago.
    #[error("unknown key id, and the keys were fetched for one within the minute")]
    UnknownKey,
}
