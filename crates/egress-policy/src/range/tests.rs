use proptest::prelude::*;

use super::*;

fn range(text: &str) -> AddressRange {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_range_has_its_first_and_last_address_and_not_their_neighbours() {
    let private = range("172.16.0.0/12");
    assert!(private.contains(address("172.16.0.0")) && private.contains(address("172.31.255.255")));
    assert!(!private.contains(address("172.15.255.255")) && !private.contains(address("172.32.0.0")));
    let six = range("2001:db8::/33");
    assert!(six.contains(address("2001:db8:7fff:ffff:ffff:ffff:ffff:ffff")));
    assert!(!six.contains(address("2001:db8:8000::")));
    assert!(range("0.0.0.0/0").contains(address("255.255.255.255")));
    assert!(range("::/0").contains(address("ffff::")));
}

#[test]
fn an_ipv4_address_written_as_ipv6_is_the_ipv4_address() {
    let ten = range("10.0.0.0/8");
    assert!(ten.contains(address("::ffff:10.1.2.3")));
    assert!(ten.contains(address("::10.1.2.3")));
    assert_eq!(range("::ffff:10.0.0.0/104"), ten);
    assert_eq!(range("::10.0.0.0/104"), ten);
    assert_eq!(range("::ffff:10.0.0.1"), range("10.0.0.1"));
    assert!(!range("::/0").contains(address("::ffff:10.1.2.3")));
    assert!(!range("0.0.0.0/0").contains(address("::1")));
    assert!(range("::1").contains(address("::1")) && !range("::1").contains(address("0.0.0.1")));
}

#[test]
fn bits_behind_the_length_are_an_error_that_knows_the_range() {
    let error = "10.0.0.1/8".parse::<AddressRange>().unwrap_err();
    let meant = range("10.0.0.0/8");
    assert_eq!(
        error,
        RangeError::HostBits {
            address: address("10.0.0.1"),
            meant
        }
    );
    assert!(error.to_string().contains("10.0.0.0/8"));
    assert!(matches!(
        "2001:db8::1/32".parse::<AddressRange>(),
        Err(RangeError::HostBits { .. })
    ));
}

#[test]
fn only_one_spelling_is_a_range() {
    for text in [
        "",
        "/",
        "10/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/08",
        "10.0.0.0/+8",
        "10.0.0.0/8/8",
        "10.0.0.0/-1",
        "010.0.0.0/8",
        "0x0a000000/8",
        "::/129",
        "fe80::1%1",
        "[::1]",
        " ::1",
        "10.0.0.0/255.0.0.0",
    ] {
        assert!(text.parse::<AddressRange>().is_err(), "{text}");
    }
}

#[test]
fn a_range_covers_what_has_no_address_beyond_it() {
    assert!(range("10.0.0.0/8").covers(&range("10.1.0.0/16")));
    assert!(range("10.0.0.0/8").covers(&range("10.0.0.0/8")));
    assert!(!range("10.1.0.0/16").covers(&range("10.0.0.0/8")));
    assert!(!range("0.0.0.0/0").covers(&range("::1")));
}

proptest! {
    #[test]
    fn what_is_shown_reads_the_same(v6 in any::<bool>(), number in any::<u128>(), bits in 0u8..=128) {
        let address = match v6 {
            true => IpAddr::V6(number.into()),
            false => IpAddr::V4((number as u32).into()),
        };
        let range = AddressRange::around(canonical(address), bits);
        prop_assert_eq!(range.to_string().parse(), Ok(range));
        prop_assert!(range.contains(address));
    }

    #[test]
    fn a_range_agrees_with_arithmetic(first in any::<u32>(), bits in 0u32..=32, other in any::<u32>(), near in any::<u8>()) {
        let size = 1u64 << (32 - bits);
        let first = u64::from(first) / size * size;
        let range = range(&format!("{}/{bits}", Ipv4Addr::from(first as u32)));
        for other in [u64::from(other), first + u64::from(near), (first + size + u64::from(near)).saturating_sub(128)] {
            let Ok(other) = u32::try_from(other) else { continue };
            let inside = (first..first + size).contains(&u64::from(other));
            prop_assert_eq!(range.contains(IpAddr::V4(other.into())), inside);
        }
    }

    #[test]
    fn no_text_is_too_odd_for_an_answer(text in any::<String>()) {
        let _ = text.parse::<AddressRange>();
    }
}
