//! Webhook secrets at a cloud's secret manager: their names, and how they are read.
//!
//! Deployments whose App keys are at a key management service name their webhook secrets in the
//! same way. A name is never used as the secret itself.

use secrecy::SecretSlice;
#[cfg(any(feature = "kms-aws", feature = "kms-gcp", feature = "kms-azure"))]
use serde::Deserialize;

use crate::{
    cloud::{self, Access},
    github::KmsProvider,
};

/// The name of one secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretName(Name);

#[derive(Clone, PartialEq, Eq)]
enum Name {
    #[cfg(feature = "kms-aws")]
    Aws(String, Option<cloud::aws::Region>),
    #[cfg(feature = "kms-gcp")]
    Gcp(String),
    #[cfg(feature = "kms-azure")]
    Azure(cloud::azure::VaultItem),
}

impl std::fmt::Debug for SecretName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretName").finish_non_exhaustive()
    }
}

impl SecretName {
    /// Reads the names in a comma-separated list. Nothing is sent.
    ///
    /// # Errors
    /// What is expected, as the rest of a sentence about where the list is given; or that the
    /// provider is not built into this program.
    pub fn parse_list(provider: KmsProvider, text: &str) -> Result<Vec<Self>, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let names: Vec<Self> =
            parts.map(|part| Self::parse(provider, part)).collect::<Result<_, _>>()?;
        #[cfg(feature = "kms-azure")]
        {
            let vaults = names.iter().filter_map(Self::vault);
            let vaults: std::collections::BTreeSet<_> = vaults.collect();
            if vaults.len() > 1 {
                return Err("names secrets of several vaults: all GITHUB_WEBHOOK_SECRET entries must be in the same vault".into());
            }
        }
        if names.is_empty() { Err("must name at least one secret".into()) } else { Ok(names) }
    }

    /// The vault of a secret that is in one.
    #[cfg(feature = "kms-azure")]
    fn vault(&self) -> Option<String> {
        match &self.0 {
            Name::Azure(item) => Some(item.vault()),
            #[cfg(any(feature = "kms-aws", feature = "kms-gcp"))]
            _ => None,
        }
    }

    fn parse(provider: KmsProvider, text: &str) -> Result<Self, String> {
        match provider {
            #[cfg(feature = "kms-aws")]
            KmsProvider::Aws => aws(text),
            #[cfg(feature = "kms-gcp")]
            KmsProvider::Gcp => gcp(text),
            #[cfg(feature = "kms-azure")]
            KmsProvider::Azure => azure(text),
            #[cfg(not(feature = "kms-aws"))]
            KmsProvider::Aws => Err(not_built("kms-aws", text)),
            #[cfg(not(feature = "kms-gcp"))]
            KmsProvider::Gcp => Err(not_built("kms-gcp", text)),
            #[cfg(not(feature = "kms-azure"))]
            KmsProvider::Azure => Err(not_built("kms-azure", text)),
        }
    }

    /// The secret, as its manager holds it now.
    ///
    /// # Errors
    /// There are no credentials, or the manager did not give the secret.
    #[cfg_attr(
        not(any(feature = "kms-aws", feature = "kms-gcp", feature = "kms-azure")),
        expect(unused_variables, reason = "there is no such secret in this build")
    )]
    pub async fn read(&self, access: &Access) -> Result<SecretSlice<u8>, cloud::Error> {
        match self.0 {
            #[cfg(feature = "kms-aws")]
            Name::Aws(ref name, ref region) => read_aws(name, region.as_ref(), access).await,
            #[cfg(feature = "kms-gcp")]
            Name::Gcp(ref name) => read_gcp(name, access).await,
            #[cfg(feature = "kms-azure")]
            Name::Azure(ref item) => read_azure(item, access).await,
        }
    }
}

#[cfg(feature = "kms-aws")]
fn aws(text: &str) -> Result<SecretName, String> {
    let expected = || "must name a secret of AWS Secrets Manager: its name or its ARN".to_owned();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-:!".contains(&byte);
    if !(1..=2048).contains(&text.len()) || !text.bytes().all(is_plain) {
        return Err(expected());
    }
    let region = match text.split(':').collect::<Vec<_>>()[..] {
        [_] => None,
        ["arn", _, "secretsmanager", region, _, "secret", _] => {
            Some(cloud::aws::Region::parse(region).ok_or_else(expected)?)
        }
        _ => return Err(expected()),
    };
    Ok(SecretName(Name::Aws(text.to_owned(), region)))
}

#[cfg(feature = "kms-aws")]
async fn read_aws(
    name: &str,
    region: Option<&cloud::aws::Region>,
    access: &Access,
) -> Result<SecretSlice<u8>, cloud::Error> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use cloud::aws::{Aws, Service};

    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body {
        secret_string: Option<String>,
        secret_binary: Option<String>,
    }
    let Access { network, environment, endpoints } = access;
    let aws = Aws::find(environment, endpoints, true)?.ok_or_else(|| {
        cloud::Error::configuration(
            "there are no AWS credentials to read the webhook's secret with",
        )
    })?;
    let action = (Service::SecretsManager, "secretsmanager.GetSecretValue");
    let body = serde_json::json!({ "SecretId": name });
    let answer = aws.call_json(action, region, &body, network).await?;
    let body: Option<Body> = serde_json::from_slice(&answer.body).ok();
    let secret = body.and_then(|body| match (body.secret_string, body.secret_binary) {
        (Some(text), _) => Some(text.into_bytes()),
        (None, Some(binary)) => STANDARD.decode(binary).ok(),
        (None, None) => None,
    });
    found(secret, "AWS Secrets Manager")
}

#[cfg(feature = "kms-gcp")]
fn gcp(text: &str) -> Result<SecretName, String> {
    let is_name = |name: &str| {
        (1..=255).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
            && name != "."
            && name != ".."
    };
    match text.split('/').collect::<Vec<_>>()[..] {
        ["projects", project, "secrets", secret, "versions", version]
            if [project, secret, version].into_iter().all(is_name) =>
        {
            Ok(SecretName(Name::Gcp(text.to_owned())))
        }
        _ => Err("must name a secret version of Google's Secret Manager: \
                  projects/P/secrets/S/versions/V"
            .to_owned()),
    }
}

#[cfg(feature = "kms-gcp")]
async fn read_gcp(name: &str, access: &Access) -> Result<SecretSlice<u8>, cloud::Error> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    #[derive(Deserialize)]
    struct Body {
        payload: Payload,
    }
    #[derive(Deserialize)]
    struct Payload {
        data: String,
    }
    let body: Body = access.google_secret(name).await?;
    found(STANDARD.decode(body.payload.data).ok(), "Google's Secret Manager")
}

#[cfg(feature = "kms-azure")]
fn azure(text: &str) -> Result<SecretName, String> {
    let item = cloud::azure::VaultItem::parse(text, "secrets");
    item.map(|item| SecretName(Name::Azure(item))).ok_or_else(|| {
        "must name a secret of Azure Key Vault: https://VAULT/secrets/NAME or \
         https://VAULT/secrets/NAME/VERSION"
            .to_owned()
    })
}

#[cfg(feature = "kms-azure")]
async fn read_azure(
    item: &cloud::azure::VaultItem,
    access: &Access,
) -> Result<SecretSlice<u8>, cloud::Error> {
    #[derive(Deserialize)]
    struct Body {
        value: String,
    }
    let body: Body = access.azure_vault(item, None).await?;
    found(Some(body.value.into_bytes()), "Azure Key Vault")
}

#[cfg(any(feature = "kms-aws", feature = "kms-gcp", feature = "kms-azure"))]
fn found(secret: Option<Vec<u8>>, whom: &str) -> Result<SecretSlice<u8>, cloud::Error> {
    secret
        .filter(|secret| !secret.is_empty())
        .map(SecretSlice::from)
        .ok_or_else(|| cloud::Error::unusable(format!("{whom}'s answer holds no secret")))
}

#[cfg(not(all(feature = "kms-aws", feature = "kms-gcp", feature = "kms-azure")))]
fn not_built(feature: &str, _text: &str) -> String {
    format!("needs a program that is built with the feature `{feature}`")
}

#[cfg(all(test, feature = "kms-aws", feature = "kms-gcp", feature = "kms-azure"))]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_their_provider() {
        use KmsProvider::{Aws, Azure, Gcp};
        for (provider, text, count) in [
            (Gcp, "projects/p/secrets/s/versions/1", Some(1)),
            (Gcp, "projects/p/secrets/s/versions/latest, projects/p/secrets/t/versions/2", Some(2)),
            (Gcp, "projects/p/secrets/s", None),
            (Gcp, "projects/../secrets/s/versions/1", None),
            (Aws, "octo-sts/webhook", Some(1)),
            (Aws, "arn:aws:secretsmanager:eu-central-1:1:secret:octo-sts/webhook-AbCdEf", Some(1)),
            (Aws, "arn:aws:kms:eu-central-1:1:key/x", None),
            (Aws, "a b", None),
            (
                Azure,
                "https://v.vault.azure.net/secrets/a,https://v.vault.azure.net/secrets/b/1",
                Some(2),
            ),
            (Azure, "https://v.vault.azure.net/keys/a", None),
            (Azure, "", None),
            (Azure, " , ", None),
        ] {
            let names = SecretName::parse_list(provider, text);
            assert_eq!(names.ok().map(|names| names.len()), count, "{text}");
        }
        let two = "https://v.vault.azure.net/secrets/a,https://w.vault.azure.net/secrets/b";
        let error = SecretName::parse_list(Azure, two).unwrap_err();
        assert!(error.ends_with("all GITHUB_WEBHOOK_SECRET entries must be in the same vault"));
    }
}
