//! Why a token was not verified.

use std::{borrow::Cow, time::Duration};

use crate::{clock::in_words, egress, reason::Reason};

/// Why a token was not verified. The text may be sent to the caller. Of the token it contains no
/// more than the names of claims and of the algorithm, and nothing that the issuer wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Larger than the limit, in bytes.
    #[error("the token is larger than {0} bytes")]
    TooLarge(usize),
    /// Not a JWS in three parts of JSON.
    #[error("the credential is not a signed JSON Web Token: {0}")]
    Malformed(&'static str),
    /// The algorithm, the key or the signature is invalid, or the header asks for an unsupported
    /// extension.
    #[error("the token's signature is not acceptable: {0}")]
    Signature(Cow<'static, str>),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error(
        "the token is not valid yet: `{claim}` is more than {} in the future; check the clocks of the issuer and of this server",
        in_words(*.leeway)
    )]
    NotYetValid {
        /// Which claim.
        claim: &'static str,
        /// How far it may be in the future.
        leeway: Duration,
    },
    /// Another claim is missing or invalid.
    #[error("the token's claims are not acceptable: {0}")]
    Claims(Cow<'static, str>),
    /// It does not meet the operator's rules for tokens of this issuer.
    #[error("the token does not meet the rules for its issuer: {0}")]
    Unfit(Unfit),
    /// The operator accepts listed issuers only, and this one is not listed.
    #[error("the issuers file does not list the issuer")]
    NotListed,
    /// The issuer's keys are not available, or none of them is the token's.
    #[error("{cause}")]
    Unavailable {
        /// What went wrong.
        cause: Fault,
        /// When another attempt can help.
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
            Self::NotYetValid { .. } => Reason::TokenNotYetValid,
            Self::Claims(_) | Self::Unfit(_) => Reason::TokenClaimsInvalid,
            Self::Unavailable { cause, .. } if cause.is_misconfiguration() => {
                Reason::IssuerMisconfigured
            }
            Self::Unavailable { .. } => Reason::IssuerUnavailable,
            Self::NotListed | Self::NotAdmitted => Reason::IssuerNotTrusted,
        }
    }

    /// How long to wait before a retry can help, where one can; never zero.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { cause, .. } if cause.is_misconfiguration() => None,
            Self::Unavailable { retry_after, .. } => {
                Some((*retry_after).max(Duration::from_secs(1)))
            }
            Self::TooLarge(_)
            | Self::Malformed(_)
            | Self::Signature(_)
            | Self::Expired
            | Self::NotYetValid { .. }
            | Self::Claims(_)
            | Self::Unfit(_)
            | Self::NotListed
            | Self::NotAdmitted => None,
        }
    }
}

/// Which rule of the operator's a token does not meet. The caller may know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is signed by another algorithm.
    #[error("its algorithm {0} is not one of those allowed")]
    Algorithm(&'static str),
    /// From `iat` to `exp` it is longer than this.
    #[error("it lives longer than {0}")]
    LongLived(String),
    /// It was issued longer ago than this.
    #[error("it was issued more than {0} ago")]
    Old(String),
    /// A required claim, by its name or path, is absent or empty.
    #[error("`{0}` is missing")]
    Missing(String),
}

/// Why an issuer's keys are not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The discovery document cannot be fetched.
    #[error("the issuer's discovery document cannot be fetched: {0}")]
    Discovery(egress::Error),
    /// The document at the discovery address is not one.
    #[error("the answer at the issuer's discovery address is not a discovery document: {0}")]
    NotDiscovery(Unexpected),
    /// The discovery document is another issuer's (OpenID Connect Discovery 1.0 section 4.3).
    #[error("the issuer's discovery document names another issuer")]
    OtherIssuer,
    /// The issuer in the discovery document is a template, as in documents for several tenants.
    #[error(
        "the issuer's discovery document names a template (such as {{tenantid}}), not an issuer"
    )]
    Template,
    /// The keys are at an address without TLS.
    #[error("the `jwks_uri` in the issuer's discovery document uses http, expected https")]
    InsecureKeys,
    /// The keys cannot be fetched.
    #[error("the issuer's key set cannot be fetched: {0}")]
    Keys(egress::Error),
    /// The document at the key set's address is not one.
    #[error("the answer at the address of the issuer's keys is not a key set: {0}")]
    NotKeys(Unexpected),
    /// The key set has no key that can verify a token.
    #[error("the issuer publishes no key that can verify a token")]
    NoKeys,
    /// The file with the credential for the issuer cannot be read, or is empty.
    #[error("`bearer_token_file` of the issuer cannot be read or has no token")]
    Bearer,
    /// All of it together took too long.
    #[error("fetching the issuer's discovery document and keys timed out")]
    TooSlow,
    /// The task that fetched or verified ended early.
    #[error("fetching the issuer's keys was interrupted")]
    Interrupted,
    /// The issuer does not (yet) publish the key that the token names.
    #[error(
        "unknown key id: the issuer does not publish the key that the token names, or does not publish it yet"
    )]
    UnknownKey,
}

/// What came instead of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unexpected {
    /// A page for people.
    #[error("it is an HTML page; is there a login page or a proxy?")]
    Html,
    /// Not JSON.
    #[error("it is not JSON")]
    NotJson,
    /// JSON without the members that are needed.
    #[error("the JSON lacks the expected members")]
    OtherJson,
}

impl Unexpected {
    /// What this is, if not the document that was expected.
    pub(super) fn of(document: &[u8]) -> Self {
        if document.trim_ascii_start().first() == Some(&b'<') {
            Self::Html
        } else if serde_json::from_slice::<serde::de::IgnoredAny>(document).is_ok() {
            Self::OtherJson
        } else {
            Self::NotJson
        }
    }
}

impl Fault {
    /// Whether the issuer answers, but not as an issuer should, or must not be contacted: waiting
    /// does not help.
    pub fn is_misconfiguration(self) -> bool {
        match self {
            Self::NotDiscovery(_)
            | Self::OtherIssuer
            | Self::Template
            | Self::InsecureKeys
            | Self::NotKeys(_)
            | Self::NoKeys
            | Self::Bearer => true,
            Self::Discovery(error) | Self::Keys(error) => match error {
                egress::Error::Status(status) => !matches!(status, 408 | 425 | 429 | 500..=599),
                egress::Error::Refused
                | egress::Error::Url
                | egress::Error::TooLarge
                | egress::Error::Broken
                | egress::Error::Encoding => true,
                egress::Error::Connect(_)
                | egress::Error::Certificate(_)
                | egress::Error::Timeout
                | egress::Error::Closed => false,
            },
            Self::TooSlow | Self::Interrupted | Self::UnknownKey => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waiting_cannot_cure_has_no_retry_after() {
        let status = |status| Fault::Discovery(egress::Error::Status(status));
        let keys = Fault::Keys;
        for fault in [
            status(204),
            status(302),
            status(401),
            status(403),
            status(404),
            keys(egress::Error::Refused),
            keys(egress::Error::Url),
            Fault::NotDiscovery(Unexpected::Html),
            Fault::Template,
            Fault::NoKeys,
        ] {
            let error = Error::Unavailable { cause: fault, retry_after: Duration::from_secs(2) };
            assert_eq!(
                (error.reason(), error.retry_after()),
                (Reason::IssuerMisconfigured, None),
                "{fault:?}"
            );
        }
        for fault in [
            status(429),
            status(500),
            status(503),
            keys(egress::Error::Connect(egress::ConnectCause::Refused)),
            keys(egress::Error::Certificate(egress::CertificateCause::Expired)),
            keys(egress::Error::Closed),
            Fault::TooSlow,
            Fault::UnknownKey,
        ] {
            let error = Error::Unavailable { cause: fault, retry_after: Duration::from_secs(2) };
            let expected = (Reason::IssuerUnavailable, Some(Duration::from_secs(2)));
            assert_eq!((error.reason(), error.retry_after()), expected, "{fault:?}");
        }
    }

    #[test]
    fn what_came_instead_of_a_document_is_named() {
        for (document, expected) in [
            ("", Unexpected::NotJson),
            ("x", Unexpected::NotJson),
            ("{", Unexpected::NotJson),
            (" \n<!DOCTYPE html><p>Sign in</p>", Unexpected::Html),
            ("<?xml?>", Unexpected::Html),
            ("{}", Unexpected::OtherJson),
            ("[]", Unexpected::OtherJson),
        ] {
            assert_eq!(Unexpected::of(document.as_bytes()), expected, "{document}");
        }
    }
}
