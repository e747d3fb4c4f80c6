//! Why a connection failed, as far as the operator of this side can act on it.
//!
//! Nothing that the other side wrote gets into a cause.

use std::{error::Error as StdError, io};

use super::Error;

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectCause {
    /// The resolver does not find the name, or is not reached.
    #[error("the host name cannot be resolved")]
    Name,
    /// Nothing listens at the port.
    #[error("connection refused: nothing listens at that port")]
    Refused,
    /// The network does not lead there.
    #[error("the network or the host is unreachable")]
    Unreachable,
    /// The proxy is not reached.
    #[error("the proxy that HTTPS_PROXY names cannot be reached")]
    Proxy,
    /// The proxy answered 407.
    #[error(
        "the proxy that HTTPS_PROXY names requires a user name and a password, or rejects them"
    )]
    ProxyCredentials,
    /// The proxy answered CONNECT with anything else.
    #[error("the proxy that HTTPS_PROXY names did not connect to the host")]
    ProxyRefused,
    /// The TLS handshake failed, and not because of the certificate.
    #[error("the TLS handshake failed")]
    Tls,
    /// The other side speaks something else than TLS.
    #[error("the TLS handshake failed: the server does not speak TLS at that port")]
    NotTls,
    /// Anything else.
    #[error("the connection was closed or reset")]
    Closed,
}

/// Why the server's certificate is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateCause {
    /// No trusted root issued it.
    #[error("it was issued by an authority that is not trusted here")]
    UnknownIssuer,
    /// It has expired.
    #[error("it has expired, or this machine's clock is wrong")]
    Expired,
    /// It is not valid yet.
    #[error("it is not valid yet, or this machine's clock is wrong")]
    NotYetValid,
    /// It is for other hosts.
    #[error("it is for another host name")]
    WrongHost,
    /// Its issuer has revoked it.
    #[error("it was revoked")]
    Revoked,
    /// Anything else.
    #[error("it is invalid")]
    Invalid,
}

impl ConnectCause {
    /// The cause in an error of the operating system.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the causes that are not named have one meaning here"
    )]
    pub(super) fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable => Self::Unreachable,
            _ => Self::Closed,
        }
    }

    /// The cause in an error of the tunnel through a proxy. The type of that error is private; its
    /// texts are what tells them apart.
    pub(super) fn of_tunnel(error: &(dyn StdError + 'static)) -> Self {
        if error.source().is_some_and(|source| source.is::<Error>()) {
            return Self::Proxy;
        }
        if error.to_string().contains("proxy authorization required") {
            Self::ProxyCredentials
        } else {
            Self::ProxyRefused
        }
    }
}

impl Error {
    /// What a TLS error comes to, if `error` is or holds one. An I/O error holds what it came from
    /// and does not name it as its source.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the causes that are not named have one meaning here"
    )]
    pub(super) fn of_tls(error: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.get_ref().and_then(|inner| Self::of_tls(inner));
        }
        Some(match error.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidCertificate(reason) => Self::Certificate(of_certificate(reason)),
            rustls::Error::InvalidMessage(_) => Self::Connect(ConnectCause::NotTls),
            _ => Self::Connect(ConnectCause::Tls),
        })
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the causes that are not named have one meaning here"
)]
fn of_certificate(reason: &rustls::CertificateError) -> CertificateCause {
    use rustls::CertificateError as E;
    match reason {
        E::Expired | E::ExpiredContext { .. } => CertificateCause::Expired,
        E::NotValidYet | E::NotValidYetContext { .. } => CertificateCause::NotYetValid,
        E::UnknownIssuer => CertificateCause::UnknownIssuer,
        E::NotValidForName | E::NotValidForNameContext { .. } => CertificateCause::WrongHost,
        E::Revoked => CertificateCause::Revoked,
        _ => CertificateCause::Invalid,
    }
}
