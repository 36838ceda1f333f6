use std::io;

use egress_policy::link;

#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("the configuration ends before its line does")]
    NoConfig,
    #[error("cannot read the configuration: {0}")]
    Config(serde_json::Error),
    #[error("configuration has version {0}, this is for version {expected}", expected = egress_policy::control::CONFIG_VERSION)]
    ConfigVersion(u32),
    /// The text is not repeated: it may hold secrets.
    #[error("a request of the owner cannot be read: {0}")]
    Request(serde_json::Error),
    #[error("a line of the owner is longer than {max} bytes", max = egress_policy::control::MAX_LINE)]
    LongLine,
    #[error("cannot use descriptor {fd} as the link", fd = egress_policy::control::LINK_DESCRIPTOR)]
    NoLink(#[source] io::Error),
    #[error("the link is not a socket that keeps messages apart")]
    LinkKind,
    #[error("the link broke")]
    Link(#[source] io::Error),
    #[error("the machine has hung up")]
    LinkClosed,
    #[error("the machine said what no machine says: {0}")]
    Hostile(&'static str),
    #[error("the machine speaks version {0} of the link, this is version {expected}", expected = link::VERSION)]
    LinkVersion(u16),
    #[error("cannot use the resolver: {0}")]
    Resolver(String),
}
