use super::*;

fn names(text: &str) -> Vec<String> {
    nameservers(text).iter().map(ToString::to_string).collect()
}

#[test]
fn nameservers_are_read_as_the_c_library_reads_them() {
    let text = "# nameserver 192.0.2.9\nsearch example.com\nnameserver 192.0.2.1\n\
                options edns0\n  nameserver 2001:db8::1 # a\nnameserver not-an-address\nnameserver\n\
                nameservers 192.0.2.8\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
    assert_eq!(names(text), ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
    assert_eq!(names(""), ["127.0.0.1:53"]);
    assert_eq!(names("nameserver 127.0.0.53"), ["127.0.0.53:53"]);
}

#[test]
fn the_link_of_a_link_local_nameserver_is_kept() {
    assert_eq!(names("nameserver fe80::1%7"), ["[fe80::1%7]:53"]);
    assert_eq!(names("nameserver fe80::1%lo"), ["[fe80::1%1]:53"]);
    assert_eq!(names("nameserver fe80::1%surely-no-such-link"), ["127.0.0.1:53"]);
    assert_eq!(names("nameserver 192.0.2.1%7"), ["127.0.0.1:53"]);
}

#[test]
fn hosts_have_names_in_lower_case_and_no_comments() {
    let text = "127.0.0.1 localhost\n#1.2.3.4 no\n::1\tLocalHost6 b # c\n10.0.0.1\nnonsense x\n";
    let expected: [(IpAddr, Vec<String>); 2] = [
        ("127.0.0.1".parse().unwrap(), vec!["localhost".to_owned()]),
        (
            "::1".parse().unwrap(),
            vec!["localhost6".to_owned(), "b".to_owned()],
        ),
    ];
    assert_eq!(hosts(text), expected);
}

#[test]
fn a_file_that_changes_is_read_again_and_one_that_does_not_is_not() {
    let root = tempfile::tempdir().unwrap();
    let (conf, hosts) = (root.path().join("resolv.conf"), root.path().join("hosts"));
    let mut resolver = HostResolver::at(conf.clone(), hosts.clone());
    assert_eq!(resolver.read().hosts, []);
    assert_eq!(resolver.changed(), None);
    fs::write(&hosts, "192.0.2.1 a.test\n").unwrap();
    assert_eq!(resolver.changed().unwrap().hosts.len(), 1);
    assert_eq!(resolver.changed(), None);
    let other = root.path().join("other");
    fs::write(&other, "nameserver 192.0.2.7\n").unwrap();
    std::os::unix::fs::symlink(&other, &conf).unwrap();
    assert_eq!(
        resolver.changed().unwrap().nameservers,
        ["192.0.2.7:53".parse().unwrap()]
    );
}

#[test]
fn a_file_without_end_is_cut_between_two_lines_and_fits_the_message() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("hosts");
    fs::write(&path, "::1 a\n".repeat(1_000_000)).unwrap();
    let found = hosts(&text(&path, MAX_HOSTS));
    assert_eq!(found.len() as u64, MAX_HOSTS / 6);
    assert!(found.iter().all(|(_, names)| *names == ["a"]));
    let json = serde_json::to_string(&found).unwrap();
    assert!(
        json.len() < egress_policy::control::MAX_LINE / 2,
        "{}",
        json.len()
    );
}
