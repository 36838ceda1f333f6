//! The `.modinfo` section of a kernel module: `KEY=VALUE` strings that say, among others, what it needs.

/// Modules that have to be loaded before, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) hard: Vec<String>,
    /// Wanted, but named by an alias or not built at all in some kernels.
    pub(super) soft: Vec<String>,
}

pub(super) fn needs(module: &[u8]) -> Result<Needs, &'static str> {
    let info = section(module, b".modinfo").ok_or("no .modinfo section in a 64-bit ELF file")?;
    let mut needs = Needs::default();
    for field in info
        .split(|b| *b == 0)
        .filter_map(|field| std::str::from_utf8(field).ok())
    {
        if let Some(names) = field.strip_prefix("depends=") {
            needs.hard.extend(
                names
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned),
            );
        } else if let Some(rest) = field.strip_prefix("softdep=") {
            needs.soft.extend(loaded_before(rest).map(str::to_owned));
        }
    }
    Ok(needs)
}

/// `pre: a b post: c` → a, b.
fn loaded_before(softdep: &str) -> impl Iterator<Item = &str> {
    let before_post = softdep.split("post:").next().unwrap_or_default();
    before_post
        .split("pre:")
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
}

const SECTION_TABLE: usize = 0x28;
const SECTION_COUNT: usize = 0x3c;
const NAMES_INDEX: usize = 0x3e;
const SECTION_HEADER_BYTES: usize = 64;

/// The bytes of the section called `name` in a little-endian 64-bit ELF file.
fn section<'a>(elf: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(u64_at(elf, SECTION_TABLE)?).ok()?;
    let header = |index: u16| {
        let at = table.checked_add(usize::from(index) * SECTION_HEADER_BYTES)?;
        elf.get(at..)?.get(..SECTION_HEADER_BYTES)
    };
    let names = content(elf, header(u16_at(elf, NAMES_INDEX)?)?)?;
    let named = |header: &[u8]| {
        let at = u32_at(header, 0)? as usize;
        Some(names.get(at..)?.split(|b| *b == 0).next()? == name)
    };
    let mut headers = (0..u16_at(elf, SECTION_COUNT)?).filter_map(header);
    content(elf, headers.find(|header| named(header) == Some(true))?)
}

fn content<'a>(elf: &'a [u8], header: &[u8]) -> Option<&'a [u8]> {
    let offset = usize::try_from(u64_at(header, 24)?).ok()?;
    let size = usize::try_from(u64_at(header, 32)?).ok()?;
    elf.get(offset..)?.get(..size)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An ELF file with a name table and a .modinfo section, and nothing else.
    pub(in super::super) fn module(info: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0";
        let (names_at, info_at) = (64, 64 + names.len());
        let table = info_at + info.len();
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(64, 0);
        elf[SECTION_TABLE..SECTION_TABLE + 8].copy_from_slice(&(table as u64).to_le_bytes());
        elf[SECTION_COUNT] = 3;
        elf[NAMES_INDEX] = 1;
        elf.extend(names);
        elf.extend(info);
        for (name, offset, size) in [(0, 0, 0), (0, names_at, names.len()), (1_u8, info_at, info.len())] {
            let mut header = [0; SECTION_HEADER_BYTES];
            header[0] = name;
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend(header);
        }
        elf
    }

    #[test]
    fn hard_and_soft_dependencies_are_read() {
        let info = b"license=GPL\0depends=a,b-c\0softdep=pre: d e post: f\0softdep=post: g\0name=x\0";
        let needs = needs(&module(info)).unwrap();
        assert_eq!(needs.hard, ["a", "b-c"]);
        assert_eq!(needs.soft, ["d", "e"]);
    }

    #[test]
    fn a_module_that_needs_nothing_says_so_with_an_empty_list() {
        assert_eq!(needs(&module(b"depends=\0")).unwrap(), Needs::default());
    }

    proptest! {
        #[test]
        fn damaged_modules_never_panic(at in 0_usize..260, value: u8, cut in 0_usize..300) {
            let mut elf = module(b"depends=a,b\0");
            if let Some(byte) = elf.get_mut(at) {
                *byte = value;
            }
            elf.truncate(cut);
            let _ = needs(&elf);
        }
    }
}
