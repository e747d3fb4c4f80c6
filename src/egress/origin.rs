//! The origin of a URL.

use http::Uri;

/// Scheme, host and port (RFC 6454 section 4) of an http or https URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    is_plain: bool,
    /// In lowercase, without the brackets of an IPv6 literal.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Origin {
    /// The origin of `uri`, if it is an http or https URL with a host.
    pub fn of(uri: &Uri) -> Option<Self> {
        let is_plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        Some(Self { is_plain, host: bare.to_ascii_lowercase(), port })
    }

    /// Whether it is reached without TLS.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |url: &str| Origin::of(&url.parse().unwrap());
        let same = origin("https://a.example/x").unwrap();
        assert_eq!(origin("https://A.EXAMPLE:443/y?z"), Some(same.clone()));
        for other in [
            "http://a.example/",
            "https://a.example:8443/",
            "https://b.example/",
            "https://a.example.:443/",
        ] {
            assert_ne!(origin(other), Some(same.clone()), "{other}");
        }
        assert_eq!(origin("https://[::1]:1/").unwrap().host, "::1");
        for none in ["/x", "ftp://a/", "a:1"] {
            assert_eq!(origin(none), None, "{none}");
        }
    }
}
