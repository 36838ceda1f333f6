//! Programs that people use, through it, to servers with certificates.

use std::{fs, process::Command};

use egress_policy::Reason;

use crate::{
    servers::Web,
    world::{Egress, as_guest, config, enter_a_host, ok, sh},
};

/// What the guest does while `good.test` serves HTTP and HTTPS.
fn with_web(prepare: impl FnOnce(&Web), guest: impl FnOnce(&Web) + Send) -> Option<Egress> {
    if !enter_a_host() {
        return None;
    }
    let web = Web::start()?;
    prepare(&web);
    let (egress, link) = Egress::start(&config(&["good.test"], &["good.test", "denied.test"]));
    as_guest(link, || guest(&web));
    Some(egress)
}

fn has(tool: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .output()
        .unwrap()
        .status
        .success();
    if !found {
        skipped::because(format_args!("{tool} is not installed"));
    }
    found
}

#[test]
fn curl_speaks_http_1_and_http_2() {
    with_web(
        |_| {},
        |web| {
            let ca = web.authority();
            assert_eq!(ok("curl -sS -m 10 http://good.test/version"), "1.1");
            assert_eq!(
                ok(&format!(
                    "curl -sS -m 10 --http1.1 --cacert {ca} https://good.test/version"
                )),
                "1.1"
            );
            assert_eq!(
                ok(&format!(
                    "curl -sS -m 10 --http2 --cacert {ca} https://good.test/version"
                )),
                "2.0"
            );
            // Kept alive, and many streams on one connection.
            assert_eq!(ok("curl -sS -m 10 'http://good.test/echo/[1-9]'"), "123456789");
            let many = format!(
                "curl -sS -m 20 -Z --http2 --cacert {ca} 'https://good.test/bytes/100000/[1-50]' 2>/dev/null | wc -c"
            );
            assert_eq!(ok(&many).trim(), "5000000");
        },
    );
}

/// Another name on a certificate of the same server is still another name.
#[test]
fn curl_with_another_name_in_its_hello_is_refused() {
    let told = with_web(
        |_| {},
        |web| {
            let curl = format!("curl -sS -m 10 --cacert {}", web.authority());
            let connect = "--connect-to other.good.test:443:good.test:443";
            let (status, _) = sh(&format!("{curl} {connect} https://other.good.test/version"));
            assert_eq!(status, 35);
            let (status, _) = sh(&format!("{curl} -L https://good.test/away"));
            assert_eq!(status, 6);
            let (status, said) = sh("openssl s_client -noservername -connect good.test:443 </dev/null");
            assert_ne!(status, 0, "{said}");
        },
    );
    if let Some(mut egress) = told {
        egress.told_refused(Reason::OtherServerName);
        egress.told_refused(Reason::NoServerName);
    }
}

#[test]
fn what_is_downloaded_and_uploaded_over_tls_is_whole() {
    with_web(
        |web| fs::write(format!("{}/large", web.www()), large()).unwrap(),
        |web| {
            let curl = format!("curl -sS -m 30 --cacert {}", web.authority());
            let sum = ok(&format!("sha256sum <{}/large", web.www()));
            let sum = sum.split(' ').next().unwrap();
            for kind in ["--http1.1", "--http2"] {
                let down = ok(&format!("{curl} {kind} https://good.test/large | sha256sum"));
                assert!(down.starts_with(sum), "{down}");
                let up = ok(&format!(
                    "{curl} {kind} -T {}/large https://good.test/sum/",
                    web.www()
                ));
                assert_eq!(up, sum);
            }
        },
    );
}

fn large() -> Vec<u8> {
    (0..4_000_000_u32)
        .flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

#[test]
fn a_page_that_stalls_is_the_clients_to_give_up() {
    with_web(
        |_| {},
        |_| {
            let (status, said) =
                sh("curl -sS -m 1 http://good.test/stall & curl -sS -m 10 http://good.test/version; wait $!");
            assert_eq!(status, 28, "{said}");
            assert!(said.contains("1.1"), "{said}");
        },
    );
}

const WEBSOCKET: &str = "
import base64, hashlib, os, socket, ssl, sys
secure = len(sys.argv) > 1
s = socket.create_connection(('good.test', 443 if secure else 80), 10)
if secure: s = ssl.create_default_context(cafile=sys.argv[1]).wrap_socket(s, server_hostname='good.test')
key = base64.b64encode(os.urandom(16))
s.sendall(b'GET /ws HTTP/1.1\\r\\nHost: good.test\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: ' + key + b'\\r\\n\\r\\n')
f = s.makefile('rb')
assert b' 101 ' in f.readline()
while f.readline().strip(): pass
for size in (1, 100, 60000):
    frame = b'\\x82\\xfe' + size.to_bytes(2, 'big') + os.urandom(4 + size)
    s.sendall(frame)
    assert f.read(len(frame)) == frame
print('whole')
";

#[test]
fn a_websocket_over_both_ports() {
    if !has("python3") {
        return;
    }
    with_web(
        |web| fs::write(web.dir.path().join("ws.py"), WEBSOCKET).unwrap(),
        |web| {
            let script = web.dir.path().join("ws.py").display().to_string();
            assert_eq!(ok(&format!("python3 {script}")).trim(), "whole");
            assert_eq!(
                ok(&format!("python3 {script} {}", web.authority())).trim(),
                "whole"
            );
        },
    );
}

#[test]
fn git_clones_over_https() {
    if !has("git") {
        return;
    }
    let prepare = |web: &Web| {
        let make = format!(
            "cd {}; git init -q work; cd work; seq 100000 >file; git add .
             git -c user.name=a -c user.email=a@good.test commit -qm first
             git clone -q --bare . ../repository.git; cd ../repository.git; git update-server-info",
            web.www()
        );
        ok(&make);
    };
    with_web(prepare, |web| {
        let clone = format!(
            "cd {}; export HOME=$PWD; GIT_SSL_CAINFO={} git clone -q https://good.test/repository.git clone; cmp clone/file www/work/file",
            web.dir.path().display(),
            web.authority()
        );
        ok(&clone);
        let (status, said) = sh("git clone https://denied.test/repository.git /nowhere/denied");
        assert!(status != 0 && said.contains("resolve host"), "{said}");
    });
}

#[test]
fn apt_updates_from_a_repository_over_http_and_https() {
    if !has("apt-get") || !has("dpkg-scanpackages") {
        return;
    }
    let prepare = |web: &Web| {
        let make = "mkdir -p package/DEBIAN repository
            printf 'Package: thing\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@good.test>\\nDescription: a thing\\n' >package/DEBIAN/control
            dpkg-deb --build package repository/thing_1_all.deb
            cd repository; dpkg-scanpackages . 2>/dev/null >Packages";
        ok(&format!("cd {}; {make}", web.www()));
    };
    with_web(prepare, |web| {
        for scheme in ["http", "https"] {
            let source = format!("deb [trusted=yes] {scheme}://good.test/repository ./");
            let apt = private_apt(&format!("{}/{scheme}", web.dir.path().display()), &source);
            let apt = format!("{apt} -o Acquire::https::CAInfo={}", web.authority());
            ok(&format!(
                "{apt} update && {apt} download thing && test -s thing_1_all.deb"
            ));
        }
    });
}

/// apt with directories of its own, and these sources.
pub(crate) fn private_apt(dir: &str, sources: &str) -> String {
    ok(&format!(
        "mkdir -p {dir}/etc/preferences.d {dir}/lists/partial {dir}/cache/archives/partial; touch {dir}/status"
    ));
    fs::write(format!("{dir}/etc/sources.list"), format!("{sources}\n")).unwrap();
    let options = [
        format!("Dir::Etc={dir}/etc/"),
        format!("Dir::Etc::sourcelist={dir}/etc/sources.list"),
        format!("Dir::Etc::sourceparts={dir}/etc/sources.list.d"),
        format!("Dir::State::lists={dir}/lists"),
        format!("Dir::State::status={dir}/status"),
        format!("Dir::Cache={dir}/cache"),
        "APT::Sandbox::User=root".to_owned(),
        "APT::Update::Error-Mode=any".to_owned(),
        "APT::Update::Post-Invoke=".to_owned(),
    ];
    let options: Vec<String> = options.iter().map(|option| format!("-o {option}")).collect();
    format!("cd {dir}; apt-get -qq {}", options.join(" "))
}
