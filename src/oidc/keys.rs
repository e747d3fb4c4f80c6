//! An issuer's keys, and the one place where a signature is verified.
//!
//! A key is for one family of algorithms, and where it names an algorithm, for that one alone
//! (RFC 8725 section 3.1), so no header can talk a key into something else. Keys are read one by
//! one: one that we cannot use harms no other. Its id is kept, though, for a token under it gets a
//! final no and no reason to fetch the keys again.

use jsonwebtoken::{Algorithm, DecodingKey, jwk::Jwk};
use openidconnect::{
    JsonWebKey, JsonWebKeyUse,
    core::{CoreJsonWebKey, CoreJsonWebKeyType},
};
use serde_json::Value;

use super::token::{self, Unverified};
use crate::clock::UnixTime;

/// As many keys of one issuer are looked at.
const MOST_KEYS: usize = 64;

/// As many keys are tried on a token that names none.
const MOST_TRIES: usize = 8;

/// RSA keys outside these bits are too weak or too slow.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// The algorithms that discovery lists, where it lists any.
    algorithms: Option<Vec<Algorithm>>,
}

/// A token whose signature one of its issuer's keys verifies. Only this file makes one.
#[derive(Debug)]
pub(super) struct Signed<'t> {
    token: &'t Unverified,
}

impl Signed<'_> {
    /// The token that was signed.
    pub(super) fn token(&self) -> &Unverified {
        self.token
    }
}

/// Why no key verifies a token's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotSigned {
    /// The key that the token names is not here. The issuer may have a new one.
    UnknownKey,
    /// The token names no key, and none of those here verifies it. The issuer may have a new one.
    NoneFits,
    /// A final no.
    Invalid(&'static str),
}

impl KeySet {
    /// Reads a JWK set (RFC 7517 section 5); `None` if the document is none. `algorithms` binds
    /// where it is given.
    pub(super) fn read(document: &[u8], algorithms: Option<Vec<Algorithm>>) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document = serde_json::from_slice(document).ok()?;
        let keys = document.keys.into_iter().take(MOST_KEYS).filter_map(Key::read).collect();
        Some(Self { keys, algorithms })
    }

    /// How many keys are looked at, usable or not.
    pub(super) fn count(&self) -> usize {
        self.keys.len()
    }

    /// How many of the keys can verify a signature.
    pub(super) fn usable_count(&self) -> usize {
        self.keys.iter().filter(|key| key.usable.is_some()).count()
    }

    /// Each key's id and when it ends, of those that say so.
    pub(super) fn ends(&self) -> impl Iterator<Item = (Option<&str>, UnixTime)> {
        self.keys.iter().filter_map(|key| Some((key.id.as_deref(), key.usable.as_ref()?.ends_at?)))
    }

    /// The names of the algorithms for which there is a key, as far as discovery does not exclude them.
    pub(super) fn algorithms(&self) -> Vec<String> {
        let is_listed = |algorithm| self.algorithms.as_ref().is_none_or(|listed| listed.contains(&algorithm));
        let has_key =
            |algorithm| self.keys.iter().filter_map(|key| key.usable.as_ref()).any(|key| key.is_for(algorithm));
        let all = FAMILIES.iter().map(|(algorithm, _)| *algorithm);
        all.filter(|algorithm| is_listed(*algorithm) && has_key(*algorithm))
            .map(|algorithm| format!("{algorithm:?}"))
            .collect()
    }

    /// Verifies the signature: by the key that the token names, else by those that fit its algorithm.
    pub(super) fn verify<'t>(&self, token: &'t Unverified, now: UnixTime) -> Result<Signed<'t>, NotSigned> {
        let algorithm = token.algorithm();
        let (named, otherwise) = match token.key_id() {
            // First of all: with a new key the issuer may list a new algorithm.
            Some(id) if !self.keys.iter().any(|key| key.id.as_deref() == Some(id)) => {
                return Err(NotSigned::UnknownKey);
            }
            Some(id) => (Some(id), NotSigned::Invalid("the key does not verify the signature, or is not one for it")),
            None => (None, NotSigned::NoneFits),
        };
        if self.algorithms.as_ref().is_some_and(|listed| !listed.contains(&algorithm)) {
            return Err(NotSigned::Invalid("the issuer does not list the algorithm"));
        }
        let (signed, signature) = token.signed_and_signature();
        let verifies = |key: &Usable| {
            jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.decoding, algorithm).unwrap_or(false)
        };
        self.keys
            .iter()
            .filter(|key| named.is_none() || key.id.as_deref() == named)
            .filter_map(|key| key.usable.as_ref())
            .filter(|key| key.is_for(algorithm) && key.ends_at.is_none_or(|end| now < end))
            .take(MOST_TRIES)
            .any(verifies)
            .then_some(Signed { token })
            .ok_or(otherwise)
    }
}

/// A key, or the id of one that we do not use.
#[derive(Debug)]
struct Key {
    id: Option<String>,
    usable: Option<Usable>,
}

impl Key {
    /// `None` if there is neither a usable key nor an id to know it by.
    fn read(key: Value) -> Option<Self> {
        let id = key.get("kid").and_then(Value::as_str).map(str::to_owned);
        let usable = Usable::read(&key);
        (id.is_some() || usable.is_some()).then_some(Self { id, usable })
    }
}

#[derive(Debug)]
struct Usable {
    family: Family,
    algorithm: Option<Algorithm>,
    /// `exp`, which no standard gives to keys but some who publish them do.
    ends_at: Option<UnixTime>,
    decoding: DecodingKey,
}

/// What a key's type and curve make it fit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Usable {
    fn read(key: &Value) -> Option<Self> {
        // A key id that is not a string is no key id, and no reason to guess what was meant.
        let typed: CoreJsonWebKey = serde_json::from_value(key.clone()).ok()?;
        if typed.key_use().is_some_and(|purpose| !purpose.allows_signature()) || !may_verify(key.get("key_ops")) {
            return None;
        }
        let family = family(typed.key_type(), key)?;
        let algorithm = match key.get("alg") {
            None | Some(Value::Null) => None,
            Some(name) => Some(token::algorithm(name.as_str()?)?),
        };
        // The library keeps what a key is made of to itself and gives it out as JSON only.
        let jwk: Jwk = serde_json::from_value(serde_json::to_value(&typed).ok()?).ok()?;
        let ends_at = key.get("exp").and_then(Value::as_i64).map(UnixTime::from_secs);
        let usable = Self { family, algorithm, ends_at, decoding: DecodingKey::from_jwk(&jwk).ok()? };
        algorithm.is_none_or(|algorithm| usable.is_for(algorithm)).then_some(usable)
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        family_of(algorithm) == Some(self.family) && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

fn may_verify(operations: Option<&Value>) -> bool {
    match operations {
        None | Some(Value::Null) => true,
        Some(operations) => {
            operations.as_array().is_some_and(|list| list.iter().any(|operation| operation == "verify"))
        }
    }
}

fn family(key_type: &CoreJsonWebKeyType, key: &Value) -> Option<Family> {
    match (key_type, key.get("crv").and_then(Value::as_str)) {
        (CoreJsonWebKeyType::RSA, _) => RSA_BITS.contains(&bits(key.get("n")?.as_str()?)?).then_some(Family::Rsa),
        (CoreJsonWebKeyType::EllipticCurve, Some("P-256")) => Some(Family::P256),
        (CoreJsonWebKeyType::EllipticCurve, Some("P-384")) => Some(Family::P384),
        (CoreJsonWebKeyType::OctetKeyPair, Some("Ed25519")) => Some(Family::Ed25519),
        _ => None,
    }
}

/// The length of a number in base64url, leading zeros not counted.
fn bits(number: &str) -> Option<usize> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let bytes = URL_SAFE_NO_PAD.decode(number.trim_end_matches('=')).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    let leading = bytes.get(first)?.leading_zeros() as usize;
    Some((bytes.len() - first) * 8 - leading)
}

/// Every algorithm that we accept, and the keys that it takes.
const FAMILIES: [(Algorithm, Family); 9] = [
    (Algorithm::RS256, Family::Rsa),
    (Algorithm::RS384, Family::Rsa),
    (Algorithm::RS512, Family::Rsa),
    (Algorithm::PS256, Family::Rsa),
    (Algorithm::PS384, Family::Rsa),
    (Algorithm::PS512, Family::Rsa),
    (Algorithm::ES256, Family::P256),
    (Algorithm::ES384, Family::P384),
    (Algorithm::EdDSA, Family::Ed25519),
];

fn family_of(algorithm: Algorithm) -> Option<Family> {
    FAMILIES.iter().find(|(known, _)| *known == algorithm).map(|(_, family)| *family)
}
