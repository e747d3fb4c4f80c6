//! Who signs for the App: a key held here, or a service that holds it.
//!
//! GitHub takes RS256 only (RFC 7518, section 3.3), so a signer is asked for RSASSA-PKCS1-v1_5 with
//! SHA-256 over the signing input of a JWS (RFC 7515, section 5.1).

#[cfg(feature = "kms-aws")]
mod aws_kms;
#[cfg(feature = "kms-azure")]
mod azure_key_vault;
#[cfg(feature = "kms-gcp")]
mod gcp_kms;
mod kms;
mod pem;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use futures_util::future::BoxFuture;

pub use self::{
    kms::{KmsKey, KmsProvider},
    pem::{KeyError, PemSigner},
};
use crate::cloud;

/// Signs with the App's private key.
pub trait Signer: Send + Sync + 'static {
    /// The RS256 signature over `input`.
    ///
    /// # Errors
    /// The key could not be used: an outage, or a permission that is missing.
    fn sign<'a>(&'a self, input: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignerError>>;

    /// The public key, if this process may read it.
    ///
    /// # Errors
    /// The key could not be read for another reason than a permission that is missing.
    fn public_key(&self) -> BoxFuture<'_, Result<Option<PublicKey>, SignerError>> {
        Box::pin(async { Ok(None) })
    }

    /// GitHub refused a signature of the key in use. Returns whether another key signs from now on.
    fn use_next_key(&self) -> bool {
        false
    }
}

/// A public key, as its service gives it.
#[derive(Debug, Clone)]
pub enum PublicKey {
    /// DER of an RSA key or of a `SubjectPublicKeyInfo` (RFC 8017, RFC 5280).
    Der(Vec<u8>),
    /// Modulus and exponent, big-endian, as a JWK has them (RFC 7518, section 6.3).
    Components {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
}

impl PublicKey {
    /// Whether `signature` is this key's over `input`.
    pub fn verifies(&self, input: &[u8], signature: &[u8]) -> bool {
        let algorithm = &RSA_PKCS1_2048_8192_SHA256;
        match self {
            Self::Der(der) => {
                UnparsedPublicKey::new(algorithm, der).verify(input, signature).is_ok()
            }
            Self::Components { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(algorithm, input, signature).is_ok()
            }
        }
    }
}

/// Why there is no signature. For operators; never part of a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SignerError {
    /// What can be done about it.
    pub kind: SignerErrorKind,
    text: String,
}

/// What can be done about a missing signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignerErrorKind {
    /// Try again later.
    Unavailable,
    /// Grant a permission.
    Denied,
    /// Correct the configuration.
    Misconfigured,
}

impl SignerErrorKind {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "signer_unavailable",
            Self::Denied => "signer_denied",
            Self::Misconfigured => "signer_misconfigured",
        }
    }
}

impl SignerError {
    /// The signer may be able to sign later.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self { kind: SignerErrorKind::Unavailable, text: text.into() }
    }

    /// The signer will not sign until something is corrected.
    pub fn misconfigured(text: impl Into<String>) -> Self {
        Self { kind: SignerErrorKind::Misconfigured, text: text.into() }
    }
}

impl From<cloud::Error> for SignerError {
    fn from(error: cloud::Error) -> Self {
        let kind = if error.is_denied() {
            SignerErrorKind::Denied
        } else if error.is_outage() {
            SignerErrorKind::Unavailable
        } else {
            SignerErrorKind::Misconfigured
        };
        Self { kind, text: error.to_string() }
    }
}
