//! One connection, from its client to the stream that the guest dialed for it.
//!
//! Each direction ends on its own. What one side does not take is not read from the other: there is one buffer each way.

use std::{future, io};

use agent_protocol::{Channel, Header, Limit, MAX_DATA, Reply, Request, decode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream, UnixStream,
        tcp::{ReadHalf, WriteHalf},
        unix,
    },
};

use crate::{
    Error, Result,
    agent::{Link, frames::read_message},
    error::Context,
};

/// For each direction of each connection.
const BUFFER: usize = 32 * 1024;
const _: () = assert!(BUFFER <= MAX_DATA);

const CLIENT: &str = "client of a published port is gone";
const GUEST: &str = "stream of the sandbox cannot be used";

/// A connection to a server in the guest; an error when there is none.
pub(super) async fn dial(link: &Link, port: u16) -> Result<UnixStream> {
    let operation = link.start(Request::Connect { port }).await?;
    let stream = std::os::unix::net::UnixStream::from(operation.into_fd());
    stream.set_nonblocking(true).act(GUEST)?;
    let mut stream = UnixStream::from_std(stream).act(GUEST)?;
    match read_message(&mut stream, Limit::ToHost).await? {
        Reply::Started { .. } => Ok(stream),
        // Its words are for nobody: a client hears of a port without a server in one way.
        _ => Err(Error::Unexpected {
            what: "no connection to a server",
        }),
    }
}

/// Returns when both directions have ended in order.
pub(super) async fn both_ways(mut client: TcpStream, mut stream: UnixStream) -> Result<TcpStream> {
    // What comes is on its way already; waiting for more of it would only be late.
    client.set_nodelay(true).act(CLIENT)?;
    {
        let (from_client, to_client) = client.split();
        let (from_guest, to_guest) = stream.split();
        let up = async {
            up(from_client, to_guest).await?;
            // The guest has the last word.
            future::pending::<Result<()>>().await
        };
        tokio::select! {
            ended = up => ended,
            ended = down(from_guest, to_client) => ended,
        }?;
    }
    Ok(client)
}

/// An error when the client is gone, and only then: a guest that takes no more may have said things still to be read.
async fn up(mut client: ReadHalf<'_>, mut guest: unix::WriteHalf<'_>) -> Result<()> {
    let mut frame = vec![0; Header::SIZE + BUFFER];
    loop {
        let len = client.read(&mut frame[Header::SIZE..]).await.act(CLIENT)?;
        frame[..Header::SIZE].copy_from_slice(&Header::data(Channel::Stdin, len));
        // Without a byte in it, it is the end of input.
        let sent = guest.write_all(&frame[..Header::SIZE + len]).await;
        if len == 0 || sent.is_err() {
            return Ok(());
        }
    }
}

async fn down(mut guest: unix::ReadHalf<'_>, mut client: WriteHalf<'_>) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut ended = false;
    loop {
        let mut head = [0; Header::SIZE];
        guest.read_exact(&mut head).await.act(GUEST)?;
        let header = Header::parse(head, Limit::ToHost)?;
        match header.channel() {
            Channel::Stdout if header.is_empty() && !ended => {
                ended = true;
                client.shutdown().await.act(CLIENT)?;
            }
            Channel::Stdout if !ended => pass_on(&mut guest, &mut client, header.len(), &mut buffer).await?,
            Channel::Message => return last_word(&mut guest, header).await,
            _ => {
                return Err(Error::Unexpected {
                    what: "data where none belongs",
                });
            }
        }
    }
}

/// The payload of a frame, which may be longer than the buffer.
async fn pass_on(
    guest: &mut unix::ReadHalf<'_>,
    client: &mut WriteHalf<'_>,
    len: usize,
    buffer: &mut [u8],
) -> Result<()> {
    let mut left = len;
    while left > 0 {
        let room = left.min(buffer.len());
        let read = guest.read(&mut buffer[..room]).await.act(GUEST)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).act(GUEST);
        }
        client.write_all(&buffer[..read]).await.act(CLIENT)?;
        left -= read;
    }
    Ok(())
}

async fn last_word(guest: &mut unix::ReadHalf<'_>, header: Header) -> Result<()> {
    let mut payload = vec![0; header.len()];
    guest.read_exact(&mut payload).await.act(GUEST)?;
    match decode(&payload)? {
        Reply::Done => Ok(()),
        _ => Err(Error::Unexpected {
            what: "a reply to another question",
        }),
    }
}
