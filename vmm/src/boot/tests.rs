//! Loading, with good and bad files. Real kernels boot in the lab.

use std::{fs, path::PathBuf};

use super::*;

fn config(kernel: &Path, memory: u64) -> MachineConfig {
    let json = format!(
        r#"{{"version":1,"vcpus":1,"memory":{memory},"kernel":{kernel:?},"initramfs":null,"vsock":null,
            "console":{{"log":"/dev/null","max_bytes":4096}},"control":"/c"}}"#
    );
    MachineConfig::parse(&json).unwrap()
}

fn attempt(content: &[u8], memory: u64) -> Result<GuestAddress, BootError> {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("kernel");
    fs::write(&path, content).unwrap();
    let config = config(&path, memory);
    load(&config, &crate::memory::allocate(config.memory).unwrap())
}

/// One loadable segment of `file` bytes, `size` in memory, at `address`.
fn elf(address: u64, file: &[u8], size: u64) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    bytes.extend_from_slice(&address.to_le_bytes());
    bytes.extend_from_slice(&64u64.to_le_bytes());
    bytes.extend_from_slice(&[0; 12]);
    bytes.extend_from_slice(&[64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[1, 0, 0, 0, 7, 0, 0, 0]);
    for word in [120, address, address, file.len() as u64, size, 0x1000] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(file);
    bytes
}

#[test]
fn an_elf_kernel_is_loaded_where_it_says() {
    let entry = attempt(&elf(0x100_0000, b"\xf4", 0x1000), 64).unwrap();
    assert_eq!(entry, GuestAddress(0x100_0000));
}

#[test]
fn what_is_no_kernel_is_called_that() {
    for content in [&b""[..], b"ab", b"#!/bin/sh\necho no kernel\n", &[0; 4096]] {
        assert!(
            matches!(attempt(content, 64), Err(BootError::NotAKernel { .. })),
            "{content:?}"
        );
    }
}

#[test]
fn a_kernel_cut_short_is_an_error() {
    let whole = elf(0x100_0000, &[0x90; 4096], 4096);
    for len in [5, 40, 63, 100, 119, 200, whole.len() - 1] {
        assert!(attempt(&whole[..len], 64).is_err(), "{len} bytes");
    }
}

#[test]
fn a_kernel_larger_than_memory_says_how_much_it_needs() {
    let error = attempt(&elf(0x100_0000, b"\xf4", 100 << 20), 64).unwrap_err();
    assert!(
        matches!(error, BootError::MemoryTooSmall { needs_mib: 116 }),
        "{error}"
    );
}

#[test]
fn a_kernel_that_wants_to_lie_elsewhere_is_refused() {
    for address in [0, 0x9000, 0xfee0_0000, u64::MAX - 4096] {
        assert!(
            attempt(&elf(address, b"\xf4", 0x1000), 64).is_err(),
            "{address:#x}"
        );
    }
}

#[test]
fn the_memory_map_covers_all_memory_but_the_holes() {
    assert_eq!(memory_map(64 << 20).len(), 3);
    let map = memory_map(6 << 30);
    assert_eq!(map.last(), Some(&(4 << 30, 3 << 30, E820_RAM)));
    assert!(map.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
}
