//! What holds for every policy.

use proptest::prelude::*;

use super::*;

const NAMES: &[&str] = &[
    "com",
    "example.com",
    "a.example.com",
    "b.example.com",
    "a.b.example.com",
    "aexample.com",
    "other.test",
];
const ADDRESSES: &[&str] = &[
    "203.0.113.80",
    "203.0.113.7",
    "8.8.8.8",
    "10.1.2.3",
    "10.2.0.1",
    "11.0.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "169.254.1.1",
    "100.100.100.200",
    "0.0.0.0",
    "255.255.255.255",
    "::",
    "::1",
    "fd00:ec2::254",
    "fd12::1",
    "2600::1",
    "::ffff:10.1.2.3",
    "::10.1.2.3",
    "64:ff9b::a01:203",
    "64:ff9b::cb00:7150",
    "2002:a01:203::1",
    "2002:cb00:7150::",
    "64:ff9b:1::a01:203",
    "64:ff9b:1:2:3::",
    "2001:0:cb00:7150::",
    "fe80::5efe:a01:203",
];
/// Around those of the rules.
const PORTS: &[u16] = &[1, 2, 79, 80, 81, 442, 443, 444, 1023, 1024, 1025, 65534, 65535];

fn a_rule() -> impl Strategy<Value = Rule> {
    let effect = prop_oneof![Just(Effect::Allow), Just(Effect::Deny)];
    (effect, a_pattern(), some_ports()).prop_map(|(effect, pattern, ports)| Rule {
        effect,
        pattern,
        ports,
        from: String::new(),
    })
}

fn a_pattern() -> impl Strategy<Value = Pattern> {
    prop_oneof![
        a_name().prop_map(Pattern::Host),
        a_name().prop_map(Pattern::Below),
        Just(Pattern::AnyName),
        (an_address(), 0u8..=128)
            .prop_map(|(address, bits)| Pattern::Range(AddressRange::around(canonical(address), bits))),
        an_address().prop_map(|address| Pattern::Range(AddressRange::one(address))),
    ]
}

fn some_ports() -> impl Strategy<Value = Ports> {
    let end = || prop::sample::select(&[1u16, 80, 443, 1024, 65535][..]);
    prop_oneof![
        Just(Ports::All),
        end().prop_map(Ports::one),
        (end(), end()).prop_map(|(a, b)| Ports::Range {
            first: a.min(b),
            last: a.max(b)
        }),
        crate::rule::tests::any_ports(),
    ]
}

fn a_name() -> impl Strategy<Value = HostName> {
    prop::sample::select(NAMES).prop_map(|name| name.parse().unwrap())
}

fn an_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        8 => prop::sample::select(ADDRESSES).prop_map(|address| address.parse().unwrap()),
        1 => any::<IpAddr>(),
    ]
}

fn a_policy() -> impl Strategy<Value = EgressPolicy> {
    let unknown = prop_oneof![Just(Unknown::Refuse), Just(Unknown::Ask)];
    (prop::collection::vec(a_rule(), 0..10), unknown).prop_map(|(rules, unknown)| EgressPolicy {
        rules,
        unknown,
        ..EgressPolicy::default()
    })
}

fn a_port() -> impl Strategy<Value = u16> {
    prop_oneof![8 => prop::sample::select(PORTS), 1 => any::<u16>()]
}

fn own() -> impl Strategy<Value = Vec<IpAddr>> {
    prop::collection::vec(an_address(), 0..3)
}

/// How much a verdict lets through.
fn width(verdict: &Verdict<'_>) -> u8 {
    match verdict {
        Verdict::Refuse(..) => 0,
        Verdict::Ask => 1,
        Verdict::Allow(_) => 2,
    }
}

/// What the policy lets through, question by question.
fn widths(policy: &EgressPolicy, name: &HostName, address: IpAddr, port: u16, own: &[IpAddr]) -> [u8; 4] {
    [
        width(&policy.decide_name(name)),
        width(&policy.decide(&Target::Name(name.clone()), port)),
        width(&policy.decide(&Target::Address(address), port)),
        policy.decide_address(address, port, own).is_ok().into(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_deny_rule_more_opens_nothing_and_an_allow_rule_more_closes_nothing(
        before in a_policy(), rule in a_rule(), at in any::<prop::sample::Index>(),
        name in a_name(), address in an_address(), port in a_port(), own in own(),
    ) {
        let mut after = before.clone();
        let at = at.index(before.rules.len() + 1);
        after.rules.insert(at, rule.clone());
        let was = widths(&before, &name, address, port, &own);
        let is = widths(&after, &name, address, port, &own);
        for (was, is) in was.into_iter().zip(is) {
            match rule.effect {
                Effect::Deny => prop_assert!(is <= was),
                Effect::Allow => prop_assert!(is >= was),
            }
        }
    }

    #[test]
    fn the_order_of_rules_says_nothing(
        policy in a_policy(), name in a_name(), address in an_address(), port in a_port(), own in own(),
    ) {
        let mut turned = policy.clone();
        turned.rules.reverse();
        prop_assert_eq!(
            widths(&policy, &name, address, port, &own),
            widths(&turned, &name, address, port, &own)
        );
    }

    #[test]
    fn a_name_may_be_known_as_far_as_its_most_open_port(policy in a_policy(), name in a_name()) {
        let target = Target::Name(name.clone());
        // The decision changes only where a rule's ports begin or have ended.
        let ports = policy.rules.iter().flat_map(|rule| match rule.ports {
            Ports::All => [1, 1],
            Ports::Range { first, last } => [first, last.saturating_add(1)],
        });
        let widest = ports.chain([1]).map(|port| width(&policy.decide(&target, port))).max();
        prop_assert_eq!(Some(width(&policy.decide_name(&name))), widest);
    }

    #[test]
    fn what_is_allowed_or_denied_is_so_by_a_rule_about_it(policy in a_policy(), name in a_name(), port in a_port()) {
        match policy.decide(&Target::Name(name.clone()), port) {
            Verdict::Allow(rule) => {
                prop_assert_eq!(rule.effect, Effect::Allow);
                prop_assert!(rule.ports.contains(port) && name_rank(rule, &name).is_some());
            }
            Verdict::Refuse(Reason::Denied, Some(rule)) => {
                prop_assert_eq!(rule.effect, Effect::Deny);
                prop_assert!(rule.ports.contains(port) && name_rank(rule, &name).is_some());
            }
            verdict => prop_assert!(policy.rules.iter().all(
                |rule| !rule.ports.contains(port) || name_rank(rule, &name).is_none()
            ), "{:?}", verdict),
        }
    }

    #[test]
    fn a_special_address_opens_only_by_a_rule_that_begins_and_ends_in_special_addresses(
        policy in a_policy(), address in an_address(), port in a_port(),
    ) {
        if crate::special(address).is_some() && policy.decide_address(address, port, &[]).is_ok() {
            let given = policy.rules.iter().any(|rule| {
                let Pattern::Range(range) = &rule.pattern else { return false };
                let ends = [range.first(), last_of(range)];
                rule.effect == Effect::Allow
                    && range.contains(address)
                    && rule.ports.contains(port)
                    && ends.into_iter().all(|end| crate::special(end).is_some())
            });
            prop_assert!(given);
        }
    }

    #[test]
    fn a_literal_address_is_allowed_only_where_a_name_may_lead(
        policy in a_policy(), address in an_address(), port in a_port(),
    ) {
        if let Verdict::Allow(_) = policy.decide(&Target::Address(address), port) {
            prop_assert_eq!(policy.decide_address(address, port, &[]), Ok(()));
        }
    }

    #[test]
    fn a_policy_survives_json_and_postcard(policy in a_policy()) {
        let json = serde_json::to_string(&policy).unwrap();
        prop_assert_eq!(&serde_json::from_str::<EgressPolicy>(&json).unwrap(), &policy);
        let bytes = postcard::to_stdvec(&policy).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<EgressPolicy>(&bytes).unwrap(), &policy);
    }
}

fn last_of(range: &AddressRange) -> IpAddr {
    match range.first() {
        IpAddr::V4(first) => {
            IpAddr::V4((u32::from(first) | u32::MAX.checked_shr(range.bits().into()).unwrap_or(0)).into())
        }
        IpAddr::V6(first) => {
            IpAddr::V6((u128::from(first) | u128::MAX.checked_shr(range.bits().into()).unwrap_or(0)).into())
        }
    }
}
