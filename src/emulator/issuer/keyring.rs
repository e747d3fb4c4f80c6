//! An issuer's keys: which are published, and which one signs.

use serde_json::{Map, Value, json};

use super::super::keys::{Alg, Lease, base64url};

#[derive(Debug)]
struct Key {
    kid: String,
    alg: Alg,
    pair: Lease,
    published: bool,
}

/// The keys, oldest first.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    keys: Vec<Key>,
    current: usize,
}

impl Keyring {
    /// Adds and publishes a key; its key id.
    pub(super) fn add(&mut self, alg: Alg) -> String {
        let pair = Lease::take(alg);
        let kid = pair.key_id(alg);
        self.keys.push(Key { kid: kid.clone(), alg, pair, published: true });
        kid
    }

    pub(super) fn choose(&mut self, kid: &str) -> bool {
        let found = self.keys.iter().position(|key| key.kid == kid);
        self.current = found.unwrap_or(self.current);
        found.is_some()
    }

    pub(super) fn publish(&mut self, kid: &str, published: bool) -> bool {
        self.keys
            .iter_mut()
            .find(|key| key.kid == kid)
            .map(|key| key.published = published)
            .is_some()
    }

    /// The header of a token that the current key signs.
    pub(super) fn header(&self) -> Map<String, Value> {
        let Some(key) = self.keys.get(self.current) else { return Map::new() };
        [("alg", key.alg.name()), ("kid", &key.kid), ("typ", "JWT")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect()
    }

    /// A JWS in compact form (RFC 7515 section 7.1).
    pub(super) fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", base64url(header), base64url(payload));
        let signature =
            self.keys.get(self.current).and_then(|key| key.pair.sign(key.alg, signed.as_bytes()));
        format!("{signed}.{}", base64url(signature.unwrap_or_default()))
    }

    pub(super) fn jwks(&self) -> Value {
        let published = self.keys.iter().filter(|key| key.published);
        json!({"keys": published.map(|key| key.pair.jwk(key.alg)).collect::<Vec<_>>()})
    }

    /// The algorithms of the published keys, each once.
    pub(super) fn algs(&self) -> Vec<&'static str> {
        let mut names: Vec<_> =
            self.keys.iter().filter(|key| key.published).map(|key| key.alg.name()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
