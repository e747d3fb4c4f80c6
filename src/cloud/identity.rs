//! The workload's own token, and the check that nothing else is sent to a server.
//!
//! [`IdentityToken`] is a proof value: only [`IdentityToken::parse`] makes one, so a credential of
//! another kind (a GitHub token, a key, a whole JSON reply) never leaves this machine.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::egress::MAX_RESPONSE_BYTES;

/// A signed JWT in its compact form (RFC 7515): not verified, but of the form of an OIDC token.
#[derive(Debug, Clone)]
pub struct IdentityToken(SecretString);

/// Why a text is not an identity token. Names the kind of what was found, never its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found}; expected an OIDC token: a signed JWT of three base64url parts with dots between them"
)]
pub struct NotAnIdentityToken {
    found: &'static str,
}

impl IdentityToken {
    /// Reads a token; white space around it does not count.
    ///
    /// # Errors
    /// It is not a signed JWT in compact form.
    pub fn parse(text: &str) -> Result<Self, NotAnIdentityToken> {
        let text = text.trim();
        let refuse = |found| Err(NotAnIdentityToken { found });
        if text.len() > MAX_RESPONSE_BYTES {
            return refuse("more than 256 KiB");
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [header, claims, signature] = parts[..] else { return refuse(kind_of(text)) };
        let (Some(header), Some(_), Some(signature)) =
            (object(header), object(claims), decoded(signature))
        else {
            return refuse(kind_of(text));
        };
        match header.get("alg").and_then(Value::as_str) {
            None => refuse("a JWT whose header does not name an algorithm"),
            Some(algorithm) if signature.is_empty() || algorithm.eq_ignore_ascii_case("none") => {
                refuse("a JWT without a signature")
            }
            Some(_) => Ok(Self(SecretString::from(text))),
        }
    }

    /// The token, to send it.
    pub(crate) fn secret(&self) -> &SecretString {
        &self.0
    }
}

impl ExposeSecret<str> for IdentityToken {
    fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Whether a text can be a token: visible ASCII, so that it is one header value, one line, and one
/// word.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_RESPONSE_BYTES
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A token as it was read, without the white space around it.
pub(crate) fn secret_text(text: &str) -> Option<SecretString> {
    let text = text.trim();
    is_token(text).then(|| SecretString::from(text))
}

fn decoded(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&zeroize::Zeroizing::new(decoded(part)?)).ok()
}

/// What a text is that is not a token, as far as its form says.
fn kind_of(text: &str) -> &'static str {
    const GITHUB: [&str; 6] = ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"];
    let parts = text.split('.').count();
    match text {
        "" => "nothing",
        _ if GITHUB.iter().any(|prefix| text.starts_with(prefix)) => "a GitHub token",
        _ if text.starts_with("-----BEGIN ") => "a key or certificate in PEM form",
        _ if text.starts_with(['{', '[']) => {
            "a JSON document (if the token is one of its members, give only that)"
        }
        _ if text.starts_with('<') => "an HTML or XML document",
        _ if text
            .split_once(' ')
            .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) =>
        {
            "a header value (give the token without `Bearer`)"
        }
        _ if text.contains(char::is_whitespace) => "more than one word",
        _ if parts == 5 && object(text.split('.').next().unwrap_or_default()).is_some() => {
            "an encrypted JWT"
        }
        _ if parts == 3 => "a text of three parts that are not those of a JWT",
        _ => "a text that is not a JWT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(header: &str, claims: &str, signature: &str) -> String {
        [header, claims, signature].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    }

    #[test]
    fn a_signed_jwt_is_an_identity_token() {
        let token = jwt(r#"{"alg":"RS256"}"#, r#"{"sub":"job"}"#, "signature");
        for text in [token.clone(), format!(" {token}\n"), format!("{token}\r\n")] {
            assert_eq!(IdentityToken::parse(&text).unwrap().expose_secret(), token);
        }
    }

    #[test]
    fn anything_else_is_refused_by_its_kind_and_never_repeated() {
        let signed = jwt(r#"{"alg":"RS256"}"#, r#"{"sub":"job"}"#, "signature");
        let five = format!("{signed}.x.y");
        let cases = [
            ("", "nothing"),
            (" \n", "nothing"),
            ("ghp_s3cret", "a GitHub token"),
            ("gho_s3cret", "a GitHub token"),
            ("ghs_s3cret", "a GitHub token"),
            ("ghs_1_s3.cr.et", "a GitHub token"),
            ("github_pat_s3cret", "a GitHub token"),
            ("-----BEGIN RSA PRIVATE KEY-----\ns3cret\n", "PEM"),
            (&format!(r#"{{"value":"{signed}"}}"#), "a JSON document"),
            (r#"["s3cret"]"#, "a JSON document"),
            ("<html>s3cret</html>", "an HTML"),
            (&format!("Bearer {signed}"), "without `Bearer`"),
            (&format!("{signed} {signed}"), "more than one word"),
            (&format!("{signed}\n{signed}"), "more than one word"),
            ("s3cret", "not a JWT"),
            ("hvs.s3cret", "not a JWT"),
            ("ya29.c.s3cret", "three parts"),
            ("a.b.c", "three parts"),
            ("..", "three parts"),
            (&five, "an encrypted JWT"),
            (&format!("{signed}="), "three parts"),
            (&jwt("[]", "{}", "s"), "three parts"),
            (&jwt(r#"{"alg":"RS256"}"#, "s3cret", "s"), "three parts"),
            (&jwt("{}", "{}", "s"), "does not name an algorithm"),
            (&jwt(r#"{"alg":"RS256"}"#, "{}", ""), "without a signature"),
            (&jwt(r#"{"alg":"None"}"#, "{}", "s"), "without a signature"),
            (&"x".repeat(MAX_RESPONSE_BYTES + 1), "256 KiB"),
        ];
        for (text, kind) in cases {
            let told = IdentityToken::parse(text).unwrap_err().to_string();
            assert!(
                told.contains(kind) && told.contains("expected an OIDC token"),
                "{text}: {told}"
            );
            assert!(!told.contains("s3cret") && !told.contains(&signed), "{told}");
        }
    }
}
