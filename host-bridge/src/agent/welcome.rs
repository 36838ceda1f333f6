//! What a guest is told of this host's network and trust when it is welcomed.

use agent_protocol::Network;
use egress_policy::addresses;

use crate::{certificates, output};

/// A machine without a network card leaves it at a word on its console.
pub(super) fn cable() -> Network {
    Network {
        mtu: addresses::MTU.into(),
        v4: addresses::GUEST_V4,
        v4_prefix: addresses::PREFIX_V4,
        v4_gateway: addresses::GATEWAY_V4,
        v6: addresses::GUEST_V6,
        v6_prefix: addresses::PREFIX_V6,
        v6_gateway: addresses::GATEWAY_V6,
    }
}

/// Read anew for each guest: a host's trust changes. On a thread that may wait for a disk.
pub(super) async fn certificates() -> Option<Vec<u8>> {
    let found = tokio::task::spawn_blocking(certificates::of_this_host)
        .await
        .ok()?;
    found.map_err(|missing| output::note(&missing.to_string())).ok()
}
