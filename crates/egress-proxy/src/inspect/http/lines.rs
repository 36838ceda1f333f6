//! Lines that end in CR LF and nothing else, looked at once however they arrive.

use egress_policy::Reason;

#[derive(Default)]
pub(super) struct Lines {
    start: usize,
    scanned: usize,
}

impl Lines {
    /// The next whole line, without its end. `bytes` begins where it began at the first call; all lines together
    /// have to fit `limit`.
    pub(super) fn next<'a>(&mut self, bytes: &'a [u8], limit: usize) -> Result<Option<&'a [u8]>, Reason> {
        let bytes = bytes.get(..limit).unwrap_or(bytes);
        while let Some(&byte) = bytes.get(self.scanned) {
            let line = bytes.get(self.start..self.scanned).unwrap_or_default();
            let line = match (line.strip_suffix(b"\r"), byte) {
                (Some(line), b'\n') => line,
                (None, b'\r' | b'\t' | b' '..=b'~' | 0x80..) => {
                    self.scanned += 1;
                    continue;
                }
                // A bare CR, a bare LF, a control.
                _ => return Err(Reason::AmbiguousHttp),
            };
            self.scanned += 1;
            self.start = self.scanned;
            return Ok(Some(line));
        }
        if self.scanned >= limit {
            Err(Reason::AmbiguousHttp)
        } else {
            Ok(None)
        }
    }

    /// Of all lines so far.
    pub(super) fn length(&self) -> usize {
        self.start
    }

    pub(super) fn has_begun(&self) -> bool {
        self.scanned > 0
    }
}
