//! One flow, from the question to the record of its end.

mod carry;
mod guarded;
mod half;
mod pipe;
mod pump;
mod table;

pub(crate) use carry::{Connected, Stop, carry};
pub(crate) use pipe::SharedPipe;
pub(crate) use table::{Flows, Live};
