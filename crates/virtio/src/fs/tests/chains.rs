//! Requests in every shape a driver can give them.

use std::io::{Read, Seek, Write};

use proptest::prelude::*;

use super::*;
use crate::testing::hostile;

/// Bytes of guest memory cut into pieces of these sizes, over and over.
fn cut(at: u64, len: usize, sizes: &[usize], piece: fn(u64, u32) -> Piece) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut done = 0;
    for size in sizes.iter().cycle() {
        if done == len {
            break;
        }
        let step = (*size).min(len - done);
        pieces.push(piece(at + done as u64, step as u32));
        done += step;
    }
    pieces
}

#[test]
fn pieces_may_be_cut_anywhere() {
    for sizes in [&[1][..], &[3, 1], &[39, 2], &[41], &[7, 1, 13]] {
        let mut fixture = Fixture::new(None);
        let len = put_request(&fixture.memory, REQUEST, GETATTR, 9, &[0; 16]) as usize;
        let mut pieces = cut(REQUEST, len, sizes, readable);
        pieces.extend(cut(REPLY, ATTRIBUTES_REPLY as usize, sizes, writable));
        let head = fixture.requests.offer(&pieces);
        fixture.bell.rung(1);
        assert_eq!(
            fixture.requests.used(),
            Some((head, ATTRIBUTES_REPLY)),
            "{sizes:?}"
        );
        assert_eq!(fixture.error(), 0, "{sizes:?}");
    }
}

/// More pieces than one system call is given, with offsets that no piece begins at.
#[test]
fn data_goes_to_and_from_files_in_any_number_of_pieces() {
    let content: Vec<u8> = (0..5000u32).flat_map(u32::to_le_bytes).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let mut fixture = Fixture::new(Some(file.try_clone().unwrap()));
    let size = 3000u32;

    let len = put_request(&fixture.memory, REQUEST, READ, 9, &transfer(101, size, 0)) as usize;
    let mut pieces = vec![readable(REQUEST, len as u32), writable(REPLY, 16)];
    pieces.extend(cut(DATA, size as usize, &[5, 1, 9], writable));
    assert!(pieces.len() > 512);
    fixture.requests.offer(&pieces);
    fixture.bell.rung(1);
    assert_eq!(fixture.answer().1, 16 + size);
    assert_eq!(
        fixture.bytes(DATA, size as usize),
        content[101..101 + size as usize]
    );

    let len = put_request(&fixture.memory, REQUEST, WRITE_DATA, 9, &transfer(7, size, 0)) as usize;
    let total = (len as u32 + size).to_le_bytes();
    fixture.memory.write_slice(&total, GuestAddress(REQUEST)).unwrap();
    let mut pieces = vec![readable(REQUEST, len as u32)];
    pieces.extend(cut(DATA, size as usize, &[5, 1, 9], readable));
    pieces.push(writable(REPLY, 24));
    fixture.requests.offer(&pieces);
    fixture.bell.rung(1);
    assert_eq!((fixture.answer().1, fixture.error()), (24, 0));
    assert_eq!(
        fixture.memory.read_obj::<u32>(GuestAddress(REPLY + 16)).unwrap(),
        size
    );
    let mut after = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut after).unwrap();
    assert_eq!(after[7..7 + size as usize], content[101..101 + size as usize]);
    assert_eq!(after.len(), content.len());
}

#[test]
fn a_read_at_the_end_of_a_file_is_as_long_as_what_was_left() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123456789").unwrap();
    let mut fixture = Fixture::new(Some(file));
    let (len, error) = fixture.ask(READ, 9, &transfer(6, 4096, 0), 16 + 4096);
    assert_eq!((len, error), (16 + 4, 0));
    assert_eq!(fixture.bytes(REPLY + 16, 4), b"6789");
}

#[test]
fn an_appending_write_goes_to_the_end_wherever_the_guest_thinks_that_is() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"host wrote this; ").unwrap();
    let mut fixture = Fixture::new(Some(file.reopen().unwrap()));
    let append = 0o2000;
    let mut body = transfer(3, 5, append);
    body.extend(b"guest");
    assert_eq!(fixture.ask(WRITE_DATA, 9, &body, 64), (24, 0));
    assert_eq!(std::fs::read(file.path()).unwrap(), b"host wrote this; guest");
}

#[test]
fn a_request_that_makes_no_sense_is_answered_as_well_as_its_room_allows() {
    let mut fixture = Fixture::new(None);
    assert_eq!(
        fixture.ask(GETATTR, 9, &[0; 16], 119),
        (16, EIO),
        "no room for attributes"
    );
    assert_eq!(
        fixture.ask(GETATTR, 9, &[0; 15], 512),
        (16, EINVAL),
        "body too short"
    );
    assert_eq!(fixture.ask(GETATTR, 9, &[0; 16], 15).0, 0, "no room for a header");
    for len in [0, 1, 39] {
        let mut pieces = vec![writable(REPLY, 512)];
        if len > 0 {
            pieces.insert(0, readable(REQUEST, len));
        }
        fixture.requests.offer(&pieces);
        fixture.bell.rung(1);
        assert_eq!(fixture.answer().1, 0, "{len} bytes are no request");
    }
    let (len, error) = fixture.ask(GETATTR, 9, &[0; 16], 512);
    assert_eq!((len, error), (ATTRIBUTES_REPLY, 0), "and the device goes on");
}

#[test]
fn a_ring_that_breaks_the_rules_is_left_alone_and_the_others_are_not() {
    let mut fixture = Fixture::new(None);
    fixture.hiprio.offer(&[readable(RAM as u64, 40)]);
    fixture.bell.rung(0);
    assert_eq!(fixture.hiprio.used(), None);
    let len = put_request(&fixture.memory, REQUEST, FORGET, 9, &1u64.to_le_bytes());
    fixture.hiprio.offer(&[readable(REQUEST, len)]);
    fixture.bell.rung(0);
    assert_eq!(fixture.hiprio.used(), None, "broken until a reset");
    assert_eq!(fixture.ask(GETATTR, 9, &[0; 16], 512).1, 0);
}

#[test]
fn the_same_chain_offered_twice_is_answered_twice() {
    let mut fixture = Fixture::new(None);
    let head = fixture.offer(GETATTR, 9, &[0; 16], 512);
    fixture.requests.offer_head(head);
    fixture.bell.rung(1);
    assert_eq!(fixture.answer().0, head);
    assert_eq!(fixture.answer().0, head);
}

/// Requests as a hostile driver might write them: right in some places.
fn requests() -> impl Strategy<Value = Vec<(u32, u32, u64)>> {
    let len = prop_oneof![3 => Just(56), 1 => 0..64u32, 1 => any::<u32>()];
    let opcode = prop_oneof![9 => 0..60u32, 1 => any::<u32>()];
    let node =
        prop_oneof![4 => 0..4u64, 1 => any::<u64>()].prop_filter("that one hangs", |node| *node != STUCK);
    prop::collection::vec((len, opcode, node), 8)
}

proptest! {
    #[test]
    fn no_ring_breaks_more_than_itself(ring in hostile::ring(), requests in requests()) {
        let memory = guest_memory(hostile::RAM);
        let driver = ring.lay_out(&memory);
        for (slot, (len, opcode, node)) in (0..).zip(&requests) {
            let mut bytes = request(*opcode, *node, &[0; 16]);
            bytes[..4].copy_from_slice(&len.to_le_bytes());
            memory.write_slice(&bytes, GuestAddress(hostile::REQUESTS + slot * 64)).unwrap();
        }
        let mut device = Fs::new(pond(None), 1);
        let bell = device.ring().unwrap();
        // Both ends of the same rings: two queues in the same memory are a driver's mistake too.
        let queues = vec![driver.device(), driver.device()];
        activate(&mut device, &memory, queues).unwrap();
        for queue in [1, 0, 1] {
            bell.rung(queue);
        }
        device.reset();
    }
}
