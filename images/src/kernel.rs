//! From the kernel file a distribution ships to the ELF image that boots without firmware.
//!
//! A bzImage is a small real-mode program in front of the compressed vmlinux; its setup header says
//! where the payload lies (Documentation/arch/x86/boot.rst). We undo the compression here, once, so
//! that no guest has to do it at every boot.

mod lz4;

use std::io::{self, Read};
use std::path::Path;

use crate::error::Context;
use crate::{Error, Result, compress};

/// Debian's full kernel is 60 MB unpacked; an allyesconfig one stays below this.
pub(crate) const MAX_KERNEL_BYTES: u64 = 512 << 20;

const SETUP_SECTORS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The first protocol whose header says where the payload is (Linux 2.6.26).
const MIN_PROTOCOL: u16 = 0x0208;
const SECTOR_BYTES: usize = 512;

const BANNER: &[u8] = b"Linux version ";
const MAX_VERSION: usize = 64;

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) vmlinux: Vec<u8>,
    pub(crate) version: String,
}

impl Kernel {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).context("open", path)?;
        let bytes = compress::read_bounded(file, MAX_KERNEL_BYTES).context("read", path)?;
        Self::parse(bytes, path)
    }

    /// From the bytes of an ELF vmlinux or a bzImage; `path` names it in errors.
    pub(crate) fn parse(bytes: Vec<u8>, path: &Path) -> Result<Self> {
        let refuse = |problem| Error::BadKernel {
            path: path.to_owned(),
            problem,
        };
        let vmlinux = if bytes.starts_with(ELF_MAGIC) {
            bytes
        } else {
            unpack(&bytes).map_err(refuse)?
        };
        check_elf(&vmlinux).map_err(refuse)?;
        let version =
            version(&vmlinux).ok_or_else(|| refuse("it does not say which version of Linux it is"))?;
        Ok(Self { vmlinux, version })
    }
}

fn unpack(image: &[u8]) -> Result<Vec<u8>, &'static str> {
    let payload = payload(image).ok_or("neither an ELF file nor a bzImage")?;
    let unpacked = decompress(payload).map_err(|_| "its compressed payload is damaged")?;
    unpacked.ok_or("its payload is neither gzip, xz, zstd nor LZ4")
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(image.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    if u16_at(BOOT_FLAG)? != 0xaa55
        || image.get(HEADER_MAGIC..HEADER_MAGIC + 4)? != b"HdrS"
        || u16_at(PROTOCOL)? < MIN_PROTOCOL
    {
        return None;
    }
    let sectors = match image.get(SETUP_SECTORS)? {
        0 => 4, // what it meant before the field existed
        n => usize::from(*n),
    };
    let start = (sectors + 1) * SECTOR_BYTES + u32_at(PAYLOAD_OFFSET)?;
    image.get(start..)?.get(..u32_at(PAYLOAD_LENGTH)?)
}

/// The payload ends with the unpacked size in four bytes, which a decoder that looks for another
/// stream would stumble over: each of these stops at the end of the first.
fn decompress(payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let decoder: Box<dyn Read + '_> = match payload {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::GzDecoder::new(payload)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(compress::xz_decoder(payload)?),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(compress::zstd_decoder(payload)?.single_frame()),
        _ => match payload.strip_prefix(&lz4::MAGIC) {
            Some(blocks) => return lz4::unpack(blocks, MAX_KERNEL_BYTES).map(Some),
            None => return Ok(None),
        },
    };
    compress::read_bounded(decoder, MAX_KERNEL_BYTES).map(Some)
}

const ELF_MAGIC: &[u8] = b"\x7fELF";
const CLASS_64_LITTLE: &[u8] = &[2, 1];
const MACHINE: usize = 18;
const X86_64: &[u8] = &[62, 0];

fn check_elf(image: &[u8]) -> Result<(), &'static str> {
    let fits = image.starts_with(ELF_MAGIC)
        && image.get(4..6) == Some(CLASS_64_LITTLE)
        && image.get(MACHINE..MACHINE + 2) == Some(X86_64);
    if fits {
        Ok(())
    } else {
        Err("not a 64-bit x86 ELF file")
    }
}

/// From the banner every kernel prints first: `Linux version 6.12.1-cloud-amd64 (builder) …`.
fn version(image: &[u8]) -> Option<String> {
    let mut rest = image;
    loop {
        let at = find(rest, BANNER)?;
        rest = &rest[at + BANNER.len()..];
        let word = rest
            .iter()
            .take(MAX_VERSION)
            .take_while(|b| b.is_ascii_graphic())
            .count();
        let word = &rest[..word];
        if word.first().is_some_and(u8::is_ascii_digit) {
            return String::from_utf8(word.to_vec()).ok();
        }
    }
}

/// The search jumps from one first byte to the next: a kernel has 60 MB.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + haystack.get(from..)?.iter().position(|b| *b == needle[0])?;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn vmlinux() -> Vec<u8> {
        let mut elf = [ELF_MAGIC, CLASS_64_LITTLE, &[0; 12], X86_64].concat();
        elf.extend(b"...Linux version %s...Linux version 6.12.9-test (x@y) #1...");
        elf
    }

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x600];
        image[SETUP_SECTORS] = 1;
        image[BOOT_FLAG..BOOT_FLAG + 2].copy_from_slice(&[0x55, 0xaa]);
        image[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        image[PROTOCOL..PROTOCOL + 2].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&0x200_u32.to_le_bytes());
        let length = (payload.len() + 4) as u32;
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend(payload);
        image.extend((vmlinux().len() as u32).to_le_bytes());
        image.extend([0; 100]);
        image
    }

    fn payloads() -> Vec<Vec<u8>> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        gzip.write_all(&vmlinux()).unwrap();
        let mut filters = liblzma::stream::Filters::new();
        filters
            .x86()
            .lzma2(&liblzma::stream::LzmaOptions::new_preset(1).unwrap());
        let xz =
            liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).unwrap();
        let mut xz = liblzma::write::XzEncoder::new_stream(Vec::new(), xz);
        xz.write_all(&vmlinux()).unwrap();
        vec![
            gzip.finish().unwrap(),
            xz.finish().unwrap(),
            zstd::encode_all(&vmlinux()[..], 1).unwrap(),
        ]
    }

    #[test]
    fn every_compression_that_distributions_use_is_undone() {
        for payload in payloads() {
            let kernel = Kernel::parse(bzimage(&payload), Path::new("k")).unwrap();
            assert_eq!(kernel.vmlinux, vmlinux());
            assert_eq!(kernel.version, "6.12.9-test");
        }
    }

    #[test]
    fn an_elf_kernel_is_taken_as_it_is() {
        assert_eq!(
            Kernel::parse(vmlinux(), Path::new("k")).unwrap().vmlinux,
            vmlinux()
        );
    }

    #[test]
    fn what_is_not_a_kernel_is_refused_with_the_reason() {
        let mut damaged = bzimage(&payloads()[0]);
        damaged[0x600 + 20] ^= 0xff;
        let mut outside = bzimage(&payloads()[0]);
        outside[PAYLOAD_LENGTH + 3] = 0xff;
        let mut arm = vmlinux();
        arm[MACHINE] = 183;
        let silent = [ELF_MAGIC, CLASS_64_LITTLE, &[0; 12], X86_64].concat();
        for bytes in [
            vec![],
            b"hello".to_vec(),
            vec![0; 4096],
            damaged,
            outside,
            bzimage(b"bzip2 or so"),
            arm,
            silent,
        ] {
            assert!(matches!(
                Kernel::parse(bytes, Path::new("k")),
                Err(Error::BadKernel { .. })
            ));
        }
    }

    #[test]
    fn the_kernel_of_this_machine_unpacks_if_there_is_one() {
        let boot = std::fs::read_dir("/boot").into_iter().flatten().flatten();
        let mut kernels = boot.map(|entry| entry.path());
        let Some(path) = kernels.find(|p| p.to_string_lossy().contains("vmlinuz-")) else {
            skipped::because("no /boot/vmlinuz-*");
            return;
        };
        let kernel = match Kernel::read(&path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                skipped::because(format_args!("{} is not readable", path.display()));
                return;
            }
            kernel => kernel.unwrap(),
        };
        assert!(
            path.to_string_lossy().ends_with(&kernel.version),
            "{} is {}",
            path.display(),
            kernel.version
        );
    }
}
