//! The first root of the guest: the agent as `/init` and the modules it loads, in a `newc` cpio
//! archive. Not compressed, so that neither we nor the guest spend time on it.

use std::io::{self, Write};

use crate::modules::Module;

/// Empty directories the agent mounts over.
const DIRECTORIES: [&str; 6] = ["dev", "proc", "sys", "run", "mnt", "modules"];
const CONSOLE: (u32, u32) = (5, 1);
const NULL: (u32, u32) = (1, 3);

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;
const CONSOLE_NODE: u32 = 0o020_600;
const NULL_NODE: u32 = 0o020_666;

pub(crate) fn write(out: impl Write, agent: &[u8], modules: &[Module]) -> io::Result<()> {
    let mut archive = Cpio { out, entries: 0 };
    for name in DIRECTORIES {
        archive.entry(name, DIRECTORY, (0, 0), &[])?;
    }
    archive.entry("dev/console", CONSOLE_NODE, CONSOLE, &[])?;
    archive.entry("dev/null", NULL_NODE, NULL, &[])?;
    archive.entry("init", EXECUTABLE, (0, 0), agent)?;
    for module in modules {
        archive.entry(&format!("modules/{}", module.file), PLAIN, (0, 0), &module.bytes)?;
    }
    let order: String = modules
        .iter()
        .map(|module| format!("{}\n", module.file))
        .collect();
    archive.entry("modules/order", PLAIN, (0, 0), order.as_bytes())?;
    archive.entry("TRAILER!!!", 0, (0, 0), &[])?;
    archive.out.flush()
}

struct Cpio<W> {
    out: W,
    entries: u32,
}

impl<W: Write> Cpio<W> {
    /// Thirteen fields of eight hexadecimal digits, the name with its NUL and the data, each padded
    /// to four bytes (Documentation/driver-api/early-userspace/buffer-format.rst).
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(data.len()).map_err(|_| io::Error::other("over 4 GiB in an initramfs"))?;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let name_size = name.len() as u32 + 1;
        let (major, minor) = device;
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            major,
            minor,
            name_size,
            0,
        ];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(6 + 13 * 8 + name.len() + 1)?;
        self.out.write_all(data)?;
        self.pad(data.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out
            .write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let modules = ["b", "a"].map(|name| Module {
            file: format!("{name}.ko"),
            bytes: name.into(),
        });
        let mut bytes = Vec::new();
        write(&mut bytes, b"#!agent", &modules).unwrap();
        bytes
    }

    #[derive(Debug, PartialEq)]
    struct Read(String, u32, Vec<u8>);

    fn read(mut bytes: &[u8]) -> Vec<Read> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            let field = |n: usize| {
                let at = 6 + n * 8;
                u32::from_str_radix(std::str::from_utf8(&bytes[at..at + 8]).unwrap(), 16).unwrap() as usize
            };
            assert_eq!(&bytes[..6], b"070701");
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            let data = (110 + name_size).next_multiple_of(4);
            entries.push(Read(name, mode as u32, bytes[data..data + size].to_vec()));
            bytes = &bytes[(data + size).next_multiple_of(4)..];
        }
        entries
    }

    #[test]
    fn the_archive_holds_the_agent_the_modules_and_their_order() {
        let entries = read(&archive());
        let has = |name: &str, mode, data: &[u8]| entries.contains(&Read(name.into(), mode, data.into()));
        assert!(has("init", EXECUTABLE, b"#!agent"));
        assert!(has("modules/a.ko", PLAIN, b"a"));
        assert!(has("modules/order", PLAIN, b"b.ko\na.ko\n"));
        assert!(has("dev/console", CONSOLE_NODE, b""));
        assert!(has("proc", DIRECTORY, b""));
        assert_eq!(entries.last().unwrap().0, "TRAILER!!!");
    }

    #[test]
    fn directories_come_before_what_lies_in_them() {
        let names: Vec<_> = read(&archive()).into_iter().map(|entry| entry.0).collect();
        let at = |name: &str| names.iter().position(|n| n == name).unwrap();
        assert!(at("modules") < at("modules/b.ko") && at("dev") < at("dev/console"));
    }
}
