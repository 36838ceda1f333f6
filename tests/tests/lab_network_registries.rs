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

#[test]
fn pip_downloads_with_its_set_and_nothing_else_does() {
    if !host_can(
        "pip",
        &["python3", "-m", "pip", "download", "--quiet", "--no-deps", "six"],
    ) {
        return;
    }
    let session = Host::new().up("pip", &["--allow", "@pip"]);
    let line = "pip download --quiet --no-deps six && ls six-*";
    let ended = session.sh(line).deadline(100).end().code(0);
    assert!(ended.text().starts_with("six-"), "{ended}");
    nothing_else(&session);
    let page = session.host().coffer(["net", "pip"]).end().code(0).text();
    assert!(
        page.contains("\nreached:\n") && page.contains("pip download"),
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
