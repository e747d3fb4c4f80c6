//! Asks an issuer for its keys: OpenID Connect Discovery 1.0, then the key set that it points to.
//!
//! A workload issuer's document lacks what is meant for logins (GitHub Actions has no
//! `authorization_endpoint`), and what else stands in it is of no concern here. So the library that
//! types and checks the document gets the members that concern us, and placeholders for the rest.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use jsonwebtoken::Algorithm;
use openidconnect::{IssuerUrl, core::CoreProviderMetadata};
use serde_json::{Map, Value, json};

use super::{error::Fault, keys::KeySet, token};
use crate::{
    egress::{self, Document, Documents},
    name::Issuer,
};

/// Keys are asked for again no sooner than this after they came, whatever the issuer says …
pub(super) const SHORTEST_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// … and no later than this.
pub(super) const LONGEST_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// What an issuer publishes.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) keys: KeySet,
    /// For how long the keys are good.
    pub(super) lifetime: Duration,
}

/// Fetches the issuer's discovery document and its keys, each try within `time`. How long all of it
/// may take is up to the caller.
pub(super) async fn fetch(documents: &Documents, issuer: &Issuer, time: Duration) -> Result<Published, Fault> {
    let url = IssuerUrl::new(issuer.as_str().to_owned())
        .and_then(|issuer| issuer.join(".well-known/openid-configuration"))
        .map_err(|_| Fault::NotDiscovery)?;
    let document = get(documents, url.as_str(), time).await.map_err(Fault::Discovery)?;
    let (metadata, algorithms) = read_discovery(&document.body)?;
    if metadata.issuer().as_str() != issuer.as_str() {
        return Err(Fault::OtherIssuer);
    }
    let document = get(documents, metadata.jwks_uri().as_str(), time).await.map_err(Fault::Keys)?;
    let keys = KeySet::read(&document.body, algorithms).ok_or(Fault::NotKeys)?;
    Ok(Published { keys, lifetime: lifetime(document.cache_control.as_deref()) })
}

/// One call: three tries where the connection failed or the answer is one of 500 to 504.
async fn get(documents: &Documents, url: &str, time: Duration) -> Result<Document, egress::Error> {
    let tries = ExponentialBuilder::default().with_min_delay(Duration::from_millis(100)).with_max_times(2);
    let may_pass = |error: &egress::Error| matches!(error, egress::Error::Connect | egress::Error::Status(500..=504));
    (|| documents.get(url, time)).retry(tries).when(may_pass).await
}

/// The document, and the algorithms that it lists; those that we do not accept count as listed too.
pub(super) fn read_discovery(document: &[u8]) -> Result<(CoreProviderMetadata, Option<Vec<Algorithm>>), Fault> {
    const ALGORITHMS: &str = "id_token_signing_alg_values_supported";
    let given: Map<String, Value> = serde_json::from_slice(document).map_err(|_| Fault::NotDiscovery)?;
    let listed = given.get(ALGORITHMS).and_then(Value::as_array).filter(|listed| !listed.is_empty());
    let algorithms = listed.map(|listed| listed.iter().filter_map(|name| token::algorithm(name.as_str()?)).collect());
    let concerning_us = json!({
        "issuer": given.get("issuer"),
        "jwks_uri": given.get("jwks_uri"),
        ALGORITHMS: [],
        "authorization_endpoint": "urn:absent",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
    });
    let metadata = serde_json::from_value(concerning_us).map_err(|_| Fault::NotDiscovery)?;
    Ok((metadata, algorithms))
}

/// `max-age` of `Cache-Control` (RFC 9111 section 5.2.2.1), held between the bounds.
fn lifetime(cache_control: Option<&str>) -> Duration {
    let directives = || cache_control.unwrap_or_default().split(',').map(str::trim);
    let value = |directive: &str| -> Option<u64> {
        let (name, seconds) = directive.split_once('=')?;
        let seconds = seconds.trim().trim_matches('"');
        let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
        (name.trim().eq_ignore_ascii_case("max-age") && is_number).then(|| seconds.parse().unwrap_or(u64::MAX))
    };
    let uncached = |directive: &str| ["no-store", "no-cache"].iter().any(|name| directive.eq_ignore_ascii_case(name));
    let seconds = if directives().any(uncached) { 0 } else { directives().filter_map(value).min().unwrap_or(0) };
    Duration::from_secs(seconds).clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_held_between_bounds() {
        for (header, seconds) in [
            (None, 300),
            (Some(""), 300),
            (Some("max-age=0"), 300),
            (Some("max-age=600"), 600),
            (Some("public, MAX-AGE=\"900\", must-revalidate"), 900),
            (Some("max-age=86400"), 3600),
            (Some("max-age=99999999999999999999999"), 3600),
            (Some("max-age=-5"), 300),
            (Some("max-age=+900"), 300),
            (Some("max-age=900, max-age=600"), 600),
            (Some("s-maxage=900"), 300),
            (Some("no-store, max-age=900"), 300),
        ] {
            assert_eq!(lifetime(header), Duration::from_secs(seconds), "{header:?}");
        }
    }

    #[test]
    fn documents_as_issuers_write_them() {
        let read = |document: Value| {
            read_discovery(document.to_string().as_bytes())
                .map(|(metadata, listed)| (metadata.issuer().to_string(), listed))
        };
        let bare = json!({"issuer": "https://a/", "jwks_uri": "https://b/jwks"});
        assert_eq!(read(bare).unwrap(), ("https://a/".to_owned(), None));
        let odd = json!({"issuer": "https://a", "jwks_uri": "https://b", "authorization_endpoint": 5, "subject_types_supported": "x",
            "id_token_signing_alg_values_supported": ["RS256", "ML-DSA-44", 7]});
        assert_eq!(read(odd).unwrap().1, Some(vec![Algorithm::RS256]));
        let none_listed =
            json!({"issuer": "https://a", "jwks_uri": "https://b", "id_token_signing_alg_values_supported": []});
        assert_eq!(read(none_listed).unwrap().1, None);
        for bad in [
            json!({}),
            json!([]),
            json!({"issuer": "https://a"}),
            json!({"issuer": 5, "jwks_uri": "https://b"}),
            json!({"issuer": "https://a", "jwks_uri": "b"}),
        ] {
            assert_eq!(read(bad.clone()).unwrap_err(), Fault::NotDiscovery, "{bad}");
        }
    }
}
