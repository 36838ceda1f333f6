//! One request at a time, right and wrong.

use std::fs;

use super::*;

#[test]
fn a_read_fills_the_data_buffers_in_order() {
    let mut fixture = Fixture::new(DiskMode::ReadOnly);
    let data = [
        writable(DATA + 4096, 100),
        writable(DATA, 412),
        writable(DATA + 8192, 512),
    ];
    assert_eq!(fixture.request(VIRTIO_BLK_T_IN, 7, &data), (OK, 1025));
    assert_eq!(
        fixture.guest_bytes(DATA + 4096, 101),
        [vec![7; 100], vec![0]].concat()
    );
    assert_eq!(fixture.guest_bytes(DATA, 412), [7; 412]);
    assert_eq!(fixture.guest_bytes(DATA + 8192, 512), [8; 512]);
}

#[test]
fn a_request_may_be_split_over_descriptors_in_any_way() {
    let mut fixture = Fixture::new(DiskMode::Scratch);
    put_header(&fixture.memory, HEADER, VIRTIO_BLK_T_OUT, 3);
    fixture
        .memory
        .write_slice(&[0xaa; 512], GuestAddress(HEADER + 16))
        .unwrap();
    let header_runs_into_data = [
        readable(HEADER, 5),
        readable(HEADER + 5, 20),
        readable(HEADER + 25, 503),
        writable(STATUS, 1),
    ];
    assert_eq!(fixture.send(&header_runs_into_data), (OK, 1));
    assert_eq!(fixture.content()[3 * 512..4 * 512], [0xaa; 512]);

    put_header(&fixture.memory, HEADER, VIRTIO_BLK_T_IN, 3);
    let status_behind_data = [readable(HEADER, 16), writable(STATUS - 512, 513)];
    assert_eq!(fixture.send(&status_behind_data), (OK, 513));
    assert_eq!(fixture.guest_bytes(STATUS - 512, 512), [0xaa; 512]);
}

#[test]
fn a_request_of_the_largest_size_goes_through_whole() {
    let mut fixture = Fixture::new(DiskMode::Scratch);
    let data: Vec<_> = (0..u64::from(MAX_SEGMENTS))
        .map(|index| readable(DATA + index * 512, 512))
        .collect();
    fixture
        .memory
        .write_slice(&[0x5a; 254 * 512], GuestAddress(DATA))
        .unwrap();
    assert_eq!(fixture.request(VIRTIO_BLK_T_OUT, 1, &data), (OK, 1));
    assert_eq!(fixture.content()[512..255 * 512], [0x5a; 254 * 512]);
    assert_eq!(fixture.content()[255 * 512..], [255; 512]);
}

#[test]
fn a_read_only_disk_refuses_every_way_of_writing() {
    let mut fixture = Fixture::new(DiskMode::ReadOnly);
    let before = fixture.content();
    assert_eq!(
        fixture.request(VIRTIO_BLK_T_OUT, 0, &[readable(DATA, 512)]),
        (IOERR, 1)
    );
    assert_eq!(fixture.ranges(VIRTIO_BLK_T_DISCARD, &[(0, 8, 0)]), IOERR);
    assert_eq!(fixture.ranges(VIRTIO_BLK_T_WRITE_ZEROES, &[(0, 8, 1)]), IOERR);
    assert_eq!(fixture.request(VIRTIO_BLK_T_FLUSH, 0, &[]), (OK, 1));
    assert_eq!(fixture.content(), before);
}

#[test]
fn types_that_are_not_offered_are_said_to_be_unsupported() {
    let mut fixture = Fixture::new(DiskMode::Scratch);
    for kind in [2, 3, 9, 10, 12, 14, 15, u32::MAX] {
        assert_eq!(fixture.request(kind, 0, &[writable(DATA, 512)]), (UNSUPP, 1));
    }
}

#[test]
fn the_id_is_cut_to_the_room_there_is() {
    let mut fixture = Fixture::new(DiskMode::ReadOnly);
    assert_eq!(
        fixture.request(VIRTIO_BLK_T_GET_ID, 0, &[writable(DATA, 20)]),
        (OK, 21)
    );
    assert_eq!(fixture.guest_bytes(DATA, 8), *b"serial\0\0");
    assert_eq!(
        fixture.request(VIRTIO_BLK_T_GET_ID, 0, &[writable(DATA + 64, 3)]),
        (OK, 4)
    );
    assert_eq!(fixture.guest_bytes(DATA + 64, 4), *b"ser\0");
    assert_eq!(fixture.request(VIRTIO_BLK_T_GET_ID, 0, &[]), (OK, 1));
}

#[test]
fn data_outside_the_disk_is_refused_whatever_the_arithmetic() {
    let mut fixture = Fixture::new(DiskMode::Scratch);
    let before = fixture.content();
    for sector in [
        SECTORS,
        SECTORS - 1,
        u64::MAX,
        u64::MAX / 512,
        u64::MAX / 512 + 1,
        1 << 63,
    ] {
        for kind in [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT] {
            let data = match kind {
                VIRTIO_BLK_T_IN => writable(DATA, 1024),
                _ => readable(DATA, 1024),
            };
            assert_eq!(
                fixture.request(kind, sector, &[data]),
                (IOERR, 1),
                "sector {sector}"
            );
        }
        assert_eq!(
            fixture.ranges(VIRTIO_BLK_T_DISCARD, &[(0, 8, 0), (sector, 2, 0)]),
            IOERR
        );
        assert_eq!(
            fixture.ranges(VIRTIO_BLK_T_WRITE_ZEROES, &[(sector, 2, 0)]),
            IOERR
        );
    }
    assert_eq!(
        fixture.content(),
        before,
        "a request refused in part has done nothing"
    );
    assert_eq!(fs::metadata(fixture.file.path()).unwrap().len(), SECTORS * 512);
}

#[test]
fn data_that_is_not_whole_sectors_is_refused() {
    let mut fixture = Fixture::new(DiskMode::Scratch);
    assert_eq!(
        fixture.request(VIRTIO_BLK_T_IN, 0, &[writable(DATA, 511)]),
        (IOERR, 1)
    );
    assert_eq!(
        fixture.request(VIRTIO_BLK_T_OUT, 0, &[readable(DATA, 513)]),
        (IOERR, 1)
    );
    assert_eq!(
        fixture.request(VIRTIO_BLK_T_IN, 0, &[]),
        (OK, 1),
        "nothing is no sectors"
    );
}

#[test]
fn more_data_than_the_limits_allow_is_refused_before_it_is_touched() {
    let mut fixture = Fixture::new(DiskMode::Scratch);
    // 64 MiB, from the same 8 MiB again and again.
    let data = [writable(DATA, 8 << 20); 8];
    assert_eq!(fixture.request(VIRTIO_BLK_T_IN, 0, &data), (IOERR, 1));
    assert_eq!(fixture.guest_bytes(DATA, 4096), [0; 4096]);
}

#[test]
fn a_short_header_fails_the_request() {
    let mut fixture = Fixture::new(DiskMode::ReadOnly);
    put_header(&fixture.memory, HEADER, VIRTIO_BLK_T_FLUSH, 0);
    assert_eq!(
        fixture.send(&[readable(HEADER, 15), writable(STATUS, 1)]),
        (IOERR, 1)
    );
    assert_eq!(fixture.send(&[writable(STATUS, 1)]), (IOERR, 1));
}

#[test]
fn a_request_without_a_status_byte_is_answered_with_nothing() {
    let mut fixture = Fixture::new(DiskMode::Scratch);
    put_header(&fixture.memory, HEADER, VIRTIO_BLK_T_OUT, 0);
    let before = fixture.content();
    assert_eq!(
        fixture.send(&[readable(HEADER, 16), readable(DATA, 512)]),
        (UNTOUCHED, 0)
    );
    assert_eq!(fixture.content(), before);
}

#[test]
fn an_image_that_shrinks_while_it_is_read_fails_the_request() {
    let mut fixture = Fixture::new(DiskMode::ReadOnly);
    fixture.file.as_file().set_len(512).unwrap();
    assert_eq!(
        fixture.request(VIRTIO_BLK_T_IN, 0, &[writable(DATA, 1024)]),
        (IOERR, 1)
    );
    assert_eq!(
        fixture.request(VIRTIO_BLK_T_IN, 9, &[writable(DATA, 512)]),
        (IOERR, 1)
    );
    assert_eq!(
        fixture.request(VIRTIO_BLK_T_IN, 0, &[writable(DATA, 512)]),
        (OK, 513)
    );
}

#[test]
fn a_host_file_that_cannot_be_written_fails_the_request() {
    let mut fixture = Fixture::new(DiskMode::Scratch);
    let sealed = sealed_memory_file();
    fixture.disk = sealed;
    assert_eq!(
        fixture.request(VIRTIO_BLK_T_OUT, 0, &[readable(DATA, 512)]),
        (IOERR, 1)
    );
    assert_eq!(fixture.ranges(VIRTIO_BLK_T_WRITE_ZEROES, &[(0, 8, 0)]), IOERR);
    assert_eq!(
        fixture.request(VIRTIO_BLK_T_IN, 0, &[writable(DATA, 512)]),
        (OK, 513)
    );
}

/// A file that opens for writing and then refuses to be written, as a full or failing disk does.
fn sealed_memory_file() -> Disk {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    use std::os::fd::AsRawFd;
    let file = memfd_create("sealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, SECTORS * 512).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let disk = Disk::open(Path::new(&path), DiskMode::Scratch).unwrap();
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK).unwrap();
    disk
}

#[test]
fn discarded_space_goes_back_to_the_host() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(8 << 20).unwrap();
    file.as_file().write_all_at(&vec![0x77; 8 << 20], 0).unwrap();
    file.as_file().sync_all().unwrap();
    let full = fs::metadata(file.path()).unwrap().blocks();
    let mut fixture = Fixture::new(DiskMode::Scratch);
    fixture.disk = Disk::open(file.path(), DiskMode::Scratch).unwrap();

    assert_eq!(
        fixture.ranges(VIRTIO_BLK_T_DISCARD, &[(0, 4096, 0), (8192, 4096, 0)]),
        OK
    );
    let halved = fs::metadata(file.path()).unwrap();
    assert!(
        halved.blocks() <= full / 2 + 16,
        "{} of {full} blocks left",
        halved.blocks()
    );
    assert_eq!(halved.len(), 8 << 20);

    assert_eq!(fixture.ranges(VIRTIO_BLK_T_WRITE_ZEROES, &[(4096, 4096, 1)]), OK);
    assert!(fs::metadata(file.path()).unwrap().blocks() <= full / 4 + 16);
}

#[test]
fn a_zeroed_range_reads_as_zeros_and_its_neighbours_stay() {
    for (punches, zeroes) in [(true, true), (false, true), (true, false), (false, false)] {
        for flags in [0, 1] {
            let mut fixture = Fixture::new(DiskMode::Scratch);
            fixture.disk.pretend_support(punches, zeroes);
            assert_eq!(fixture.ranges(VIRTIO_BLK_T_WRITE_ZEROES, &[(3, 200, flags)]), OK);
            let content = fixture.content();
            assert_eq!(content[2 * 512..3 * 512], [2; 512]);
            assert_eq!(content[3 * 512..203 * 512], [0; 200 * 512]);
            assert_eq!(content[203 * 512..204 * 512], [203; 512]);
        }
    }
}

#[test]
fn a_discard_the_file_system_cannot_do_is_no_error() {
    let mut fixture = Fixture::new(DiskMode::Scratch);
    fixture.disk.pretend_support(false, false);
    let before = fixture.content();
    assert_eq!(fixture.ranges(VIRTIO_BLK_T_DISCARD, &[(0, 64, 0)]), OK);
    assert_eq!(fixture.content(), before);
}

#[test]
fn ranges_beyond_the_limits_or_with_unknown_flags_are_refused() {
    let mut fixture = Fixture::new(DiskMode::Scratch);
    let before = fixture.content();
    let discard = VIRTIO_BLK_T_DISCARD;
    assert_eq!(fixture.ranges(discard, &[]), IOERR);
    assert_eq!(
        fixture.ranges(discard, &vec![(0, 1, 0); MAX_DISCARD_RANGES as usize + 1]),
        IOERR
    );
    assert_eq!(fixture.ranges(discard, &[(0, u32::MAX, 0)]), IOERR);
    assert_eq!(fixture.ranges(discard, &[(0, 1, 1)]), UNSUPP);
    assert_eq!(fixture.request(discard, 0, &[readable(DATA, 17)]), (IOERR, 1));
    let zero = VIRTIO_BLK_T_WRITE_ZEROES;
    assert_eq!(fixture.ranges(zero, &[(0, 1, 0), (1, 1, 0)]), IOERR);
    assert_eq!(fixture.ranges(zero, &[(0, 1, 2)]), UNSUPP);
    assert_eq!(fixture.ranges(zero, &[(0, 0, 0)]), OK);
    assert_eq!(fixture.content(), before);
}
