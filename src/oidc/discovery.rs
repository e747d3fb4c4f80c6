//! Fetches an issuer's keys: OpenID Connect Discovery 1.0, then the key set that it points to.
//!
//! Of the discovery document three members matter. A workload issuer's document lacks what is meant
//! for logins (GitHub Actions has no `authorization_endpoint`), so the rest is not read.

use std::{path::PathBuf, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use http::{HeaderValue, Uri};
use serde_json::{Map, Value};
use url::Url;
use zeroize::Zeroizing;

use super::{
    algorithm::Algorithm,
    error::{Fault, Unexpected},
    keys::KeySet,
};
use crate::{
    egress::{self, Document, Documents, Origin},
    name::Issuer,
};

/// Keys are fetched again no sooner than this after they came, whatever the issuer says …
pub(super) const MIN_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// … and no later than this.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// What an issuer publishes.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) keys: KeySet,
    /// For how long the keys are good.
    pub(super) lifetime: Duration,
}

/// Where an issuer's keys are fetched, and how.
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
        let document = self.get(&keys_at, time, Fault::Keys).await.map_err(|fault| {
            let is_plain = keys_at.starts_with("http://");
            if is_plain && fault == Fault::Keys(egress::Error::Refused) {
                Fault::InsecureKeys
            } else {
                fault
            }
        })?;
        let not_keys = || Fault::NotKeys(Unexpected::of(&document.body));
        let keys = KeySet::read(&document.body, algorithms).ok_or_else(not_keys)?;
        Ok(Published { keys, lifetime: lifetime(document.cache_control.as_deref()) })
    }

    /// The issuer that the discovery document at this one's address names, on one line, truncated.
    pub(super) async fn named_issuer(&self, time: Duration) -> Option<String> {
        let document = self.get(&self.discovery(), time, Fault::Discovery).await.ok()?;
        let discovery = Discovery::read(&document.body).ok()?;
        Some(discovery.issuer.chars().filter(|c| !c.is_control()).take(256).collect())
    }

    /// The discovery document's address.
    fn discovery(&self) -> String {
        let issuer = self.issuer.as_str();
        format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer))
    }

    /// Where the keys are, and the algorithms that the issuer lists.
    async fn discover(&self, time: Duration) -> Result<(String, Option<Vec<Algorithm>>), Fault> {
        let document = self.get(&self.discovery(), time, Fault::Discovery).await?;
        let Discovery { issuer, keys_at, algorithms } = Discovery::read(&document.body)?;
        if issuer != self.issuer.as_str() {
            return Err(if issuer.contains(['{', '}']) {
                Fault::Template
            } else {
                Fault::OtherIssuer
            });
        }
        Ok((keys_at, algorithms))
    }

    /// One call, with up to two retries where there was no whole answer, or it has one of the
    /// statuses 500 to 504.
    async fn get(
        &self,
        url: &str,
        time: Duration,
        fault: fn(egress::Error) -> Fault,
    ) -> Result<Document, Fault> {
        let at_home = self.is_home(url);
        let bearer = match self.bearer.as_ref().filter(|_| at_home) {
            Some(file) => Some(read_bearer(file.clone()).await.ok_or(Fault::Bearer)?),
            None => None,
        };
        let documents = if at_home { &self.home } else { &self.elsewhere };
        let retries = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_times(2);
        let is_retryable = |error: &egress::Error| {
            matches!(
                error,
                egress::Error::Connect(_)
                    | egress::Error::Closed
                    | egress::Error::Status(500..=504)
            )
        };
        (|| documents.get(url, bearer.as_ref(), time))
            .retry(retries)
            .when(is_retryable)
            .await
            .map_err(fault)
    }

    /// Whether an address is of the origin that the connection settings are for.
    fn is_home(&self, url: &str) -> bool {
        let origin = |url: &str| Origin::of(&url.parse().ok()?);
        let home = self.keys_at.as_ref().map_or_else(|| origin(self.issuer.as_str()), Origin::of);
        home.is_some() && home == origin(url)
    }
}

/// The credential as it stands in its file now.
async fn read_bearer(file: PathBuf) -> Option<HeaderValue> {
    let text =
        tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await.ok()?.ok()?;
    let text = Zeroizing::new(text);
    let token = Some(text.trim()).filter(|token| !token.is_empty())?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What matters of a discovery document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Discovery {
    pub(super) issuer: String,
    pub(super) keys_at: String,
    /// The algorithms that it lists, if it lists any; the list has no others than accepted ones.
    pub(super) algorithms: Option<Vec<Algorithm>>,
}

impl Discovery {
    pub(super) fn read(document: &[u8]) -> Result<Self, Fault> {
        let unexpected = || Fault::NotDiscovery(Unexpected::of(document));
        let members: Map<String, Value> =
            serde_json::from_slice(document).map_err(|_| unexpected())?;
        let text = |name: &str| members.get(name).and_then(Value::as_str).ok_or_else(unexpected);
        let keys_at = text("jwks_uri")?;
        Url::parse(keys_at).map_err(|_| unexpected())?;
        let listed = members.get("id_token_signing_alg_values_supported").and_then(Value::as_array);
        let listed = listed.filter(|listed| !listed.is_empty());
        let accepted = |listed: &Vec<Value>| {
            listed.iter().filter_map(|name| Algorithm::from_name(name.as_str()?)).collect()
        };
        Ok(Self {
            issuer: text("issuer")?.to_owned(),
            keys_at: keys_at.to_owned(),
            algorithms: listed.map(accepted),
        })
    }
}

/// `max-age` of `Cache-Control` (RFC 9111 section 5.2.2.1), held between the bounds.
fn lifetime(cache_control: Option<&str>) -> Duration {
    let directives = || cache_control.unwrap_or_default().split(',').map(str::trim);
    let value = |directive: &str| -> Option<u64> {
        let (name, seconds) = directive.split_once('=')?;
        let seconds = seconds.trim().trim_matches('"');
        let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
        (name.trim().eq_ignore_ascii_case("max-age") && is_number)
            .then(|| seconds.parse().unwrap_or(u64::MAX))
    };
    let uncached = |directive: &str| {
        ["no-store", "no-cache"].iter().any(|name| directive.eq_ignore_ascii_case(name))
    };
    let seconds = if directives().any(uncached) {
        0
    } else {
        directives().filter_map(value).min().unwrap_or(0)
    };
    Duration::from_secs(seconds).clamp(MIN_LIFETIME, MAX_LIFETIME)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
            Discovery::read(document.to_string().as_bytes())
                .map(|found| (found.issuer, found.algorithms))
        };
        let bare = json!({"issuer": "https://a/", "jwks_uri": "https://b/jwks"});
        assert_eq!(read(bare).unwrap(), ("https://a/".to_owned(), None));
        let odd = json!({"issuer": "https://a", "jwks_uri": "https://b", "authorization_endpoint": 5, "subject_types_supported": "x",
            "id_token_signing_alg_values_supported": ["RS256", "ML-DSA-44", 7]});
        assert_eq!(read(odd).unwrap().1, Some(vec![Algorithm::Rs256]));
        let none_listed = json!({"issuer": "https://a", "jwks_uri": "https://b", "id_token_signing_alg_values_supported": []});
        assert_eq!(read(none_listed).unwrap().1, None);
        for bad in [
            json!({}),
            json!([]),
            json!({"issuer": "https://a"}),
            json!({"issuer": 5, "jwks_uri": "https://b"}),
            json!({"issuer": "https://a", "jwks_uri": "b"}),
        ] {
            assert_eq!(
                read(bad.clone()).unwrap_err(),
                Fault::NotDiscovery(Unexpected::OtherJson),
                "{bad}"
            );
        }
        assert_eq!(Discovery::read(b"<html>").unwrap_err(), Fault::NotDiscovery(Unexpected::Html));
    }
}
