//! Private keys in this process.

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use futures_util::future::BoxFuture;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};

use super::{PublicKey, Signer, SignerError};

/// Why a text is not a key that an App can sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM block with a private key.
    #[error("there is no private key in PEM form")]
    NotPem,
    /// The key is protected by a passphrase.
    #[error("the private key is encrypted; GitHub gives out Apps' keys without a passphrase")]
    Encrypted,
    /// Some other kind of key.
    #[error("the private key is not an RSA key")]
    NotRsa,
    /// An RSA key that does not parse, is not consistent, or has less than 2048 bits.
    #[error("the private key is not a sound RSA key of 2048 to 8192 bits")]
    Unsound,
}

/// One private key, or several during a rotation: the first one signs until GitHub refuses it.
pub struct PemSigner {
    first: RsaKeyPair,
    others: Vec<RsaKeyPair>,
    /// Counts refusals: which key signs.
    turn: AtomicUsize,
    random: SystemRandom,
}

impl std::fmt::Debug for PemSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PemSigner").finish_non_exhaustive()
    }
}

impl PemSigner {
    /// Reads RSA keys of at least 2048 bits: `BEGIN RSA PRIVATE KEY` (PKCS #1, RFC 8017), the
    /// form that GitHub gives out, or `BEGIN PRIVATE KEY` (PKCS #8, RFC 5958).
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let encrypted = |mark: &[u8]| pem.windows(mark.len()).any(|window| window == mark);
        if encrypted(b"BEGIN ENCRYPTED PRIVATE KEY") || encrypted(b"Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let mut keys = PrivateKeyDer::pem_slice_iter(pem)
            .map(|key| key.map_err(|_| KeyError::NotPem).and_then(|key| parse(&key)));
        let first = keys.next().ok_or(KeyError::NotPem)??;
        let others = keys.collect::<Result<_, _>>()?;
        Ok(Self { first, others, turn: AtomicUsize::new(0), random: SystemRandom::new() })
    }

    /// The public keys, each as DER of PKCS #1.
    pub fn public_keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys().map(|key| key.public_key().as_ref())
    }

    fn keys(&self) -> impl Iterator<Item = &RsaKeyPair> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The key that signs now.
    fn key(&self) -> &RsaKeyPair {
        let turn = self.turn.load(Ordering::Relaxed) % (self.others.len() + 1);
        self.keys().nth(turn).unwrap_or(&self.first)
    }
}

/// Keys of fewer than 2048 bits do not parse.
fn parse(key: &PrivateKeyDer<'_>) -> Result<RsaKeyPair, KeyError> {
    match key {
        PrivateKeyDer::Pkcs1(der) => {
            RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(|_| KeyError::Unsound)
        }
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())
            .map_err(|_| pkcs8_error(der.secret_pkcs8_der())),
        PrivateKeyDer::Sec1(_) | _ => Err(KeyError::NotRsa),
    }
}

/// A PKCS #8 document names its algorithm; that of RSA is 1.2.840.113549.1.1.1.
fn pkcs8_error(der: &[u8]) -> KeyError {
    const RSA_ENCRYPTION: &[u8] =
        &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    let head = der.get(..32).unwrap_or(der);
    if head.windows(RSA_ENCRYPTION.len()).any(|window| window == RSA_ENCRYPTION) {
        KeyError::Unsound
    } else {
        KeyError::NotRsa
    }
}

impl Signer for PemSigner {
    fn sign<'a>(&'a self, input: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignerError>> {
        Box::pin(async move {
            let key = self.key();
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(&RSA_PKCS1_SHA256, &self.random, input, &mut signature)
                .map_err(|_| SignerError::misconfigured("the key does not sign"))?;
            Ok(signature)
        })
    }

    fn public_key(&self) -> BoxFuture<'_, Result<Option<PublicKey>, SignerError>> {
        let key = PublicKey::Der(self.key().public_key().as_ref().to_vec());
        Box::pin(async { Ok(Some(key)) })
    }

    fn use_next_key(&self) -> bool {
        self.turn.fetch_add(1, Ordering::Relaxed);
        !self.others.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::{AsDer, Pkcs8V1Der},
        rsa::KeySize,
        signature::{
            ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256,
            UnparsedPublicKey,
        },
    };
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    fn pem(kind: &str, body: &str) -> Vec<u8> {
        format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n").into_bytes()
    }

    #[tokio::test]
    async fn a_key_in_either_form_signs() {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8: Pkcs8V1Der<'_> = key.as_der().unwrap();
        // RFC 5958: version, algorithm and the octet string's head stand before the PKCS #1 key.
        let (pkcs8, pkcs1) =
            (STANDARD.encode(pkcs8.as_ref()), STANDARD.encode(&pkcs8.as_ref()[26..]));
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
        for (kind, body) in [("PRIVATE KEY", pkcs8), ("RSA PRIVATE KEY", pkcs1)] {
            let signer = PemSigner::from_pem(&pem(kind, &body)).unwrap();
            let signature = signer.sign(b"header.claims").await.unwrap();
            public.verify(b"header.claims", &signature).unwrap();
            assert!(public.verify(b"header.other", &signature).is_err());
            assert_eq!(format!("{signer:?}"), "PemSigner { .. }");
        }
    }

    #[tokio::test]
    async fn several_keys_take_turns_when_one_is_refused() {
        let keys: Vec<_> =
            (0..2).map(|_| RsaKeyPair::generate(KeySize::Rsa2048).unwrap()).collect();
        let text = |key: &RsaKeyPair| {
            let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
            pem("PRIVATE KEY", &STANDARD.encode(der.as_ref()))
        };
        let both = [text(&keys[0]), text(&keys[1])].concat();
        let signer = PemSigner::from_pem(&both).unwrap();
        for n in [0, 1, 0] {
            let public = Signer::public_key(&signer).await.unwrap().unwrap();
            let signature = signer.sign(b"header.claims").await.unwrap();
            assert!(public.verifies(b"header.claims", &signature));
            let expected =
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, keys[n].public_key().as_ref());
            expected.verify(b"header.claims", &signature).unwrap();
            assert!(signer.use_next_key());
        }
        assert!(!PemSigner::from_pem(&text(&keys[0])).unwrap().use_next_key());
        let broken = [text(&keys[0]), pem("PRIVATE KEY", "AAAA")].concat();
        assert_eq!(PemSigner::from_pem(&broken).unwrap_err(), KeyError::NotRsa);
    }

    #[test]
    fn what_is_no_key_for_an_app() {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = STANDARD.encode(ec.as_ref());
        let garbage = STANDARD.encode(b"no key");
        for (text, error) in [
            (b"".to_vec(), KeyError::NotPem),
            (b"/run/secrets/app.pem".to_vec(), KeyError::NotPem),
            (pem("CERTIFICATE", &garbage), KeyError::NotPem),
            (pem("RSA PRIVATE KEY", "!"), KeyError::NotPem),
            (pem("RSA PRIVATE KEY", &garbage), KeyError::Unsound),
            (pem("RSA PRIVATE KEY", SMALL), KeyError::Unsound),
            (pem("PRIVATE KEY", &ec), KeyError::NotRsa),
            (pem("EC PRIVATE KEY", &garbage), KeyError::NotRsa),
            (pem("ENCRYPTED PRIVATE KEY", &garbage), KeyError::Encrypted),
            (
                pem("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA"),
                KeyError::Encrypted,
            ),
        ] {
            assert_eq!(
                PemSigner::from_pem(&text).unwrap_err(),
                error,
                "{}",
                String::from_utf8_lossy(&text)
            );
        }
    }

    /// A throwaway key of 1024 bits.
    const SMALL: &str = "\
MIICXQIBAAKBgQDRADwsatItF+lM/0Fk1+8y1efX1r5/hDQvimcwFj641DaeguVm
I3qCV+v+FIk6YCaH/TIzL52YTmrDPMRsJ+iB8pcbqx05iyIiL3GgUt4D62SalDWn
IdvOa1N855tzeuz8kSAiHb4eaqOk3r+BalRsIn5GYxYfipj1A18+ReYL2QIDAQAB
AoGBAJIK6wFSp4kRE1pVZ3mzFhdct4PwL+9lDx5FRTOp56w5xezfpLLJidq421QR
P48GDwapm8F+vU3nRd0lgk/dVy7rFenUTwI7yzVve9mRd1sZR7YYkpdmGdmda8zH
nQjP6FM/4b+YsAwOWTW1eAiC8FOVFM10587Tz+8ic/TKwhMtAkEA8pcd36ImB5dX
089wWuEtcUKJgfTvRh5Bkd/JFSreEkIdMOBTyYgdebgctqlp+B1iKkmcNGLumBEV
jXDIoYfxswJBANyNy/O2vgOPKo9pz4U6cYbm6OpyfizviHtlTRcD00UB3BUNAumx
aa5fp8JnPO8IRkvDzAsg5LYY4ZPBGv5+DkMCQH336IRK37KLbQjIq9AVI5KveVXp
SSJA7c2Axhrewqf6esv5gKiirKOa7hYPzL4RC/tnc9xkDv8Zx/ZFPXlbbS8CQBDp
KmcwbtdVBd1jLo83kPbYA6neR4BoiV10wfluyKc04kwW6E9E1CaTnQhR5CEr0EAE
7kM4LXEs7TboCorS3YMCQQCYlcpF+bbUzuGwYwV7gOHegOTOR3Sh+AMVrkjMjr6i
6aCp2FschWAnq4e4WlL1qIbb8BTiYSVW4W9qEgrh0XZ+";
}
