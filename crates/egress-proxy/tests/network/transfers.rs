//! Much, both ways, without loss. `COFFER_TRANSFER_MIB` says how much; a gibibyte is what is promised.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::mpsc,
    thread,
};

use crate::{
    servers::serve,
    world::{Egress, PATIENCE, as_guest, config, enter_a_host},
};

const BLOCK: usize = 1 << 20;
const PORT: u16 = 5000;

fn mebibytes() -> u64 {
    let given = std::env::var("COFFER_TRANSFER_MIB").ok();
    given.map_or(256, |text| text.parse().expect("COFFER_TRANSFER_MIB"))
}

/// Never the same for two places of the stream.
fn block(number: u64) -> Vec<u8> {
    let first = number * (BLOCK as u64 / 8);
    let words = first..first + BLOCK as u64 / 8;
    words
        .flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect()
}

fn send(mut stream: &TcpStream) {
    for number in 0..mebibytes() {
        stream.write_all(&block(number)).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

fn receive(mut stream: &TcpStream) {
    let mut heard = vec![0; BLOCK];
    for number in 0..mebibytes() {
        stream.read_exact(&mut heard).unwrap();
        assert!(heard == block(number), "block {number}");
    }
    assert_eq!(stream.read(&mut heard).unwrap(), 0, "more than was sent");
}

fn transfer(server: impl Fn(&TcpStream) + Send + Sync + 'static, guest: impl FnOnce(&TcpStream) + Send) {
    if !enter_a_host() {
        return;
    }
    let (sender, done) = mpsc::channel();
    serve(PORT, move |stream| {
        server(&stream);
        sender.send(()).unwrap();
    });
    let (_egress, link) = Egress::start(&config(&["good.test"], &["good.test"]));
    as_guest(link, move || {
        let stream = TcpStream::connect(("good.test", PORT)).unwrap();
        guest(&stream);
        done.recv_timeout(PATIENCE).expect("the server heard all");
    });
}

#[test]
fn a_download_is_whole() {
    transfer(send, receive);
}

#[test]
fn an_upload_is_whole() {
    transfer(receive, send);
}

#[test]
fn both_ways_at_once_are_whole() {
    let both = |stream: &TcpStream| {
        thread::scope(|scope| {
            scope.spawn(|| send(stream));
            receive(stream);
        });
    };
    transfer(both, both);
}
