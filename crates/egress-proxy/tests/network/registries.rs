//! Real packages of real registries, with rules learned from the tools of this host. With `COFFER_REGISTRIES=1` only:
//! they are somebody else's, and not everywhere in reach.

use std::{collections::BTreeSet, fs, net::SocketAddr};

use egress_policy::control::ResolverConfig;

use crate::{
    clients::private_apt,
    world::{Egress, as_guest, config, is_possible, ok, sh},
};

/// In the guest, with rules for these hosts and the resolver of this machine.
fn with_rules(hosts: &BTreeSet<String>, guest: impl FnOnce(&str) + Send) {
    assert!(!hosts.is_empty(), "no host was learned");
    let rules: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut config = config(&rules, &[]);
    config.resolver = resolver();
    let (_egress, link) = Egress::start(&config);
    let dir = tempfile::tempdir().unwrap();
    as_guest(link, || {
        guest(&dir.path().display().to_string());
        assert_eq!(sh("curl -sS -m 5 https://example.com/").0, 6);
    });
}

fn resolver() -> ResolverConfig {
    let words = |path: &str| -> Vec<Vec<String>> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default());
        lines
            .map(|line| line.split_whitespace().map(str::to_lowercase).collect())
            .collect()
    };
    let servers = words("/etc/resolv.conf")
        .into_iter()
        .filter(|line| line.len() > 1 && line[0] == "nameserver");
    let hosts = words("/etc/hosts").into_iter().filter(|line| line.len() > 1);
    ResolverConfig {
        nameservers: servers
            .map(|line| SocketAddr::new(line[1].parse().unwrap(), 53))
            .collect(),
        hosts: hosts
            .map(|line| (line[0].parse().unwrap(), line[1..].to_vec()))
            .collect(),
    }
}

fn is_wanted() -> bool {
    let wanted = std::env::var_os("COFFER_REGISTRIES").is_some_and(|value| value == "1");
    if !wanted {
        skipped::because("real registries are asked with COFFER_REGISTRIES=1 only");
    }
    wanted && is_possible()
}

/// The hosts of what looks like a URL.
fn hosts(text: &str) -> BTreeSet<String> {
    let hosts = text.split("://").skip(1).filter_map(|rest| {
        let host = rest
            .split(|byte: char| !(byte.is_ascii_alphanumeric() || "-.".contains(byte)))
            .next();
        host.filter(|host| !host.is_empty())
    });
    hosts.map(str::to_owned).collect()
}

#[test]
fn pip_downloads_a_package() {
    if !is_wanted() {
        return;
    }
    let known = "from pip._internal.models.index import PyPI as index; print(index.simple_url, 'https://' + index.file_storage_domain)";
    let learned = hosts(&ok(&format!(
        "python3 -c \"{known}\"; python3 -m pip config list"
    )));
    with_rules(&learned, |dir| {
        ok(&format!(
            "python3 -m pip download -q --no-cache-dir --no-deps -d {dir} six && ls {dir} | grep six"
        ));
    });
}

#[test]
fn npm_installs_a_package() {
    if !is_wanted() {
        return;
    }
    let learned = hosts(&ok("npm config get registry"));
    with_rules(&learned, |dir| {
        ok(&format!(
            "cd {dir}; npm install --no-audit --no-fund --cache {dir}/cache is-odd && test -s node_modules/is-odd/package.json"
        ));
    });
}

#[test]
fn apt_updates_from_the_sources_of_this_host() {
    if !is_wanted() {
        return;
    }
    let sites = "apt-get indextargets --format '$(SITE)$(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY)' 'Created-By: Packages' | sort -u";
    let listed = ok(sites);
    let learned = hosts(&listed);
    let sources = ok("cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true");
    with_rules(&learned, |dir| {
        let apt = private_apt(&format!("{dir}/apt"), &sources);
        ok(&format!(
            "mkdir -p {dir}/apt/etc/sources.list.d; cp /etc/apt/sources.list.d/*.sources {dir}/apt/etc/sources.list.d/ || true; cp -r /etc/apt/trusted.gpg* {dir}/apt/etc/ || true"
        ));
        ok(&format!(
            "{apt} update && find {dir}/apt/lists -name '*Packages*' | grep ."
        ));
    });
}
