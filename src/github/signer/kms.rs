//! Which key of which service: parsed from the configuration, and turned into a signer.

use std::{fmt, sync::Arc};

use super::Signer;
use crate::cloud::Access;

/// A service that holds keys and signs with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KmsProvider {
    /// Google Cloud KMS.
    Gcp,
    /// AWS KMS.
    Aws,
    /// Azure Key Vault.
    Azure,
}

/// The key of an App at a key management service.
#[derive(Clone, PartialEq, Eq)]
pub struct KmsKey(Id);

#[derive(Clone, PartialEq, Eq)]
enum Id {
    #[cfg(feature = "kms-aws")]
    Aws(super::aws_kms::Key),
    #[cfg(feature = "kms-gcp")]
    Gcp(super::gcp_kms::Key),
    #[cfg(feature = "kms-azure")]
    Azure(crate::cloud::azure::VaultItem),
}

impl KmsKey {
    /// Reads a key's identifier as the provider writes it. Nothing is sent.
    ///
    /// # Errors
    /// What is expected, as the rest of a sentence about where the identifier is given; or that the
    /// provider is not built into this program.
    pub fn parse(provider: KmsProvider, text: &str) -> Result<Self, String> {
        match provider {
            #[cfg(feature = "kms-aws")]
            KmsProvider::Aws => super::aws_kms::Key::parse(text).map(|key| Self(Id::Aws(key))),
            #[cfg(feature = "kms-gcp")]
            KmsProvider::Gcp => super::gcp_kms::Key::parse(text).map(|key| Self(Id::Gcp(key))),
            #[cfg(feature = "kms-azure")]
            KmsProvider::Azure => {
                super::azure_key_vault::parse(text).map(|key| Self(Id::Azure(key)))
            }
            #[cfg(not(feature = "kms-aws"))]
            KmsProvider::Aws => Err(not_built("kms-aws", text)),
            #[cfg(not(feature = "kms-gcp"))]
            KmsProvider::Gcp => Err(not_built("kms-gcp", text)),
            #[cfg(not(feature = "kms-azure"))]
            KmsProvider::Azure => Err(not_built("kms-azure", text)),
        }
    }

    /// What signs with it. Nothing is sent before the first signature.
    #[cfg_attr(
        not(any(feature = "kms-aws", feature = "kms-gcp", feature = "kms-azure")),
        expect(unused_variables, reason = "there is no such key in this build")
    )]
    pub fn signer(&self, access: &Access) -> Arc<dyn Signer> {
        match self.0 {
            #[cfg(feature = "kms-aws")]
            Id::Aws(ref key) => Arc::new(super::aws_kms::AwsKms::new(key.clone(), access.clone())),
            #[cfg(feature = "kms-gcp")]
            Id::Gcp(ref key) => Arc::new(super::gcp_kms::GcpKms::new(key.clone(), access.clone())),
            #[cfg(feature = "kms-azure")]
            Id::Azure(ref key) => {
                Arc::new(super::azure_key_vault::AzureKeyVault::new(key.clone(), access.clone()))
            }
        }
    }
}

impl fmt::Debug for KmsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KmsKey").finish_non_exhaustive()
    }
}

#[cfg(not(all(feature = "kms-aws", feature = "kms-gcp", feature = "kms-azure")))]
fn not_built(feature: &str, _text: &str) -> String {
    format!("needs a program that is built with the feature `{feature}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GCP: &str = "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1";

    #[test]
    fn identifiers_are_those_of_their_provider() {
        for (provider, text) in [
            (KmsProvider::Gcp, GCP),
            (
                KmsProvider::Gcp,
                "projects/example.com:p/locations/eu/keyRings/r/cryptoKeys/k_1/cryptoKeyVersions/12",
            ),
            (KmsProvider::Aws, "1234abcd-12ab-34cd-56ef-1234567890ab"),
            (KmsProvider::Aws, "alias/octo-sts"),
            (KmsProvider::Aws, "arn:aws:kms:us-east-2:111122223333:key/1234abcd"),
            (KmsProvider::Aws, "arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/octo-sts"),
            (KmsProvider::Aws, "mrk-1234abcd12ab34cd56ef1234567890ab"),
            (KmsProvider::Azure, "https://v.vault.azure.net/keys/app"),
        ] {
            assert!(KmsKey::parse(provider, text).is_ok(), "{text}");
        }
        for (provider, text) in [
            (KmsProvider::Gcp, ""),
            (KmsProvider::Gcp, "projects/p/locations/global/keyRings/r/cryptoKeys/k"),
            (KmsProvider::Gcp, &format!("{GCP}:getPublicKey")),
            (KmsProvider::Gcp, &format!("/{GCP}")),
            (
                KmsProvider::Gcp,
                "projects/../locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
            ),
            (
                KmsProvider::Gcp,
                "projects/p/locations/l/keyRings/r/cryptoKeys/k?x/cryptoKeyVersions/1",
            ),
            (KmsProvider::Aws, ""),
            (KmsProvider::Aws, "two words"),
            (KmsProvider::Aws, "arn:aws:s3:us-east-2:111122223333:key/1234abcd"),
            (KmsProvider::Aws, "arn:aws:kms:evil.example/:111122223333:key/1234abcd"),
            (KmsProvider::Azure, GCP),
            (KmsProvider::Azure, "http://v.vault.azure.net/keys/app"),
        ] {
            assert!(KmsKey::parse(provider, text).is_err(), "{text}");
        }
    }
}
