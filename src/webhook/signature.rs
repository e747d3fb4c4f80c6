//! Which requests are deliveries: their headers, their body, and the signature over it.
//!
//! [`Head::read`] rejects what cannot be a delivery before the body is read. [`Secrets::verify`] is
//! the only way to a [`Signed`] body, and only that is parsed.

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use secrecy::{ExposeSecret, SecretSlice};

/// The largest body that GitHub sends, in bytes.
pub const MAX_BODY: usize = 25 << 20;
/// The header that names the event. A request without it is not a delivery.
pub const EVENT: HeaderName = HeaderName::from_static("x-github-event");

const DELIVERY: &str = "x-github-delivery";
const SIGNATURE: &str = "x-hub-signature-256";
const MAX_NAME: usize = 64;

/// The headers of a delivery. Nothing of them is signed.
#[derive(Debug, Clone)]
pub struct Head {
    /// The event's name.
    pub event: String,
    /// The id of the delivery, which a redelivery keeps.
    pub delivery: String,
    signature: [u8; 32],
    is_form: bool,
}

/// Why a request is not a delivery, as the reply says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotADelivery {
    /// `X-GitHub-Event` is missing, repeated or not a name.
    #[error("X-GitHub-Event must be given once, as the name of an event")]
    Event,
    /// `X-GitHub-Delivery` is missing, repeated or not an id.
    #[error(
        "X-GitHub-Delivery must be given once, as an id of at most 64 letters, digits and dashes"
    )]
    Delivery,
    /// The signature is missing, repeated or malformed. SHA-1 signatures do not count.
    #[error("X-Hub-Signature-256 must be given once, as sha256= and 64 hexadecimal digits")]
    Signature,
    /// The content type is neither of GitHub's two.
    #[error("Content-Type must be application/json or application/x-www-form-urlencoded")]
    ContentType,
    /// The body is larger than any delivery.
    #[error("the body is larger than 25 MB")]
    TooLarge,
    /// No secret verifies the body.
    #[error("no matching secrets")]
    NotSigned,
    /// The body is signed, and not an event.
    #[error("the body is not the JSON of an event")]
    Payload,
}

impl Head {
    /// Reads the headers of a request.
    ///
    /// # Errors
    /// What the request lacks.
    pub fn read(headers: &HeaderMap) -> Result<Self, NotADelivery> {
        let is_event = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        let is_id =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let name = |name: &str, is_valid: &dyn Fn(&str) -> bool| {
            let text = once(headers, name)?;
            ((1..=MAX_NAME).contains(&text.len()) && is_valid(text)).then(|| text.to_owned())
        };
        let length = once(headers, header::CONTENT_LENGTH.as_str());
        if length
            .and_then(|length| length.parse().ok())
            .is_some_and(|length: u64| length > MAX_BODY as u64)
        {
            return Err(NotADelivery::TooLarge);
        }
        Ok(Self {
            event: name(EVENT.as_str(), &is_event).ok_or(NotADelivery::Event)?,
            delivery: name(DELIVERY, &is_id).ok_or(NotADelivery::Delivery)?,
            signature: once(headers, SIGNATURE)
                .and_then(signature)
                .ok_or(NotADelivery::Signature)?,
            is_form: is_form(headers).ok_or(NotADelivery::ContentType)?,
        })
    }
}

fn once<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn signature(text: &str) -> Option<[u8; 32]> {
    let mut signature = [0; 32];
    hex::decode_to_slice(text.strip_prefix("sha256=")?, &mut signature).ok()?;
    Some(signature)
}

fn is_form(headers: &HeaderMap) -> Option<bool> {
    let essence = once(headers, header::CONTENT_TYPE.as_str())?.split(';').next()?.trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Some(false)
    } else if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        Some(true)
    } else {
        None
    }
}

/// A body that GitHub signed, and the headers that came with it.
#[derive(Debug)]
pub struct Signed {
    /// Its headers, which are not signed.
    pub head: Head,
    /// The JSON of the event.
    pub json: Bytes,
    /// SHA-256 of the body: what a replay has in common with the original, whatever its headers.
    pub digest: [u8; 32],
}

/// The secrets that sign deliveries. Clones share them.
#[derive(Clone, Default)]
pub struct Secrets(Arc<RwLock<Vec<hmac::Key>>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// Accepts any of these secrets. An empty one is left out: anyone could sign with it.
    pub fn new(secrets: &[SecretSlice<u8>]) -> Self {
        let this = Self::default();
        this.replace(secrets);
        this
    }

    /// Whether nothing can be verified.
    pub fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Accepts these secrets from now on, and no others.
    pub fn replace(&self, secrets: &[SecretSlice<u8>]) {
        let keys =
            secrets.iter().map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty());
        let keys = keys.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret)).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// The body, if one of the secrets signed it.
    ///
    /// # Errors
    /// None of them did, or a form does not hold a payload.
    pub fn verify(&self, head: Head, body: &Bytes) -> Result<Signed, NotADelivery> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        // The comparison takes the same time wherever two signatures differ.
        if !keys.iter().any(|key| hmac::verify(key, body, &head.signature).is_ok()) {
            return Err(NotADelivery::NotSigned);
        }
        let json = if head.is_form {
            payload(body).ok_or(NotADelivery::Payload)?.into()
        } else {
            body.clone()
        };
        let mut digest = [0; 32];
        digest.copy_from_slice(digest::digest(&digest::SHA256, body).as_ref());
        Ok(Signed { head, json, digest })
    }
}

/// The field `payload` of a form, which must be given once.
fn payload(body: &[u8]) -> Option<Vec<u8>> {
    let mut values = form_urlencoded::parse(body).filter(|(name, _)| name == "payload");
    let (_, value) = values.next()?;
    values.next().is_none().then(|| value.into_owned().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"Hello, World!";
    /// GitHub's own example: the secret, the body, and its signature.
    const SECRET: &str = "It's a Secret to Everybody";
    const EXAMPLE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn headers(changes: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-github-event", "push"),
            ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("x-hub-signature-256", EXAMPLE),
            ("content-type", "application/json"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        for (name, value) in changes {
            match value.strip_prefix('+') {
                Some(again) => drop(headers.append(*name, again.parse().unwrap())),
                None if value.is_empty() => drop(headers.remove(*name)),
                None => drop(headers.insert(*name, value.parse().unwrap())),
            }
        }
        headers
    }

    fn secrets(texts: &[&str]) -> Secrets {
        let secrets: Vec<_> = texts.iter().map(|text| text.as_bytes().to_vec().into()).collect();
        Secrets::new(&secrets)
    }

    #[test]
    fn the_example_of_githubs_documentation_is_verified() {
        let head = Head::read(&headers(&[])).unwrap();
        let body = Bytes::from_static(BODY);
        for (known, is_verified) in [
            (&[SECRET][..], true),
            (&["old", SECRET], true),
            (&["It's a secret to everybody"], false),
            (&[""], false),
            (&[], false),
        ] {
            assert_eq!(
                secrets(known).verify(head.clone(), &body).is_ok(),
                is_verified,
                "{known:?}"
            );
        }
        let other = Bytes::from_static(b"Hello, World?");
        assert_eq!(secrets(&[SECRET]).verify(head, &other).unwrap_err(), NotADelivery::NotSigned);
    }

    #[test]
    fn headers_are_checked_before_the_body_is_read() {
        use NotADelivery as N;
        let upper = EXAMPLE.to_ascii_uppercase();
        for (changes, error) in [
            (&[("x-github-event", "")][..], N::Event),
            (&[("x-github-event", "Push")], N::Event),
            (&[("x-github-event", "+push")], N::Event),
            (&[("x-github-delivery", "")], N::Delivery),
            (&[("x-github-delivery", "a/b")], N::Delivery),
            (&[("x-hub-signature-256", ""), ("x-hub-signature", EXAMPLE)], N::Signature),
            (&[("x-hub-signature-256", &EXAMPLE[..60])], N::Signature),
            (&[("x-hub-signature-256", &EXAMPLE[7..])], N::Signature),
            (&[("x-hub-signature-256", &upper)], N::Signature),
            (&[("x-hub-signature-256", &format!("+{EXAMPLE}"))], N::Signature),
            (&[("content-type", "text/plain")], N::ContentType),
            (&[("content-type", "")], N::ContentType),
            (&[("content-length", "26214401")], N::TooLarge),
        ] {
            assert_eq!(Head::read(&headers(changes)).unwrap_err(), error, "{changes:?}");
        }
        let charset = headers(&[("content-type", "Application/JSON; charset=utf-8")]);
        assert!(Head::read(&charset).is_ok());
        assert!(Head::read(&headers(&[("content-length", "26214400")])).is_ok());
        assert!(Head::read(&headers(&[("x-github-event", "projects_v2_item")])).is_ok());
    }

    #[test]
    fn a_form_is_verified_as_it_was_sent_and_read_from_its_payload() {
        let form = headers(&[("content-type", "application/x-www-form-urlencoded")]);
        for (body, json) in [
            ("payload=%7B%22a%22%3A+1%7D", Some(r#"{"a": 1}"#)),
            ("x=1&payload=%7B%7D", Some("{}")),
            ("payload=%7B%7D&payload=1", None),
            ("x=1", None),
        ] {
            let key = hmac::Key::new(hmac::HMAC_SHA256, b"s");
            let tag = format!("sha256={}", hex::encode(hmac::sign(&key, body.as_bytes())));
            let mut form = form.clone();
            form.insert("x-hub-signature-256", tag.parse().unwrap());
            let verified = secrets(&["s"]).verify(Head::read(&form).unwrap(), &body.into());
            assert_eq!(verified.ok().map(|signed| signed.json), json.map(Bytes::from));
        }
    }
}
