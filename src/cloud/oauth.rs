//! Access tokens, as the token endpoints of OAuth 2.0 (RFC 6749) and metadata servers issue them.

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::{Error, Network, is_token, refusal, send};
use crate::{
    egress::{Answer, BoundedClient},
    name::is_loopback,
};

/// A bearer token (RFC 6750).
#[derive(Debug, Clone)]
pub(super) struct AccessToken(SecretString);

impl AccessToken {
    /// Takes what a service issued; `None` if it cannot be in a header.
    pub(super) fn new(text: String) -> Option<Self> {
        is_token(&text).then(|| Self(text.into()))
    }

    /// The `Authorization` header.
    pub(super) fn header(&self) -> Result<HeaderValue, Error> {
        let value = Zeroizing::new(format!("Bearer {}", self.0.expose_secret()));
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| Error::unusable("the access token is not plain text"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The token of a successful reply (RFC 6749, section 5.1).
pub(super) fn access_token(whom: &str, answer: &Answer) -> Result<AccessToken, Error> {
    #[derive(Deserialize)]
    struct Body {
        access_token: String,
    }
    let body: Body = document(whom, answer)?;
    AccessToken::new(body.access_token)
        .ok_or_else(|| Error::unusable(format!("the answer of {whom} holds no access token")))
}

/// POSTs a form to a token endpoint.
pub(super) async fn post_form(
    whom: &str,
    url: &Url,
    parameters: &[(&str, &str)],
    network: &Network,
) -> Result<Answer, Error> {
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let request = Request::post(url.as_str())
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Bytes::from(form))
        .map_err(|_| Error::configuration(format!("the address of {whom} is not a URL")))?;
    ok(whom, send(whom, &network.service(), request).await?)
}

/// A request with an access token: POST with a JSON body, or GET without.
pub(super) async fn call<T: DeserializeOwned>(
    whom: &str,
    url: &str,
    body: Option<&Value>,
    token: &AccessToken,
    client: &BoundedClient,
) -> Result<T, Error> {
    let request = match body {
        Some(_) => Request::post(url).header(header::CONTENT_TYPE, "application/json"),
        None => Request::get(url),
    };
    let request = request
        .header(header::AUTHORIZATION, token.header()?)
        .body(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default())
        .map_err(|_| Error::configuration(format!("the address of {whom} is not a URL")))?;
    document(whom, &ok(whom, send(whom, client, request).await?)?)
}

/// Lets a response of status 200 pass.
pub(super) fn ok(whom: &str, answer: Answer) -> Result<Answer, Error> {
    if answer.status == StatusCode::OK {
        return Ok(answer);
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Err(refusal(whom, answer.status, code(&body)))
}

/// The code of an error: of OAuth (RFC 6749, section 5.2), Google's status, or Azure's code.
fn code(body: &Value) -> Option<&str> {
    let error = body.get("error")?;
    ["status", "code"]
        .iter()
        .find_map(|name| error.get(name).and_then(Value::as_str))
        .or_else(|| error.as_str())
}

/// The JSON of a response.
pub(super) fn document<T: DeserializeOwned>(whom: &str, answer: &Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body)
        .map_err(|_| Error::unusable(format!("the answer of {whom} is not what it documents")))
}

/// An address that a credential may be sent to: https, or http on loopback, without user and
/// fragment.
pub(super) fn endpoint(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_safe = match url.scheme() {
        "https" => url.has_host(),
        "http" => url.host_str().is_some_and(is_loopback),
        _ => false,
    };
    let is_plain =
        url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (is_safe && is_plain).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_an_error_is_found_in_each_services_form() {
        for (body, expected) in [
            (r#"{"error":"invalid_grant","error_description":"…"}"#, Some("invalid_grant")),
            (r#"{"error":{"code":403,"status":"PERMISSION_DENIED"}}"#, Some("PERMISSION_DENIED")),
            (r#"{"error":{"code":"Forbidden","message":"…"}}"#, Some("Forbidden")),
            (r#"{"error":{"code":403}}"#, None),
            ("{}", None),
            ("null", None),
        ] {
            let body = serde_json::from_str(body).unwrap();
            assert_eq!(code(&body), expected, "{body}");
        }
    }

    #[test]
    fn credentials_go_to_https_or_loopback() {
        for good in ["https://oauth2.googleapis.com/token", "http://127.0.0.1:1/token"] {
            assert!(endpoint(good).is_some(), "{good}");
        }
        for bad in [
            "http://oauth2.googleapis.com/token",
            "https://user@oauth2.googleapis.com/",
            "https://oauth2.googleapis.com/#x",
            "ftp://127.0.0.1/",
            "oauth2.googleapis.com",
            "",
        ] {
            assert!(endpoint(bad).is_none(), "{bad}");
        }
    }
}
