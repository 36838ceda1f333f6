//! Through the proxies of the host.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
};

use egress_policy::{Reason, control::Config};

use crate::{
    machine::{Machine, address, name, with_hosts},
    servers::{Server, closed_port, echo},
};

type Heard = Arc<Mutex<Vec<String>>>;

/// Answers a CONNECT with `answer` and is then the server itself.
fn http_proxy(answer: &'static str) -> (Server, Heard) {
    let heard = Heard::default();
    let log = Arc::clone(&heard);
    let server = Server::start(move |mut stream: TcpStream| {
        let Some(head) = read_head(&stream) else {
            return;
        };
        log.lock().unwrap().push(head);
        stream.write_all(answer.as_bytes()).unwrap();
        echo(stream);
    });
    (server, heard)
}

fn read_head(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return None;
        }
    }
    Some(head)
}

fn through(proxy: &str, no_proxy: &[&str]) -> Config {
    let mut config = with_hosts(
        &["*.test", "127.0.0.1", "192.0.2.0/24", "10.0.0.0/8", "localhost"],
        &["direct.test"],
    );
    config.upstream.http = Some(proxy.to_owned());
    config.upstream.https = Some(proxy.to_owned());
    config.upstream.no_proxy = no_proxy.iter().map(ToString::to_string).collect();
    config
}

fn says_back(machine: &mut Machine, host: &str, port: u16) {
    let (_, mut guest) = machine.open(name(host), port).unwrap();
    guest.write_all(b"hello\n").unwrap();
    let mut said = [0; 6];
    guest.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello\n");
}

#[test]
fn an_http_proxy_is_asked_for_the_name() {
    let (proxy, heard) = http_proxy("HTTP/1.1 200 Connection established\r\n\r\n");
    let mut machine = Machine::start(&through(
        &format!("http://us%65r:secret@127.0.0.1:{}", proxy.port),
        &[],
    ));
    says_back(&mut machine, "far.test", 8080);
    machine.open(name("far.test"), 80).unwrap();
    machine.open(address("192.0.2.9"), 443).unwrap();
    let heard = heard.lock().unwrap();
    assert!(heard[0].starts_with("CONNECT far.test:8080 HTTP/1.1\r\nHost: far.test:8080\r\n"));
    assert!(heard[0].contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"));
    assert!(heard[1].starts_with("CONNECT far.test:80 HTTP/1.1\r\n"));
    assert!(heard[2].starts_with("CONNECT 192.0.2.9:443 HTTP/1.1\r\n"));
    assert!(!format!("{:?}", machine.seen).contains("secret"));
}

#[test]
fn what_the_server_says_with_the_proxys_answer_is_not_lost() {
    let (proxy, _) = http_proxy("HTTP/1.1 200 OK\r\nX: y\r\n\r\n220 early\r\n");
    let mut machine = Machine::start(&through(&format!("http://127.0.0.1:{}", proxy.port), &[]));
    let (_, mut guest) = machine.open(name("far.test"), 25).unwrap();
    let mut said = [0; 11];
    guest.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"220 early\r\n");
}

#[test]
fn a_proxy_that_is_down_refuses_or_talks_nonsense_is_told_as_that() {
    let long: &'static str = Box::leak(format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(10_000)).into());
    for answer in [
        "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        "HTTP/1.1 502 Bad Gateway\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "\0\0\0\0",
        "HTTP/1.1 200",
        long,
    ] {
        let (proxy, _) = http_proxy(answer);
        let mut machine = Machine::start(&through(&format!("http://127.0.0.1:{}", proxy.port), &[]));
        assert_eq!(machine.refused(name("far.test"), 443), Reason::Proxy);
    }
    for unreachable in [
        format!("http://127.0.0.1:{}", closed_port()),
        "https://127.0.0.1:1".to_owned(),
    ] {
        let mut machine = Machine::start(&through(&unreachable, &[]));
        assert_eq!(machine.refused(name("far.test"), 443), Reason::Proxy);
        machine.told_refused(Reason::Proxy);
    }
}

/// As squid is, unless it is told otherwise.
fn proxy_for_443() -> Server {
    Server::start(|mut stream: TcpStream| {
        let Some(head) = read_head(&stream) else {
            return;
        };
        match head.lines().next().unwrap().contains(":443 ") {
            true => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                echo(stream);
            }
            false => stream
                .write_all(b"HTTP/1.1 403 Access violation\r\n\r\n")
                .unwrap(),
        }
    })
}

#[test]
fn a_proxy_that_makes_tunnels_to_443_only_is_told_as_that() {
    let proxy = proxy_for_443();
    let mut machine = Machine::start(&through(&format!("http://127.0.0.1:{}", proxy.port), &[]));
    machine.open(name("far.test"), 443).unwrap();
    assert_eq!(machine.refused(name("far.test"), 8080), Reason::ProxyTunnel);
    let record = machine.told_refused(Reason::ProxyTunnel);
    assert_eq!(record.port, Some(8080));
}

/// Answers each request with its head, which may say of a body of five bytes.
fn proxy_for_urls() -> Server {
    Server::start(|mut stream: TcpStream| {
        while let Some(head) = read_head_alone(&mut stream) {
            let body = if head.contains("Content-Length: 5\r\n") {
                5
            } else {
                0
            };
            let mut said = head.into_bytes();
            said.resize(said.len() + body, 0);
            let start = said.len() - body;
            stream.read_exact(&mut said[start..]).unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", said.len());
            stream.write_all(&[answer.as_bytes(), &said].concat()).unwrap();
        }
    })
}

/// Leaves what comes behind it.
fn read_head_alone(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

#[test]
fn plain_http_goes_to_an_http_proxy_with_the_whole_url() {
    let proxy = proxy_for_urls();
    let mut machine = Machine::start(&through(&format!("http://127.0.0.1:{}", proxy.port), &[]));
    let (_, mut guest) = machine.open(name("far.test"), 80).unwrap();
    let host = "HTTP/1.1\r\nHost: far.test\r\n";
    let said = format!(
        "POST /a {host}Content-Length: 5\r\n\r\nGET /GET /b?c=http://d/ {host}\r\nOPTIONS * {host}\r\n\
         GET http://far.test:80/e {host}\r\n"
    );
    guest.write_all(said.as_bytes()).unwrap();
    for expected in [
        format!("POST http://far.test/a {host}Content-Length: 5\r\n\r\nGET /"),
        format!("GET http://far.test/b?c=http://d/ {host}\r\n"),
        format!("OPTIONS http://far.test {host}\r\n"),
        format!("GET http://far.test:80/e {host}\r\n"),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", expected.len());
        let mut answer = vec![0; head.len() + expected.len()];
        guest.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), head + &expected);
    }
    guest
        .write_all(b"GET http://other.test/ HTTP/1.1\r\nHost: far.test\r\n\r\n")
        .unwrap();
    machine.told_refused(Reason::OtherHost);
    assert_eq!(proxy.came(), 1);
}

/// Its answer to a request could show the login to the guest; that to CONNECT is ours alone.
#[test]
fn a_proxys_login_goes_with_nothing_but_a_tunnel() {
    let proxy = proxy_for_443();
    let mut machine = Machine::start(&through(
        &format!("http://user:secret@127.0.0.1:{}", proxy.port),
        &[],
    ));
    assert_eq!(machine.refused(name("far.test"), 80), Reason::ProxyTunnel);
}

#[test]
fn no_proxy_is_gone_around() {
    let server = Server::start(echo);
    let (proxy, _) = http_proxy("HTTP/1.1 200 OK\r\n\r\n");
    let mut machine = Machine::start(&through(
        &format!("http://127.0.0.1:{}", proxy.port),
        &["direct.test", "127.0.0.0/8"],
    ));
    says_back(&mut machine, "direct.test", server.port);
    machine.open(address("127.0.0.1"), server.port).unwrap();
    assert_eq!((proxy.came(), server.came()), (0, 2));
}

#[test]
fn an_address_or_a_name_that_is_special_is_refused_before_the_proxy() {
    let (proxy, _) = http_proxy("HTTP/1.1 200 OK\r\n\r\n");
    let mut config = through(&format!("http://127.0.0.1:{}", proxy.port), &[]);
    config.policy.rules.extend(crate::machine::allow(&["*"]).rules);
    config
        .resolver
        .hosts
        .push(("192.168.1.1".parse().unwrap(), vec!["router.test".to_owned()]));
    let mut machine = Machine::start(&config);
    assert_eq!(machine.refused(address("169.254.169.254"), 80), Reason::Metadata);
    assert_eq!(machine.refused(name("localhost"), 80), Reason::Loopback);
    assert_eq!(machine.refused(name("a.localhost"), 80), Reason::Loopback);
    assert_eq!(
        machine.refused(name("metadata.google.internal"), 80),
        Reason::Metadata
    );
    assert_eq!(machine.refused(name("router.test"), 80), Reason::Private);
    assert_eq!(proxy.came(), 0);
}

#[derive(Clone, Copy)]
struct Socks {
    method: u8,
    login: u8,
    reply: u8,
}

fn socks_proxy(answers: Socks) -> (Server, Heard) {
    let heard = Heard::default();
    let log = Arc::clone(&heard);
    let server = Server::start(move |stream: TcpStream| {
        let _ = socks(stream, answers, &log);
    });
    (server, heard)
}

fn socks(mut stream: TcpStream, answers: Socks, log: &Heard) -> std::io::Result<()> {
    let read = |stream: &mut TcpStream, len: u8| {
        let mut bytes = vec![0; usize::from(len)];
        stream.read_exact(&mut bytes).map(|()| bytes)
    };
    let greeting = read(&mut stream, 2)?;
    read(&mut stream, greeting[1])?;
    stream.write_all(&[5, answers.method])?;
    if answers.method == 2 {
        let user = read(&mut stream, 2)?[1];
        let user = read(&mut stream, user)?;
        let password = read(&mut stream, 1)?[0];
        let password = read(&mut stream, password)?;
        let login = [user, password].map(|text| String::from_utf8(text).unwrap());
        log.lock().unwrap().push(login.join(":"));
        stream.write_all(&[1, answers.login])?;
    }
    let head = read(&mut stream, 5)?;
    assert_eq!(head[..4], [5, 1, 0, 3], "the name goes to the proxy");
    let host = String::from_utf8(read(&mut stream, head[4])?).unwrap();
    let port = read(&mut stream, 2)?;
    let port = u16::from_be_bytes([port[0], port[1]]);
    log.lock().unwrap().push(format!("{host}:{port}"));
    stream.write_all(&[5, answers.reply, 0, 1, 0, 0, 0, 0, 0, 0])?;
    echo(stream);
    Ok(())
}

#[test]
fn a_socks_proxy_is_asked_for_the_name() {
    let yes = Socks {
        method: 0,
        login: 0,
        reply: 0,
    };
    for scheme in ["socks5", "socks5h"] {
        let (proxy, heard) = socks_proxy(yes);
        let mut machine = Machine::start(&through(&format!("{scheme}://127.0.0.1:{}", proxy.port), &[]));
        says_back(&mut machine, "far.test", 8080);
        assert_eq!(*heard.lock().unwrap(), ["far.test:8080"]);
    }
    let (proxy, heard) = socks_proxy(Socks { method: 2, ..yes });
    let mut machine = Machine::start(&through(
        &format!("socks5://user:secret@127.0.0.1:{}", proxy.port),
        &[],
    ));
    says_back(&mut machine, "far.test", 8080);
    assert_eq!(*heard.lock().unwrap(), ["user:secret", "far.test:8080"]);
}

#[test]
fn a_socks_proxy_that_refuses_is_told_as_what_it_says() {
    let yes = Socks {
        method: 0,
        login: 0,
        reply: 0,
    };
    for (answers, reason) in [
        (Socks { reply: 1, ..yes }, Reason::Proxy),
        (Socks { reply: 4, ..yes }, Reason::Unreachable),
        (Socks { reply: 5, ..yes }, Reason::ConnectionRefused),
        (Socks { method: 255, ..yes }, Reason::Proxy),
        (
            Socks {
                method: 2,
                login: 1,
                ..yes
            },
            Reason::Proxy,
        ),
    ] {
        let (proxy, _) = socks_proxy(answers);
        let mut machine = Machine::start(&through(
            &format!("socks5://user:secret@127.0.0.1:{}", proxy.port),
            &[],
        ));
        assert_eq!(machine.refused(name("far.test"), 443), reason);
    }
}
