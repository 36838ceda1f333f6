//! What is reached without the proxy: `NO_PROXY`, as most programs read it.

use egress_policy::{AddressRange, Target};

#[derive(Debug, Default)]
pub(super) struct Bypass(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    what: What,
    port: Option<u16>,
}

#[derive(Debug)]
enum What {
    All,
    /// `example.com`: itself and every name below it.
    Name(String),
    /// `.example.com`: every name below it.
    Below(String),
    Range(AddressRange),
}

impl Bypass {
    /// What cannot be read covers nothing.
    pub(super) fn new(entries: &[String]) -> Self {
        let entries = entries.iter().flat_map(|entries| entries.split(','));
        Bypass(entries.filter_map(|entry| Entry::parse(entry.trim())).collect())
    }

    pub(super) fn covers(&self, target: &Target, port: u16) -> bool {
        let fits = |entry: &&Entry| entry.port.is_none_or(|only| only == port);
        self.0.iter().filter(fits).any(|entry| entry.what.covers(target))
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        if let Some(range) = range(text) {
            return Some(Entry {
                what: What::Range(range),
                port: None,
            });
        }
        let (place, port) = match text.rsplit_once(':') {
            Some((place, port)) => (place, Some(port.parse().ok()?)),
            None => (text, None),
        };
        if let Some(range) = range(place) {
            return Some(Entry {
                what: What::Range(range),
                port,
            });
        }
        let place = place.to_ascii_lowercase();
        let below = place.strip_prefix('*').unwrap_or(&place).strip_prefix('.');
        let what = match (place.as_str(), below) {
            ("", _) | (_, Some("")) => return None,
            ("*", _) => What::All,
            (_, Some(suffix)) => What::Below(suffix.to_owned()),
            (name, None) => What::Name(name.trim_end_matches('.').to_owned()),
        };
        Some(Entry { what, port })
    }
}

fn range(text: &str) -> Option<AddressRange> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    bare.unwrap_or(text).parse().ok()
}

impl What {
    fn covers(&self, target: &Target) -> bool {
        match (self, target) {
            (What::All, _) => true,
            (What::Range(range), Target::Address(address)) => range.contains(address.to_canonical()),
            (What::Name(whole), Target::Name(name)) => {
                name.as_str() == whole || is_below(name.as_str(), whole)
            }
            (What::Below(suffix), Target::Name(name)) => is_below(name.as_str(), suffix),
            (What::Range(_), Target::Name(_)) | (What::Name(_) | What::Below(_), Target::Address(_)) => false,
        }
    }
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix)
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use egress_policy::HostName;

    use super::*;

    fn covers(entries: &str, target: &str, port: u16) -> bool {
        let target = match target.parse() {
            Ok(address) => Target::Address(address),
            Err(_) => Target::Name(HostName::try_from(target.to_owned()).unwrap()),
        };
        Bypass::new(&[entries.to_owned()]).covers(&target, port)
    }

    #[test]
    fn names_cover_what_is_below_them() {
        assert!(covers("example.com", "example.com", 1));
        assert!(covers("Example.com", "a.example.com", 1));
        assert!(!covers("example.com", "badexample.com", 1));
        assert!(!covers("example.com", "example.com.test", 1));
        for suffix in [".example.com", "*.example.com"] {
            assert!(covers(suffix, "a.b.example.com", 1));
            assert!(!covers(suffix, "example.com", 1));
            assert!(!covers(suffix, "badexample.com", 1));
        }
    }

    #[test]
    fn addresses_are_covered_by_address() {
        assert!(covers("192.0.2.1", "192.0.2.1", 1));
        assert!(!covers("192.0.2.1", "192.0.2.11", 1));
        assert!(covers("a.test, 192.0.2.0/24", "192.0.2.9", 1));
        assert!(covers("2001:db8::/32", "2001:db8::9", 1));
        assert!(covers("[2001:db8::9]", "2001:db8::9", 1));
    }

    #[test]
    fn a_port_narrows_and_a_star_covers_all() {
        assert!(covers("example.com:81", "example.com", 81));
        assert!(!covers("example.com:81", "example.com", 82));
        assert!(covers("*", "example.com", 82));
        assert!(covers("*", "192.0.2.1", 82));
        assert!(!covers("", "example.com", 82));
        assert!(!covers(",.,*.", "example.com", 82));
    }
}
