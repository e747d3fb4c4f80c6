//! The one outbound HTTP stack: GitHub and issuers are reached through it and through nothing else.
//!
//! Three things are decided here, once, for every client: which addresses may be connected to
//! (`address` says what an address is, `dial` asks it about the very address that it connects to,
//! so neither a literal in a URL nor a name that resolves differently the second time gets past),
//! which roots a server's certificate must lead to, and that a redirect is an answer, never
//! followed. How long a request may take is the caller's business; [`Documents`] has it built in.

mod address;
mod call;
mod cause;
mod dial;
mod document;
mod origin;
#[cfg(test)]
mod tests;

use std::{error::Error as StdError, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use hyper_util::{
    client::{legacy::Client, proxy::matcher::Matcher},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

pub use self::{
    call::{Answer, BoundedClient, MAX_RESPONSE_BYTES, USUAL_TIME},
    cause::{CertificateCause, ConnectCause},
    dial::Dialer,
    document::{Document, Documents},
    origin::Origin,
};

/// Which addresses a client may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressRule {
    /// Any address, over TLS or on loopback, through the proxy where one is set: for GitHub, whose
    /// address the operator configures.
    Any,
    /// Any address, with TLS or without, through the proxy where one is set: for a sink of events,
    /// whose address the operator configures and which may be next to this process.
    Sink,
    /// Public addresses only, over TLS only: for issuers.
    Public,
    /// Private ones too, but never link-local and cloud metadata addresses; plain http on loopback
    /// only.
    PrivateToo,
    /// The metadata servers of machines and nothing else: link-local addresses and those of AWS,
    /// and loopback, written as addresses and not as names, without TLS, never through the
    /// proxy.
    Metadata,
}

/// How documents are fetched: to which addresses, whom to trust there, and by which way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Which addresses.
    pub rule: AddressRule,
    /// The only roots to which the server's certificate may lead; the platform's where there are
    /// none.
    pub roots: Option<Roots>,
    /// Whether the configured proxy is used, which then looks names up itself.
    pub proxy: bool,
    /// An origin that may have a private address although the rule is [`AddressRule::Public`].
    pub private_origin: Option<Origin>,
}

impl Access {
    /// By the platform's roots, without a proxy.
    pub const fn by(rule: AddressRule) -> Self {
        Self { rule, roots: None, proxy: false, private_origin: None }
    }
}

/// Finds the addresses of a host. Injected, so that rebinding can be tested.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of `host`, in the order in which they are tried.
    fn resolve(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>>;
}

/// What the outbound stack needs to know.
#[derive(Clone, Default)]
pub struct Settings {
    /// Replaces the system's resolver.
    pub resolver: Option<Arc<dyn Resolve>>,
    /// PEM files of roots, trusted beside the platform's (`SSL_CERT_FILE` and `SSL_CERT_DIR`
    /// included).
    pub ca_files: Vec<PathBuf>,
    /// `HTTPS_PROXY`, used under [`AddressRule::Any`] and where an [`Access`] says so: `[http://][USER:PASSWORD@]HOST:PORT`.
    pub https_proxy: Option<String>,
    /// `NO_PROXY`: hosts, domains and networks that are reached without the proxy, comma
    /// separated.
    pub no_proxy: Option<String>,
}

/// Why an outbound request failed. It says nothing that the other side wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The address rule admits none of the host's addresses, or not this scheme.
    #[error("refused by the address rule")]
    Refused,
    /// The URL is not one that can be fetched.
    #[error("not an absolute http or https URL without user")]
    Url,
    /// No connection: the name, the address, the proxy, or TLS but for the certificate.
    #[error("the connection failed: {0}")]
    Connect(ConnectCause),
    /// The server's certificate does not lead to a root that is trusted here, is another host's, or
    /// is out of its time.
    #[error("the server's certificate is not trusted: {0}")]
    Certificate(CertificateCause),
    /// Not done in time.
    #[error("timed out")]
    Timeout,
    /// The answer is larger than its cap.
    #[error("the answer is too large")]
    TooLarge,
    /// An answer other than 200 where only that one will do; a redirect is such an answer.
    #[error("the answer has status {0}")]
    Status(u16),
    /// The connection closed before the whole answer had come.
    #[error("the connection closed before the answer was complete")]
    Closed,
    /// The answer is not HTTP.
    #[error("the answer is not HTTP")]
    Broken,
    /// The answer has a `Content-Encoding` other than gzip, or is not what its encoding says.
    #[error("the answer has a content encoding other than gzip, or is not valid gzip")]
    Encoding,
}

impl Error {
    /// What an error of a [`Client`], or one that a tower layer wrapped around it, comes to.
    pub fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(error);
        let mut found = Self::Broken;
        while let Some(error) = next {
            if let Some(ours) = error.downcast_ref::<Self>() {
                return *ours;
            }
            if error.is::<http_body_util::LengthLimitError>() {
                return Self::TooLarge;
            }
            if error.is::<tower::timeout::error::Elapsed>()
                || error.is::<tokio::time::error::Elapsed>()
            {
                return Self::Timeout;
            }
            if let Some(tls) = Self::of_tls(error) {
                return tls;
            }
            if error
                .downcast_ref::<hyper_util::client::legacy::Error>()
                .is_some_and(|error| error.is_connect())
            {
                found = Self::Connect(ConnectCause::Closed);
            }
            if found == Self::Broken && is_closed(error) {
                found = Self::Closed;
            }
            next = error.source();
        }
        found
    }
}

/// Roots of trust of one's own: those of one CA file. Two are equal if their files are.
#[derive(Clone)]
pub struct Roots {
    pem: Arc<[u8]>,
    store: Arc<rustls::RootCertStore>,
}

impl Roots {
    /// Reads certificates in PEM form, at least one.
    ///
    /// # Errors
    /// What is wrong with them, in words for the operator.
    pub fn read(pem: &[u8]) -> Result<Self, String> {
        let mut store = rustls::RootCertStore::empty();
        add_certificates(&mut store, pem)?;
        Ok(Self { pem: pem.into(), store: Arc::new(store) })
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Eq for Roots {}

impl std::fmt::Debug for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roots").field("certificates", &self.store.len()).finish()
    }
}

/// Whether the connection ended, and not because of what came over it.
fn is_closed(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(|error| !error.is_parse() && !error.is_user())
}

/// The connector of all clients: TLS over connections that the address rule allowed.
pub type Connector = hyper_rustls::HttpsConnector<Dialer>;

/// Makes clients.
#[derive(Clone)]
pub struct Egress {
    network: Arc<dial::Network>,
    /// The platform's roots and those of the settings.
    roots: Arc<rustls::RootCertStore>,
    tls: rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>,
}

impl Egress {
    /// Reads the roots and the proxy's address; nothing is connected to.
    ///
    /// # Errors
    /// What is wrong with the roots or the proxy, for the operator.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let roots = Arc::new(roots(&settings.ca_files)?);
        let proxy = proxy(settings.https_proxy.as_deref(), settings.no_proxy.as_deref())?;
        let network = dial::Network { resolver: settings.resolver, proxy };
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
        Ok(Self { network: Arc::new(network), roots, tls })
    }

    /// A pooled client under `rule`, HTTP/2 where the server offers it, through the proxy under
    /// [`AddressRule::Any`]. Redirects are never followed.
    pub fn client<B>(&self, rule: AddressRule) -> Client<Connector, B>
    where
        B: http_body::Body + Send,
        B::Data: Send,
    {
        let proxy = matches!(rule, AddressRule::Any | AddressRule::Sink);
        self.client_by(&Access { proxy, ..Access::by(rule) })
    }

    fn client_by<B>(&self, access: &Access) -> Client<Connector, B>
    where
        B: http_body::Body + Send,
        B::Data: Send,
    {
        let roots = access.roots.as_ref().map_or(&self.roots, |roots| &roots.store);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(
                self.tls.clone().with_root_certificates(Arc::clone(roots)).with_no_client_auth(),
            )
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(Dialer::new(Arc::clone(&self.network), access));
        let mut builder = Client::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        builder
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10));
        // Issuers are many and asked rarely; GitHub is one and asked all the time.
        match access.rule {
            AddressRule::Any | AddressRule::Sink => {
                builder.pool_idle_timeout(Duration::from_secs(90))
            }
            AddressRule::Public | AddressRule::PrivateToo | AddressRule::Metadata => {
                builder.pool_idle_timeout(Duration::from_secs(10)).pool_max_idle_per_host(1)
            }
        };
        builder.build(connector)
    }

    /// A client for small documents, with connections of its own.
    pub fn documents(&self, access: &Access) -> Documents {
        Documents::new(self.client_by(access))
    }
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").finish_non_exhaustive()
    }
}

/// Adds the certificates of a PEM text, of which there must be one.
fn add_certificates(roots: &mut rustls::RootCertStore, pem: &[u8]) -> Result<(), String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err("no certificate in PEM form".to_owned());
    }
    certificates
        .into_iter()
        .try_for_each(|certificate| roots.add(certificate).map_err(|error| error.to_string()))
}

/// The platform's roots and those of `ca_files`.
fn roots(ca_files: &[PathBuf]) -> Result<rustls::RootCertStore, String> {
    let mut roots = rustls::RootCertStore::empty();
    let platform = rustls_native_certs::load_native_certs();
    // A platform may have certificates that webpki does not read; the others serve.
    roots.add_parsable_certificates(platform.certs);
    for file in ca_files {
        let in_file = |error: String| format!("{}: {error}", file.display());
        let pem = std::fs::read(file).map_err(|error| in_file(error.to_string()))?;
        add_certificates(&mut roots, &pem).map_err(in_file)?;
    }
    match (roots.is_empty(), platform.errors.first()) {
        (true, Some(error)) => return Err(format!("no root certificates: {error}")),
        (true, None) => tracing::warn!("no root certificates: no TLS connection can be made"),
        (false, _) => {}
    }
    Ok(roots)
}

/// Which requests go through the proxy. A proxy that cannot be used is an error: traffic must not
/// silently go around it.
fn proxy(https_proxy: Option<&str>, no_proxy: Option<&str>) -> Result<Option<Matcher>, String> {
    let Some(proxy) = https_proxy.filter(|proxy| !proxy.is_empty()) else { return Ok(None) };
    let probe = http::Uri::from_static("https://host.invalid");
    let found = Matcher::builder().https(proxy).build().intercept(&probe);
    if found.is_none_or(|found| found.uri().scheme_str() != Some("http")) {
        return Err("HTTPS_PROXY is [http://][USER:PASSWORD@]HOST:PORT".to_owned());
    }
    Ok(Some(Matcher::builder().https(proxy).no(no_proxy.unwrap_or_default()).build()))
}
