use std::{os::unix::fs::symlink, process::Command};

use super::*;
use crate::testing::private_network;

fn network() -> Network {
    Network {
        mtu: 9000,
        v4: [198, 18, 0, 2].into(),
        v4_prefix: 32,
        v4_gateway: [198, 18, 0, 1].into(),
        v6: "fdc0:ffe4::2".parse().unwrap(),
        v6_prefix: 128,
        v6_gateway: "fdc0:ffe4::1".parse().unwrap(),
    }
}

/// What `ip` prints in the namespace of this thread; a child of a thread is in its namespaces.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_card_gets_its_addresses_and_routes_and_a_second_time_changes_nothing() {
    if !private_network() {
        return;
    }
    ip("tuntap add dev cable mode tap");
    for _ in 0..2 {
        set_up("cable", &network()).unwrap();
        let link = ip("addr show dev cable");
        assert!(link.contains("mtu 9000") && link.contains(",UP"), "{link}");
        assert!(link.contains("inet 198.18.0.2/32 "), "{link}");
        let v6 = link
            .lines()
            .find(|line| line.contains("inet6 fdc0:ffe4::2/128"))
            .unwrap();
        assert!(v6.contains("nodad") && !v6.contains("tentative"), "{v6}");
        assert_eq!(link.matches("inet ").count(), 1, "{link}");
        let route = "default via 198.18.0.1 dev cable proto static";
        let routes = ip("-4 route show default");
        assert!(
            routes.starts_with(route) && routes.lines().count() == 1,
            "{routes}"
        );
        let route = ip("-6 route show default");
        assert!(
            route.starts_with("default via fdc0:ffe4::1 dev cable proto static"),
            "{route}"
        );
        assert_eq!(route.lines().count(), 1, "{route}");
        let pingers = fs::read_to_string(PINGERS.0).unwrap();
        assert_eq!(
            pingers.split_whitespace().collect::<Vec<_>>(),
            ["0", "2147483647"]
        );
    }
}

#[test]
fn an_address_beside_the_guests_own_is_the_gateways_business() {
    if !private_network() {
        return;
    }
    ip("tuntap add dev cable mode tap");
    set_up("cable", &network()).unwrap();
    for (other, gateway) in [("198.18.0.77", "198.18.0.1"), ("fdc0:ffe4::77", "fdc0:ffe4::1")] {
        let route = ip(&format!("route get {other}"));
        assert!(route.contains(&format!("via {gateway} dev cable")), "{route}");
    }
}

#[test]
fn loopback_comes_up_without_a_network() {
    if !private_network() {
        return;
    }
    let netlink = Netlink::open().unwrap();
    netlink.bring_up(netlink.index("lo").unwrap()).unwrap();
    let link = ip("addr show dev lo");
    assert!(link.contains("127.0.0.1/8") && link.contains("::1/128"), "{link}");
}

#[test]
fn the_kernels_refusal_comes_back_as_its_error() {
    if !private_network() {
        return;
    }
    let error = set_up("nothing", &network()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    ip("tuntap add dev cable mode tap");
    let mut nobody = network();
    nobody.v4_gateway = [224, 0, 0, 1].into();
    let error = set_up("cable", &nobody).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn the_card_is_the_interface_of_the_virtio_driver() {
    let sys = tempfile::tempdir().unwrap();
    assert_eq!(card_in(sys.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
    for (name, driver) in [
        ("lo", None),
        ("tap0", Some("tun")),
        ("eth1", Some("virtio_net")),
        ("eth0", Some("virtio_net")),
    ] {
        let device = sys.path().join(name).join("device");
        fs::create_dir_all(&device).unwrap();
        if let Some(driver) = driver {
            symlink(
                format!("../../../bus/virtio/drivers/{driver}"),
                device.join("driver"),
            )
            .unwrap();
        }
    }
    assert_eq!(card_in(sys.path()).unwrap(), "eth0");
}

#[test]
fn the_only_resolver_is_the_gateway() {
    let root = tempfile::tempdir().unwrap();
    name_resolver(root.path(), &network()).unwrap();
    assert!(!root.path().join("etc").exists());
    fs::create_dir(root.path().join("etc")).unwrap();
    let path = root.path().join("etc/resolv.conf");
    symlink("../run/systemd/resolve/stub-resolv.conf", &path).unwrap();
    name_resolver(root.path(), &network()).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let servers: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(servers, ["nameserver 198.18.0.1"]);
}

#[test]
fn an_answer_that_is_none_is_an_error_and_not_a_panic() {
    for len in 0..40 {
        assert!(netlink::acknowledged(&vec![0; len]).is_err());
    }
    let mut answer = vec![0; 36];
    answer[4] = 2;
    netlink::acknowledged(&answer).unwrap();
    answer[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
    netlink::acknowledged(&answer).unwrap_err();
}
