//! Key material that the configuration names. It is checked when it is read, so that a wrong file
//! is reported at start and not by the first exchange. Errors never contain any of it.

use std::{fs, io, path::Path, sync::Arc};

use rustls::{
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use super::value::Parsed;
use crate::github::{KeyError, KmsKey, PemSigner, Signer, SignerSource};

/// The private key of a GitHub App: an RSA key of at least 2048 bits.
#[derive(Debug, Clone)]
pub enum AppKey {
    /// Held here. It was read and checked.
    Pem(Arc<PemSigner>),
    /// Held by a key management service.
    Kms(KmsKey),
}

impl AppKey {
    /// Reads PEM text, PKCS #1 (as GitHub hands it out) or PKCS #8. Where line ends are written
    /// as `\n`, as happens to a PEM on its way through a variable, they are taken as line ends.
    ///
    /// # Errors
    /// What would be right, as the rest of a sentence about where the text came from.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pem = Zeroizing::new(text.replace("\\r", "").replace("\\n", "\n"));
        if !pem.contains("-----BEGIN ") {
            return Err("must hold the App's private key as PEM text, from -----BEGIN to -----END"
                .to_owned());
        }
        PemSigner::from_pem(pem.as_bytes())
            .map(|signer| Self::Pem(Arc::new(signer)))
            .map_err(what_is_wrong)
    }

    /// Reads the file at `path`, as [`AppKey::parse`] does.
    ///
    /// # Errors
    /// As [`AppKey::parse`], and if the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, String> {
        Self::parse(&Zeroizing::new(read(path)?))
    }

    /// What signs with it.
    pub fn signer(&self) -> SignerSource {
        match self {
            Self::Pem(signer) => SignerSource::Ready(Arc::clone(signer) as Arc<dyn Signer>),
            Self::Kms(key) => SignerSource::Kms(key.clone()),
        }
    }
}

impl PartialEq for AppKey {
    /// Whether it is the same key, however it is written.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pem(one), Self::Pem(other)) => one.public_keys().eq(other.public_keys()),
            (Self::Kms(one), Self::Kms(other)) => one == other,
            (Self::Pem(_), Self::Kms(_)) | (Self::Kms(_), Self::Pem(_)) => false,
        }
    }
}

fn what_is_wrong(error: KeyError) -> String {
    match error {
        KeyError::NotPem | KeyError::Encrypted => {
            "must hold a private key in PEM form that is complete and has no passphrase"
        }
        KeyError::NotRsa => "must hold an RSA private key",
        KeyError::Unsound => {
            "must hold a sound RSA private key of 2048 to 8192 bits, without passphrase"
        }
    }
    .to_owned()
}

/// Checks that the file holds certificates.
pub(super) fn certificates(path: &Path) -> Parsed<Vec<CertificateDer<'static>>> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    chain
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| "must name a file of PEM certificates".to_owned())
}

/// Checks that the file holds the private key of the chain's first certificate.
pub(super) fn private_key(path: &Path, chain: Option<Vec<CertificateDer<'static>>>) -> Parsed<()> {
    let text = Zeroizing::new(read(path)?);
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| "must name a file with a PEM private key that is not encrypted".to_owned())?;
    let Some(chain) = chain else { return Ok(()) };
    match CertifiedKey::from_der(chain, key, &default_provider()) {
        Ok(_) => Ok(()),
        Err(_) => {
            Err("must name the private key of the certificate in STS_TLS_CERT_FILE".to_owned())
        }
    }
}

fn read(path: &Path) -> Parsed<String> {
    fs::read_to_string(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            "names a file that is not there".to_owned()
        } else {
            format!("names a file that cannot be read: {}", error.kind())
        }
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::LazyLock;

    use super::*;
    use aws_lc_rs::{
        encoding::AsDer,
        rsa::{KeyPair, KeySize},
    };
    use base64::{Engine, engine::general_purpose::STANDARD};

    /// A fresh RSA key of 2048 bits in PKCS #8.
    static DER: LazyLock<Vec<u8>> = LazyLock::new(|| {
        KeyPair::generate(KeySize::Rsa2048).unwrap().as_der().unwrap().as_ref().to_vec()
    });

    fn pem(label: &str, der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        let lines: Vec<_> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    /// A key that is in order, as PEM text.
    pub(in crate::config) fn rsa_pem() -> String {
        pem("PRIVATE KEY", &DER)
    }

    #[test]
    fn both_forms_of_a_key_are_taken() {
        // The wrapping of PKCS #8 around a key of this size is 26 bytes.
        let pkcs1 = pem("RSA PRIVATE KEY", &DER[26..]);
        for text in [rsa_pem(), pkcs1] {
            for spelled in [
                text.clone(),
                text.replace('\n', "\\n"),
                text.replace('\n', "\\r\\n"),
                text.replace('\n', "\r\n"),
            ] {
                assert!(AppKey::parse(&spelled).is_ok());
            }
        }
    }

    #[test]
    fn what_is_no_key_is_told_apart() {
        let whole = rsa_pem();
        let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        for (text, expected) in [
            ("MY_KEY", "must hold the App's private key as PEM text, from -----BEGIN to -----END"),
            (
                &whole[..400],
                "must hold a private key in PEM form that is complete and has no passphrase",
            ),
            (
                &certificate.cert.pem(),
                "must hold a private key in PEM form that is complete and has no passphrase",
            ),
            (&certificate.signing_key.serialize_pem(), "must hold an RSA private key"),
            (&pem("EC PRIVATE KEY", &DER), "must hold an RSA private key"),
            (
                &pem("RSA PRIVATE KEY", &DER),
                "must hold a sound RSA private key of 2048 to 8192 bits, without passphrase",
            ),
            (
                RSA_1024,
                "must hold a sound RSA private key of 2048 to 8192 bits, without passphrase",
            ),
        ] {
            assert_eq!(AppKey::parse(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = AppKey::parse(&rsa_pem()).unwrap();
        assert_eq!(format!("{key:?}"), "Pem(PemSigner { .. })");
    }

    const RSA_1024: &str = "-----BEGIN RSA PRIVATE KEY-----\n\
        MIICXQIBAAKBgQCdrgIUpjvIJZzvSUSCjbLPVcUhcU4HagTqffJs7C0I2FiZxpZM\n\
        GEUMlWiQ84qFCnqLMnQdrWZfpgF5vp4Iv6UI1lwjJb14JWk2tYflg79puQUEraah\n\
        hfc7YU0GlkKEQLQ6WwsWyK++Jg6ybp9iK13mSuVFvKVXuv3fWIj8CMMPhwIDAQAB\n\
        AoGAMegsgmqnC09UX6xaAdRlnxgvn8kkAFa/HZUlkPIjwuPvDyT61zTrTfNQOGjN\n\
        FBTf+oTKmcYTW/zIBMefb3dw/V7jlvime5rke5ixxhxoDz1iOJK2a6XVeuU5jIe0\n\
        UIvm9L2+HG/5ubK0GD2iDLFfrpEOq56SFgRJnRwpRllxrLECQQDKn7jwGApSpW8v\n\
        SbDpAIpq6Ge46Sy6WISOP5LWuVnjLT2wCwea6zwbMNofEZ3VuNqO67JX3JK+ElZj\n\
        E41IKryZAkEAxzdmV/yuKtUsxZ/am6HP+LPrq8bxQaPpzGtvj7COdvT6nFP3jlmr\n\
        6XLFS7yWLAyXhHjh6EyOp/Di5OqVlQqhHwJAMbJfH7QlxAODc6u1UlCponMCDZ5T\n\
        NBlF2cXJ9BRd8ZRFDwqFgP+1LE4dEYW2mpbONEOm6FnXO/svaPmAq3Sf8QJBAMZ0\n\
        2wCWGM9UtBhficB2rx675e+m7RoN91AMSwPix9mbbLklML1feVHDYuZzBUr2dE6k\n\
        ua/X7FlDMFUJmF/0SdMCQQCKjPFQRphagnzFYZ4JD4lbMgym8tZ1Qh8Cce/vTY+h\n\
        tNaU2skFDfnG1YPmqWdmBpjER2rgRtnXDjCjrDk1EnbO\n\
        -----END RSA PRIVATE KEY-----";
}
