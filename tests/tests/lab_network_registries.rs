//! Package managers in a guest, with what the host's own are configured to use, and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use tests::{Host, Run, Session};

/// Whether this host itself can do it; else the reason is printed.
fn host_can(what: &str, words: &[&str]) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let ended = Run::new(words).at(directory.path()).end();
    if ended.code != 0 {
        skipped::because(format_args!("{what} does not work on this host: {ended}"));
    }
    ended.code == 0
}

fn nothing_else(session: &Session) {
    for refused in ["https://example.com/", "http://example.org/"] {
        session
            .exec(&[], ["curl", "-sS", "-m", "5", refused])
            .end()
            .code(6);
    }
    session.sh("curl -sS -m 5 http://203.0.113.80/").end().code(7);
}

/// A package that needs another one, into a folder of the host.
#[test]
fn pip_installs_on_a_share_with_its_set_and_nothing_else_does() {
    if !host_can(
        "pip",
        &["python3", "-m", "pip", "download", "--quiet", "--no-deps", "six"],
    ) {
        return;
    }
    let host = Host::new();
    let project = host.folder("project");
    let session = host.up("pip", &["--allow", "@pip", "--share", project.to_str().unwrap()]);
    let line = "pip install --quiet --target site python-dateutil==2.9.0.post0";
    session.sh(line).deadline(140).end().code(0);
    let program = "import dateutil.parser, six; print(dateutil.parser.parse('1 May 2026').date())";
    let line = format!("PYTHONPATH=site python3 -c \"{program}\"");
    session.sh(&line).end().says("2026-05-01");
    assert!(project.join("site/dateutil/parser/__init__.py").exists());
    nothing_else(&session);
    let page = session.host().coffer(["net", "pip"]).end().code(0).text();
    assert!(
        page.contains("\nreached:\n") && page.contains("pip install"),
        "{page}"
    );
}

#[test]
fn apt_updates_with_its_set_and_nothing_else_does() {
    if !host_can("apt-get", &["apt-get", "update", "--print-uris"]) {
        return;
    }
    let session = Host::new().up("apt", &["--allow", "@apt"]);
    // A mirror that only the guest's own lists name is no part of the set, and told as a warning.
    let ended = session.root("apt-get update").deadline(140).end().code(0);
    assert!(
        ended.text().contains("\nGet:") || ended.text().starts_with("Get:"),
        "{ended}"
    );
    nothing_else(&session);
}
