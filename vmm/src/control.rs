//! The control socket: a line of JSON asks, a line of JSON answers. One descriptor may come with a line.

use std::{
    fs,
    io::{self, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recv, recvmsg};
use vmm_api::{MAX_LINE, Request, Response};

/// A supervisor, a CLI that looks, and then some.
const MAX_CONNECTIONS: usize = 16;
/// How long to let be when there is no descriptor for a new connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// What is read at once.
const CHUNK: usize = 4096;
/// Chunks before other connections have their turn.
const CHUNKS_PER_TURN: usize = 64;
/// An answer is a few hundred bytes, or some kilobytes about folders; who does not take it by then is not listening.
const WRITE_DEADLINE: Duration = Duration::from_millis(100);

/// Listens, and removes its socket when dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Only the owner may connect; what is there already is left alone and is an error.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let socket = ControlSocket {
            listener,
            path: path.into(),
        };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        socket.listener.set_nonblocking(true)?;
        Ok(socket)
    }

    /// The next connection of our own user, if there is one and `open` leaves room for it.
    pub(crate) fn accept(&self, open: usize) -> Option<Connection> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Without a descriptor to spare the caller stays in the queue and would be seen again at once.
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                    std::thread::sleep(ACCEPT_AGAIN);
                }
                return None;
            }
        };
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
        if peer.uid != rustix::process::geteuid() || open >= MAX_CONNECTIONS {
            return None;
        }
        stream.set_nonblocking(true).ok()?;
        stream.set_write_timeout(Some(WRITE_DEADLINE)).ok()?;
        Some(Connection {
            stream,
            input: Vec::new(),
            descriptor: None,
        })
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    /// The beginning of a line, and what came with it.
    input: Vec<u8>,
    descriptor: Option<OwnedFd>,
}

/// What a look at the stream brought.
enum Received {
    Line,
    PartOfLine,
    Nothing,
    End,
}

impl Connection {
    /// Answers the requests that have arrived whole. A descriptor belongs to the line with which it came, and is
    /// closed with it if nobody takes it. False when the connection is over.
    pub(crate) fn serve(&mut self, mut answer: impl FnMut(Request, Option<OwnedFd>) -> Response) -> bool {
        for _ in 0..CHUNKS_PER_TURN {
            match self.receive() {
                Ok(Received::Line) => {}
                Ok(Received::PartOfLine) if self.input.len() < MAX_LINE => continue,
                Ok(Received::Nothing) => return true,
                Ok(Received::PartOfLine | Received::End) | Err(_) => return false,
            }
            let line = std::mem::take(&mut self.input);
            let descriptor = self.descriptor.take();
            let response = match serde_json::from_slice(&line) {
                Ok(request) => answer(request, descriptor),
                Err(error) => Response::Refused {
                    why: format!("not a request: {error}"),
                },
            };
            if self.send(&response).is_err() {
                return false;
            }
        }
        true
    }

    /// Reads on, to the end of the line at most: what is read together with a descriptor is then of the line
    /// that the descriptor came with.
    fn receive(&mut self) -> io::Result<Received> {
        let mut chunk = [0; CHUNK];
        let seen = match recv(&self.stream, &mut chunk, RecvFlags::PEEK) {
            Ok((0, _)) => return Ok(Received::End),
            Ok((seen, _)) => seen,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Received::Nothing),
            Err(error) => return Err(error.into()),
        };
        let end = chunk.iter().take(seen).position(|byte| *byte == b'\n');
        let len = end.map_or(seen, |end| end + 1);
        let chunk = chunk.get_mut(..len).unwrap_or_default();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(chunk)];
        let read = recvmsg(&self.stream, slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                // Those for which there is no room are closed, here or by the kernel.
                descriptors.for_each(|descriptor| {
                    self.descriptor.get_or_insert(descriptor);
                });
            }
        }
        self.input
            .extend_from_slice(chunk.get(..read).unwrap_or_default());
        Ok(match self.input.last() {
            Some(b'\n') => Received::Line,
            _ => Received::PartOfLine,
        })
    }

    fn send(&mut self, response: &Response) -> io::Result<()> {
        let mut line = serde_json::to_vec(response)?;
        line.push(b'\n');
        // Blocking with a deadline: a peer that never reads loses its connection, nobody waits for it.
        self.stream.set_nonblocking(false)?;
        self.stream.write_all(&line)?;
        self.stream.set_nonblocking(true)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{BufRead, BufReader, IoSlice, Read, Seek},
    };

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;

    fn pair() -> (tempfile::TempDir, ControlSocket, UnixStream, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let socket = ControlSocket::bind(&folder.path().join("control")).unwrap();
        let client = UnixStream::connect(folder.path().join("control")).unwrap();
        let connection = socket.accept(0).unwrap();
        (folder, socket, client, connection)
    }

    #[test]
    fn requests_are_answered_in_order_even_when_they_come_in_pieces() {
        let (_folder, _socket, mut client, mut connection) = pair();
        client.write_all(b"{\"do\":\"pause\"}\n{\"do\":\"res").unwrap();
        let mut asked = Vec::new();
        assert!(connection.serve(|request, _| {
            asked.push(request);
            Response::Done
        }));
        client.write_all(b"ume\"}\nnonsense\n").unwrap();
        assert!(connection.serve(|request, _| {
            asked.push(request);
            Response::Done
        }));
        assert_eq!(asked, [Request::Pause, Request::Resume]);
        let lines: Vec<String> = BufReader::new(client)
            .lines()
            .take(3)
            .map(Result::unwrap)
            .collect();
        assert!(lines[0].contains("done") && lines[1].contains("done") && lines[2].contains("not a request"));
    }

    /// Sends `bytes`, with these files to the first of them.
    fn send_with(client: &UnixStream, bytes: &str, files: &[&File]) {
        let descriptors: Vec<BorrowedFd<'_>> = files.iter().map(|file| file.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let slices = [IoSlice::new(bytes.as_bytes())];
        let sent = rustix::net::sendmsg(client, &slices, &mut ancillary, SendFlags::empty()).unwrap();
        assert_eq!(sent, bytes.len());
    }

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }

    /// Serves once, and returns what came with each request.
    fn texts(connection: &mut Connection) -> Vec<Option<String>> {
        let mut texts = Vec::new();
        connection.serve(|_, descriptor| {
            texts.push(descriptor.map(|descriptor| {
                let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
                std::io::read_to_string(File::from(descriptor)).unwrap()
            }));
            Response::Done
        });
        texts
    }

    #[test]
    fn a_descriptor_belongs_to_the_line_it_came_with() {
        let (_folder, _socket, mut client, mut connection) = pair();
        let (one, two) = (file("one"), file("two"));
        client.write_all(b"{\"do\":\"status\"}\n").unwrap();
        send_with(&client, "{\"do\":", &[&one]);
        client.write_all(b"\"pause\"}\n").unwrap();
        send_with(&client, "{\"do\":\"resume\"}\n{\"do\":\"status\"}\n", &[&two]);
        let one_two = [None, Some("one".into()), Some("two".into()), None];
        assert_eq!(texts(&mut connection), one_two);
    }

    #[test]
    fn descriptors_that_no_request_takes_are_closed() {
        let (_folder, _socket, client, mut connection) = pair();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let writer = File::from(OwnedFd::from(writer));
        let other = file("other");
        let first = file("first");
        send_with(
            &client,
            "{\"do\":\"status\"}\n",
            &[&first, &writer, &writer, &other],
        );
        send_with(&client, "nonsense\n", &[&writer]);
        send_with(&client, "{\"do\":\"status\"}\n", &[&other]);
        assert_eq!(
            texts(&mut connection),
            [Some("first".into()), Some("other".into())]
        );
        drop(writer);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "a copy is still open");
    }

    #[test]
    fn a_line_without_end_ends_the_connection() {
        let (_folder, _socket, mut client, mut connection) = pair();
        let ended = (0..2 * MAX_LINE / CHUNK).any(|_| {
            client.write_all(&[b'x'; CHUNK]).unwrap();
            !connection.serve(|_, _| Response::Done)
        });
        assert!(ended);
    }

    #[test]
    fn a_socket_that_is_there_already_is_not_taken_over() {
        let (folder, _socket, _client, _connection) = pair();
        assert!(ControlSocket::bind(&folder.path().join("control")).is_err());
    }

    #[test]
    fn one_connection_too_many_is_closed() {
        let (folder, socket, _client, _connection) = pair();
        let _late = UnixStream::connect(folder.path().join("control")).unwrap();
        assert!(socket.accept(MAX_CONNECTIONS).is_none());
    }
}
