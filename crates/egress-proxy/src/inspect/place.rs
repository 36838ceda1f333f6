//! What the guest may call the server.

use egress_policy::HostName;

#[derive(Clone)]
pub(super) struct Place {
    name: HostName,
    port: u16,
}

impl Place {
    pub(super) fn new(name: &HostName, port: u16) -> Self {
        Self {
            name: name.clone(),
            port,
        }
    }

    /// In any case, and with a dot at the end or without. A host name is never an address, so an address never is it.
    pub(super) fn is_named(&self, name: &[u8]) -> bool {
        let name = name.strip_suffix(b".").unwrap_or(name);
        name.eq_ignore_ascii_case(self.name.as_str().as_bytes())
    }

    /// `name` or `name:port`, as in Host and in an absolute target. The port must be this very one, as everybody
    /// writes it: a server may choose by it.
    pub(super) fn is_authority(&self, authority: &[u8]) -> bool {
        let mut parts = authority.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let port_fits = parts
            .next()
            .is_none_or(|port| port == self.port.to_string().as_bytes());
        port_fits && self.is_named(name)
    }
}
