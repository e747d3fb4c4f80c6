//! Google Cloud KMS.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::BoxFuture;
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde::Deserialize;
use serde_json::json;

use super::{PublicKey, Signer, SignerError};
use crate::cloud::Access;

/// The path of a key version, whose segments are plain text.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let is_name = |name: &str| {
            (1..=128).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
                && name != "."
                && name != ".."
        };
        let is_version = |text: &str| {
            (1..=19).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        match text.split('/').collect::<Vec<_>>()[..] {
            [
                "projects",
                project,
                "locations",
                location,
                "keyRings",
                ring,
                "cryptoKeys",
                key,
                "cryptoKeyVersions",
                version,
            ] if [project, location, ring, key].into_iter().all(is_name) && is_version(version) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err("must name a key version of Google Cloud KMS: \
                      projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/V"
                .to_owned()),
        }
    }
}

/// Signs with a key of Google Cloud KMS. The calls need
/// `cloudkms.cryptoKeyVersions.useToSign`, and `viewPublicKey` for the proof at start.
pub(super) struct GcpKms {
    key: Key,
    access: Access,
}

impl GcpKms {
    pub(super) fn new(key: Key, access: Access) -> Self {
        Self { key, access }
    }
}

impl Signer for GcpKms {
    fn sign<'a>(&'a self, input: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignerError>> {
        #[derive(Deserialize)]
        struct Body {
            signature: String,
        }
        Box::pin(async move {
            let path = format!("{}:asymmetricSign", self.key.0);
            let body = json!({ "data": STANDARD.encode(input) });
            let body: Body = self.access.google_kms(&path, Some(&body)).await?;
            STANDARD.decode(body.signature).map_err(|_| {
                SignerError::unavailable("Google Cloud KMS's answer holds no signature")
            })
        })
    }

    fn public_key(&self) -> BoxFuture<'_, Result<Option<PublicKey>, SignerError>> {
        #[derive(Deserialize)]
        struct Body {
            pem: String,
        }
        Box::pin(async move {
            let path = format!("{}/publicKey", self.key.0);
            let body: Body = match self.access.google_kms(&path, None).await {
                Err(error) if error.is_denied() => return Ok(None),
                body => body?,
            };
            match SubjectPublicKeyInfoDer::from_pem_slice(body.pem.as_bytes()) {
                Ok(der) => Ok(Some(PublicKey::Der(der.to_vec()))),
                Err(_) => {
                    Err(SignerError::unavailable("Google Cloud KMS's answer holds no public key"))
                }
            }
        })
    }
}
