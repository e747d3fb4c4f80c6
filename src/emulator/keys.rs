//! Key pairs for Apps and issuers, as PEM, JWK and signatures.
//!
//! Making an RSA key takes a good part of a second, and tests start hundreds of emulators. So keys
//! are [`Lease`]s from a pool of the process: no two that are in use are the same, and one that is
//! no longer used serves the next who asks.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::{
    digest::{self, Digest, SHA256},
    encoding::AsDer,
    rand::{SecureRandom, SystemRandom},
    rsa,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alg {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519.
    EdDsa,
}

impl Alg {
    /// As in a token's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    fn family(self) -> Family {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => {
                Family::Rsa
            }
            Self::Es256 => Family::P256,
            Self::Es384 => Family::P384,
            Self::Es512 => Family::P521,
            Self::EdDsa => Family::Ed25519,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Family {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

/// A key pair of one family.
#[derive(Debug)]
pub(super) enum Pair {
    Rsa(rsa::KeyPair),
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// An RSA public key, as an App's settings page would hold it: PKCS#1 DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(pub(super) Vec<u8>);

impl PublicKey {
    /// Whether `signature` is this key's over `message`, RS256.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        signature::UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, &self.0)
            .verify(message, signature)
            .is_ok()
    }
}

/// A fresh RSA-2048 key: PKCS#8 PEM and its public half.
pub fn generate_rsa_pem() -> (String, PublicKey) {
    pem_and_public(&generate(Family::Rsa))
}

/// A key pair for as long as this lives. Then it goes back to the pool.
#[derive(Debug)]
pub(super) struct Lease {
    family: Family,
    /// Only gone while the lease is dropped.
    pair: Option<Pair>,
}

impl Lease {
    /// A key pair of the algorithm's family that nobody else has.
    pub(super) fn take(alg: Alg) -> Self {
        let family = alg.family();
        let free = pool().entry(family).or_default().pop();
        Self { family, pair: Some(free.unwrap_or_else(|| generate(family))) }
    }

    /// An RSA key as PKCS#8 PEM, and its public half.
    pub(super) fn pem_and_public(&self) -> (String, PublicKey) {
        pem_and_public(self)
    }
}

impl Deref for Lease {
    type Target = Pair;

    #[expect(clippy::expect_used, reason = "the pair leaves only in drop")]
    fn deref(&self) -> &Pair {
        self.pair.as_ref().expect("a lease in use has its pair")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(pair) = self.pair.take() {
            pool().entry(self.family).or_default().push(pair);
        }
    }
}

/// The keys that nobody uses at the moment.
type Pool = HashMap<Family, Vec<Pair>>;

fn pool() -> MutexGuard<'static, Pool> {
    static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(
    clippy::expect_used,
    reason = "key generation fails only without a random source, and then nothing works"
)]
fn generate(family: Family) -> Pair {
    const NO_RANDOM: &str = "the system has a random source";
    match family {
        Family::Rsa => Pair::Rsa(rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect(NO_RANDOM)),
        Family::P256 => Pair::Ec(
            EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).expect(NO_RANDOM),
        ),
        Family::P384 => Pair::Ec(
            EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).expect(NO_RANDOM),
        ),
        Family::P521 => Pair::Ec(
            EcdsaKeyPair::generate(&signature::ECDSA_P521_SHA512_FIXED_SIGNING).expect(NO_RANDOM),
        ),
        Family::Ed25519 => Pair::Ed25519(Ed25519KeyPair::generate().expect(NO_RANDOM)),
    }
}

fn pem_and_public(pair: &Pair) -> (String, PublicKey) {
    let Pair::Rsa(pair) = pair else { return (String::new(), PublicKey(Vec::new())) };
    let der = AsDer::as_der(pair)
        .map(|der: aws_lc_rs::encoding::Pkcs8V1Der<'_>| BASE64_STANDARD.encode(der.as_ref()));
    let der = der.unwrap_or_default();
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for (at, letter) in der.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(letter);
    }
    pem.push_str("\n-----END PRIVATE KEY-----\n");
    (pem, PublicKey(pair.public_key().as_ref().to_vec()))
}

impl Pair {
    /// The signature over `message`; `None` if the pair is of another family than the algorithm.
    pub(super) fn sign(&self, alg: Alg, message: &[u8]) -> Option<Vec<u8>> {
        let rng = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let scheme: &'static dyn signature::RsaEncoding = match alg {
                    Alg::Rs256 => &signature::RSA_PKCS1_SHA256,
                    Alg::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Alg::Rs512 => &signature::RSA_PKCS1_SHA512,
                    Alg::Ps256 => &signature::RSA_PSS_SHA256,
                    Alg::Ps384 => &signature::RSA_PSS_SHA384,
                    Alg::Ps512 => &signature::RSA_PSS_SHA512,
                    Alg::Es256 | Alg::Es384 | Alg::Es512 | Alg::EdDsa => return None,
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(scheme, &rng, message, &mut out).ok()?;
                Some(out)
            }
            Self::Ec(pair) => {
                pair.sign(&rng, message).ok().map(|signature| signature.as_ref().to_vec())
            }
            Self::Ed25519(pair) => {
                pair.try_sign(message).ok().map(|signature| signature.as_ref().to_vec())
            }
        }
    }

    /// The public half as a JSON Web Key (RFC 7517), with `kid`, `alg` and `use`.
    pub(super) fn jwk(&self, alg: Alg) -> Value {
        let mut jwk = match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let modulus = public.modulus().big_endian_without_leading_zero();
                let exponent = public.exponent().big_endian_without_leading_zero();
                json!({"kty": "RSA", "n": base64url(modulus), "e": base64url(exponent)})
            }
            Self::Ec(pair) => {
                // An uncompressed point (SEC 1 section 2.3.3): 04, then the two coordinates.
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                let curve = match alg.family() {
                    Family::P521 => "P-521",
                    Family::P384 => "P-384",
                    Family::P256 | Family::Rsa | Family::Ed25519 => "P-256",
                };
                json!({"kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y)})
            }
            Self::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key().as_ref())})
            }
        };
        if let Value::Object(members) = &mut jwk {
            members.insert("kid".into(), self.key_id(alg).into());
            members.insert("alg".into(), alg.name().into());
            members.insert("use".into(), "sig".into());
        }
        jwk
    }

    /// A name for the key under that algorithm: the same key has the same name everywhere.
    pub(super) fn key_id(&self, alg: Alg) -> String {
        let public: &[u8] = match self {
            Self::Rsa(pair) => pair.public_key().as_ref(),
            Self::Ec(pair) => pair.public_key().as_ref(),
            Self::Ed25519(pair) => pair.public_key().as_ref(),
        };
        let digest = base64url(sha256(public).as_ref());
        format!("{}-{}", alg.name().to_ascii_lowercase(), digest.get(..16).unwrap_or_default())
    }
}

/// Base64url without padding (RFC 4648 section 5), as in tokens.
pub(super) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of base64url without padding.
pub(super) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> Digest {
    digest::digest(&SHA256, bytes)
}

/// Random bytes.
#[expect(clippy::expect_used, reason = "two tokens must not be the same")]
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has a random source");
    bytes
}
