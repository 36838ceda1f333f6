//! A tunnel through a SOCKS proxy (RFC 1928, RFC 1929). The name goes to the proxy.

use std::net::IpAddr;

use egress_policy::{Reason, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::place::Login;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const V4: u8 = 1;
const NAME: u8 = 3;
const V6: u8 = 4;

/// Reads no byte more than the proxy's own.
pub(super) async fn tunnel(
    stream: &mut TcpStream,
    login: Option<&Login>,
    target: &Target,
    port: u16,
) -> Result<(), Reason> {
    greet(stream, login).await?;
    write(stream, &request(target, port)?).await?;
    let [version, reply, _, kind] = read::<4>(stream).await?;
    if version != VERSION {
        return Err(Reason::Proxy);
    }
    refused(reply)?;
    let rest = match kind {
        V4 => 4,
        V6 => 16,
        NAME => usize::from(read::<1>(stream).await?[0]),
        _ => return Err(Reason::Proxy),
    };
    // Where the proxy connects from, and its port: of no use.
    let mut bound = vec![0; rest + 2];
    stream.read_exact(&mut bound).await.map_err(|_| Reason::Proxy)?;
    Ok(())
}

async fn greet(stream: &mut TcpStream, login: Option<&Login>) -> Result<(), Reason> {
    match login {
        None => write(stream, &[VERSION, 1, NO_LOGIN]).await?,
        Some(_) => write(stream, &[VERSION, 2, NO_LOGIN, PASSWORD]).await?,
    }
    match (read::<2>(stream).await?, login) {
        ([VERSION, NO_LOGIN], _) => Ok(()),
        ([VERSION, PASSWORD], Some(login)) => log_in(stream, login).await,
        _ => Err(Reason::Proxy),
    }
}

async fn log_in(stream: &mut TcpStream, login: &Login) -> Result<(), Reason> {
    let len = |text: &[u8]| u8::try_from(text.len()).map_err(|_| Reason::Proxy);
    let (user, password) = (&login.user[..], &login.password[..]);
    let request = [&[1, len(user)?], user, &[len(password)?], password].concat();
    write(stream, &request).await?;
    match read::<2>(stream).await? {
        [1, 0] => Ok(()),
        _ => Err(Reason::Proxy),
    }
}

fn request(target: &Target, port: u16) -> Result<Vec<u8>, Reason> {
    let mut request = vec![VERSION, CONNECT, 0];
    match target {
        Target::Address(IpAddr::V4(address)) => {
            request.push(V4);
            request.extend(address.octets());
        }
        Target::Address(IpAddr::V6(address)) => {
            request.push(V6);
            request.extend(address.octets());
        }
        Target::Name(name) => {
            let name = name.as_str().as_bytes();
            request.push(NAME);
            request.push(u8::try_from(name.len()).map_err(|_| Reason::Proxy)?);
            request.extend(name);
        }
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

fn refused(reply: u8) -> Result<(), Reason> {
    match reply {
        0 => Ok(()),
        3 | 4 => Err(Reason::Unreachable),
        5 => Err(Reason::ConnectionRefused),
        6 => Err(Reason::TimedOut),
        _ => Err(Reason::Proxy),
    }
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), Reason> {
    stream.write_all(bytes).await.map_err(|_| Reason::Proxy)
}

async fn read<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N], Reason> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(|_| Reason::Proxy)?;
    Ok(bytes)
}
