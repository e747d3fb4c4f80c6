//! The server's own TLS: certificate and key from files, replaced when the files change.

use std::{
    fmt, fs, io,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;
use x509_cert::der::Decode;
use zeroize::Zeroizing;

use super::TlsFiles;
use crate::clock::{Clock, UnixTime};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The certificate and key in use.
pub(super) struct Certificate(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read, is not PEM of its kind, or the key is not the certificate's.
    pub(super) fn read(files: &TlsFiles) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self(RwLock::new(read_pair(files)?))))
    }

    /// Reloads changed files until it is dropped. A pair that cannot be used leaves the one in use, and is
    /// tried again when a file changes once more: the two are seldom written at one moment.
    pub(super) fn watch(
        self: Arc<Self>,
        files: TlsFiles,
        clock: Arc<dyn Clock>,
    ) -> impl Future<Output = ()> + use<> {
        let mut seen = stamps(&files);
        async move {
            loop {
                clock.sleep(LOOK_EVERY).await;
                let now = stamps(&files);
                if now != seen {
                    seen = now;
                    self.renew(&files);
                }
            }
        }
    }

    fn renew(&self, files: &TlsFiles) {
        match read_pair(files) {
            Ok(pair) => {
                *self.0.write().unwrap_or_else(PoisonError::into_inner) = pair;
                tracing::info!("the changed TLS certificate is in use");
            }
            Err(error) => {
                tracing::error!(%error, "the changed TLS certificate cannot be used; the old one stays")
            }
        }
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1.
pub(super) fn acceptor(certificate: Arc<Certificate>) -> io::Result<TlsAcceptor> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read_pair(files: &TlsFiles) -> io::Result<Arc<CertifiedKey>> {
    let chain = read(&files.certificate)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|_| invalid(&files.certificate, "is not a PEM certificate chain"))?;
    let key = read(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| invalid(&files.key, "has no PEM private key"))?;
    let pair = CertifiedKey::from_der(chain, key, &provider());
    pair.map(Arc::new).map_err(|error| invalid(&files.certificate, &error.to_string()))
}

/// When the first certificate of the chain ends.
pub(super) fn ends_at(files: &TlsFiles) -> io::Result<UnixTime> {
    let pair = read_pair(files)?;
    let certificate = pair.cert.first().and_then(|der| x509_cert::Certificate::from_der(der).ok());
    let certificate =
        certificate.ok_or_else(|| invalid(&files.certificate, "is not an X.509 certificate"))?;
    let ends_at = certificate.tbs_certificate.validity.not_after.to_unix_duration();
    Ok(UnixTime::from_secs(i64::try_from(ends_at.as_secs()).unwrap_or(i64::MAX)))
}

/// The text may be a key: it is wiped when done with.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let bytes = fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(Zeroizing::new(bytes))
}

fn invalid(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}

/// What changes when a file is written or the link to it is moved.
fn stamps(files: &TlsFiles) -> [Option<(SystemTime, u64)>; 2] {
    [&files.certificate, &files.key].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}
