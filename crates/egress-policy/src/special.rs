//! Addresses that no name may lead to unless a rule gives them themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{AddressRange, Reason, range::canonical};

/// What makes an address special. In the order in which they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Metadata,
    Loopback,
    Private,
    LinkLocal,
    CarrierNat,
    Multicast,
    Unspecified,
    Reserved,
}

/// Looks through every way to write an IPv4 address in IPv6. The ranges for documentation are not special: hosts are
/// found there, behind proxies and in laboratories.
pub fn special(address: IpAddr) -> Option<Special> {
    block(address).map(|(_, special)| special)
}

impl From<Special> for Reason {
    fn from(special: Special) -> Reason {
        match special {
            Special::Metadata => Reason::Metadata,
            Special::Loopback => Reason::Loopback,
            Special::Private => Reason::Private,
            Special::LinkLocal => Reason::LinkLocal,
            Special::CarrierNat => Reason::CarrierNat,
            Special::Multicast => Reason::Multicast,
            Special::Unspecified => Reason::Unspecified,
            Special::Reserved => Reason::Reserved,
        }
    }
}

/// The range that makes the address special, as a part of its own kind of address. A rule whose range lies within it
/// means the special addresses; one that reaches beyond happens to have them in it.
pub(crate) fn block(address: IpAddr) -> Option<(AddressRange, Special)> {
    let address = canonical(address);
    listed(address).or_else(|| {
        let IpAddr::V6(v6) = address else { return None };
        if is_odd_local_nat64(v6) {
            return Some((LOCAL_NAT64, Special::Reserved));
        }
        embedded(v6).find_map(|(v4, at)| {
            let (range, special) = listed(v4.into())?;
            Some((AddressRange::around(address, at + range.bits()), special))
        })
    })
}

/// The IPv4 addresses to which something on the way may translate this one.
pub(crate) fn looked_through(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let v6 = match canonical(address) {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    };
    v6.into_iter().flat_map(embedded).map(|(v4, _)| v4.into())
}

/// Each with the number of bits in front of it.
fn embedded(v6: Ipv6Addr) -> impl Iterator<Item = (Ipv4Addr, u8)> {
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let last = (v4(g, h), 96);
    let (one, two) = match [a, b, c, d, e, f] {
        // NAT64, with the prefix for everybody and with those of networks that have their own (RFC 6052, RFC 8215).
        [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, _, 0, 0] => (Some(last), None),
        // Translated (RFC 2765).
        [0, 0, 0, 0, 0xffff, 0] => (Some(last), None),
        // 6to4.
        [0x2002, b, c, ..] => (Some((v4(b, c), 16)), None),
        // Teredo: the client behind its NAT, then the server.
        [0x2001, 0, c, d, ..] => (Some((v4(!g, !h), 96)), Some((v4(c, d), 32))),
        // ISATAP.
        [_, _, _, _, 0 | 0x200, 0x5efe] => (Some(last), None),
        _ => (None, None),
    };
    one.into_iter().chain(two)
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    (u32::from(high) << 16 | u32::from(low)).into()
}

/// In a network's own NAT64 prefix, but not as `64:ff9b:1:x::a.b.c.d`. Where the IPv4 address is then, only that
/// network knows, so it could be any.
fn is_odd_local_nat64(v6: Ipv6Addr) -> bool {
    let [.., e, f, _, _] = v6.segments();
    LOCAL_NAT64.contains(v6.into()) && (e, f) != (0, 0)
}

const LOCAL_NAT64: AddressRange = AddressRange::v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);

fn listed(address: IpAddr) -> Option<(AddressRange, Special)> {
    LIST.iter().find(|(range, _)| range.contains(address)).copied()
}

/// The first that has the address counts.
const LIST: &[(AddressRange, Special)] = &[
    // Amazon, Google, Azure, Oracle, DigitalOcean, Hetzner, OpenStack and many more.
    (AddressRange::v4(169, 254, 169, 254, 32), Special::Metadata),
    // Amazon: credentials of ECS tasks, of EKS pods.
    (AddressRange::v4(169, 254, 170, 2, 32), Special::Metadata),
    (AddressRange::v4(169, 254, 170, 23, 32), Special::Metadata),
    // Tencent.
    (AddressRange::v4(169, 254, 0, 23, 32), Special::Metadata),
    (AddressRange::v4(169, 254, 10, 10, 32), Special::Metadata),
    // Scaleway.
    (AddressRange::v4(169, 254, 42, 42, 32), Special::Metadata),
    // Alibaba.
    (AddressRange::v4(100, 100, 100, 200, 32), Special::Metadata),
    // Volcengine.
    (AddressRange::v4(100, 96, 0, 96, 32), Special::Metadata),
    // Azure's WireServer: a public address that only Azure's machines reach.
    (AddressRange::v4(168, 63, 129, 16, 32), Special::Metadata),
    // Oracle Classic.
    (AddressRange::v4(192, 0, 0, 192, 32), Special::Metadata),
    // Amazon: metadata, credentials of EKS pods.
    (
        AddressRange::v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
        Special::Metadata,
    ),
    (
        AddressRange::v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128),
        Special::Metadata,
    ),
    // Google.
    (
        AddressRange::v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
        Special::Metadata,
    ),
    // Oracle.
    (
        AddressRange::v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128),
        Special::Metadata,
    ),
    // Akamai.
    (
        AddressRange::v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1], 128),
        Special::Metadata,
    ),
    // Scaleway.
    (
        AddressRange::v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128),
        Special::Metadata,
    ),
    // Alibaba.
    (
        AddressRange::v6([0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200], 128),
        Special::Metadata,
    ),
    // OpenStack.
    (
        AddressRange::v6([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128),
        Special::Metadata,
    ),
    (AddressRange::v4(127, 0, 0, 0, 8), Special::Loopback),
    (AddressRange::v6([0, 0, 0, 0, 0, 0, 0, 1], 128), Special::Loopback),
    // The guest's own cable and pool, before the private range they are in.
    (
        AddressRange::v6([0xfdc0, 0xffe4, 0, 0, 0, 0, 0, 0], 32),
        Special::Reserved,
    ),
    (AddressRange::v4(10, 0, 0, 0, 8), Special::Private),
    (AddressRange::v4(172, 16, 0, 0, 12), Special::Private),
    (AddressRange::v4(192, 168, 0, 0, 16), Special::Private),
    (
        AddressRange::v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
        Special::Private,
    ),
    // Site-local, out of use but not out of routers.
    (
        AddressRange::v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
        Special::Private,
    ),
    (AddressRange::v4(169, 254, 0, 0, 16), Special::LinkLocal),
    (
        AddressRange::v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
        Special::LinkLocal,
    ),
    (AddressRange::v4(100, 64, 0, 0, 10), Special::CarrierNat),
    (AddressRange::v4(224, 0, 0, 0, 4), Special::Multicast),
    (
        AddressRange::v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
        Special::Multicast,
    ),
    // Linux takes 0.0.0.0 and :: for itself.
    (AddressRange::v4(0, 0, 0, 0, 8), Special::Unspecified),
    (
        AddressRange::v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
        Special::Unspecified,
    ),
    // For measuring, and the guest's own cable and pool.
    (AddressRange::v4(198, 18, 0, 0, 15), Special::Reserved),
    (AddressRange::v4(192, 0, 0, 0, 24), Special::Reserved),
    // Relays of 6to4, withdrawn (RFC 7526).
    (AddressRange::v4(192, 88, 99, 0, 24), Special::Reserved),
    // Class E, with 255.255.255.255 for everybody on the cable.
    (AddressRange::v4(240, 0, 0, 0, 4), Special::Reserved),
    // Thrown away (RFC 6666).
    (
        AddressRange::v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
        Special::Reserved,
    ),
    // For measuring (RFC 5180).
    (
        AddressRange::v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48),
        Special::Reserved,
    ),
    // Identifiers that are no addresses (RFC 4843, RFC 7343, RFC 9602).
    (
        AddressRange::v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28),
        Special::Reserved,
    ),
    (
        AddressRange::v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28),
        Special::Reserved,
    ),
    (
        AddressRange::v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16),
        Special::Reserved,
    ),
];

#[cfg(test)]
pub(crate) mod tests;
