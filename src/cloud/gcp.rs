//! Google Cloud: application default credentials, and requests to Cloud KMS.
//!
//! Credentials are found as Google's own clients find them: the file that
//! `GOOGLE_APPLICATION_CREDENTIALS` names, the file that `gcloud auth application-default login`
//! writes, the machine's metadata server. Files that run a program or sign for AWS are refused: what
//! they need can be given by a token file.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::ExposeSecret;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use url::Url;
use zeroize::Zeroizing;

use super::{
    Access, Error, IdentityToken, TokenFile,
    oauth::{self, AccessToken, access_token, endpoint},
    send,
};
use crate::egress::Answer;

/// What tokens are requested for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Where user and service accounts exchange their credentials.
const TOKEN_ENDPOINT: &str = "https://oauth2.googleapis.com/token";
/// Both sides state it: the request, so that no page can be made to send it, and the response.
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const GOOGLE: HeaderValue = HeaderValue::from_static("Google");
/// No credential file is larger, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// How long the assertion of a service account is valid, in seconds.
const ASSERTION_SECONDS: i64 = 300;

/// The metadata server, unless `GCE_METADATA_HOST` names another.
const MACHINE_HOST: &str = "169.254.169.254";
const ENDPOINT: &str = "Google's token endpoint";
const MACHINE: &str = "Google's metadata server";
const KMS: &str = "Google Cloud KMS";
const SECRETS: &str = "Google Secret Manager";

/// A file of credentials.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CredentialFile {
    ServiceAccount {
        client_email: String,
        private_key: String,
        private_key_id: Option<String>,
        token_uri: Option<String>,
    },
    AuthorizedUser {
        client_id: String,
        client_secret: String,
        refresh_token: String,
    },
    ExternalAccount {
        audience: String,
        subject_token_type: String,
        token_url: String,
        credential_source: TokenSource,
        service_account_impersonation_url: Option<String>,
    },
    ImpersonatedServiceAccount {
        service_account_impersonation_url: String,
        source_credentials: Box<CredentialFile>,
    },
}

/// Where an external account gets its token.
#[derive(Deserialize)]
struct TokenSource {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    format: TokenFormat,
}

#[derive(Deserialize, Default)]
struct TokenFormat {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

impl Access {
    /// Calls a method of Cloud KMS on a key version: a POST with `body`, or a GET without.
    ///
    /// # Errors
    /// There are no credentials, or no response of status 200.
    pub async fn google_kms<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Error> {
        let token = self.google_token().await?;
        let url = format!("https://cloudkms.googleapis.com/v1/{path}");
        oauth::call(KMS, &url, body, &token, &self.network.service()).await
    }

    /// Reads a secret version: `projects/P/secrets/S/versions/V`.
    ///
    /// # Errors
    /// As [`Access::google_kms`].
    pub async fn google_secret<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        let token = self.google_token().await?;
        let url = format!("https://secretmanager.googleapis.com/v1/{name}:access");
        oauth::call(SECRETS, &url, None, &token, &self.network.service()).await
    }

    /// An access token, requested anew.
    async fn google_token(&self) -> Result<AccessToken, Error> {
        match self.google_credential_file() {
            Some(path) => {
                let file = read(&path)?;
                Box::pin(self.google_token_of(&file)).await
            }
            None => self.google_machine_token().await,
        }
    }

    /// The file that names the credentials, if there is one.
    fn google_credential_file(&self) -> Option<PathBuf> {
        let text = |name| self.environment.text(name).map(str::trim);
        if let Some(path) = text("GOOGLE_APPLICATION_CREDENTIALS") {
            return Some(path.into());
        }
        let folder = match text("CLOUDSDK_CONFIG") {
            Some(folder) => PathBuf::from(folder),
            None => PathBuf::from(text("HOME")?).join(".config/gcloud"),
        };
        let path = folder.join("application_default_credentials.json");
        path.is_file().then_some(path)
    }

    async fn google_token_of(&self, file: &CredentialFile) -> Result<AccessToken, Error> {
        match file {
            CredentialFile::ServiceAccount {
                client_email,
                private_key,
                private_key_id,
                token_uri,
            } => {
                let account = (client_email.as_str(), private_key.as_str(), private_key_id);
                let purpose = ("scope", SCOPE);
                let reply = self.google_key_grant(account, token_uri.as_deref(), purpose).await?;
                access_token(ENDPOINT, &reply)
            }
            CredentialFile::AuthorizedUser { client_id, client_secret, refresh_token } => {
                let parameters = [
                    ("grant_type", "refresh_token"),
                    ("client_id", client_id),
                    ("client_secret", client_secret),
                    ("refresh_token", refresh_token),
                ];
                self.google_grant(&url(TOKEN_ENDPOINT)?, &parameters).await
            }
            CredentialFile::ExternalAccount {
                audience,
                subject_token_type,
                token_url,
                credential_source,
                service_account_impersonation_url,
            } => {
                let subject = self.google_subject_token(credential_source).await?;
                let parameters = [
                    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                    ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                    ("audience", audience),
                    ("scope", SCOPE),
                    ("subject_token_type", subject_token_type),
                    ("subject_token", subject.expose_secret()),
                ];
                let token = self.google_grant(&url(token_url)?, &parameters).await?;
                match service_account_impersonation_url {
                    Some(url) => self.google_impersonate(url, &token).await,
                    None => Ok(token),
                }
            }
            CredentialFile::ImpersonatedServiceAccount {
                service_account_impersonation_url,
                source_credentials,
            } => {
                let token = Box::pin(self.google_token_of(source_credentials)).await?;
                self.google_impersonate(service_account_impersonation_url, &token).await
            }
        }
    }

    /// The assertion of a service account (RFC 7523, section 2.1).
    fn google_assertion(
        &self,
        email: &str,
        (private_key, key_id): (&str, &Option<String>),
        (purpose, value): (&str, &str),
        audience: &Url,
    ) -> Result<Zeroizing<String>, Error> {
        let now = self.network.clock.now().as_secs();
        let claims = json!({
            "iss": email,
            purpose: value,
            "aud": audience.as_str(),
            "iat": now,
            "exp": now.saturating_add(ASSERTION_SECONDS),
        });
        let header = Header { kid: key_id.clone(), ..Header::new(Algorithm::RS256) };
        let unsound = || Error::configuration("the key of Google's service account does not sign");
        let key = EncodingKey::from_rsa_pem(private_key.as_bytes()).map_err(|_| unsound())?;
        jsonwebtoken::encode(&header, &claims, &key).map(Zeroizing::new).map_err(|_| unsound())
    }

    /// The reply to what a service account's own key signs for a purpose (RFC 7523, section 2.1).
    async fn google_key_grant(
        &self,
        (email, private_key, key_id): (&str, &str, &Option<String>),
        token_uri: Option<&str>,
        purpose: (&str, &str),
    ) -> Result<Answer, Error> {
        let url = url(token_uri.unwrap_or(TOKEN_ENDPOINT))?;
        let assertion = self.google_assertion(email, (private_key, key_id), purpose, &url)?;
        let parameters = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", &*assertion),
        ];
        oauth::post_form(ENDPOINT, &url, &parameters, &self.network).await
    }

    async fn google_grant(
        &self,
        url: &Url,
        parameters: &[(&str, &str)],
    ) -> Result<AccessToken, Error> {
        access_token(ENDPOINT, &oauth::post_form(ENDPOINT, url, parameters, &self.network).await?)
    }

    /// The token that an external account exchanges, from a file or from an address next to this
    /// process.
    async fn google_subject_token(
        &self,
        source: &TokenSource,
    ) -> Result<super::IdentityToken, Error> {
        let text = match (&source.file, &source.url) {
            (Some(file), None) => TokenFile::new(file.clone())?.text()?,
            (None, Some(address)) => {
                let whom = "the address of the external account's token";
                let client = self.network.local(address);
                let mut request = Request::get(address);
                for (name, value) in &source.headers {
                    request = request.header(name, value);
                }
                let request = request.body(Bytes::new()).map_err(|_| {
                    Error::configuration(
                        "`url` and `headers` of `credential_source` make no request",
                    )
                })?;
                let answer = oauth::ok(whom, send(whom, &client, request).await?)?;
                Zeroizing::new(answer.text().unwrap_or_default().to_owned())
            }
            _ => {
                return Err(Error::configuration(
                    "`credential_source` of Google's credentials must have `file` or `url`: a token \
                     is used, and neither programs nor AWS's credentials",
                ));
            }
        };
        let text = source.format.token(text)?;
        super::IdentityToken::parse(&text).map_err(|error| {
            Error::configuration(format!("`credential_source` of Google's credentials has {error}"))
        })
    }

    /// A token of the service account that the credentials may act as.
    async fn google_impersonate(
        &self,
        address: &str,
        token: &AccessToken,
    ) -> Result<AccessToken, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            access_token: String,
        }
        let whom = "Google's IAM credentials service";
        let body = json!({ "scope": [SCOPE] });
        let address = url(address)?;
        let client = self.network.service();
        let body: Body = oauth::call(whom, address.as_str(), Some(&body), token, &client).await?;
        AccessToken::new(body.access_token)
            .ok_or_else(|| Error::unusable(format!("the answer of {whom} holds no access token")))
    }

    /// The token of the machine's service account.
    async fn google_machine_token(&self) -> Result<AccessToken, Error> {
        let answer = self.google_machine("token").await?;
        access_token(MACHINE, &oauth::ok(MACHINE, answer)?)
    }

    /// An identity token of the machine's service account, or of the one whose key
    /// `GOOGLE_APPLICATION_CREDENTIALS` names; `None` where neither is.
    ///
    /// # Errors
    /// There is one of them, and it gives no token.
    pub async fn google_identity(&self, audience: &str) -> Result<Option<IdentityToken>, Error> {
        let token = match self.google_credential_file() {
            Some(path) => self.google_identity_of(&read(&path)?, audience).await?,
            None if self.is_on_google() => {
                let query = form_urlencoded::Serializer::new(String::new())
                    .append_pair("audience", audience)
                    .append_pair("format", "full")
                    .finish();
                let answer = self.google_machine(&format!("identity?{query}")).await?;
                Some(oauth::ok(MACHINE, answer)?.text().unwrap_or_default().to_owned())
            }
            None => None,
        };
        let parsed = token.map(|token| IdentityToken::parse(&token)).transpose();
        parsed.map_err(|error| Error::unusable(format!("Google answered with {error}")))
    }

    /// Of credentials in a file, only the key of a service account gives identity tokens.
    async fn google_identity_of(
        &self,
        file: &CredentialFile,
        audience: &str,
    ) -> Result<Option<String>, Error> {
        #[derive(Deserialize)]
        struct Reply {
            id_token: String,
        }
        let CredentialFile::ServiceAccount { client_email, private_key, private_key_id, token_uri } =
            file
        else {
            return Ok(None);
        };
        let account = (client_email.as_str(), private_key.as_str(), private_key_id);
        let purpose = ("target_audience", audience);
        let answer = self.google_key_grant(account, token_uri.as_deref(), purpose).await?;
        let reply: Option<Reply> = serde_json::from_slice(&answer.body).ok();
        reply
            .map(|reply| Some(reply.id_token))
            .ok_or_else(|| Error::unusable(format!("{ENDPOINT} gave no identity token")))
    }

    /// Whether the metadata server is Google's, as far as that is known without calling it.
    fn is_on_google(&self) -> bool {
        self.environment.has("GCE_METADATA_HOST")
            || self.environment.has("K_SERVICE")
            || super::firmware_says(&self.endpoints.firmware, "product_name", "Google")
    }

    /// What the metadata server says of the machine's service account.
    async fn google_machine(&self, what: &str) -> Result<Answer, Error> {
        let host = match self.environment.text("GCE_METADATA_HOST").map(str::trim) {
            // Its names, which need not be resolved.
            None | Some("metadata.google.internal" | "metadata") => MACHINE_HOST,
            Some(host) => host,
        };
        let path = format!("computeMetadata/v1/instance/service-accounts/default/{what}");
        let request = Request::get(format!("http://{host}/{path}"))
            .header(FLAVOR, GOOGLE)
            .body(Bytes::new())
            .map_err(|_| Error::configuration("GCE_METADATA_HOST is not a host"))?;
        let client = self.network.local(&format!("http://{host}"));
        let answer = send(MACHINE, &client, request).await?;
        if answer.headers.get(FLAVOR) != Some(&GOOGLE) {
            return Err(Error::unusable(format!(
                "what answers at the address of {MACHINE} is not it"
            )));
        }
        Ok(answer)
    }
}

impl TokenFormat {
    /// The token in what a source gave: the whole text, or one member of a JSON object.
    fn token(&self, text: Zeroizing<String>) -> Result<Zeroizing<String>, Error> {
        match self.kind.as_deref() {
            None | Some("text") => Ok(text),
            Some("json") => {
                let name = self.subject_token_field_name.as_deref().unwrap_or_default();
                let body: Value = serde_json::from_str(&text).unwrap_or_default();
                let token = body.get(name).and_then(Value::as_str).ok_or_else(|| {
                    Error::configuration(
                        "`credential_source` of Google's credentials gives no JSON with \
                         `subject_token_field_name`",
                    )
                })?;
                Ok(Zeroizing::new(token.to_owned()))
            }
            Some(_) => Err(Error::configuration(
                "`format` of Google's credentials must be `text` or `json`",
            )),
        }
    }
}

fn url(text: &str) -> Result<Url, Error> {
    endpoint(text).ok_or_else(|| {
        Error::configuration("Google's credentials name an address that is not an https URL")
    })
}

/// Reads a file of credentials. Errors never repeat any of it.
fn read(path: &std::path::Path) -> Result<CredentialFile, Error> {
    let named = |what: &str| Error::Configuration(format!("{}: {what}", path.display()));
    let size = fs::metadata(path).map_err(|error| named(&error.kind().to_string()))?;
    if !size.is_file() || size.len() > MAX_FILE_BYTES {
        return Err(named("is not a file of at most 64 KiB"));
    }
    let text = fs::read(path).map(Zeroizing::new);
    let text = text.map_err(|error| named(&error.kind().to_string()))?;
    serde_json::from_slice(&text).map_err(|_| {
        named(
            "is not a file of Google credentials of the type service_account, authorized_user, \
             external_account or impersonated_service_account",
        )
    })
}
