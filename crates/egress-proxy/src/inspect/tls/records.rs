//! Records of TLS in clear, as far as they have arrived.

use egress_policy::Reason;

pub(super) const CHANGE_CIPHER_SPEC: u8 = 0x14;
pub(super) const ALERT: u8 = 0x15;
pub(super) const HANDSHAKE: u8 = 0x16;
pub(super) const APPLICATION_DATA: u8 = 0x17;

const HEADER: usize = 5;
/// RFC 8446, 5.1 and 5.2.
const MAX_PLAIN: usize = 1 << 14;
const MAX_ENCRYPTED: usize = MAX_PLAIN + 256;

#[derive(Default)]
pub(super) struct Records {
    header: [u8; HEADER],
    read: usize,
    left: usize,
}

impl Records {
    /// Of the record that was read last.
    pub(super) fn kind(&self) -> u8 {
        self.header[0]
    }

    /// Of its payload, still to come.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Reads the next byte of a header, or what there is of a payload. Says how much that was. `bytes` is not empty.
    pub(super) fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<(usize, &'a [u8]), Reason> {
        if self.left > 0 {
            let payload = bytes.get(..self.left).unwrap_or(bytes);
            self.left -= payload.len();
            return Ok((payload.len(), payload));
        }
        let byte = bytes.first().copied().unwrap_or_default();
        self.read %= HEADER;
        if let Some(place) = self.header.get_mut(self.read) {
            *place = byte;
        }
        self.read += 1;
        self.check_header()?;
        Ok((1, &[]))
    }

    /// As soon as the byte that is wrong is there. Minor versions are not looked at: nobody else does.
    fn check_header(&mut self) -> Result<(), Reason> {
        let [kind, major, _, high, low] = self.header;
        let fits = match self.read {
            1 => matches!(kind, CHANGE_CIPHER_SPEC..=APPLICATION_DATA),
            2 => major == 3,
            HEADER => {
                self.left = usize::from(u16::from_be_bytes([high, low]));
                let most = if kind == HANDSHAKE {
                    MAX_PLAIN
                } else {
                    MAX_ENCRYPTED
                };
                (1..=most).contains(&self.left)
            }
            _ => true,
        };
        if fits { Ok(()) } else { Err(Reason::NotTls) }
    }
}
