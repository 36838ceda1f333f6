//! The control socket: a line of JSON asks, a line of JSON answers.

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use vmm_api::{MAX_LINE, Request, Response};

/// A supervisor, a CLI that looks, and then some.
const MAX_CONNECTIONS: usize = 16;
/// How long to let be when there is no descriptor for a new connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// An answer is a few hundred bytes; who does not take it by then is not listening.
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
    input: Vec<u8>,
}

impl Connection {
    /// Answers the requests that have arrived whole. False when the connection is over.
    pub(crate) fn serve(&mut self, mut answer: impl FnMut(Request) -> Response) -> bool {
        let mut chunk = [0; 4096];
        let open = match self.stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(n) => {
                self.input.extend_from_slice(&chunk[..n]);
                true
            }
            Err(error) => matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ),
        };
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let response = match serde_json::from_slice(&line) {
                Ok(request) => answer(request),
                Err(error) => Response::Refused {
                    why: format!("not a request: {error}"),
                },
            };
            if self.send(&response).is_err() {
                return false;
            }
        }
        open && self.input.len() < MAX_LINE
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
    use std::io::{BufRead, BufReader};

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
        assert!(connection.serve(|request| {
            asked.push(request);
            Response::Done
        }));
        client.write_all(b"ume\"}\nnonsense\n").unwrap();
        assert!(connection.serve(|request| {
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

    #[test]
    fn a_line_without_end_ends_the_connection() {
        let (_folder, _socket, mut client, mut connection) = pair();
        let mut open = true;
        for _ in 0..2 * MAX_LINE / 4096 {
            client.write_all(&[b'x'; 4096]).unwrap();
            open = open && connection.serve(|_| Response::Done);
        }
        assert!(!open);
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
