//! Asks an issuer for its keys: OpenID Connect Discovery 1.0, then the key set that it points to.
//!
//! A workload issuer's document lacks what is meant for logins (GitHub Actions has no
//! `authorization_endpoint`), and what else stands in it is of no concern here. So the library that
//! types and checks the document gets the members that concern us, and placeholders for the rest.

use std::{path::PathBuf, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use http::{HeaderValue, Uri};
use jsonwebtoken::Algorithm;
use openidconnect::{IssuerUrl, core::CoreProviderMetadata};
use serde_json::{Map, Value, json};
use url::Url;
use zeroize::Zeroizing;

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

/// Where one issuer's keys are asked for, and by what means.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub(super) issuer: Issuer,
    /// The key set's address, where the operator gives one; else discovery tells.
    pub(super) keys_at: Option<Uri>,
    /// Reaches the origin of that address, or of the issuer if there is none.
    pub(super) home: Documents,
    /// Reaches whatever other origin discovery names.
    pub(super) elsewhere: Documents,
    /// The file of the credential that is shown at home, and nowhere else.
    pub(super) bearer: Option<PathBuf>,
}

impl Remote {
    /// Fetches the keys, each try within `time`. How long all of it may take is up to the caller.
    pub(super) async fn fetch(&self, time: Duration) -> Result<Published, Fault> {
        let (keys_at, algorithms) = match &self.keys_at {
            Some(uri) => (uri.to_string(), None),
            None => self.discover(time).await?,
        };
        let document = self.get(&keys_at, time, Fault::Keys).await?;
        let keys = KeySet::read(&document.body, algorithms).ok_or(Fault::NotKeys)?;
        Ok(Published { keys, lifetime: lifetime(document.cache_control.as_deref()) })
    }

    /// The issuer that the discovery document at this one's address names, on one line, cut.
    pub(super) async fn named(&self, time: Duration) -> Option<String> {
        let document = self.get(self.discovery().ok()?.as_str(), time, Fault::Discovery).await.ok()?;
        let (metadata, _) = read_discovery(&document.body).ok()?;
        Some(metadata.issuer().as_str().chars().filter(|c| !c.is_control()).take(256).collect())
    }

    /// The discovery document's address.
    fn discovery(&self) -> Result<Url, Fault> {
        let issuer = IssuerUrl::new(self.issuer.to_string());
        issuer.and_then(|issuer| issuer.join(".well-known/openid-configuration")).map_err(|_| Fault::NotDiscovery)
    }

    /// Where the keys are, and the algorithms that the issuer lists.
    async fn discover(&self, time: Duration) -> Result<(String, Option<Vec<Algorithm>>), Fault> {
        let document = self.get(self.discovery()?.as_str(), time, Fault::Discovery).await?;
        let (metadata, algorithms) = read_discovery(&document.body)?;
        if metadata.issuer().as_str() != self.issuer.as_str() {
            return Err(Fault::OtherIssuer);
        }
        Ok((metadata.jwks_uri().to_string(), algorithms))
    }

    /// One call: three tries where the connection failed or the answer is one of 500 to 504.
    async fn get(&self, url: &str, time: Duration, fault: fn(egress::Error) -> Fault) -> Result<Document, Fault> {
        let at_home = self.is_home(url);
        let bearer = match self.bearer.as_ref().filter(|_| at_home) {
            Some(file) => Some(read_bearer(file.clone()).await.ok_or(Fault::Bearer)?),
            None => None,
        };
        let documents = if at_home { &self.home } else { &self.elsewhere };
        let tries = ExponentialBuilder::default().with_min_delay(Duration::from_millis(100)).with_max_times(2);
        let may_pass =
            |error: &egress::Error| matches!(error, egress::Error::Connect | egress::Error::Status(500..=504));
        (|| documents.get(url, bearer.as_ref(), time)).retry(tries).when(may_pass).await.map_err(fault)
    }

    /// Whether an address is of the origin for which the means are. Read as the client reads it.
    fn is_home(&self, url: &str) -> bool {
        let home = self.keys_at.as_ref().map_or_else(|| origin(self.issuer.as_str()), |uri| origin(&uri.to_string()));
        home.is_some() && home == origin(url)
    }
}

/// Scheme, host and port (RFC 6454 section 4).
fn origin(url: &str) -> Option<(bool, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let plain = match uri.scheme_str() {
        Some("https") => false,
        Some("http") => true,
        _ => return None,
    };
    let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
    Some((plain, uri.host()?.to_ascii_lowercase(), port))
}

/// The credential as it stands in its file now.
async fn read_bearer(file: PathBuf) -> Option<HeaderValue> {
    let text = tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await.ok()?.ok()?;
    let text = Zeroizing::new(text);
    let token = Some(text.trim()).filter(|token| !token.is_empty())?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
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
