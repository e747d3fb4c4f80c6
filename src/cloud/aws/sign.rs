//! AWS Signature Version 4, for a POST to the root of a service: as much of it as STS, KMS and Secrets Manager need.

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use secrecy::ExposeSecret;

use super::{credentials::Credentials, secret_value};
use crate::clock::UnixTime;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// What a signature is good for.
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) now: UnixTime,
}

impl Scope<'_> {
    /// `20150830T123600Z`.
    fn time(&self) -> String {
        self.now.rfc3339().replace(['-', ':'], "")
    }

    fn text(&self, date: &str) -> String {
        format!("{date}/{}/{}/aws4_request", self.region, self.service)
    }
}

/// Signs `request` with all headers that it has, `host` among them. The path is `/` and there is no
/// query: then nothing of the address needs to be put into another form. `None` if a credential
/// cannot stand in a header.
pub(super) fn sign(
    request: &mut Request<Bytes>,
    credentials: &Credentials,
    scope: &Scope<'_>,
) -> Option<()> {
    let time = scope.time();
    let date = time.get(..8)?.to_owned();
    request.headers_mut().insert(DATE, HeaderValue::from_str(&time).ok()?);
    if let Some(token) = &credentials.session {
        request.headers_mut().insert(SECURITY_TOKEN, secret_value(token)?);
    }
    let (canonical, signed) = canonical(request)?;
    let to_sign = format!(
        "{ALGORITHM}\n{time}\n{}\n{}",
        scope.text(&date),
        hex::encode(sha256(canonical.as_bytes()))
    );
    let start = zeroize::Zeroizing::new(format!("AWS4{}", credentials.secret.expose_secret()));
    let key = [&date, scope.region, scope.service, "aws4_request"]
        .iter()
        .fold(hmac::Key::new(hmac::HMAC_SHA256, start.as_bytes()), |key, part| {
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref())
        });
    let signature = hex::encode(hmac::sign(&key, to_sign.as_bytes()));
    let authorization = format!(
        "{ALGORITHM} Credential={}/{}, SignedHeaders={signed}, Signature={signature}",
        credentials.id,
        scope.text(&date)
    );
    let mut authorization = HeaderValue::from_str(&authorization).ok()?;
    authorization.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, authorization);
    Some(())
}

/// The canonical form of a request, and the names of its headers.
fn canonical(request: &Request<Bytes>) -> Option<(String, String)> {
    let mut names: Vec<&HeaderName> = request.headers().keys().collect();
    names.sort_by_key(|name| name.as_str());
    let mut lines = String::new();
    for name in &names {
        let values: Vec<_> = request
            .headers()
            .get_all(*name)
            .iter()
            .map(HeaderValue::to_str)
            .collect::<Result<_, _>>()
            .ok()?;
        let values: Vec<_> = values
            .iter()
            .map(|value| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        lines.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
    let names = names.join(";");
    let body = hex::encode(sha256(request.body()));
    Some((format!("{}\n/\n\n{lines}\n{names}\n{body}", request.method()), names))
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The signature that a request gets under the keys of AWS's published test suite.
    fn signature(
        request: http::request::Builder,
        body: &'static str,
        session: Option<&str>,
    ) -> String {
        let credentials = Credentials {
            id: "AKIDEXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session: session.map(Into::into),
        };
        let now = UnixTime::parse_rfc3339("2015-08-30T12:36:00Z").unwrap();
        let scope = Scope { region: "us-east-1", service: "service", now };
        let mut request = request
            .header("Host", "example.amazonaws.com")
            .body(Bytes::from_static(body.as_bytes()))
            .unwrap();
        sign(&mut request, &credentials, &scope).unwrap();
        let authorization = request.headers()[header::AUTHORIZATION].to_str().unwrap();
        authorization.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    /// The vectors of AWS's test suite for Signature Version 4 that have the path `/` and no query.
    #[test]
    fn signatures_are_those_of_the_published_vectors() {
        let (get, post) = (|| Request::get("/"), || Request::post("/"));
        let form = || post().header("Content-Type", "application/x-www-form-urlencoded");
        let session = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        for (name, request, body, session, wanted) in [
            (
                "get-vanilla",
                get(),
                "",
                None,
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "post-vanilla",
                post(),
                "",
                None,
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-header-key-sort",
                post().header("My-Header1", "value1"),
                "",
                None,
                "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
            ),
            (
                "post-x-www-form-urlencoded",
                form(),
                "Param1=value1",
                None,
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            (
                "post-sts-header-before",
                post(),
                "",
                Some(session),
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
        ] {
            assert_eq!(signature(request, body, session), wanted, "{name}");
        }
    }
}
