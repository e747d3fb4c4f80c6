//! An issuer's keys, and the one place where a signature is verified.
//!
//! A key is for one family of algorithms, and where it names an algorithm, for that one alone
//! (RFC 8725 section 3.1), so no header can talk a key into something else. Keys are read one by
//! one: one that cannot be used does not affect the others. Its id is kept: a token that names it
//! gets a final answer and is no reason to fetch the keys again.

use std::{fmt, sync::Arc};

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::Value;

use super::{algorithm::Algorithm, jwk, token::Unverified};
use crate::clock::UnixTime;

/// The largest number of keys that one token is checked against.
const MAX_CANDIDATES: usize = 16;

/// RSA keys up to this size are checked on the async threads: a check takes 50 µs at most.
const MAX_INLINE_RSA_BITS: usize = 3072;

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// The ids of keys that cannot be used.
    unusable: Vec<Box<str>>,
    /// The algorithms that discovery lists, where it lists any.
    algorithms: Option<Vec<Algorithm>>,
}

/// A token whose signature one of its issuer's keys verifies. Only this file makes one.
#[derive(Debug)]
pub(super) struct Signed {
    token: Unverified,
    key_id: Option<Arc<str>>,
}

impl Signed {
    /// The token that was signed.
    pub(super) fn token(&self) -> &Unverified {
        &self.token
    }

    /// The id of the key that signed, as its issuer publishes it. A token need not name one.
    pub(super) fn key_id(&self) -> Option<&Arc<str>> {
        self.key_id.as_ref()
    }
}

/// Why no key verifies a token's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotSigned {
    /// The key that the token names is not here. The issuer may have a new one.
    UnknownKey,
    /// The token names no key, and none of those here verifies it. The issuer may have a new one.
    NoneFits,
    /// The final answer.
    Invalid(Mismatch),
}

/// Why a key, though known, does not verify the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mismatch {
    #[error("the signature does not match the key that `kid` names")]
    Signature,
    #[error("the key that `kid` names is not for the token's algorithm {}", .0.name())]
    Algorithm(Algorithm),
    #[error("the key that `kid` names has expired")]
    Expired,
    #[error(
        "the key that `kid` names cannot be used: expected a signature key that is RSA of 2048 to 4096 bits, P-256, P-384, P-521 or Ed25519"
    )]
    Unusable,
    #[error("the issuer's discovery document does not list the token's algorithm {}", .0.name())]
    Unlisted(Algorithm),
}

impl KeySet {
    /// Reads a JWK set (RFC 7517 section 5); `None` if the document is none. `algorithms` binds
    /// where it is given.
    pub(super) fn read(document: &[u8], algorithms: Option<Vec<Algorithm>>) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Document {
            keys: Keys,
        }
        let Document { keys: Keys { usable, unusable } } = serde_json::from_slice(document).ok()?;
        Some(Self { keys: usable, unusable, algorithms })
    }

    /// How many keys can verify a signature.
    pub(super) fn usable_count(&self) -> usize {
        self.keys.len()
    }

    /// How many keys have an id and cannot verify a signature.
    pub(super) fn unusable_count(&self) -> usize {
        self.unusable.len()
    }

    /// What the set holds in memory, in bytes; an upper bound.
    pub(super) fn size(&self) -> usize {
        let text = |text: &str| text.len() + ALLOCATION;
        // An `Arc` counts its owners beside the text.
        let shared = |shared: &Arc<str>| text(shared) + 2 * size_of::<usize>();
        let keys = self
            .keys
            .iter()
            .map(|key| key.id.as_ref().map_or(0, shared) + key.bits / 4 + 2 * ALLOCATION);
        let unusable = self.unusable.iter().map(|id| text(id));
        let tables = self.keys.capacity() * size_of::<Key>()
            + self.unusable.capacity() * size_of::<Box<str>>();
        size_of::<Self>() + tables + keys.chain(unusable).sum::<usize>()
    }

    /// Each key's id and when it ends, of those that say so.
    pub(super) fn ends(&self) -> impl Iterator<Item = (Option<&str>, UnixTime)> {
        self.keys.iter().filter_map(|key| Some((key.id.as_deref(), key.ends_at?)))
    }

    /// The names of the algorithms for which there is a key, as far as discovery does not exclude
    /// them.
    pub(super) fn algorithms(&self) -> Vec<&'static str> {
        let has_key = |algorithm: &Algorithm| self.keys.iter().any(|key| key.is_for(*algorithm));
        let usable = Algorithm::ALL
            .into_iter()
            .filter(|algorithm| self.lists(*algorithm) && has_key(algorithm));
        usable.map(Algorithm::name).collect()
    }

    fn lists(&self, algorithm: Algorithm) -> bool {
        self.algorithms.as_ref().is_none_or(|listed| listed.contains(&algorithm))
    }

    /// Whether the check of the token's signature takes long enough to hold up an async thread.
    pub(super) fn is_expensive(&self, token: &Unverified, now: UnixTime) -> bool {
        match self.candidates(token, now).as_deref() {
            Ok([key]) => match key.family {
                Family::Rsa => key.bits > MAX_INLINE_RSA_BITS,
                Family::P256 | Family::Ed25519 => false,
                Family::P384 | Family::P521 => true,
            },
            Ok(several) => !several.is_empty(),
            Err(_) => false,
        }
    }

    /// Verifies the signature: by the key that the token names, else by those of its algorithm's
    /// type.
    pub(super) fn verify(&self, token: &Unverified, now: UnixTime) -> Result<Signed, NotSigned> {
        let (signed, signature) = token.signed_and_signature();
        let is_signer = |key: &&Key| key.verifies(token.algorithm(), signed.as_bytes(), signature);
        if let Some(key) = self.candidates(token, now)?.into_iter().find(is_signer) {
            return Ok(Signed { token: token.clone(), key_id: key.id.clone() });
        }
        Err(if token.key_id().is_some() {
            NotSigned::Invalid(Mismatch::Signature)
        } else {
            NotSigned::NoneFits
        })
    }

    /// The keys that may have signed the token.
    fn candidates(&self, token: &Unverified, now: UnixTime) -> Result<Vec<&Key>, NotSigned> {
        let (algorithm, id) = (token.algorithm(), token.key_id());
        let is_named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
        // First of all: with a new key the issuer may list a new algorithm.
        let is_usable = self.keys.iter().any(|key| is_named(&key));
        if id
            .is_some_and(|id| !is_usable && !self.unusable.iter().any(|unusable| **unusable == *id))
        {
            return Err(NotSigned::UnknownKey);
        }
        if !self.lists(algorithm) {
            return Err(NotSigned::Invalid(Mismatch::Unlisted(algorithm)));
        }
        let named = self.keys.iter().filter(is_named);
        let fitting: Vec<_> =
            named.filter(|key| key.is_for(algorithm)).take(MAX_CANDIDATES).collect();
        let current: Vec<_> =
            fitting.iter().copied().filter(|key| key.ends_at.is_none_or(|end| now < end)).collect();
        match (id, is_usable, fitting.is_empty(), current.is_empty()) {
            (None, ..) | (Some(_), true, false, false) => Ok(current),
            (Some(_), false, ..) => Err(NotSigned::Invalid(Mismatch::Unusable)),
            (Some(_), true, true, _) => Err(NotSigned::Invalid(Mismatch::Algorithm(algorithm))),
            (Some(_), true, false, true) => Err(NotSigned::Invalid(Mismatch::Expired)),
        }
    }
}

/// What one allocation costs beside its content, at most.
const ALLOCATION: usize = 32;

/// The members of `keys`, each read and dropped before the next: the document may have thousands.
struct Keys {
    usable: Vec<Key>,
    unusable: Vec<Box<str>>,
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of keys")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Keys, A::Error> {
                let mut keys = Keys { usable: Vec::new(), unusable: Vec::new() };
                while let Some(key) = items.next_element::<Value>()? {
                    match (jwk::read(&key), jwk::id(&key)) {
                        (Some(usable), _) => keys.usable.push(usable),
                        (None, Some(id)) => keys.unusable.push(id.into()),
                        (None, None) => {}
                    }
                }
                Ok(keys)
            }
        }

        reader.deserialize_seq(Members)
    }
}

/// A key that can verify signatures.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: Option<Arc<str>>,
    pub(super) family: Family,
    pub(super) algorithm: Option<Algorithm>,
    /// `exp`, which no standard gives to keys but some publishers do.
    pub(super) ends_at: Option<UnixTime>,
    pub(super) public: Public,
    pub(super) bits: usize,
}

/// What a key's type and curve make it fit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

#[derive(Debug)]
pub(super) enum Public {
    Library(DecodingKey),
    /// An uncompressed point.
    P521(Box<[u8]>),
}

impl Key {
    fn is_for(&self, algorithm: Algorithm) -> bool {
        algorithm.family() == self.family && self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// Whether the key made the signature, which is in base64.
    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        match (&self.public, algorithm.in_library()) {
            (Public::Library(key), Some(algorithm)) => {
                jsonwebtoken::crypto::verify(signature, message, key, algorithm).unwrap_or(false)
            }
            (Public::P521(point), None) => {
                URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| {
                    UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point)
                        .verify(message, &signature)
                        .is_ok()
                })
            }
            (Public::Library(_), None) | (Public::P521(_), Some(_)) => false,
        }
    }
}
