//! The I/O around the stack.
