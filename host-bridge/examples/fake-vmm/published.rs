//! Servers in the "guest", each known by its port.

use std::os::unix::net::UnixStream;

use agent_protocol::{Channel, Failure, FailureKind, Reply};

use crate::{Machine, receive_frame, send, send_data};

/// Nobody listens there.
const NOBODY: u16 = 1;
/// Says something, ends its side, and then hears the rest; what it heard is in the file `heard`.
const FIRST_TO_END: u16 = 2;
/// The agent breaks the protocol.
const NONSENSE: u16 = 3;
/// The agent goes away in the middle of a frame.
const CUT_SHORT: u16 = 4;
/// Says more than anybody reads, and never ends.
const ENDLESS: u16 = 5;

/// Any other port is an echo.
pub(crate) fn serve(machine: &Machine, port: u16, stream: &mut UnixStream) {
    if port == NOBODY {
        let failure = Failure {
            kind: FailureKind::NotFound,
            message: "nothing listens".into(),
        };
        return send(stream, &Reply::Failed(failure));
    }
    send(stream, &Reply::Started { pid: 0 });
    match port {
        FIRST_TO_END => first_to_end(machine, stream),
        NONSENSE => return drop(send_data(stream, Channel::Stderr, b"none of this")),
        CUT_SHORT => return cut_short(stream),
        ENDLESS => while send_data(stream, Channel::Stdout, &[b'x'; 65_536]).is_ok() {},
        _ => echo(stream),
    }
    send(stream, &Reply::Done);
    // The host closes first.
    while receive_frame(stream).is_some() {}
}

fn echo(stream: &mut UnixStream) {
    while let Some((Channel::Stdin, data)) = receive_frame(stream) {
        // An empty one is the end, here as there.
        if send_data(stream, Channel::Stdout, &data).is_err() || data.is_empty() {
            return;
        }
    }
}

fn first_to_end(machine: &Machine, stream: &mut UnixStream) {
    for said in [&b"bye"[..], b""] {
        let _ = send_data(stream, Channel::Stdout, said);
    }
    let mut heard = Vec::new();
    while let Some((Channel::Stdin, data)) = receive_frame(stream) {
        if data.is_empty() {
            std::fs::write(machine.home.join("heard"), &heard).unwrap();
            return;
        }
        heard.extend(data);
    }
}

fn cut_short(stream: &mut UnixStream) {
    use std::io::Write;
    let frame = agent_protocol::encode_frame(Channel::Stdout, b"all of it");
    let _ = stream.write_all(&frame[..frame.len() - 3]);
}
