//! Standard output: one event a line, for the owner.

use std::io::{self, Write};

use vmm_api::Event;

/// An owner who does not read is no reason to stop.
pub(crate) fn event(event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        let mut out = io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}
