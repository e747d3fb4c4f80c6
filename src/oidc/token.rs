//! A bearer token before its signature is verified.
//!
//! Only what leads to the right key is read: the header, and of the claims the issuer alone. The
//! rest of the claims cannot be reached until [`super::keys`] has checked the signature over them.
//! The header is read by ourselves, before any cryptography: the JWT library ignores most of what
//! has to be refused here. Members that would bring a key along (`jwk`, `jku`, `x5u`, `x5c`) mean
//! nothing to us.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{
    algorithm::{self, Algorithm},
    error::Error,
    json::{self, NotAnObject},
    surrogates,
};
use crate::name::{Issuer, NameError};

/// The issuer of Kubernetes tokens that lie in secrets and never expire.
const LEGACY_KUBERNETES: &str = "kubernetes/serviceaccount";

/// A token of which only issuer, key id and algorithm were read. Clones share its text.
#[derive(Clone)]
pub struct Unverified {
    parts: Arc<Parts>,
}

struct Parts {
    issuer: Issuer,
    key_id: Option<String>,
    algorithm: Algorithm,
    /// The claims, decoded from base64, without lone surrogate escapes.
    payload: Vec<u8>,
    token: SecretString,
}

impl Unverified {
    /// Reads a token of at most `max_bytes`.
    pub(super) fn read(token: &str, max_bytes: usize) -> Result<Self, Error> {
        if token.len() > max_bytes {
            return Err(Error::TooLarge(max_bytes));
        }
        let mut parts = token.splitn(4, '.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::Malformed(other_credential(token)));
        };
        let header =
            surrogates::replace(decode(header).ok_or_else(|| not_base64(token, "the header"))?);
        let header = json::object(&header).map_err(|error| match error {
            NotAnObject::Malformed => Error::Malformed("the header is not a JSON object"),
            NotAnObject::Duplicate => Error::Malformed("a member of the header occurs twice"),
        })?;
        let payload =
            surrogates::replace(decode(payload).ok_or_else(|| not_base64(token, "the claims"))?);
        let issuer = read_issuer(&payload)?;
        let algorithm = read_algorithm(&header)?;
        refuse_extensions(&header)?;
        if decode(signature).ok_or_else(|| not_base64(token, "the signature"))?.is_empty() {
            return Err(Error::Signature("the token has no signature".into()));
        }
        let key_id = text(&header, "kid")?.map(str::to_owned);
        let issuer = match issuer {
            Some(Value::String(issuer)) => parse_issuer(&issuer)?,
            Some(_) => return Err(Error::Claims("`iss` is not a string".into())),
            None => return Err(Error::Claims("`iss` is missing".into())),
        };
        Ok(Self {
            parts: Arc::new(Parts { issuer, key_id, algorithm, payload, token: token.into() }),
        })
    }

    /// The issuer that the token claims.
    pub fn issuer(&self) -> &Issuer {
        &self.parts.issuer
    }

    /// Which key the header names.
    pub fn key_id(&self) -> Option<&str> {
        self.parts.key_id.as_deref()
    }

    /// One of the accepted algorithms.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.parts.algorithm
    }

    /// The claims, which mean nothing before the signature over them is verified.
    pub(super) fn payload(&self) -> &[u8] {
        &self.parts.payload
    }

    /// What was signed: header and payload, as they are.
    pub fn signed_text(&self) -> &str {
        self.signed_and_signature().0
    }

    /// What was signed, and the signature in base64.
    pub(super) fn signed_and_signature(&self) -> (&str, &str) {
        self.parts.token.expose_secret().rsplit_once('.').unwrap_or_default()
    }
}

impl fmt::Debug for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unverified").field("issuer", self.issuer()).finish_non_exhaustive()
    }
}

/// What a credential is that does not have three parts, as far as that can be seen.
fn other_credential(credential: &str) -> &'static str {
    const GITHUB: [&str; 6] = ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"];
    if let Ok(Value::Object(reply)) = serde_json::from_str(credential) {
        return match ["value", "token", "id_token", "access_token"]
            .into_iter()
            .find(|name| reply.contains_key(*name))
        {
            Some("value") => "the credential is a whole JSON reply: send only its field `value`",
            Some("token") => "the credential is a whole JSON reply: send only its field `token`",
            Some("id_token") => {
                "the credential is a whole JSON reply: send only its field `id_token`"
            }
            Some(_) => "the credential is a whole JSON reply: send only its field `access_token`",
            None => "the credential is a JSON document, expected only the token",
        };
    }
    match credential {
        reply if reply.starts_with(['{', '[']) => {
            "the credential is a JSON document, expected only the token"
        }
        quoted if quoted.starts_with(['"', '\'']) => {
            "the credential is in quotes, expected only the token"
        }
        github if GITHUB.iter().any(|prefix| github.starts_with(prefix)) => {
            "the credential is a GitHub token, expected an OIDC token of the workload's issuer"
        }
        encrypted if encrypted.split('.').count() == 5 => {
            "the token is encrypted, expected a signed token"
        }
        _ => "expected three parts with a dot between them",
    }
}

/// A part is not base64url. The cause may be that all of it is something else.
fn not_base64(token: &str, part: &'static str) -> Error {
    let is_other = token.starts_with(['{', '[', '"', '\'']);
    Error::Malformed(match part {
        _ if is_other => other_credential(token),
        "the header" => "the header is not base64url",
        "the claims" => "the claims are not base64url",
        _ => "the signature is not base64url",
    })
}

/// The issuer, or what is wrong with it.
fn parse_issuer(issuer: &str) -> Result<Issuer, Error> {
    issuer.parse().map_err(|error: NameError| {
        let text = match issuer {
            LEGACY_KUBERNETES => {
                "`iss` is `kubernetes/serviceaccount`: this is a legacy Kubernetes token, which never expires; use a \
                 projected token (a `serviceAccountToken` volume, or `kubectl create token`)"
                    .into()
            }
            other if !other.contains("://") => "`iss` has no scheme, expected https://".into(),
            _ => format!("`iss` is not accepted: {error}").into(),
        };
        Error::Claims(text)
    })
}

/// Base64 as RFC 7515 has it: no padding, no other character, no stray bits.
fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn text<'h>(header: &'h Map<String, Value>, name: &str) -> Result<Option<&'h str>, Error> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::Malformed("`alg`, `kid`, `typ` or `cty` is not a string")),
    }
}

fn read_algorithm(header: &Map<String, Value>) -> Result<Algorithm, Error> {
    let name = text(header, "alg")?.ok_or(Error::Malformed("the header has no `alg`"))?;
    Algorithm::from_name(name).ok_or_else(|| {
        let is_name = (1..=16).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let name = if is_name { format!(" {name}") } else { String::new() };
        Error::Signature(
            format!("the algorithm{name} is not accepted, expected {}", algorithm::EXPECTED).into(),
        )
    })
}

/// Refuses tokens that are something else than plain claims, signed: nested, encrypted, compressed,
/// of another kind, or with extensions that must be understood (RFC 7515 section 4.1.11).
fn refuse_extensions(header: &Map<String, Value>) -> Result<(), Error> {
    if let Some(name) =
        ["crit", "b64", "zip", "enc"].into_iter().find(|name| header.contains_key(*name))
    {
        return Err(Error::Signature(
            format!("the header has `{name}`, which is not accepted").into(),
        ));
    }
    if !text(header, "typ")?.is_none_or(is_plain_type) {
        return Err(Error::Signature("`typ` is not accepted, expected JWT, at+jwt or JOSE".into()));
    }
    if text(header, "cty")?.is_some() {
        return Err(Error::Signature(
            "the header has `cty`: nested tokens are not accepted".into(),
        ));
    }
    Ok(())
}

/// Whether `typ` is that of a token with plain claims. `application/` may be left out (RFC 7515
/// section 4.1.9).
fn is_plain_type(typ: &str) -> bool {
    const PREFIX: &str = "application/";
    let has_prefix =
        typ.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    let name = if has_prefix { typ.get(PREFIX.len()..).unwrap_or_default() } else { typ };
    ["JWT", "at+jwt", "JOSE"].iter().any(|plain| name.eq_ignore_ascii_case(plain))
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
        Err(error) if error.is_data() => Err(Error::Claims("`iss` occurs twice".into())),
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
                        return Err(A::Error::custom("`iss` occurs twice"));
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
        assert_eq!((token.key_id(), token.algorithm()), (Some("k"), Algorithm::Rs256));
    }

    #[test]
    fn a_token_is_not_shown() {
        let text = token(HEADER, CLAIMS);
        let shown = format!("{:?}", read(&text).unwrap());
        assert!(!shown.contains("c2ln") && !shown.contains("eyJ"), "{shown}");
    }

    #[test]
    fn algorithms_are_allowed_by_name() {
        for name in [
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
            "EdDSA", "Ed25519",
        ] {
            assert!(read(&token(&format!(r#"{{"alg":"{name}"}}"#), CLAIMS)).is_ok(), "{name}");
        }
        for name in [
            "none", "None", "NONE", "", "HS256", "HS384", "HS512", "ES256K", "rs256", "RSA1_5",
            "dir", "RS256 ",
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
            r#""typ":"application/""#,
            r#""typ":"application/application/jwt""#,
            r#""typ":"text/jwt""#,
            r#""typ":"""#,
        ] {
            let answer = read(&token(&format!(r#"{{"alg":"RS256",{more}}}"#), CLAIMS));
            assert_eq!(answer.unwrap_err(), Reason::SignatureInvalid, "{more}");
        }
        for fine in [
            r#""typ":"jwt""#,
            r#""typ":"AT+JWT""#,
            r#""typ":"jose""#,
            r#""typ":"application/jwt""#,
            r#""typ":"APPLICATION/AT+jwt""#,
            r#""typ":"Application/JOSE""#,
            r#""jku":"https://evil""#,
            r#""jwk":{"kty":"RSA"}"#,
            r#""x5u":1"#,
            r#""x5c":[]"#,
        ] {
            assert!(
                read(&token(&format!(r#"{{"alg":"RS256",{fine}}}"#), CLAIMS)).is_ok(),
                "{fine}"
            );
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
            assert_eq!(
                read(&token(header, CLAIMS)).unwrap_err(),
                Reason::TokenMalformed,
                "{header}"
            );
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
        assert_eq!(
            Unverified::read(&token, token.len() - 1).unwrap_err(),
            Error::TooLarge(token.len() - 1)
        );
    }

    #[test]
    fn claims_are_an_object_with_one_issuer() {
        let deep = format!(r#"{{"iss":{}{}}}"#, "[".repeat(300), "]".repeat(300));
        for claims in ["", "x", "[]", "5", "\"x\"", "null", "{", r#"{"iss":"https://a"} {}"#, &deep]
        {
            assert_eq!(
                read(&token(HEADER, claims)).unwrap_err(),
                Reason::TokenMalformed,
                "{claims:.60}"
            );
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
            assert_eq!(
                read(&token(HEADER, claims)).unwrap_err(),
                Reason::TokenClaimsInvalid,
                "{claims}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = |token: &str| Unverified::read(token, 32 << 10).unwrap_err().to_string();
        let token_of = |issuer: &str| token(HEADER, &format!(r#"{{"iss":"{issuer}","sub":"s"}}"#));
        let good = token(HEADER, CLAIMS);
        for (sent, words) in [
            (format!(r#"{{"value":"{good}"}}"#), "send only its field `value`"),
            (format!(r#"{{"count":1, "value":"{good}"}}"#), "send only its field `value`"),
            (format!(r#"{{"token":"{good}"}}"#), "send only its field `token`"),
            (format!(r#"{{"access_token":"{good}"}}"#), "send only its field `access_token`"),
            (r#"{"token":{"token":"x"}}"#.into(), "send only its field `token`"),
            (r#"{"error":"x"}"#.into(), "JSON document"),
            (format!(r#"["{good}"]"#), "JSON document"),
            (format!("\"{good}\""), "in quotes"),
            ("ghs_abc".into(), "GitHub token"),
            ("a.b.c.d.e".into(), "encrypted"),
            ("a.b".into(), "three parts"),
            (format!("!{good}"), "the header is not base64url"),
            (good.replace(".c2ln", ".c2l="), "the signature is not base64url"),
            (
                token(r#"{"alg":"none"}"#, CLAIMS),
                "the algorithm none is not accepted, expected RS256",
            ),
            (token(r#"{"alg":"<script>"}"#, CLAIMS), "the algorithm is not accepted"),
            (token(r#"{"alg":"RS256","crit":[]}"#, CLAIMS), "`crit`"),
            (token(r#"{"alg":"RS256","typ":"JWE"}"#, CLAIMS), "`typ`"),
            (token_of("accounts.google.com"), "`iss` has no scheme, expected https://"),
            (token_of("https://Issuer.example"), "lowercase"),
            (token_of("kubernetes/serviceaccount"), "legacy Kubernetes token"),
            (token(HEADER, "{}"), "`iss` is missing"),
            (token(HEADER, r#"{"iss":5}"#), "`iss` is not a string"),
        ] {
            let said = said(&sent);
            assert!(said.contains(words), "{sent}: {said}");
            assert!(
                !said.contains("c2ln") && !said.contains("eyJ") && !said.contains("Issuer.example"),
                "{said}"
            );
        }
    }
}
