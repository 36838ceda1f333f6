use proptest::prelude::*;
use serde::de::DeserializeOwned;

use super::*;
use crate::link::tests::{DROP_REASONS, REASONS, any_id, any_protocol, any_target};

fn line<T: Serialize>(message: &T) -> String {
    let line = serde_json::to_string(message).unwrap();
    assert!(!line.contains('\n'));
    line
}

fn read<T: DeserializeOwned>(line: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(line)
}

fn config() -> Config {
    Config {
        version: CONFIG_VERSION,
        policy: EgressPolicy::default(),
        resolver: ResolverConfig {
            nameservers: vec![
                "192.0.2.53:53".parse().unwrap(),
                "[2001:db8::53]:53".parse().unwrap(),
            ],
            hosts: vec![("192.0.2.1".parse().unwrap(), vec!["one.test".into()])],
        },
        upstream: Upstream {
            http: Some("http://user:secret@proxy.test:3128".into()),
            https: None,
            no_proxy: vec![".test".into()],
        },
        spent: Spent {
            bytes: u64::MAX,
            connections: 1,
        },
    }
}

#[test]
fn a_configuration_survives_its_line() {
    assert_eq!(read::<Config>(&line(&config())).unwrap(), config());
}

#[test]
fn a_configuration_with_what_is_not_known_is_refused() {
    let unknown = line(&config()).replacen("{", "{\"also\":1,", 1);
    assert!(read::<Config>(&unknown).is_err());
    let request = r#"{"do":"policy","policy":{"rules":[]},"also":1}"#;
    assert!(read::<Request>(request).is_err());
    assert!(read::<Request>(r#"{"do":"policy","policy":{"rules":[]}}"#).is_ok());
    assert!(read::<Request>(r#"{"do":"resolver"}"#).is_err());
}

#[test]
fn the_secrets_of_a_proxy_are_not_shown() {
    assert!(!format!("{:?}", config()).contains("secret"));
}

#[test]
fn a_record_is_one_flat_line() {
    let record = Event::Record(Record {
        unix_ms: 1,
        source: Some(40000),
        protocol: Protocol::Tcp,
        target: Some(Target::Name("example.com".parse().unwrap())),
        port: Some(443),
        what: What::Refused {
            reason: Reason::NoRule,
            rule: None,
            address: None,
            count: 1,
        },
    });
    assert_eq!(
        line(&record),
        r#"{"event":"record","unix_ms":1,"source":40000,"protocol":"tcp","target":{"name":"example.com"},"port":443,"what":"refused","reason":"no-rule","rule":null,"address":null,"count":1}"#
    );
}

#[test]
fn the_largest_policy_of_plain_rules_fits_a_line() {
    let rule = crate::Rule {
        from: "@some-set".into(),
        ..crate::Rule::parse(crate::Effect::Allow, "*.some-long-name.registry.example.com:443").unwrap()
    };
    let policy = EgressPolicy {
        rules: vec![rule; crate::MAX_RULES],
        ..EgressPolicy::default()
    };
    assert!(line(&Request::Policy { policy }).len() < MAX_LINE);
}

fn any_what() -> impl Strategy<Value = What> {
    let text = || "\\PC{0,30}";
    let end = prop::sample::select(
        &[
            End::Done,
            End::Remote,
            End::Guest,
            End::Refused,
            End::Cut,
            End::Budget,
            End::Idle,
        ][..],
    );
    let counts = || (any_id(), any::<u64>(), any::<u64>());
    prop_oneof![
        text().prop_map(|rule| What::Named { rule }),
        (any_id(), any::<IpAddr>(), text()).prop_map(|(flow, address, rule)| What::Opened {
            flow,
            address,
            rule
        }),
        counts().prop_map(|(flow, sent, received)| What::Carried { flow, sent, received }),
        (counts(), end).prop_map(|((flow, sent, received), end)| What::Closed {
            flow,
            sent,
            received,
            end
        }),
        (
            prop::sample::select(REASONS),
            prop::option::of(text()),
            any::<Option<IpAddr>>(),
            any::<u64>()
        )
            .prop_map(|(reason, rule, address, count)| What::Refused {
                reason,
                rule,
                address,
                count
            }),
        (prop::sample::select(DROP_REASONS), any::<u64>())
            .prop_map(|(reason, count)| What::Dropped { reason, count }),
    ]
}

fn any_record() -> impl Strategy<Value = Record> {
    let target = prop::option::of(any_target());
    let ports = any::<(Option<u16>, Option<u16>)>();
    (any::<u64>(), ports, any_protocol(), target, any_what()).prop_map(
        |(unix_ms, (source, port), protocol, target, what)| Record {
            unix_ms,
            source,
            protocol,
            target,
            port,
            what,
        },
    )
}

proptest! {
    #[test]
    fn every_record_survives_its_line(record in any_record()) {
        let event = Event::Record(record.clone());
        prop_assert_eq!(read::<Event>(&line(&event)).unwrap(), event);
        prop_assert_eq!(read::<Record>(&line(&record)).unwrap(), record);
    }

    #[test]
    fn every_event_and_request_survives_its_line(why in any::<String>(), address in any::<IpAddr>()) {
        let failed = Event::Failed { why };
        prop_assert_eq!(read::<Event>(&line(&failed)).unwrap(), failed);
        prop_assert_eq!(read::<Event>(&line(&Event::Ready)).unwrap(), Event::Ready);
        let resolver = ResolverConfig { nameservers: vec![(address, 53).into()], hosts: vec![(address, vec![])] };
        let request = Request::Resolver { resolver };
        prop_assert_eq!(read::<Request>(&line(&request)).unwrap(), request);
    }

    #[test]
    fn no_line_is_too_odd_to_be_read_or_refused(text in "\\PC{0,60}|[{}\",:a-z\\[\\]0-9]{0,60}") {
        let _ = (read::<Config>(&text).is_ok(), read::<Request>(&text).is_ok(), read::<Event>(&text).is_ok());
    }
}
