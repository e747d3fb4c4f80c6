//! Azure Key Vault and managed HSMs.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;

use super::{PublicKey, Signer, SignerError};
use crate::cloud::{Access, azure::VaultItem};

/// Reads a key's identifier.
pub(super) fn parse(text: &str) -> Result<VaultItem, String> {
    VaultItem::parse(text, "keys").ok_or_else(|| {
        "must name a key of Azure Key Vault: https://VAULT/keys/NAME or \
         https://VAULT/keys/NAME/VERSION"
            .to_owned()
    })
}

/// Signs with a key of a vault. The calls need the permission to sign, and to get the key for the
/// proof at start.
pub(super) struct AzureKeyVault {
    key: VaultItem,
    access: Access,
}

impl AzureKeyVault {
    pub(super) fn new(key: VaultItem, access: Access) -> Self {
        Self { key, access }
    }
}

impl Signer for AzureKeyVault {
    fn sign<'a>(&'a self, input: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignerError>> {
        #[derive(Deserialize)]
        struct Body {
            value: String,
        }
        Box::pin(async move {
            let digest = URL_SAFE_NO_PAD.encode(digest(&SHA256, input));
            let body = json!({ "alg": "RS256", "value": digest });
            let body: Body = self.access.azure_vault(&self.key, Some(("sign", &body))).await?;
            URL_SAFE_NO_PAD.decode(body.value).map_err(|_| {
                SignerError::unavailable("Azure Key Vault's answer holds no signature")
            })
        })
    }

    fn public_key(&self) -> BoxFuture<'_, Result<Option<PublicKey>, SignerError>> {
        #[derive(Deserialize)]
        struct Body {
            key: Jwk,
        }
        #[derive(Deserialize)]
        struct Jwk {
            n: String,
            e: String,
        }
        Box::pin(async move {
            let Body { key } = match self.access.azure_vault(&self.key, None).await {
                Err(error) if error.is_denied() => return Ok(None),
                body => body?,
            };
            let decoded = |text: String| URL_SAFE_NO_PAD.decode(text).ok();
            match (decoded(key.n), decoded(key.e)) {
                (Some(n), Some(e)) => Ok(Some(PublicKey::Components { n, e })),
                _ => Err(SignerError::unavailable("Azure Key Vault's key is not an RSA key")),
            }
        })
    }
}
