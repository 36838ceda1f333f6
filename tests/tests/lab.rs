//! Cases that boot guests.
