//! A bearer token before its signature is verified.
//!
//! Only what leads to the right key is read: the header, and of the claims the issuer alone. The
//! rest of the claims cannot be reached until [`super::keys`] has checked the signature over them.
//! The header is read by ourselves, before any cryptography: the JWT library ignores most of what
//! has to be refused here. Members that would bring a key along (`jwk`, `jku`, `x5u`, `x5c`) mean
//! nothing to us.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{
    error::Error,
    json::{self, NotAnObject},
};
use crate::name::Issuer;

/// A token of which only issuer, key id and algorithm were read.
pub struct Unverified {
    issuer: Issuer,
    key_id: Option<String>,
    algorithm: Algorithm,
    /// The claims as they stand, base64 undone.
    payload: Vec<u8>,
    token: SecretString,
}

impl Unverified {
    /// Reads a token of at most `most_bytes`.
    pub(super) fn read(token: &str, most_bytes: usize) -> Result<Self, Error> {
        if token.len() > most_bytes {
            return Err(Error::TooLarge(most_bytes));
        }
        let mut parts = token.splitn(4, '.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::Malformed("not three parts"));
        };
        let header = json::object(&decode(header)?).map_err(|error| match error {
            NotAnObject::Malformed => Error::Malformed("the header is not a JSON object"),
            NotAnObject::Duplicate => Error::Malformed("a header member stands twice"),
        })?;
        let payload = decode(payload)?;
        let issuer = read_issuer(&payload)?;
        let algorithm = read_algorithm(&header)?;
        refuse_extensions(&header)?;
        if decode(signature)?.is_empty() {
            return Err(Error::Signature("there is no signature"));
        }
        let key_id = text(&header, "kid")?.map(str::to_owned);
        let issuer = match issuer {
            Some(Value::String(issuer)) => {
                issuer.parse().map_err(|_| Error::Claims("iss is not a URL that we accept"))?
            }
            Some(_) => return Err(Error::Claims("iss is not a string")),
            None => return Err(Error::Claims("iss is missing")),
        };
        Ok(Self { issuer, key_id, algorithm, payload, token: token.into() })
    }

    /// The issuer that the token claims.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Which key the header names.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// One of those that we accept at all.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The claims, which mean nothing before the signature over them is verified.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What was signed, and the signature in base64.
    pub(super) fn signed_and_signature(&self) -> (&str, &str) {
        self.token.expose_secret().rsplit_once('.').unwrap_or_default()
    }
}

impl fmt::Debug for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unverified").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// An algorithm by its name in a token or a key, if it is one that we accept.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

/// Base64 as RFC 7515 has it: no padding, no other character, no stray bits.
fn decode(part: &str) -> Result<Vec<u8>, Error> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::Malformed("a part is not base64url"))
}

fn text<'h>(header: &'h Map<String, Value>, name: &str) -> Result<Option<&'h str>, Error> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::Malformed("alg, kid, typ or cty is not a string")),
    }
}

fn read_algorithm(header: &Map<String, Value>) -> Result<Algorithm, Error> {
    let name = text(header, "alg")?.ok_or(Error::Malformed("the header has no alg"))?;
    algorithm(name).ok_or(Error::Signature("the algorithm is not one that we accept"))
}

/// Refuses tokens that are something else than plain claims, signed: nested, encrypted, compressed,
/// of another kind, or with extensions that must be understood (RFC 7515 section 4.1.11).
fn refuse_extensions(header: &Map<String, Value>) -> Result<(), Error> {
    if ["crit", "b64", "zip", "enc"].iter().any(|name| header.contains_key(*name)) {
        return Err(Error::Signature("the header has crit, b64, zip or enc"));
    }
    let is_plain = |typ: &str| typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt");
    if !text(header, "typ")?.is_none_or(is_plain) {
        return Err(Error::Signature("typ is neither JWT nor at+jwt"));
    }
    if text(header, "cty")?.is_some() {
        return Err(Error::Signature("the header has cty: a nested token"));
    }
    Ok(())
}

/// `iss` of a JSON object, whatever it is.
fn read_issuer(payload: &[u8]) -> Result<Option<Value>, Error> {
    let malformed = Error::Malformed("the claims are not a JSON object");
    let Ok(payload) = std::str::from_utf8(payload) else { return Err(malformed) };
    if !payload.trim_start().starts_with('{') {
        return Err(malformed);
    }
    match serde_json::from_str::<IssuerOnly>(payload) {
        Ok(found) => Ok(found.0),
        // Of an object, only a second `iss` is an error of data.
        Err(error) if error.is_data() => Err(Error::Claims("iss stands twice")),
        Err(_) => Err(malformed),
    }
}

struct IssuerOnly(Option<Value>);

impl<'de> Deserialize<'de> for IssuerOnly {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = IssuerOnly;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<IssuerOnly, A::Error> {
                let mut issuer = None;
                while let Some(name) = members.next_key::<String>()? {
                    if name != "iss" {
                        members.next_value::<IgnoredAny>()?;
                    } else if issuer.replace(members.next_value()?).is_some() {
                        return Err(A::Error::custom("iss stands twice"));
                    }
                }
                Ok(IssuerOnly(issuer))
            }
        }

        reader.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    const HEADER: &str = r#"{"alg":"RS256","kid":"k","typ":"JWT"}"#;
    const CLAIMS: &str = r#"{"iss":"https://issuer.example","sub":"s"}"#;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    fn read(token: &str) -> Result<Unverified, Reason> {
        Unverified::read(token, 32 << 10).map_err(|error| error.reason())
    }

    #[test]
    fn a_token_says_issuer_key_and_algorithm() {
        let token = read(&token(HEADER, CLAIMS)).unwrap();
        assert_eq!(token.issuer().as_str(), "https://issuer.example");
        assert_eq!((token.key_id(), token.algorithm()), (Some("k"), Algorithm::RS256));
    }

    #[test]
    fn a_token_is_not_shown() {
        let text = token(HEADER, CLAIMS);
        let shown = format!("{:?}", read(&text).unwrap());
        assert!(!shown.contains("c2ln") && !shown.contains("eyJ"), "{shown}");
    }

    #[test]
    fn algorithms_are_allowed_by_name() {
        for name in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"] {
            assert!(read(&token(&format!(r#"{{"alg":"{name}"}}"#), CLAIMS)).is_ok(), "{name}");
        }
        for name in [
            "none", "None", "NONE", "", "HS256", "HS384", "HS512", "ES512", "ES256K", "rs256", "RSA1_5", "dir",
            "RS256 ",
        ] {
            let answer = read(&token(&format!(r#"{{"alg":"{name}"}}"#), CLAIMS));
            assert_eq!(answer.unwrap_err(), Reason::SignatureInvalid, "{name}");
        }
    }

    #[test]
    fn headers_that_ask_for_more_are_refused() {
        for more in [
            r#""crit":["b64"]"#,
            r#""crit":[]"#,
            r#""b64":false"#,
            r#""b64":true"#,
            r#""zip":"DEF""#,
            r#""enc":"A128GCM""#,
            r#""cty":"JWT""#,
            r#""cty":"jwt""#,
            r#""typ":"JWE""#,
            r#""typ":"dpop+jwt""#,
            r#""typ":"logout+jwt""#,
            r#""typ":"""#,
        ] {
            let answer = read(&token(&format!(r#"{{"alg":"RS256",{more}}}"#), CLAIMS));
            assert_eq!(answer.unwrap_err(), Reason::SignatureInvalid, "{more}");
        }
        for fine in [
            r#""typ":"jwt""#,
            r#""typ":"AT+JWT""#,
            r#""jku":"https://evil""#,
            r#""jwk":{"kty":"RSA"}"#,
            r#""x5u":1"#,
            r#""x5c":[]"#,
        ] {
            assert!(read(&token(&format!(r#"{{"alg":"RS256",{fine}}}"#), CLAIMS)).is_ok(), "{fine}");
        }
    }

    #[test]
    fn malformed_headers() {
        for header in [
            "",
            "x",
            "[]",
            "null",
            "{}",
            r#"{"alg":5}"#,
            r#"{"alg":null}"#,
            r#"{"alg":"RS256","kid":5}"#,
            r#"{"alg":"RS256","typ":5}"#,
            r#"{"alg":"RS256","alg":"RS256"}"#,
            r#"{"alg":"RS256","kid":"a","kid":"b"}"#,
            r#"{"alg":"RS256"} x"#,
            r#"{"alg":"RS256","x":{"a":1,"a":2}}"#,
        ] {
            assert_eq!(read(&token(header, CLAIMS)).unwrap_err(), Reason::TokenMalformed, "{header}");
        }
    }

    #[test]
    fn a_token_has_three_parts_in_base64url() {
        let good = token(HEADER, CLAIMS);
        let dots = ".".repeat(32 << 10);
        for bad in [
            "",
            ".",
            "..",
            "...",
            "a.b",
            &dots,
            &format!("{good}.x"),
            &format!("{good}="),
            &format!("{good}\n"),
            &format!(" {good}"),
            &good.replace('.', "=."),
            &format!("{good}5"),
            "a.b.c",
        ] {
            assert_eq!(read(bad).unwrap_err(), Reason::TokenMalformed, "{bad:.80}");
        }
        assert_eq!(read(good.trim_end_matches("c2ln")).unwrap_err(), Reason::SignatureInvalid);
    }

    #[test]
    fn a_token_has_a_limit() {
        let token = token(HEADER, CLAIMS);
        assert!(Unverified::read(&token, token.len()).is_ok());
        assert_eq!(Unverified::read(&token, token.len() - 1).unwrap_err(), Error::TooLarge(token.len() - 1));
    }

    #[test]
    fn claims_are_an_object_with_one_issuer() {
        let deep = format!(r#"{{"iss":{}{}}}"#, "[".repeat(300), "]".repeat(300));
        for claims in ["", "x", "[]", "5", "\"x\"", "null", "{", r#"{"iss":"https://a"} {}"#, &deep] {
            assert_eq!(read(&token(HEADER, claims)).unwrap_err(), Reason::TokenMalformed, "{claims:.60}");
        }
        for claims in [
            "{}",
            r#"{"sub":"s"}"#,
            r#"{"iss":5}"#,
            r#"{"iss":null}"#,
            r#"{"iss":["https://a"]}"#,
            r#"{"iss":""}"#,
            r#"{"iss":"https://a","iss":"https://a"}"#,
            r#"{"iss":"https://a","\u0069ss":"https://b"}"#,
            r#"{"iss":"accounts.google.com"}"#,
            r#"{"iss":"http://a.example"}"#,
            r#"{"iss":"https://user@a.example"}"#,
            r#"{"iss":"https://a.example/../b"}"#,
        ] {
            assert_eq!(read(&token(HEADER, claims)).unwrap_err(), Reason::TokenClaimsInvalid, "{claims}");
        }
    }
}
