use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Result<String, HostNameError> {
    HostName::try_from(text).map(String::from)
}

#[test]
fn a_name_is_lower_case_and_loses_one_dot_at_the_end() {
    assert_eq!(name("WWW.Example.COM."), Ok("www.example.com".into()));
    assert_eq!(name("_dmarc.x--y.example"), Ok("_dmarc.x--y.example".into()));
    assert_eq!(name("localhost"), Ok("localhost".into()));
}

#[test]
fn what_a_c_library_reads_as_an_address_is_no_name() {
    for text in [
        "127.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "0x7f.1",
        "127.0.0.1",
        "127.0.0.1.",
        "0",
        "0X7F.0.0.0x1",
        "1.2.3.4.5",
        "example.0x",
        "example.9",
        "a.0Xff",
        "::1",
        "::ffff:127.0.0.1",
        "[::1]",
        "256.256.256.256",
    ] {
        assert_eq!(name(text), Err(HostNameError::Address), "{text}");
    }
    assert!(name("0x7g").is_ok());
    assert!(name("1.example").is_ok());
    assert!(name("127.0.0.1.example").is_ok());
}

#[test]
fn an_error_says_which_character() {
    let at = |text: &str| name(text).map_err(HostNameError::at);
    assert_eq!(at("a b"), Err(2));
    assert_eq!(at("ab.c!"), Err(5));
    assert_eq!(at("a..b"), Err(3));
    assert_eq!(at(".a"), Err(1));
    assert_eq!(at("a.-b"), Err(3));
    assert_eq!(at("a.b-.c"), Err(4));
    assert_eq!(at("a\0"), Err(2));
    assert_eq!(at("a.b.."), Err(5));
    assert_eq!(
        name("a/b"),
        Err(HostNameError::Character {
            character: '/',
            at: 2
        })
    );
    assert_eq!(name(""), Err(HostNameError::Empty));
    assert_eq!(name("."), Err(HostNameError::Empty));
}

#[test]
fn a_name_that_is_not_ascii_is_asked_for_in_ascii() {
    let error = name("b\u{fc}cher.example").unwrap_err();
    assert_eq!(
        error,
        HostNameError::NotAscii {
            character: '\u{fc}',
            at: 2
        }
    );
    assert!(error.to_string().contains("xn--"));
    // Its lower case is an ASCII k; its full stop is one that browsers take for a dot.
    assert_eq!(name("\u{212a}.example").map_err(HostNameError::at), Err(1));
    assert_eq!(name("a\u{3002}example").map_err(HostNameError::at), Err(2));
}

#[test]
fn names_and_labels_end_where_dns_has_no_more_room() {
    let label = "a".repeat(63);
    assert!(name(&label).is_ok());
    assert_eq!(
        name(&format!("x.{label}a")),
        Err(HostNameError::LongLabel { at: 66 })
    );
    let long = format!("{label}.{label}.{label}.{}", "b".repeat(61));
    assert_eq!(long.len(), MAX_NAME);
    assert!(name(&long).is_ok());
    assert!(name(&format!("{long}.")).is_ok());
    assert_eq!(name(&format!("{long}b")), Err(HostNameError::TooLong));
    assert_eq!(name(&"\u{fc}".repeat(1 << 20)), Err(HostNameError::TooLong));
}

#[test]
fn only_a_whole_label_in_front_is_below() {
    let below = |name: &str, parent: &str| {
        HostName::try_from(name)
            .unwrap()
            .is_below(&HostName::try_from(parent).unwrap())
    };
    assert!(below("a.example.com", "example.com"));
    assert!(below("a.b.example.com", "example.com"));
    assert!(!below("example.com", "example.com"));
    assert!(!below("anexample.com", "example.com"));
    assert!(!below("example.com.invalid", "example.com"));
}

#[test]
fn a_wrong_name_is_not_read_from_json() {
    assert!(serde_json::from_str::<HostName>("\"127.1\"").is_err());
    assert_eq!(
        serde_json::from_str::<HostName>("\"A.b\"").unwrap().as_str(),
        "a.b"
    );
}

proptest! {
    #[test]
    fn what_is_taken_for_a_name_is_one(text in "[ -~\u{fc}]{0,20}|[a-c0-3x.-]{1,12}") {
        if let Ok(name) = HostName::try_from(text.as_str()) {
            prop_assert_eq!(HostName::try_from(name.as_str()), Ok(name.clone()));
            prop_assert!(name.as_str().parse::<std::net::IpAddr>().is_err());
            prop_assert!(!name.as_str().ends_with('.'));
            prop_assert_eq!(name.as_str().to_ascii_lowercase(), name.as_str());
        }
    }

    #[test]
    fn no_text_is_too_odd_for_an_answer(text in any::<String>()) {
        if let Err(error) = HostName::try_from(text.as_str()) {
            prop_assert!(error.at() >= 1 && error.at() <= text.chars().count().max(1));
        }
    }
}
