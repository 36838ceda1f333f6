//! What may be a disk, whose it is, and what it says of itself.

use std::fs;

use super::*;

#[test]
fn a_scratch_disk_belongs_to_one_machine() {
    let file = numbered_sectors(8);
    let first = Block::open(file.path(), DiskMode::Scratch, "a").unwrap();
    for mode in [DiskMode::Scratch, DiskMode::ReadOnly] {
        let second = Block::open(file.path(), mode, "b");
        assert!(matches!(second, Err(OpenDiskError::InUse { .. })), "{mode:?}");
    }
    drop(first);
    assert!(Block::open(file.path(), DiskMode::Scratch, "b").is_ok());
}

#[test]
fn an_image_is_shared_by_readers_and_never_a_scratch_disk_meanwhile() {
    let file = numbered_sectors(8);
    let _readers = [
        Block::open(file.path(), DiskMode::ReadOnly, "a").unwrap(),
        Block::open(file.path(), DiskMode::ReadOnly, "b").unwrap(),
    ];
    let writer = Block::open(file.path(), DiskMode::Scratch, "c");
    assert!(matches!(writer, Err(OpenDiskError::InUse { .. })));
}

#[test]
fn only_regular_files_of_whole_sectors_are_disks() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| Block::open(path, DiskMode::ReadOnly, "id");
    assert!(matches!(open(folder.path()), Err(OpenDiskError::NotAFile { .. })));
    assert!(matches!(
        open(Path::new("/dev/null")),
        Err(OpenDiskError::NotAFile { .. })
    ));
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    assert!(matches!(open(&fifo), Err(OpenDiskError::NotAFile { .. })));
    assert!(matches!(
        open(&folder.path().join("none")),
        Err(OpenDiskError::Open { .. })
    ));
    for size in [0, 1, 511, 513] {
        let file = folder.path().join("odd");
        fs::write(&file, vec![0; size]).unwrap();
        assert!(
            matches!(open(&file), Err(OpenDiskError::Size { .. })),
            "{size} bytes"
        );
    }
}

#[test]
fn a_disk_id_is_short_and_printable() {
    let file = numbered_sectors(8);
    for id in ["", "a b", "ümlaut", "a-name-of-21-letters-x"] {
        let disk = Block::open(file.path(), DiskMode::ReadOnly, id);
        assert!(matches!(disk, Err(OpenDiskError::Id { .. })), "{id:?}");
    }
    assert!(Block::open(file.path(), DiskMode::ReadOnly, "exactly-20-letters-x").is_ok());
}

#[test]
fn the_configuration_says_what_the_mode_can_do() {
    let file = numbered_sectors(SECTORS);
    let word = |disk: &Block, offset| {
        let mut data = [0xff; 4];
        disk.read_config(offset, &mut data);
        u32::from_le_bytes(data)
    };
    let image = Block::open(file.path(), DiskMode::ReadOnly, "a").unwrap();
    assert_ne!(image.features() & 1 << VIRTIO_BLK_F_RO, 0);
    assert_eq!(image.features() & 1 << VIRTIO_BLK_F_DISCARD, 0);
    assert_eq!((word(&image, 0), word(&image, 4)), (SECTORS as u32, 0));
    assert_eq!(
        (word(&image, 12), word(&image, 20), word(&image, 36)),
        (254, 512, 0)
    );
    drop(image);
    let scratch = Block::open(file.path(), DiskMode::Scratch, "a").unwrap();
    assert_eq!(scratch.features() & 1 << VIRTIO_BLK_F_RO, 0);
    assert_ne!(scratch.features() & 1 << VIRTIO_BLK_F_DISCARD, 0);
    assert_eq!(
        (word(&scratch, 36), word(&scratch, 40)),
        (MAX_DISCARD_SECTORS, MAX_DISCARD_RANGES)
    );
    assert_eq!(word(&scratch, 56), 1);
    assert_eq!(word(&scratch, 58), 0);
    assert_eq!(word(&scratch, usize::MAX), 0);
}
