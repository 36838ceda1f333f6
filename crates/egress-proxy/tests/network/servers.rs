//! Servers on the test's host.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use crate::world::{PATIENCE, SERVER};

/// Each connection in a thread of its own. Without a host in the address: at [`SERVER`].
pub(crate) fn serve(port: u16, server: impl Fn(TcpStream) + Send + Sync + 'static) {
    serve_at(format!("{SERVER}:{port}").parse().unwrap(), server);
}

pub(crate) fn serve_at(address: SocketAddr, server: impl Fn(TcpStream) + Send + Sync + 'static) {
    let listener = TcpListener::bind(address).unwrap();
    let server = Arc::new(server);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let server = Arc::clone(&server);
            thread::spawn(move || server(stream.unwrap()));
        }
    });
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

/// Keeps what it hears, and answers the first piece of it.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    pub(crate) fn serve(&self, port: u16, answer: &'static [u8]) {
        let heard = Arc::clone(&self.0);
        serve(port, move |mut stream| {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                heard.lock().unwrap().extend(&buffer[..count]);
                let _ = stream.write_all(answer);
            }
        });
    }

    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// HTTP/1 on 80, and HTTP/1 and HTTP/2 over TLS on 443, with a certificate for `good.test`.
pub(crate) struct Web {
    child: Child,
    pub(crate) dir: tempfile::TempDir,
}

impl Web {
    /// `None`, and the reason printed, where there is nothing to make it of.
    pub(crate) fn start() -> Option<Self> {
        for (tool, version) in [
            ("node", "--version"),
            ("openssl", "version"),
            ("curl", "--version"),
        ] {
            if Command::new(tool).arg(version).output().is_err() {
                skipped::because(format_args!("{tool} is not installed"));
                return None;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        certificates(dir.path());
        let script = dir.path().join("web.js");
        fs::write(&script, include_str!("web.js")).unwrap();
        fs::create_dir(dir.path().join("www")).unwrap();
        let child = Command::new("node")
            .arg(script)
            .arg(dir.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let web = Web { child, dir };
        await_port(80);
        await_port(443);
        Some(web)
    }

    /// Arguments for curl and git's own name of the authority.
    pub(crate) fn authority(&self) -> String {
        self.dir.path().join("ca.pem").display().to_string()
    }

    pub(crate) fn www(&self) -> String {
        self.dir.path().join("www").display().to_string()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn certificates(dir: &Path) {
    let script = "
        curve='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $curve -keyout ca.key -out ca.pem -subj /CN=authority -days 2
        openssl req $curve -keyout key.pem -out request.pem -subj /CN=good.test
        printf 'subjectAltName=DNS:good.test,DNS:*.good.test' >names
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile names";
    let made = Command::new("sh")
        .args(["-ec", script])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn await_port(port: u16) {
    let started = Instant::now();
    while TcpStream::connect((SERVER, port)).is_err() {
        assert!(started.elapsed() < PATIENCE, "the server does not start");
        thread::sleep(std::time::Duration::from_millis(20));
    }
}
