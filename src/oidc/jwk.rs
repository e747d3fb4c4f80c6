//! One JSON Web Key (RFC 7517), read as Go's libraries read it.
//!
//! A modulus or an exponent may have zero bytes in front, and base64 may be padded. A coordinate of
//! an elliptic curve has exactly the curve's length.

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use jsonwebtoken::DecodingKey;
use serde_json::Value;

use super::{
    algorithm::Algorithm,
    keys::{Family, Key, Public},
};
use crate::clock::UnixTime;

/// Smaller RSA keys are too weak, larger ones too slow.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// RSA keys with an exponent of more bytes are too slow, and the cryptography library refuses them.
const MAX_EXPONENT_BYTES: usize = 5;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The id of a key, if it has one. An id that is not a string is none.
pub(super) fn id(key: &Value) -> Option<&str> {
    key.get("kid").and_then(Value::as_str)
}

/// The key, if it can verify a signature by an accepted algorithm.
pub(super) fn read(key: &Value) -> Option<Key> {
    if key.get("use").is_some_and(|purpose| purpose == "enc") || !may_verify(key.get("key_ops")) {
        return None;
    }
    let algorithm = match key.get("alg") {
        None | Some(Value::Null) => None,
        Some(name) => Some(Algorithm::from_name(name.as_str()?)?),
    };
    let (family, public, bits) = public(key)?;
    if algorithm.is_some_and(|algorithm| algorithm.family() != family) {
        return None;
    }
    let ends_at = key.get("exp").and_then(Value::as_i64).map(UnixTime::from_secs);
    Some(Key { id: id(key).map(Into::into), family, algorithm, ends_at, public, bits })
}

fn may_verify(operations: Option<&Value>) -> bool {
    match operations {
        None | Some(Value::Null) => true,
        Some(operations) => operations
            .as_array()
            .is_some_and(|list| list.iter().any(|operation| operation == "verify")),
    }
}

/// The public key, and its size in bits.
fn public(key: &Value) -> Option<(Family, Public, usize)> {
    let member = |name: &str| BASE64.decode(key.get(name)?.as_str()?).ok();
    let coordinates = |length: usize| {
        Some((coordinate(&member("x")?, length)?, coordinate(&member("y")?, length)?))
    };
    let library = |key: jsonwebtoken::errors::Result<DecodingKey>| Some(Public::Library(key.ok()?));
    match (key.get("kty")?.as_str()?, key.get("crv").and_then(Value::as_str)) {
        ("RSA", _) => {
            let (n, e) = (member("n")?, member("e")?);
            let (n, e) = (without_leading_zeros(&n), without_leading_zeros(&e));
            let bits = bits(n);
            let is_usable = RSA_BITS.contains(&bits) && (1..=MAX_EXPONENT_BYTES).contains(&e.len());
            is_usable.then(|| {
                (Family::Rsa, Public::Library(DecodingKey::from_rsa_raw_components(n, e)), bits)
            })
        }
        ("EC", Some("P-256")) => {
            let (x, y) = coordinates(32)?;
            Some((Family::P256, library(DecodingKey::from_ec_components(&x, &y))?, 256))
        }
        ("EC", Some("P-384")) => {
            let (x, y) = coordinates(48)?;
            Some((Family::P384, library(DecodingKey::from_ec_components(&x, &y))?, 384))
        }
        ("EC", Some("P-521")) => {
            let (x, y) = (member("x")?, member("y")?);
            // An uncompressed point (SEC 1 section 2.3.3).
            let point = || [&[4], x.as_slice(), y.as_slice()].concat().into();
            (x.len() == 66 && y.len() == 66).then(|| (Family::P521, Public::P521(point()), 521))
        }
        ("OKP", Some("Ed25519")) => {
            let x = coordinate(&member("x")?, 32)?;
            Some((Family::Ed25519, library(DecodingKey::from_ed_components(&x))?, 256))
        }
        _ => None,
    }
}

/// A coordinate of that length, as the JWT library reads it.
fn coordinate(bytes: &[u8], length: usize) -> Option<String> {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    (bytes.len() == length).then(|| URL_SAFE_NO_PAD.encode(bytes))
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    number.get(first..).unwrap_or_default()
}

/// The length of a number without zero bytes in front.
fn bits(number: &[u8]) -> usize {
    let unused = number.first().map_or(0, |first| first.leading_zeros() as usize);
    (number.len() * 8).saturating_sub(unused)
}
