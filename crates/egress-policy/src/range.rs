//! A range of addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// `10.0.0.0/8`, `2001:db8::/32`; one address is a range of its own. Shown as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: IpAddr,
    bits: u8,
}

impl AddressRange {
    pub fn contains(&self, _address: IpAddr) -> bool {
        false
    }

    pub fn bits(&self) -> u8 {
        self.bits
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(_text: &str) -> Result<Self, RangeError> {
        Err(RangeError::Address)
    }
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
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("not an address")]
    Address,
}
