//! `coffer-egress`: the one process of a session that has sockets to the network. It has no files.

fn main() {}
