//! What a flow is for: a name that was asked for, or an address that somebody wrote down.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::HostName;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    Name(HostName),
    Address(IpAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Name(name) => name.fmt(f),
            Target::Address(address) => address.fmt(f),
        }
    }
}
