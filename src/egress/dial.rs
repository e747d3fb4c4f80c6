//! Opens connections to addresses that the rule allows.
//!
//! The address that was checked is the address that is connected to: the name is looked up here,
//! once, and the connection goes to one of the addresses found. A literal takes the same way.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::{
    client::{legacy::connect::proxy::Tunnel, proxy::matcher::Matcher},
    rt::TokioIo,
};
use tokio::{net::TcpStream, time::timeout};
use tower::Service;

use super::{Access, AddressRule, ConnectCause, Error, Origin, Resolve, address};
use crate::name;

/// How long one address may take before the next is tried.
const EACH_ADDRESS: Duration = Duration::from_secs(2);

/// How long everything before TLS may take: the look-up, all addresses, the proxy.
const ALTOGETHER: Duration = Duration::from_secs(10);

/// No host needs more addresses than this tried.
const MAX_ADDRESSES: usize = 8;

/// What all dialers share.
pub(super) struct Network {
    pub(super) resolver: Option<Arc<dyn Resolve>>,
    pub(super) proxy: Option<Matcher>,
}

/// Opens connections under an address rule.
#[derive(Clone)]
pub struct Dialer {
    network: Arc<Network>,
    rule: AddressRule,
    proxy: bool,
    private_origin: Option<Origin>,
}

impl Dialer {
    pub(super) fn new(network: Arc<Network>, access: &Access) -> Self {
        Self {
            network,
            rule: access.rule,
            proxy: access.proxy,
            private_origin: access.private_origin.clone(),
        }
    }

    async fn dial(self, uri: Uri) -> Result<TokioIo<TcpStream>, Error> {
        let origin = Origin::of(&uri).ok_or(Error::Url)?;
        let is_private =
            self.rule == AddressRule::Public && self.private_origin.as_ref() == Some(&origin);
        let rule = if is_private { AddressRule::PrivateToo } else { self.rule };
        let admits = Admits { rule, plain: origin.is_plain() };
        let Origin { host, port, .. } = origin;
        if self.rule == AddressRule::Metadata
            && !(admits.plain && host.parse().is_ok_and(address::is_metadata))
        {
            return Err(Error::Refused);
        }
        // A name that merely resolves to loopback is not the operator's own machine by intent.
        let near = match rule {
            AddressRule::Public => false,
            AddressRule::Metadata | AddressRule::Sink => true,
            AddressRule::Any | AddressRule::PrivateToo => name::is_loopback(&host),
        };
        if admits.plain && !near {
            return Err(Error::Refused);
        }
        if let Some(proxy) = self.proxy_for(&uri) {
            // The proxy looks names up; a literal address can be judged here all the same.
            if host.parse().is_ok_and(|literal| !admits.admits(literal)) {
                return Err(Error::Refused);
            }
            return self.tunnel(proxy, uri).await;
        }
        self.network.open(host, port, |address| admits.admits(address)).await
    }

    fn proxy_for(&self, uri: &Uri) -> Option<hyper_util::client::proxy::matcher::Intercept> {
        self.network.proxy.as_ref().filter(|_| self.proxy)?.intercept(uri)
    }

    async fn tunnel(
        self,
        proxy: hyper_util::client::proxy::matcher::Intercept,
        uri: Uri,
    ) -> Result<TokioIo<TcpStream>, Error> {
        let to_proxy = tower::service_fn(move |proxy: Uri| {
            let network = Arc::clone(&self.network);
            Box::pin(async move {
                let Origin { host, port, .. } = Origin::of(&proxy).ok_or(Error::Url)?;
                network.open(host, port, |_| true).await
            }) as BoxFuture<'static, Result<_, Error>>
        });
        let mut tunnel = Tunnel::new(proxy.uri().clone(), to_proxy);
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        tunnel.call(uri).await.map_err(|error| Error::Connect(ConnectCause::of_tunnel(&error)))
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("rule", &self.rule).finish_non_exhaustive()
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            timeout(ALTOGETHER, dialer.dial(uri)).await.unwrap_or(Err(Error::Timeout))
        })
    }
}

impl Network {
    /// Connects to the first of the host's addresses that is admitted and answers.
    async fn open(
        &self,
        host: String,
        port: u16,
        admits: impl Fn(IpAddr) -> bool,
    ) -> Result<TokioIo<TcpStream>, Error> {
        let found = self.addresses(host).await.map_err(|_| Error::Connect(ConnectCause::Name))?;
        let mut outcome =
            if found.is_empty() { Error::Connect(ConnectCause::Name) } else { Error::Refused };
        for address in found.into_iter().filter(|address| admits(*address)).take(MAX_ADDRESSES) {
            outcome =
                match timeout(EACH_ADDRESS, TcpStream::connect(SocketAddr::new(address, port)))
                    .await
                {
                    Ok(Ok(stream)) => {
                        // Without it, small requests wait for delayed acknowledgements.
                        stream
                            .set_nodelay(true)
                            .map_err(|error| Error::Connect(ConnectCause::of_io(&error)))?;
                        return Ok(TokioIo::new(stream));
                    }
                    Ok(Err(error)) => Error::Connect(ConnectCause::of_io(&error)),
                    Err(_) => Error::Timeout,
                };
        }
        Err(outcome)
    }

    async fn addresses(&self, host: String) -> std::io::Result<Vec<IpAddr>> {
        if let Ok(literal) = host.parse() {
            return Ok(vec![literal]);
        }
        match &self.resolver {
            Some(resolver) => resolver.resolve(host).await,
            None => Ok(tokio::net::lookup_host((host, 0)).await?.map(|found| found.ip()).collect()),
        }
    }
}

/// What is asked of each address before it is connected to.
struct Admits {
    rule: AddressRule,
    plain: bool,
}

impl Admits {
    fn admits(&self, found: IpAddr) -> bool {
        match self.rule {
            AddressRule::Metadata => address::is_metadata(found),
            AddressRule::Sink => true,
            _ if self.plain => address::is_loopback(found),
            AddressRule::Any => true,
            AddressRule::Public => address::is_public(found),
            AddressRule::PrivateToo => !address::is_forbidden(found),
        }
    }
}
