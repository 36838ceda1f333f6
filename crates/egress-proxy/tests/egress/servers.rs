//! Servers on loopback that count who comes.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

pub(crate) struct Server {
    address: IpAddr,
    pub(crate) port: u16,
    came: Arc<Came>,
}

#[derive(Default)]
struct Came {
    from: Mutex<Vec<SocketAddr>>,
    more: Condvar,
}

impl Server {
    /// Each connection in a thread of its own.
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Server::at(IpAddr::V4(Ipv4Addr::LOCALHOST), 0, serve)
    }

    pub(crate) fn at(address: IpAddr, port: u16, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((address, port)).unwrap();
        let came = Arc::<Came>::default();
        let server = Server {
            address,
            port: listener.local_addr().unwrap().port(),
            came: Arc::clone(&came),
        };
        let serve = Arc::new(serve);
        thread::spawn(move || {
            while let Ok((stream, from)) = listener.accept() {
                came.from.lock().unwrap().push(from);
                came.more.notify_all();
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        server
    }

    /// How many have connected until now. Who connects is counted in order, so one more tells when all are.
    pub(crate) fn came(&self) -> usize {
        let last = TcpStream::connect((self.address, self.port)).unwrap();
        let last = last.local_addr().unwrap();
        let from = self.came.from.lock().unwrap();
        let waits = |from: &mut Vec<SocketAddr>| !from.contains(&last);
        let mut from = self.came.more.wait_while(from, waits).unwrap();
        from.retain(|other| *other != last);
        from.len()
    }
}

/// Says everything back until it has heard all, then ends.
pub(crate) fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// A port on which nobody listens.
pub(crate) fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Takes connections and never says a word.
pub(crate) fn silent(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(1..) = stream.read(&mut buffer) {}
}
