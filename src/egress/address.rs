//! What kind of address an address is.
//!
//! An IPv6 address can carry an IPv4 address that the network delivers to: mapped, translated or
//! tunnelled. Whatever is asked of an address is asked of the one it carries too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the address belongs to the public internet, by IANA's registries of special addresses.
/// Tunnels (6to4, Teredo) and translation prefixes of local use lead to places unknown: not public.
pub(super) fn is_public(address: IpAddr) -> bool {
    if is_forbidden(address) {
        return false;
    }
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match (v6.to_ipv4_mapped(), nat64(v6)) {
            (Some(v4), _) | (None, Some(v4)) => is_public_v4(v4),
            (None, None) => is_public_v6(v6),
        },
    }
}

/// Whether nothing but the machine's own surroundings answers there: link-local and cloud metadata
/// addresses, and those that name no host. Forbidden even where private networks are allowed.
pub(super) fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_forbidden_v4(v4),
        IpAddr::V6(v6) => {
            is_forbidden_v6(v6) || embedded(v6).into_iter().flatten().any(is_forbidden_v4)
        }
    }
}

/// Whether the address is this machine's own, in mapped form too.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether a machine's metadata server may answer there: link-local in IPv4, AWS's two addresses in
/// IPv6, and loopback, where stand-ins of such servers listen.
pub(super) fn is_metadata(address: IpAddr) -> bool {
    is_loopback(address)
        || match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => {
                matches!(v6.segments(), [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0023 | 0x0254])
            }
        }
}

fn is_forbidden_v4(address: Ipv4Addr) -> bool {
    address.is_link_local()
        || address.is_multicast()
        || matches!(address.octets(), [0, ..] | [240..=255, ..])
        // The metadata services of Azure, Alibaba and Oracle.
        || matches!(address.octets(), [168, 63, 129, 16] | [100, 100, 100, 200] | [192, 0, 0, 192])
}

fn is_forbidden_v6(address: Ipv6Addr) -> bool {
    address.is_unspecified()
        || address.is_multicast()
        || address.is_unicast_link_local()
        // fec0::/10, once site-local.
        || address.segments()[0] & 0xffc0 == 0xfec0
        // The metadata services of AWS (the whole of fd00:ec2::/32 is theirs) and Google.
        || matches!(address.segments(), [0xfd00, 0x0ec2, ..] | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254])
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !(address.is_private()
        || address.is_loopback()
        || address.is_documentation()
        || is_forbidden_v4(address)
        || match address.octets() {
            [100, b, ..] => b & 0xc0 == 64, // carrier-grade NAT
            [198, b, ..] => b & 0xfe == 18, // benchmarking
            [192, 0, 0, _] => true,         // IETF protocol assignments
            [192, 88, 99, _] => true,       // 6to4 relays
            _ => false,
        })
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        [0x2001, b, ..] => b >= 0x0200 && b != 0x0db8, /* IETF protocol assignments (Teredo
        * among them); documentation */
        [0x2002, ..] => false,           // 6to4
        [0x3fff, b, ..] => b >= 0x1000,  // documentation
        [a, ..] => a & 0xe000 == 0x2000, // global unicast, the only part that is given out
    }
}

/// The IPv4 address in an address of the well-known NAT64 prefix (RFC 6052).
fn nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    matches!(address.segments(), [0x0064, 0xff9b, 0, 0, 0, 0, ..]).then(|| last_four(address))
}

fn last_four(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

/// Every IPv4 address that the network may take the address for.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let octets = address.octets();
    match address.segments() {
        // Compatible, mapped, translated (RFC 4291, RFC 2765); the well-known NAT64 prefix.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x0064, 0xff9b, 0, 0, 0, 0, ..] => {
            [(!address.is_loopback()).then(|| last_four(address)), None]
        }
        // NAT64 of local use (RFC 8215), its prefix 48 or 96 bits long.
        [0x0064, 0xff9b, 1, ..] => {
            let [.., a, b, _, c, d, _, _, _, _, _] = octets;
            [Some(Ipv4Addr::new(a, b, c, d)), Some(last_four(address))]
        }
        // Teredo (RFC 4380): the server, and the client with its bits turned over.
        [0x2001, 0, ..] => {
            let [_, _, _, _, a, b, c, d, ..] = octets;
            [
                Some(Ipv4Addr::new(a, b, c, d)),
                Some(Ipv4Addr::from_bits(!last_four(address).to_bits())),
            ]
        }
        // 6to4 (RFC 3056).
        [0x2002, ..] => {
            let [_, _, a, b, c, d, ..] = octets;
            [Some(Ipv4Addr::new(a, b, c, d)), None]
        }
        // ISATAP (RFC 5214) under any prefix.
        [_, _, _, _, 0 | 0x0200, 0x5efe, ..] => [Some(last_four(address)), None],
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(list: &str, holds: impl Fn(IpAddr) -> bool) {
        for text in list.split_whitespace() {
            assert!(holds(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn public_addresses() {
        each(
            "1.1.1.1 140.82.112.3 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 198.17.0.1 198.20.0.1 192.0.1.1 \
             2606:4700::1111 2a00:1450:4001::1 2001:200::1 ::ffff:1.1.1.1 64:ff9b::1.1.1.1 223.255.255.255",
            is_public,
        );
    }

    #[test]
    fn addresses_that_are_not_public() {
        each(
            "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 \
             172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 \
             203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16 100.100.100.200",
            |a| !is_public(a),
        );
        each(
            ":: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:10.0.0.1 64:ff9b::10.0.0.1 \
             64:ff9b::a9fe:a9fe 64:ff9b:1::1.1.1.1 64:ff9b:1:a9fe:a9:fe00:: 100::1 2001::1 2001:2::1 2001:10::1 2001:db8::1 \
             2002:a00:1:: 2002:101:101::1 3fff::1 fc00::1 fd12::1 fe80::1 febf::1 fec0::1 ff02::1 fd00:ec2::254 5f00::1 \
             4000::1 2606:4700::5efe:a9fe:a9fe",
            |a| !is_public(a),
        );
    }

    #[test]
    fn addresses_that_stay_forbidden_on_private_networks() {
        each(
            "0.0.0.0 169.254.0.1 169.254.169.254 168.63.129.16 100.100.100.200 192.0.0.192 224.0.0.1 255.255.255.255 :: \
             fe80::1 febf::1 ff02::1 fd00:ec2::254 fd20:ce::254 ::ffff:169.254.169.254 ::169.254.169.254 ::ffff:0:169.254.169.254 \
             64:ff9b::169.254.169.254 64:ff9b::168.63.129.16 64:ff9b:1::169.254.169.254 64:ff9b:1:a9fe:a9:fe00:: \
             2002:a9fe:a9fe::1 2002:a83f:8110::1 2001:0:a9fe:a9fe:: 2001::5601:5601 fd12::5efe:a9fe:a9fe ::ffff:100.100.100.200",
            is_forbidden,
        );
    }

    #[test]
    fn private_addresses_are_not_forbidden() {
        each(
            "10.0.0.1 127.0.0.1 ::1 192.168.1.1 172.16.0.1 100.64.0.1 fd12::1 ::ffff:10.0.0.1 64:ff9b::10.0.0.1 1.1.1.1 2606:4700::1",
            |a| !is_forbidden(a),
        );
    }

    #[test]
    fn loopback_in_every_form() {
        each("127.0.0.1 127.1.2.3 ::1 ::ffff:127.0.0.1", is_loopback);
        each("10.0.0.1 :: 0.0.0.0 ::ffff:10.0.0.1 64:ff9b::127.0.0.1", |a| !is_loopback(a));
    }
}
