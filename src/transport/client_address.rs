//! Where a request comes from, when trusted proxies stand in between.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::HeaderMap;

use crate::{clock::Moment, telemetry::metric};

/// The header that proxies append to.
const FORWARDED: &str = "x-forwarded-for";

/// How often the log says that the header arrives and is not trusted.
const WARN_EVERY: Duration = Duration::from_secs(600);

/// Notices requests that come through a proxy although no proxy is trusted.
#[derive(Debug, Default)]
pub(super) struct UntrustedProxy {
    warned: Mutex<Option<Moment>>,
}

impl UntrustedProxy {
    /// Counts the request if it has the header and no hop is trusted; logs that from time to time.
    pub(super) fn notice(&self, headers: &HeaderMap, hops: usize, now: Moment) {
        if hops > 0 || !headers.contains_key(FORWARDED) {
            return;
        }
        metrics::counter!(metric::FORWARDED_UNTRUSTED).increment(1);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|warned| now.since(warned) >= WARN_EVERY) {
            *warned = Some(now);
            tracing::warn!(
                "X-Forwarded-For arrives, but STS_TRUSTED_PROXY_HOPS is 0: all callers behind the proxy share \
                 its address and its limits"
            );
        }
    }
}

/// The client's address.
///
/// Each proxy appends the address it was called from to `X-Forwarded-For`. With `hops` trusted
/// proxies in front, the last `hops` entries are true and all before them are the caller's own
/// claims: the client is the first of the true ones. Without trusted proxies, or where that entry
/// is not an address, it is the connection's peer.
pub(super) fn client_address(headers: &HeaderMap, peer: IpAddr, hops: usize) -> IpAddr {
    let entries = headers.get_all(FORWARDED);
    let entries: Vec<&[u8]> =
        entries.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).collect();
    let at = entries.len().saturating_sub(hops);
    entries.get(at).and_then(|entry| address(entry)).unwrap_or(peer).to_canonical()
}

/// `ADDRESS` or `ADDRESS:PORT`, IPv6 with or without brackets.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry).ok()?.trim();
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    bare.parse().ok().or_else(|| entry.parse().ok().map(|address: SocketAddr| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(values: &[&str], hops: usize) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        client_address(&headers, "192.0.2.9".parse().unwrap(), hops).to_string()
    }

    #[test]
    fn a_header_that_is_not_trusted_is_counted_and_logged_from_time_to_time() {
        let (recorder, page) = crate::telemetry::Metrics::recorder().unwrap();
        let (proxy, mut headers) = (UntrustedProxy::default(), HeaderMap::new());
        metrics::with_local_recorder(&recorder, || {
            let notice = |headers: &HeaderMap, hops, seconds| {
                proxy.notice(headers, hops, Moment::default().plus(Duration::from_secs(seconds)));
                *proxy.warned.lock().unwrap()
            };
            assert_eq!(notice(&headers, 0, 1), None);
            headers.insert(FORWARDED, "203.0.113.1".parse().unwrap());
            assert_eq!(notice(&headers, 1, 2), None);
            let first = notice(&headers, 0, 3);
            assert!(first.is_some() && notice(&headers, 0, 602) == first);
            assert!(notice(&headers, 0, 603) > first);
        });
        assert!(page.render().contains("octosts_forwarded_untrusted_total 3"), "{}", page.render());
    }

    #[test]
    fn without_trusted_proxies_the_header_counts_for_nothing() {
        assert_eq!(seen(&["203.0.113.1"], 0), "192.0.2.9");
        assert_eq!(seen(&[], 0), "192.0.2.9");
    }

    #[test]
    fn entries_before_the_trusted_ones_are_claims() {
        assert_eq!(seen(&["6.6.6.6, 203.0.113.1"], 1), "203.0.113.1");
        assert_eq!(seen(&["6.6.6.6", "203.0.113.1", "10.0.0.1"], 2), "203.0.113.1");
        assert_eq!(seen(&["6.6.6.6,203.0.113.1", " 10.0.0.1"], 2), "203.0.113.1");
    }

    #[test]
    fn a_list_shorter_than_the_hops_was_written_by_them() {
        assert_eq!(seen(&["203.0.113.1"], 2), "203.0.113.1");
        assert_eq!(seen(&[], 2), "192.0.2.9");
    }

    #[test]
    fn what_is_not_an_address_leaves_the_peer() {
        for odd in ["unknown", "", "a.b", "1.2.3.4.5"] {
            assert_eq!(seen(&[odd], 1), "192.0.2.9", "{odd:?}");
        }
    }

    #[test]
    fn ports_brackets_and_mapped_addresses() {
        assert_eq!(seen(&["203.0.113.1:443"], 1), "203.0.113.1");
        assert_eq!(seen(&["[2001:db8::1]:443"], 1), "2001:db8::1");
        assert_eq!(seen(&["[2001:db8::1]"], 1), "2001:db8::1");
        assert_eq!(seen(&["::ffff:203.0.113.1"], 1), "203.0.113.1");
    }
}
