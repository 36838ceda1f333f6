//! What a session may reach on the network: the rules as a person says them, and the process that keeps to them.
//!
//! ```text
//! --allow RULE, coffer net allow ──▶ typed, sets ──▶ NetChange ──▶ EgressPolicy, in the session's record
//!                                                                       │ a line of JSON
//! machine ◀── the other end of its link (SCM_RIGHTS) ── Egress ── stdin ▼ stdout ──▶ journal ──▶ coffer net
//!                                                         └──────▶ coffer-egress, one per session
//! ```
//!
//! [`Egress`] starts `coffer-egress`, gives the machine the other end of its link and starts it again when it dies,
//! with the same policy. Nothing here decides anything: until a link is there, and whenever it is gone, the machine
//! refuses everything by itself.

pub(crate) mod account;
mod change;
mod egress;
pub(crate) mod journal;
mod owners;
mod process;
pub(crate) mod publish;
mod resolver;
pub(crate) mod sets;
mod tally;
mod typed;
mod upstream;
pub(crate) mod words;

use std::path::PathBuf;

use egress_policy::{EgressPolicy, control::Upstream};
use serde::{Deserialize, Serialize};

pub(crate) use change::{Forgotten, NetChange, shown};
pub(crate) use egress::{Egress, Surroundings};
pub use tally::Refusal;
pub(crate) use typed::{forgotten_of, rules_of};
pub(crate) use upstream::upstream_from_environment;

/// The program of a session's network, which lies beside ours.
pub const EGRESS_PROGRAM: &str = "coffer-egress";

/// A session's network before it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetPlan {
    pub policy: EgressPolicy,
    /// Holds secrets: it goes over pipes and is never written down.
    pub upstream: Upstream,
    pub egress: PathBuf,
}
