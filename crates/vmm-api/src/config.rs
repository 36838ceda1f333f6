//! The machine's configuration, as types that cannot be wrong.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A reader refuses a configuration of any other version.
pub const CONFIG_VERSION: u32 = 1;
/// What the interrupt controllers and tables we build can name, and what we test.
pub const MAX_VCPUS: u32 = 32;
/// Less than this and a distribution kernel does not reach its init.
pub const MIN_MEMORY_MIB: u64 = 64;
/// One tebibyte: far above any laptop, far below where physical address bits run out.
pub const MAX_MEMORY_MIB: u64 = 1024 * 1024;
/// A root image, a scratch disk, and room for a few more; each costs a PCI slot and a thread.
pub const MAX_DISKS: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    pub version: u32,
    pub vcpus: Vcpus,
    pub memory: MemoryMib,
    /// An ELF vmlinux or a bzImage.
    pub kernel: PathBuf,
    pub initramfs: Option<PathBuf>,
    /// Words added to the kernel command line the VMM makes.
    #[serde(default)]
    pub kernel_args: Vec<String>,
    #[serde(default)]
    pub disks: Vec<Disk>,
    pub vsock: Option<Vsock>,
    /// A network card. What it leads to comes later ([`crate::Request::NetLink`]); until then, and when that is gone,
    /// everything is refused.
    #[serde(default)]
    pub net: bool,
    pub console: Console,
    /// Where the control socket is made. Nothing may be there.
    pub control: PathBuf,
}

impl MachineConfig {
    /// Reads one line of JSON. What comes back satisfies every rule here; nobody checks again.
    pub fn parse(json: &str) -> Result<Self, ConfigError> {
        let config: MachineConfig = serde_json::from_str(json).map_err(ConfigError::Json)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.version != CONFIG_VERSION {
            return Err(ConfigError::Version { found: self.version });
        }
        if self.disks.len() > MAX_DISKS {
            return Err(ConfigError::TooManyDisks {
                found: self.disks.len(),
            });
        }
        let bad = |arg: &&String| arg.is_empty() || arg.chars().any(|c| !c.is_ascii_graphic());
        match self.kernel_args.iter().find(bad) {
            Some(arg) => Err(ConfigError::KernelArg { arg: arg.clone() }),
            None => Ok(()),
        }
    }
}

/// A number of virtual CPUs, 1 to [`MAX_VCPUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vcpus(u32);

impl Vcpus {
    pub fn count(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vcpus {
    type Error = ConfigError;

    fn try_from(count: u32) -> Result<Self, ConfigError> {
        match count {
            1..=MAX_VCPUS => Ok(Vcpus(count)),
            found => Err(ConfigError::Vcpus { found }),
        }
    }
}

impl From<Vcpus> for u32 {
    fn from(vcpus: Vcpus) -> u32 {
        vcpus.0
    }
}

/// An amount of guest memory, [`MIN_MEMORY_MIB`] to [`MAX_MEMORY_MIB`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct MemoryMib(u64);

impl MemoryMib {
    pub fn mib(self) -> u64 {
        self.0
    }

    pub fn bytes(self) -> u64 {
        self.0 << 20
    }
}

impl TryFrom<u64> for MemoryMib {
    type Error = ConfigError;

    fn try_from(mib: u64) -> Result<Self, ConfigError> {
        match mib {
            MIN_MEMORY_MIB..=MAX_MEMORY_MIB => Ok(MemoryMib(mib)),
            found => Err(ConfigError::Memory { found }),
        }
    }
}

impl From<MemoryMib> for u64 {
    fn from(memory: MemoryMib) -> u64 {
        memory.0
    }
}

/// A raw disk image; the guest sees them as `vda`, `vdb`, … in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    pub path: PathBuf,
    pub mode: DiskMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskMode {
    /// Opened read-only, shared by any number of machines.
    ReadOnly,
    /// Opened for this machine alone, sparse, discards give space back.
    Scratch,
}

/// The guest's vsock. It can dial the host's listed ports and nothing can dial it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    pub cid: GuestCid,
    /// A connection to port P is carried to the AF_UNIX socket `<socket>_P`.
    pub socket: PathBuf,
    /// Every other port answers with a reset.
    pub ports: Vec<u32>,
}

/// A context id a guest may have: 0 to 2 and the highest are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct GuestCid(u32);

impl GuestCid {
    /// The address of a guest that shares its host's vsock with nobody, as ours all do.
    pub const ONLY: GuestCid = GuestCid(3);
}

impl TryFrom<u32> for GuestCid {
    type Error = ConfigError;

    fn try_from(cid: u32) -> Result<Self, ConfigError> {
        match cid {
            0..=2 | u32::MAX => Err(ConfigError::Cid { found: cid }),
            cid => Ok(GuestCid(cid)),
        }
    }
}

impl From<GuestCid> for u32 {
    fn from(cid: GuestCid) -> u32 {
        cid.0
    }
}

/// The serial console: output only, to a file that never grows past its limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    pub log: PathBuf,
    /// The first and the last half of this many bytes are kept.
    pub max_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("machine configuration is not what this version reads")]
    Json(#[source] serde_json::Error),
    #[error("machine configuration has version {found}, this VMM reads {CONFIG_VERSION}")]
    Version { found: u32 },
    #[error("{found} virtual CPUs, must be 1 to {MAX_VCPUS}")]
    Vcpus { found: u32 },
    #[error("{found} MiB of memory, must be {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB}")]
    Memory { found: u64 },
    #[error("vsock context id {found} is reserved")]
    Cid { found: u32 },
    #[error("{found} disks, at most {MAX_DISKS}")]
    TooManyDisks { found: usize },
    #[error("kernel argument {arg:?} has a character other than printable ASCII, or none")]
    KernelArg { arg: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"version":1,"vcpus":2,"memory":256,"kernel":"/k","initramfs":null,"vsock":null,
        "console":{"log":"/l","max_bytes":4096},"control":"/c"}"#;

    #[test]
    fn a_good_configuration_reads_back_as_it_was_written() {
        let config = MachineConfig::parse(GOOD).unwrap();
        let again = MachineConfig::parse(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(config, again);
    }

    #[test]
    fn a_bound_that_is_crossed_is_named() {
        for (from, to, word) in [
            ("\"vcpus\":2", "\"vcpus\":33", "virtual CPUs"),
            ("\"vcpus\":2", "\"vcpus\":0", "virtual CPUs"),
            ("\"memory\":256", "\"memory\":63", "MiB"),
            ("\"version\":1", "\"version\":2", "version 2"),
            (
                "\"vsock\":null",
                "\"vsock\":{\"cid\":2,\"socket\":\"/s\",\"ports\":[]}",
                "reserved",
            ),
            (
                "\"initramfs\":null",
                "\"initramfs\":null,\"kernel_args\":[\"a b\"]",
                "printable",
            ),
        ] {
            let error = MachineConfig::parse(&GOOD.replace(from, to)).unwrap_err();
            let text = format!(
                "{error}: {:?}",
                std::error::Error::source(&error).map(ToString::to_string)
            );
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn a_field_nobody_knows_is_refused() {
        assert!(MachineConfig::parse(&GOOD.replace("\"vcpus\"", "\"cpus\":1,\"vcpus\"")).is_err());
    }
}
