//! Where a request comes from, when trusted proxies stand in between.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

/// The client's address.
///
/// Each proxy appends the address it was called from to `X-Forwarded-For`. With `hops` trusted
/// proxies in front, the last `hops` entries are true and all before them are the caller's own
/// claims: the client is the first of the true ones. Without trusted proxies, or where that entry
/// is not an address, it is the connection's peer.
pub(super) fn client_address(headers: &HeaderMap, peer: IpAddr, hops: usize) -> IpAddr {
    let entries = headers.get_all("x-forwarded-for");
    let entries: Vec<&[u8]> = entries.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).collect();
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
