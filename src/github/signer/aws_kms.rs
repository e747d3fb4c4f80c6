//! AWS KMS.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{PublicKey, Signer, SignerError};
use crate::{
    cloud::{
        self, Access,
        aws::{Aws, Region, Service},
    },
    egress::Answer,
};

/// A key's id, ARN or alias. The region of an ARN goes before that of the environment.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    id: String,
    region: Option<Region>,
}

impl Key {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expected = || "must name a key of AWS KMS: its id, its ARN or its alias".to_owned();
        let is_name = |text: &str| {
            (1..=2048).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_/:".contains(&byte))
        };
        if !is_name(text) {
            return Err(expected());
        }
        let region = match text.split(':').collect::<Vec<_>>()[..] {
            [_] => None,
            ["arn", _, "kms", region, _, _] => Some(Region::parse(region).ok_or_else(expected)?),
            _ => return Err(expected()),
        };
        Ok(Self { id: text.to_owned(), region })
    }
}

/// Signs with a key of AWS KMS. The calls need `kms:Sign`, and `kms:GetPublicKey` for the proof at
/// start.
pub(super) struct AwsKms {
    key: Key,
    access: Access,
}

impl AwsKms {
    pub(super) fn new(key: Key, access: Access) -> Self {
        Self { key, access }
    }

    async fn call(&self, target: &str, body: &Value) -> Result<Answer, cloud::Error> {
        let Access { network, environment, endpoints } = &self.access;
        let aws = Aws::find(environment, endpoints, true)?.ok_or_else(|| {
            cloud::Error::configuration("there are no AWS credentials to use AWS KMS with")
        })?;
        aws.call_json((Service::Kms, target), self.key.region.as_ref(), body, network).await
    }
}

impl Signer for AwsKms {
    fn sign<'a>(&'a self, input: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignerError>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Body {
            signature: String,
        }
        Box::pin(async move {
            let body = json!({
                "KeyId": self.key.id,
                "Message": STANDARD.encode(input),
                "MessageType": "RAW",
                "SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256",
            });
            let answer = self.call("TrentService.Sign", &body).await?;
            let body: Option<Body> = serde_json::from_slice(&answer.body).ok();
            let signature = body.and_then(|body| STANDARD.decode(body.signature).ok());
            signature.ok_or_else(|| SignerError::unavailable("AWS KMS's answer holds no signature"))
        })
    }

    fn public_key(&self) -> BoxFuture<'_, Result<Option<PublicKey>, SignerError>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Body {
            public_key: String,
        }
        Box::pin(async move {
            let body = json!({ "KeyId": self.key.id });
            let answer = match self.call("TrentService.GetPublicKey", &body).await {
                Err(error) if error.is_denied() => return Ok(None),
                answer => answer?,
            };
            let body: Option<Body> = serde_json::from_slice(&answer.body).ok();
            let key = body.and_then(|body| STANDARD.decode(body.public_key).ok());
            key.map(|der| Some(PublicKey::Der(der)))
                .ok_or_else(|| SignerError::unavailable("AWS KMS's answer holds no public key"))
        })
    }
}
