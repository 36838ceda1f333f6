//! A tunnel through an HTTP proxy (RFC 9110, CONNECT).

use egress_policy::{Reason, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::place::Login;
use crate::limits::MAX_PROXY_HEAD;

/// Returns what came behind the proxy's answer, which is the server's.
pub(super) async fn tunnel(
    stream: &mut TcpStream,
    login: Option<&Login>,
    target: &Target,
    port: u16,
) -> Result<Vec<u8>, Reason> {
    let request = request(login, target, port);
    stream.write_all(&request).await.map_err(|_| Reason::Proxy)?;
    let mut read = Vec::new();
    loop {
        let more = stream.read_buf(&mut read).await.map_err(|_| Reason::Proxy)?;
        match answer(&read) {
            Answer::Yes(behind) => return Ok(read.split_off(behind)),
            Answer::Interim(behind) => drop(read.drain(..behind)),
            Answer::No(reason) => return Err(reason),
            Answer::Unfinished if more == 0 || read.len() > MAX_PROXY_HEAD => return Err(Reason::Proxy),
            Answer::Unfinished => {}
        }
    }
}

fn request(login: Option<&Login>, target: &Target, port: u16) -> Vec<u8> {
    let place = match target {
        Target::Address(std::net::IpAddr::V6(address)) => format!("[{address}]:{port}"),
        target => format!("{target}:{port}"),
    };
    let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
    if let Some(login) = login {
        let plain = [&login.user[..], b":", &login.password].concat();
        request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", base64(&plain)));
    }
    request.push_str("\r\n");
    request.into_bytes()
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The tunnel stands; what is behind so many bytes went through it.
    Yes(usize),
    /// Another answer follows behind so many bytes.
    Interim(usize),
    No(Reason),
    Unfinished,
}

fn answer(read: &[u8]) -> Answer {
    const START: &[u8] = b"HTTP/1.";
    let common = START.len().min(read.len());
    if read.get(..common) != START.get(..common) {
        return Answer::No(Reason::Proxy);
    }
    let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Answer::Unfinished;
    };
    let behind = end + 4;
    // `HTTP/1.x ` and three digits.
    let code = read.get(8..13).unwrap_or_default();
    match code {
        [b' ', first, second, third, b' ' | b'\r']
            if [first, second, third].into_iter().all(u8::is_ascii_digit) =>
        {
            match [first, second, third] {
                [b'1', ..] => Answer::Interim(behind),
                [b'2', ..] => Answer::Yes(behind),
                // What squid, tinyproxy with `ConnectPort` and others say to a port they make no tunnel to.
                [b'4', b'0', b'3' | b'5'] => Answer::No(Reason::ProxyTunnel),
                _ => Answer::No(Reason::Proxy),
            }
        }
        _ => Answer::No(Reason::Proxy),
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for piece in bytes.chunks(3) {
        let whole = piece
            .iter()
            .zip([16, 8, 0])
            .fold(0_u32, |whole, (byte, shift)| whole | u32::from(*byte) << shift);
        for place in 0..4 {
            let digit = DIGITS[(whole >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= piece.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_what_everybody_else_makes_of_it() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("user:pass", "dXNlcjpwYXNz"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0"), Answer::Yes(19));
        assert_eq!(answer(b"HTTP/1.0 200\r\n\r\n"), Answer::Yes(16));
        assert_eq!(answer(b"HTTP/1.1 100 Continue\r\n\r\n"), Answer::Interim(25));
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\n"), Answer::Unfinished);
        assert_eq!(answer(b"HT"), Answer::Unfinished);
        for no in [
            &b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..],
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 2\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
            b"\0\0",
            b"SSH-2.0",
        ] {
            assert_eq!(answer(no), Answer::No(Reason::Proxy));
        }
        for no in [
            &b"HTTP/1.1 403 Forbidden\r\n\r\n"[..],
            b"HTTP/1.0 405 Method Not Allowed\r\n\r\n",
        ] {
            assert_eq!(answer(no), Answer::No(Reason::ProxyTunnel));
        }
    }
}
