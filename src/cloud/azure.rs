//! Azure: credentials, and requests to a Key Vault.
//!
//! Credentials are found as Azure's own clients find them: a client secret in the environment, a
//! workload identity (AKS), a managed identity (App Service, or the machine).

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::{
    Access, Error, TokenFile,
    oauth::{self, AccessToken, access_token, endpoint},
    send,
};
use crate::egress::BoundedClient;

/// Where tokens are requested, unless `AZURE_AUTHORITY_HOST` names another cloud.
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The version of Key Vault's API.
const API_VERSION: &str = "7.4";
/// The domains of key vaults and managed HSMs, each the resource that its tokens are for.
const RESOURCES: [&str; 6] = [
    "vault.azure.net",
    "vault.azure.cn",
    "vault.usgovcloudapi.net",
    "managedhsm.azure.net",
    "managedhsm.azure.cn",
    "managedhsm.usgovcloudapi.net",
];
const METADATA: HeaderName = HeaderName::from_static("metadata");
const IDENTITY_HEADER: HeaderName = HeaderName::from_static("x-identity-header");

const VAULT: &str = "Azure Key Vault";
const ENTRA: &str = "Microsoft Entra ID";
/// The metadata server, unless `AZURE_POD_IDENTITY_AUTHORITY_HOST` names another.
const MACHINE_ROOT: &str = "http://169.254.169.254";
const MACHINE: &str = "Azure's metadata server";

/// A key or a secret in a vault: `https://HOST/KIND/NAME[/VERSION]`. Without a version, the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultItem {
    url: Url,
}

impl VaultItem {
    /// Reads an identifier; `kind` is `keys` or `secrets`. `None` if it is not one.
    pub fn parse(text: &str, kind: &str) -> Option<Self> {
        let mut url = endpoint(text)?;
        let path: Vec<&str> = url.path_segments()?.collect();
        let (name, version) = match path[..] {
            [found, name] if found.eq_ignore_ascii_case(kind) => (name, ""),
            [found, name, version] if found.eq_ignore_ascii_case(kind) => (name, version),
            _ => return None,
        };
        let is_plain = |text: &str| {
            text.len() <= 127
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if name.is_empty() || !is_plain(name) || !is_plain(version) || url.query().is_some() {
            return None;
        }
        let path = format!("/{kind}/{name}/{version}");
        url.set_path(&path);
        Some(Self { url })
    }

    /// The address of an operation on it, or of itself.
    fn address(&self, operation: Option<&str>) -> String {
        let path = match operation {
            Some(operation) => format!("{}/{operation}", self.url.path()),
            None => self.url.path().trim_end_matches('/').to_owned(),
        };
        let mut url = self.url.clone();
        url.set_path(&path);
        url.set_query(Some(&format!("api-version={API_VERSION}")));
        url.into()
    }

    /// The vault: scheme, host and port.
    pub fn vault(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// What tokens for its vault are for.
    fn resource(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        let is_in =
            |domain: &&&str| host.strip_suffix(**domain).is_some_and(|label| label.ends_with('.'));
        let [default, ..] = &RESOURCES;
        format!("https://{}", RESOURCES.iter().find(is_in).unwrap_or(default))
    }
}

impl Access {
    /// Calls an operation on an item of a vault: a POST with `body`, or a GET of the item itself.
    ///
    /// # Errors
    /// There are no credentials, or no response of status 200.
    pub async fn azure_vault<T: DeserializeOwned>(
        &self,
        item: &VaultItem,
        operation: Option<(&str, &Value)>,
    ) -> Result<T, Error> {
        let token = self.azure_token(&item.resource()).await?;
        let url = item.address(operation.map(|(name, _)| name));
        let body = operation.map(|(_, body)| body);
        oauth::call(VAULT, &url, body, &token, &self.network.service()).await
    }

    /// An access token for a resource, requested anew.
    async fn azure_token(&self, resource: &str) -> Result<AccessToken, Error> {
        let text = |name| self.environment.text(name).map(str::trim);
        let (tenant, client) = (text("AZURE_TENANT_ID"), text("AZURE_CLIENT_ID"));
        if let (Some(tenant), Some(client)) = (tenant, client) {
            if let Some(secret) = text("AZURE_CLIENT_SECRET") {
                let parameters = [("client_id", client), ("client_secret", secret)];
                return self.azure_grant(tenant, resource, &parameters).await;
            }
            if let Some(file) = text("AZURE_FEDERATED_TOKEN_FILE") {
                let assertion = TokenFile::new(file.into())?.read()?;
                let parameters = [
                    ("client_id", client),
                    (
                        "client_assertion_type",
                        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                    ),
                    ("client_assertion", assertion.expose_secret()),
                ];
                return self.azure_grant(tenant, resource, &parameters).await;
            }
        }
        self.azure_managed_identity(resource, client).await
    }

    /// The client-credentials grant (RFC 6749, section 4.4).
    async fn azure_grant(
        &self,
        tenant: &str,
        resource: &str,
        parameters: &[(&str, &str)],
    ) -> Result<AccessToken, Error> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        if !tenant.bytes().all(is_plain) {
            return Err(Error::configuration(
                "AZURE_TENANT_ID is not the id or domain of a tenant",
            ));
        }
        let authority = self.environment.text("AZURE_AUTHORITY_HOST").unwrap_or(AUTHORITY).trim();
        let url = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        let url = endpoint(&url)
            .ok_or_else(|| Error::configuration("AZURE_AUTHORITY_HOST is not an https URL"))?;
        let scope = format!("{resource}/.default");
        let mut form = vec![("grant_type", "client_credentials"), ("scope", scope.as_str())];
        form.extend(parameters);
        access_token(ENTRA, &oauth::post_form(ENTRA, &url, &form, &self.network).await?)
    }

    /// The token of the identity that Azure gives to an app or a machine.
    async fn azure_managed_identity(
        &self,
        resource: &str,
        client: Option<&str>,
    ) -> Result<AccessToken, Error> {
        let text = |name| self.environment.text(name).map(str::trim);
        if let (Some(address), Some(secret)) = (text("IDENTITY_ENDPOINT"), text("IDENTITY_HEADER"))
        {
            let mut value = HeaderValue::from_str(secret)
                .map_err(|_| Error::configuration("IDENTITY_HEADER is not plain text"))?;
            value.set_sensitive(true);
            let url = Url::parse(address)
                .map_err(|_| Error::configuration("IDENTITY_ENDPOINT is not a URL"))?;
            let version = ("api-version", "2019-08-01");
            let request = identity_request(url, version, resource, client)
                .header(IDENTITY_HEADER, value)
                .body(Bytes::new());
            let client = self.network.local(address);
            return machine_token("the app's identity endpoint", request, &client).await;
        }
        let root =
            text("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or(MACHINE_ROOT).trim_end_matches('/');
        let url = Url::parse(&format!("{root}/metadata/identity/oauth2/token"))
            .map_err(|_| Error::configuration("AZURE_POD_IDENTITY_AUTHORITY_HOST is not a URL"))?;
        let version = ("api-version", "2018-02-01");
        let request = identity_request(url, version, resource, client)
            .header(METADATA, HeaderValue::from_static("true"))
            .body(Bytes::new());
        machine_token(MACHINE, request, &self.network.local(root)).await
    }
}

fn identity_request(
    mut url: Url,
    (name, version): (&str, &str),
    resource: &str,
    client: Option<&str>,
) -> http::request::Builder {
    url.query_pairs_mut().append_pair(name, version).append_pair("resource", resource);
    if let Some(client) = client {
        url.query_pairs_mut().append_pair("client_id", client);
    }
    Request::get(url.as_str())
}

async fn machine_token(
    whom: &str,
    request: http::Result<Request<Bytes>>,
    client: &BoundedClient,
) -> Result<AccessToken, Error> {
    let request =
        request.map_err(|_| Error::configuration(format!("the address of {whom} is not a URL")))?;
    access_token(whom, &oauth::ok(whom, send(whom, client, request).await?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_of_keys() {
        for (text, address) in [
            ("https://v.vault.azure.net/keys/app/0f1e", "https://v.vault.azure.net/keys/app/0f1e"),
            ("https://v.vault.azure.net/KEYS/app", "https://v.vault.azure.net/keys/app"),
            ("https://h.managedhsm.azure.net/keys/app", "https://h.managedhsm.azure.net/keys/app"),
        ] {
            let item = VaultItem::parse(text, "keys").unwrap();
            assert_eq!(item.address(None), format!("{address}?api-version=7.4"));
        }
        let newest = VaultItem::parse("https://v.vault.azure.net/keys/app", "keys").unwrap();
        assert_eq!(
            newest.address(Some("sign")),
            "https://v.vault.azure.net/keys/app//sign?api-version=7.4"
        );
        for bad in [
            "",
            "app",
            "http://v.vault.azure.net/keys/app",
            "https://v.vault.azure.net/secrets/app",
            "https://v.vault.azure.net/keys",
            "https://v.vault.azure.net/keys/",
            "https://v.vault.azure.net/keys//0f1e",
            "https://v.vault.azure.net/keys/app/0f1e/sign",
            "https://v.vault.azure.net/keys/app?x=y",
            "https://v.vault.azure.net/keys/a%2Fb",
            "https://user@v.vault.azure.net/keys/app",
            "https://v.vault.azure.net/keys/../secrets/app",
        ] {
            assert_eq!(VaultItem::parse(bad, "keys"), None, "{bad}");
        }
    }

    #[test]
    fn tokens_are_for_the_cloud_of_the_vault() {
        for (host, resource) in [
            ("v.vault.azure.net", "https://vault.azure.net"),
            ("v.vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net"),
            ("h.managedhsm.azure.net", "https://managedhsm.azure.net"),
            ("vault.example", "https://vault.azure.net"),
            ("evilvault.azure.cn", "https://vault.azure.net"),
        ] {
            let item = VaultItem::parse(&format!("https://{host}/keys/app"), "keys").unwrap();
            assert_eq!(item.resource(), resource);
        }
    }
}
