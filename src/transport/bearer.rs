//! The credential of a request: exactly one, from the `authorization` header or metadata.

use http::{HeaderMap, header};

use crate::reason::{Reason, Refusal};

/// The token as sent, without its scheme: `Bearer TOKEN`, the scheme in any case (RFC 6750,
/// section 2.1), or the bare token.
///
/// Another scheme counts as no credential. Several headers, or several credentials in one, which
/// proxies make of several headers, are refused: two readers of such a request may not agree on
/// whose it is.
///
/// # Errors
/// `CREDENTIAL_MISSING`, `CREDENTIAL_AMBIGUOUS`; `TOKEN_MALFORMED` where it is not visible ASCII.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(missing)?;
    // A whole JSON reply that was sent by mistake contains commas. It is refused later, with the
    // reason.
    let is_json = value.as_bytes().contains(&b'{');
    if values.next().is_some() || (value.as_bytes().contains(&b',') && !is_json) {
        return Err(Refusal::new(
            Reason::CredentialAmbiguous,
            "more than one credential in authorization",
        ));
    }
    let value = value.to_str().map_err(|_| {
        Refusal::new(Reason::TokenMalformed, "the token is not made of visible ASCII characters")
    })?;
    let value = value.trim();
    let (scheme, token) = match value.split_once([' ', '\t']) {
        Some((scheme, token)) if !scheme.starts_with('{') => (scheme, token.trim_start()),
        // A scheme without a credential is not a bare token.
        None if value.eq_ignore_ascii_case("bearer") => ("", ""),
        Some(_) | None => ("bearer", value),
    };
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Ok(token)
    } else {
        Err(missing())
    }
}

fn missing() -> Refusal {
    Refusal::new(Reason::CredentialMissing, "no bearer token in authorization")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&[u8]]) -> Result<String, Reason> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, http::HeaderValue::from_bytes(value).unwrap());
        }
        bearer(&headers).map(str::to_owned).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn the_scheme_is_read_in_any_case_and_may_be_left_out() {
        for value in [
            "Bearer a.b.c",
            "bearer a.b.c",
            "BEARER a.b.c",
            "Bearer   a.b.c",
            " Bearer\ta.b.c ",
            "a.b.c",
        ] {
            assert_eq!(read(&[value.as_bytes()]).as_deref(), Ok("a.b.c"), "{value:?}");
        }
    }

    #[test]
    fn another_scheme_or_an_empty_value_is_no_credential() {
        for value in [
            "",
            " ",
            "Bearer",
            "bearer ",
            "Basic dXNlcjpwYXNz",
            "Token a.b.c",
            "DPoP a.b.c",
            "Negotiate x",
        ] {
            assert_eq!(read(&[value.as_bytes()]), Err(Reason::CredentialMissing), "{value:?}");
        }
        assert_eq!(read(&[]), Err(Reason::CredentialMissing));
    }

    #[test]
    fn a_whole_json_reply_is_one_credential() {
        for reply in [r#"{"count":1,"value":"a.b.c"}"#, r#"{"value": "a.b.c", "count": 1}"#] {
            for value in [reply.to_owned(), format!("Bearer {reply}")] {
                assert_eq!(read(&[value.as_bytes()]).as_deref(), Ok(reply), "{value:?}");
            }
        }
    }

    #[test]
    fn several_credentials_are_ambiguous() {
        let twice: [&[&[u8]]; 6] = [
            &[b"Bearer a.b.c", b"Bearer a.b.c"],
            &[b"Bearer a.b.c", b"Basic x"],
            &[b"Bearer a.b.c", b""],
            &[b"Bearer a.b.c, Bearer d.e.f"],
            &[b"Bearer a.b.c,d.e.f"],
            &[b"Basic x, Bearer a.b.c"],
        ];
        for values in twice {
            assert_eq!(read(values), Err(Reason::CredentialAmbiguous), "{values:?}");
        }
    }

    #[test]
    fn what_is_not_ascii_is_malformed() {
        assert_eq!(read(&["Bearer ä".as_bytes()]), Err(Reason::TokenMalformed));
        assert_eq!(read(&[b"Bearer \xff"]), Err(Reason::TokenMalformed));
    }
}
