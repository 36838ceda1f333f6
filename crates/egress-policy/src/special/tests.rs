use proptest::prelude::*;

use super::*;

fn of(text: &str) -> Option<Special> {
    special(text.parse().unwrap())
}

#[test]
fn each_class_begins_and_ends_where_it_does() {
    use Special::*;
    for (before, first, last, behind, class) in [
        ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0", Private),
        (
            "172.15.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "172.32.0.0",
            Private,
        ),
        (
            "192.167.255.255",
            "192.168.0.0",
            "192.168.255.255",
            "192.169.0.0",
            Private,
        ),
        (
            "126.255.255.255",
            "127.0.0.0",
            "127.255.255.255",
            "128.0.0.0",
            Loopback,
        ),
        (
            "169.253.255.255",
            "169.254.0.0",
            "169.254.255.255",
            "169.255.0.0",
            LinkLocal,
        ),
        (
            "100.63.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "100.128.0.0",
            CarrierNat,
        ),
        (
            "191.255.255.255",
            "192.0.0.0",
            "192.0.0.255",
            "192.0.1.0",
            Reserved,
        ),
        (
            "198.17.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.20.0.0",
            Reserved,
        ),
        (
            "192.88.98.255",
            "192.88.99.0",
            "192.88.99.255",
            "192.88.100.0",
            Reserved,
        ),
        (
            "ff::",
            "100::",
            "100::ffff:ffff:ffff:ffff",
            "100:0:0:1::",
            Reserved,
        ),
        ("fbff::", "fc00::", "fdff::", "fe00::", Private),
    ] {
        let found = [before, first, last, behind].map(of);
        assert_eq!(found, [None, Some(class), Some(class), None], "{first} to {last}");
    }
    assert_eq!(of("0.0.0.0"), Some(Unspecified));
    assert_eq!(of("0.255.255.255"), Some(Unspecified));
    assert_eq!(of("223.255.255.255"), None);
    assert_eq!(of("224.0.0.0"), Some(Multicast));
    assert_eq!(of("239.255.255.255"), Some(Multicast));
    assert_eq!(of("240.0.0.0"), Some(Reserved));
    assert_eq!(of("255.255.255.255"), Some(Reserved));
    assert_eq!(of("::"), Some(Unspecified));
    assert_eq!(of("::1"), Some(Loopback));
    assert_eq!(of("fe80::1"), Some(LinkLocal));
    assert_eq!(of("febf:ffff::"), Some(LinkLocal));
    assert_eq!(of("fec0::1"), Some(Private));
    assert_eq!(of("feff:ffff::"), Some(Private));
    assert_eq!(of("ff02::1"), Some(Multicast));
    assert_eq!(of("2600::1"), None);
}

#[test]
fn metadata_services_are_known_before_the_range_they_are_in() {
    for text in [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::a9fe:a9fe",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "64:ff9b:1::a9fe:a9fe",
        "::a9fe:a9fe",
    ] {
        assert_eq!(of(text), Some(Special::Metadata), "{text}");
    }
}

#[test]
fn the_cable_of_the_guest_is_reserved() {
    use crate::addresses::*;
    for address in [GATEWAY_V4, GUEST_V4, POOL_V4, [198, 19, 255, 255].into()] {
        assert_eq!(special(address.into()), Some(Special::Reserved));
    }
    for address in [GATEWAY_V6, GUEST_V6, POOL_V6] {
        assert_eq!(special(address.into()), Some(Special::Reserved));
    }
}

#[test]
fn addresses_for_documentation_are_not_special() {
    for text in [
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.80",
        "2001:db8::1",
        "64:ff9b::cb00:7150",
        "2002:cb00:7150::1",
    ] {
        assert_eq!(of(text), None, "{text}");
    }
}

#[test]
fn a_network_s_own_translation_is_special_unless_it_is_plain() {
    assert_eq!(of("64:ff9b:1:fffe::203.0.113.80"), None);
    // 10.0.0.8 behind a prefix of 64 bits, and the same with what is to be ignored behind it.
    assert_eq!(of("64:ff9b:1:0:a:0:800:0"), Some(Special::Reserved));
    assert_eq!(of("64:ff9b:1:0:a:0:8cb:71"), Some(Special::Reserved));
}

#[test]
fn both_ends_of_a_teredo_tunnel_count() {
    assert_eq!(of("2001:0:cb00:7150:0:0:34ff:8eaf"), None);
    assert_eq!(of("2001:0:a00:1:0:0:34ff:8eaf"), Some(Special::Private));
    assert_eq!(of("2001:0:cb00:7150:0:0:f5ff:fffe"), Some(Special::Private));
}

/// Every way in which an IPv4 address is written as an IPv6 one.
pub(crate) fn spellings(v4: Ipv4Addr) -> Vec<IpAddr> {
    let number = u128::from(u32::from(v4));
    let at_the_end = [
        "::ffff:0:0",
        "::ffff:0:0:0",
        "64:ff9b::",
        "64:ff9b:1::",
        "64:ff9b:1:fffe::",
        "2600::5efe:0:0",
        "2600::200:5efe:0:0",
    ];
    let mut all: Vec<u128> = at_the_end
        .iter()
        .map(|prefix| u128::from(prefix.parse::<Ipv6Addr>().unwrap()) | number)
        .collect();
    if number > 1 {
        // `::` and `::1` are IPv6's own.
        all.push(number);
    }
    all.push(u128::from("2002::1".parse::<Ipv6Addr>().unwrap()) | number << 80);
    let teredo = u128::from("2001:0:cb00:7150::".parse::<Ipv6Addr>().unwrap());
    all.push(teredo | (number ^ u128::from(u32::MAX)));
    all.into_iter().map(|number| IpAddr::V6(number.into())).collect()
}

proptest! {
    #[test]
    fn every_spelling_of_an_ipv4_address_is_as_special_as_it_is(
        v4 in prop_oneof![
            any::<u32>(),
            prop::sample::select(LIST).prop_flat_map(|(range, _)| (Just(range), any::<u32>())).prop_map(|(range, low)| {
                match range.first() {
                    IpAddr::V4(first) => u32::from(first) | low.checked_shr(range.bits().into()).unwrap_or(0),
                    IpAddr::V6(_) => low,
                }
            }),
        ]
    ) {
        let v4 = Ipv4Addr::from(v4);
        for spelling in spellings(v4) {
            prop_assert_eq!(special(spelling), special(v4.into()), "{}", spelling);
        }
    }

    #[test]
    fn the_range_that_makes_an_address_special_has_it_and_is_special(number in any::<u128>(), v6 in any::<bool>()) {
        let address = match v6 {
            true => IpAddr::V6(number.into()),
            false => IpAddr::V4((number as u32).into()),
        };
        if let Some((range, _)) = block(address) {
            prop_assert!(range.contains(address));
            prop_assert!(special(range.first()).is_some());
        }
    }
}
