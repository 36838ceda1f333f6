//! A range of addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// `10.0.0.0/8`, `2001:db8::/32`; one address is a range of its own, and shown without a length.
///
/// An IPv4 address that is written as an IPv6 one (`::ffff:10.0.0.1`, `::10.0.0.1`) is that IPv4 address, here and in
/// every question; so no range of IPv6 has IPv4 addresses in it, `::/0` neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: IpAddr,
    bits: u8,
}

impl AddressRange {
    /// The range of one address.
    pub fn one(address: IpAddr) -> Self {
        let first = canonical(address);
        AddressRange {
            first,
            bits: width(first),
        }
    }

    /// The range of this length that the address is in. More bits than an address has are as many as it has.
    pub(crate) fn around(address: IpAddr, bits: u8) -> Self {
        let bits = bits.min(width(address));
        AddressRange {
            first: masked(address, bits),
            bits,
        }
    }

    pub(crate) const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Self {
        AddressRange {
            first: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            bits,
        }
    }

    pub(crate) const fn v6(words: [u16; 8], bits: u8) -> Self {
        let [a, b, c, d, e, f, g, h] = words;
        AddressRange {
            first: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)),
            bits,
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        address.is_ipv4() == self.first.is_ipv4() && masked(address, self.bits) == self.first
    }

    /// Is every address of the other in this one?
    pub fn covers(&self, other: &AddressRange) -> bool {
        self.bits <= other.bits && self.contains(other.first)
    }

    pub fn first(&self) -> IpAddr {
        self.first
    }

    pub fn bits(&self) -> u8 {
        self.bits
    }

    pub fn is_one_address(&self) -> bool {
        self.bits == width(self.first)
    }
}

/// The IPv4 address that this one means by itself, if it does. `::` and `::1` are IPv6's own.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    match v6.to_ipv4() {
        Some(v4) if !v6.is_unspecified() && !v6.is_loopback() => IpAddr::V4(v4),
        _ => address,
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let Some((address, length)) = text.split_once('/') else {
            return text
                .parse()
                .map(AddressRange::one)
                .map_err(|_| RangeError::Address);
        };
        let address: IpAddr = address.parse().map_err(|_| RangeError::Address)?;
        let bits = read_bits(length, width(address))?;
        without_ipv4(address, bits)
    }
}

fn read_bits(text: &str, most: u8) -> Result<u8, RangeError> {
    let plain = text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    match text.parse() {
        Ok(bits) if plain && bits <= most => Ok(bits),
        _ => Err(RangeError::Length { most }),
    }
}

/// A range of IPv4 addresses that is written in IPv6 becomes one of IPv4.
fn without_ipv4(address: IpAddr, bits: u8) -> Result<AddressRange, RangeError> {
    match (address, canonical(address), bits.checked_sub(96)) {
        (IpAddr::V6(_), v4 @ IpAddr::V4(_), Some(bits)) => exact(v4, bits),
        _ => exact(address, bits),
    }
}

fn exact(address: IpAddr, bits: u8) -> Result<AddressRange, RangeError> {
    let range = AddressRange::around(address, bits);
    if range.first == address {
        return Ok(range);
    }
    Err(RangeError::HostBits {
        address,
        meant: range,
    })
}

impl TryFrom<String> for AddressRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> String {
        range.to_string()
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_one_address() {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("not an address")]
    Address,
    #[error("what is behind the slash is not a number from 0 to {most}")]
    Length { most: u8 },
    #[error(
        "{address} is not the first address of a range of that length; {meant} is the range, {address} the address"
    )]
    HostBits { address: IpAddr, meant: AddressRange },
}

#[cfg(test)]
mod tests;
