//! The guest's only resolver. It knows one thing: which names have an address of the pool. Whether a name may have
//! one is asked elsewhere, every time, and nothing is ever looked up.

mod answer;
mod names;
mod question;
mod resolver;
mod streams;

pub(crate) use names::Place;
pub(crate) use resolver::{Asker, Handled, Reply, Resolver};
pub(crate) use streams::Streams;

/// Of the resolver, over UDP and TCP.
pub(crate) const PORT: u16 = 53;
