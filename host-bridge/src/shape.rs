//! What a machine is made of, as a person says it: `--cpus 2 --memory 2G --disk 64G`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use vmm_api::{MemoryMib, Vcpus};

use crate::{Error, Result};

/// Two make a build or a test run quicker; more is a matter of asking for it.
const DEFAULT_VCPUS: u32 = 2;
/// Enough for compilers and interpreters of moderate size. Not reserved: the host gives what is touched.
const DEFAULT_MEMORY_MIB: u64 = 1024;
/// A limit, not a cost: the file is sparse.
const DEFAULT_DISK: u64 = 64 << 30;
/// Room for a journal and a little besides.
const MIN_DISK: u64 = 64 << 20;
/// ext4 with 4 KiB blocks, and the largest file on an ext4 host.
const MAX_DISK: u64 = 16 << 40;

/// The shape of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    pub cpus: Vcpus,
    pub memory: MemoryMib,
    pub disk: DiskSize,
}

impl Shape {
    /// What was asked for, and our defaults for the rest.
    pub fn new(cpus: Option<Vcpus>, memory: Option<MemoryMib>, disk: Option<DiskSize>) -> Result<Self> {
        Ok(Shape {
            cpus: cpus.map_or_else(default_vcpus, Ok)?,
            memory: memory.map_or_else(default_memory, Ok)?,
            disk: disk.unwrap_or(DiskSize(DEFAULT_DISK)),
        })
    }
}

fn default_vcpus() -> Result<Vcpus> {
    let host = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    vcpus(DEFAULT_VCPUS.min(host))
}

fn default_memory() -> Result<MemoryMib> {
    memory(DEFAULT_MEMORY_MIB, &DEFAULT_MEMORY_MIB.to_string())
}

/// The limit of the scratch disk in bytes, a multiple of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct DiskSize(u64);

impl DiskSize {
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for DiskSize {
    type Error = Error;

    fn try_from(bytes: u64) -> Result<Self> {
        if (MIN_DISK..=MAX_DISK).contains(&bytes) {
            return Ok(DiskSize(bytes & !0xfff));
        }
        Err(invalid(
            "--disk",
            &bytes.to_string(),
            format!("must be {} to {}", Bytes(MIN_DISK), Bytes(MAX_DISK)),
        ))
    }
}

impl From<DiskSize> for u64 {
    fn from(disk: DiskSize) -> u64 {
        disk.0
    }
}

impl fmt::Display for DiskSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Bytes(self.0).fmt(f)
    }
}

/// A number of bytes with the largest unit that divides it, else one decimal.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
        match UNITS.iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) if self.0.is_multiple_of(*unit) => write!(f, "{}{name}", self.0 / unit),
            Some((unit, name)) => {
                let tenths = (self.0 % unit).saturating_mul(10) / unit;
                write!(f, "{}.{tenths}{name}", self.0 / unit)
            }
            None => write!(f, "{}", self.0),
        }
    }
}

pub fn parse_cpus(text: &str) -> Result<Vcpus> {
    let count = text
        .parse()
        .map_err(|_| invalid("--cpus", text, "not a number"))?;
    vcpus(count)
}

fn vcpus(count: u32) -> Result<Vcpus> {
    Vcpus::try_from(count).map_err(|error| invalid("--cpus", &count.to_string(), error.to_string()))
}

/// `512M`, `2G`; a plain number is MiB.
pub fn parse_memory(text: &str) -> Result<MemoryMib> {
    let bytes = parse_bytes(text, 1 << 20).ok_or_else(|| invalid("--memory", text, SIZE_FORM))?;
    memory(bytes >> 20, text)
}

fn memory(mib: u64, text: &str) -> Result<MemoryMib> {
    MemoryMib::try_from(mib).map_err(|error| invalid("--memory", text, error.to_string()))
}

/// `500M`, `64G`, `2T`; a plain number is MiB, as for memory.
pub fn parse_disk(text: &str) -> Result<DiskSize> {
    let bytes = parse_bytes(text, 1 << 20).ok_or_else(|| invalid("--disk", text, SIZE_FORM))?;
    DiskSize::try_from(bytes)
}

const SIZE_FORM: &str = "a size is a number and M, G or T, such as 512M or 2G";

pub(crate) fn parse_bytes(text: &str, plain: u64) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        "" => plain,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// A span of time as `30s`, `5m`, `2h`, `500ms`; a plain number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit_ms: u64 = match &text[digits.len()..] {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(SPAN_FORM.to_owned()),
        };
        let number: u64 = digits.parse().map_err(|_| SPAN_FORM.to_owned())?;
        match number.checked_mul(unit_ms) {
            Some(0) => Err("must be more than nothing".to_owned()),
            Some(ms) => Ok(Span(Duration::from_millis(ms))),
            None => Err("longer than can be counted".to_owned()),
        }
    }
}

const SPAN_FORM: &str = "a time is a number and ms, s, m, h or d, such as 30s or 5m";

pub fn parse_span(option: &'static str, text: &str) -> Result<Duration> {
    let span: Span = text.parse().map_err(|why: String| invalid(option, text, why))?;
    Ok(span.0)
}

fn invalid(option: &'static str, value: &str, why: impl Into<String>) -> Error {
    Error::Value {
        option,
        value: value.to_owned(),
        why: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_memory("256M").unwrap().mib(), 256);
        assert_eq!(parse_memory("2g").unwrap().mib(), 2048);
        assert_eq!(parse_memory("1024").unwrap().mib(), 1024);
        assert_eq!(parse_disk("64GiB").unwrap().bytes(), 64 << 30);
        for bad in [
            "",
            "M",
            "1.5G",
            "-1",
            "12X",
            "99999999999999999999",
            "18446744073709551615T",
            "Gé",
        ] {
            assert!(parse_memory(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_named_with_the_range() {
        let line = |error: Error| error.to_string();
        assert!(line(parse_memory("10M").unwrap_err()).contains("must be 64"));
        assert!(line(parse_cpus("33").unwrap_err()).contains("must be 1 to 32"));
        assert!(line(parse_disk("1M").unwrap_err()).contains("must be 64M to 16T"));
    }

    #[test]
    fn spans_are_read_as_people_write_them() {
        let ms = |text| parse_span("--timeout", text).map(|span| span.as_millis());
        assert_eq!(ms("30s").unwrap(), 30_000);
        assert_eq!(ms("5m").unwrap(), 300_000);
        assert_eq!(ms("7").unwrap(), 7_000);
        assert_eq!(ms("250ms").unwrap(), 250);
        for bad in [
            "",
            "s",
            "0",
            "5 m",
            "1y",
            "99999999999999999999",
            "99999999999999999d",
            "é",
        ] {
            assert!(ms(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bytes_are_shown_short() {
        assert_eq!(Bytes(64 << 30).to_string(), "64G");
        assert_eq!(Bytes((3 << 30) / 2).to_string(), "1.5G");
        assert_eq!(Bytes(u64::MAX).to_string(), "16777215.9T");
        assert_eq!(Bytes(12).to_string(), "12");
    }
}
