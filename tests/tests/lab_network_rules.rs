//! Rules that change while a session runs, ports that are published, what is told of it all, and the certificates
//! that the host trusts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::{Signal, kill_process};
use tests::{Host, Resolver, Run, Running, Session, Web, cases, wait_until, with_own_network};

/// Two sessions that differ in what they may.
struct World {
    one: Session,
    two: Session,
    authority: PathBuf,
    _secure: Running,
    _resolver: Resolver,
    web: Web,
}

#[test]
fn rules_of_sessions() {
    with_own_network(|| {
        let host = Host::new();
        let authority = host.folder("authority");
        let secure = secure_server(&authority);
        let bundle = authority.join("bundle.pem");
        let trust = [("SSL_CERT_FILE", bundle.as_os_str())];
        let publish = ["--allow", "server.test", "--publish", "127.0.0.1:0:8000"];
        let world = World {
            one: host.up_with("one", &publish, &trust),
            two: host.up("two", &["--allow", "other.test"]),
            authority,
            _secure: secure,
            _resolver: Resolver::start(),
            web: Web::start(80),
        };
        cases!(world;
            each_session_has_its_own_rules,
            what_the_host_trusts_the_guest_trusts_without_being_told,
            another_name_in_a_hello_is_refused,
            a_rule_that_comes_and_goes_counts_from_the_next_connection_on,
            what_happens_is_told_as_it_happens,
            a_server_in_the_guest_is_reached_at_the_port_that_is_published,
            the_process_that_decides_is_replaced_when_it_dies,
            rules_are_there_again_after_a_stop,
            a_change_that_cannot_be_is_told,
        );
    });
}

/// Git's and everybody's files over TLS, with a certificate of an authority that nobody knows.
fn secure_server(directory: &Path) -> Running {
    let script = "
curve='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
openssl req -x509 $curve -keyout ca.key -out ca.pem -subj '/CN=Authority of this test' -days 2 -addext keyUsage=critical,keyCertSign
openssl req $curve -keyout key.pem -out request.pem -subj /CN=server.test
printf 'subjectAltName=DNS:server.test,DNS:third.test\nauthorityKeyIdentifier=keyid\n' >names
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile names
cat /etc/ssl/certs/ca-certificates.crt ca.pem >bundle.pem
mkdir www; cd www; echo secure >note
git init --quiet --initial-branch main work; cd work
git -c user.name=a -c user.email=a@b commit --quiet --allow-empty --message first; cd ..
git clone --quiet --bare work repository; git -C repository update-server-info; git -C repository rev-parse HEAD >../commit";
    let made = Command::new("sh")
        .args(["-ec", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let program = "
import http.server, os, ssl
server = http.server.ThreadingHTTPServer(('0.0.0.0', 443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain('cert.pem', 'key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
os.chdir('www'); print('ready', flush=True); server.serve_forever()";
    let running = Run::new(["python3", "-c", program])
        .at(directory)
        .deadline(600)
        .start();
    running.wait_for("ready");
    running
}

const HELLO: &str = "curl -sS -m 9 http://server.test/";

fn net(session: &Session, words: &[&str]) -> String {
    let words = ["net"].into_iter().chain(words.iter().copied());
    session.host().coffer(words).end().code(0).text()
}

fn each_session_has_its_own_rules(world: &World) {
    world.one.sh(HELLO).end().says("hello from server.test");
    world
        .two
        .sh("curl -sS -m 9 http://other.test/")
        .end()
        .says("hello from other.test");
    let before = world.web.connections();
    world.one.sh("curl -sS -m 9 http://other.test/").end().code(6);
    world.two.sh(HELLO).end().code(6);
    assert_eq!(world.web.connections(), before);
    let (one, two) = (net(&world.one, &["one"]), net(&world.two, &["two"]));
    assert!(
        one.contains("\nserver.test:80") && !two.contains("\nserver.test:80"),
        "{one}{two}"
    );
    assert!(
        one.contains("\nother.test ") && two.contains("\nserver.test "),
        "{one}{two}"
    );
}

fn what_the_host_trusts_the_guest_trusts_without_being_told(world: &World) {
    let commit = fs::read_to_string(world.authority.join("commit")).unwrap();
    let line = "curl -sS -m 20 https://server.test/note &&
        python3 -c 'import urllib.request; print(urllib.request.urlopen(\"https://server.test/note\").read().decode(), end=\"\")' &&
        git ls-remote https://server.test/repository HEAD";
    let ended = world.one.sh(line).end();
    ended.says(&format!("secure\nsecure\n{}\tHEAD", commit.trim()));
    // Who trusts something else on the host has something else in the guest.
    let other = world
        .two
        .sh("grep -c BEGIN /etc/ssl/certs/ca-certificates.crt")
        .end()
        .number();
    let here = world
        .one
        .sh("grep -c BEGIN /etc/ssl/certs/ca-certificates.crt")
        .end()
        .number();
    assert_eq!(here, other + 1);
}

fn another_name_in_a_hello_is_refused(world: &World) {
    let line = "set -- $(getent ahostsv4 server.test); curl -sS -k -m 9 --resolve other.test:443:$1 https://other.test/note";
    let ended = world.one.sh(line).end();
    assert!([35, 56].contains(&ended.code), "{ended}");
    let page = net(&world.one, &["one"]);
    assert!(page.contains("another server name in the TLS hello"), "{page}");
}

fn a_rule_that_comes_and_goes_counts_from_the_next_connection_on(world: &World) {
    let hold = world.one.sh("curl -sSN -m 60 http://server.test/hold").start();
    hold.wait_for("held");
    assert_eq!(net(&world.one, &["deny", "one", "server.test"]), "");
    let cut = hold.end();
    assert!(
        [18, 56].contains(&cut.code) && cut.took < Duration::from_secs(30),
        "{cut}"
    );
    world.one.sh(HELLO).end().code(6);
    assert!(net(&world.one, &["one", "--json"]).contains(r#""end":"cut""#));
    net(&world.one, &["allow", "one", "server.test", "third.test:80"]);
    world.one.sh(HELLO).end().says("hello from server.test");
    world
        .one
        .sh("curl -sS -m 9 http://third.test")
        .end()
        .says("hello from third.test");
    // Another port of a name that may be known.
    world
        .one
        .sh("curl -sS -m 9 https://third.test/note")
        .end()
        .code(7);
    net(&world.one, &["forget", "one", "third.test:80"]);
    world.one.sh("curl -sS -m 9 http://third.test").end().code(6);
}

fn what_happens_is_told_as_it_happens(world: &World) {
    let host = world.one.host();
    let (lines, json) = (
        host.coffer(["net", "-f", "one"]).start(),
        host.coffer(["net", "-f", "--json", "one"]).start(),
    );
    world.one.sh(HELLO).end().code(0);
    world.one.sh("getent hosts followed.example").end().code(2);
    lines.wait_for("opened server.test:80 at 203.0.113.80 (server.test)");
    lines.wait_for("refused followed.example: no rule allows it");
    json.wait_for(r#""target":{"name":"followed.example"}"#);
    for line in json.said().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

fn a_server_in_the_guest_is_reached_at_the_port_that_is_published(world: &World) {
    let page = net(&world.one, &["one"]);
    let place = page
        .lines()
        .find_map(|line| line.trim().strip_suffix(" leads to port 8000 of the sandbox"));
    let place = place.unwrap_or_else(|| panic!("{page}"));
    assert!(place.starts_with("127.0.0.1:"), "{place}");
    let line = "mkdir -p www && echo published >www/note && cd www && exec python3 -u -m http.server --bind 127.0.0.1 8000";
    let server = world.one.sh(line).start();
    server.wait_for("Serving HTTP");
    assert!(said_at(place).ends_with("published\n"));
    // Other addresses lead to this host too, and nobody listens there.
    let port = place.rsplit(':').next().unwrap();
    assert!(TcpStream::connect(format!("203.0.113.80:{port}")).is_err());
    drop(server);
}

fn said_at(place: &str) -> String {
    let mut line = TcpStream::connect(place).unwrap();
    line.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    line.write_all(b"GET /note HTTP/1.0\r\n\r\n").unwrap();
    let mut said = String::new();
    line.read_to_string(&mut said).unwrap();
    said
}

fn the_process_that_decides_is_replaced_when_it_dies(world: &World) {
    let hold = world.one.sh("curl -sSN -m 60 http://server.test/hold").start();
    hold.wait_for("held");
    let first = world.one.egress().unwrap();
    kill_process(first, Signal::KILL).unwrap();
    let cut = hold.end();
    assert!(
        [18, 56].contains(&cut.code) && cut.took < Duration::from_secs(30),
        "{cut}"
    );
    wait_until("another one decides", 15, || {
        world.one.egress().is_some_and(|pid| pid != first)
    });
    wait_until("the network is back", 15, || world.one.sh(HELLO).end().code == 0);
    world.one.sh("curl -sS -m 9 http://other.test").end().code(6);
    let page = net(&world.one, &["one"]);
    assert!(page.contains("note: "), "{page}");
}

fn rules_are_there_again_after_a_stop(world: &World) {
    let host = world.one.host();
    net(&world.one, &["allow", "one", "third.test"]);
    host.coffer(["stop", "one"]).end().code(0);
    net(&world.one, &["deny", "one", "server.test"]);
    host.coffer(["up", "one"]).end().says("one");
    world
        .one
        .sh("curl -sS -m 9 http://third.test")
        .end()
        .says("hello from third.test");
    world.one.sh(HELLO).end().code(6);
    let page = net(&world.one, &["one"]);
    assert!(
        page.contains("allow third.test") && page.contains("deny server.test"),
        "{page}"
    );
    assert!(page.contains("leads to port 8000"), "{page}");
}

fn a_change_that_cannot_be_is_told(world: &World) {
    let refused = |words: &[&str], code, what: &str, hint: &str| {
        world.one.host().coffer(words).end().complains(code, what, hint);
    };
    refused(
        &["net", "allow", "one", "http://example.com/"],
        2,
        "at character 5: a URL",
        "example.com:80",
    );
    refused(
        &["net", "allow", "one", "10.1.2.3/8"],
        2,
        "not the first address",
        "10.0.0.0/8",
    );
    refused(
        &["net", "deny", "nobody", "example.com"],
        125,
        "no session has this name: nobody",
        "coffer ls",
    );
    refused(
        &["net", "nobody"],
        125,
        "no session has this name: nobody",
        "coffer ls",
    );
    refused(
        &["net", "allow", "one", "@nothing"],
        2,
        "no set of rules has this name: @nothing",
        "a file",
    );
    refused(
        &["run", "--allow", "exa mple.com", "--", "true"],
        2,
        "at character 4",
        "a rule is",
    );
    let page = net(&world.one, &["one"]);
    assert!(
        !page.contains("10.0.0.0/8") && !page.contains("allow example.com"),
        "{page}"
    );
}
