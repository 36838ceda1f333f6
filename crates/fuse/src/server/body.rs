//! What stands behind the header of a request, taken apart front to back.

use std::ffi::CStr;

use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::{Name, NameError, Reply};

/// What is left of a request.
#[derive(Clone, Copy)]
pub(super) struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Body(bytes)
    }

    pub(super) fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Reply<T> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = rest;
        Ok(value)
    }

    /// The whole body is a `T`.
    pub(super) fn only<T: FromBytes + KnownLayout + Immutable>(mut self) -> Reply<T> {
        let value = self.take()?;
        self.end()?;
        Ok(value)
    }

    pub(super) fn name(&mut self) -> Reply<Name<'a>> {
        Name::parse(self.text()?).map_err(|error| match error {
            NameError::TooLong => Errno::NAMETOOLONG,
            NameError::Empty | NameError::Dots | NameError::Slash => Errno::INVAL,
        })
    }

    /// The rest of the body is a name.
    pub(super) fn last_name(mut self) -> Reply<Name<'a>> {
        let name = self.name()?;
        self.end()?;
        Ok(name)
    }

    pub(super) fn text(&mut self) -> Reply<&'a CStr> {
        let text = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = self.0.get(text.count_bytes() + 1..).unwrap_or_default();
        Ok(text)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Nothing may stand behind what was taken: a NUL inside a name would hide there.
    pub(super) fn end(self) -> Reply<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Errno::INVAL)
        }
    }
}
