//! A client's hello (RFC 8446, 4.1.2), read to its last byte.

pub(super) const CLIENT_HELLO: u8 = 1;
pub(super) const SERVER_HELLO: u8 = 2;
/// Kind and length.
pub(super) const HEADER: usize = 4;

const RANDOM: usize = 32;
const MAX_SESSION_ID: usize = 32;

const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// `encrypted_client_hello`, and what it was called in drafts that were tried out.
const ENCRYPTED_HELLO: [u16; 7] = [0xfe08, 0xfe09, 0xfe0a, 0xfe0b, 0xfe0c, 0xfe0d, 0xffce];

pub(super) struct Hello<'a> {
    pub(super) server_name: Option<&'a [u8]>,
    pub(super) encrypted: bool,
}

impl<'a> Hello<'a> {
    /// `None` when a length does not fit, or an extension or the name comes twice.
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut message = Bytes(message.get(HEADER..)?);
        message.take(2)?; // version
        message.take(RANDOM)?;
        let session_id = message.short_list()?;
        let ciphers = message.list()?;
        let compressions = message.short_list()?;
        let plausible = session_id.0.len() <= MAX_SESSION_ID
            && !ciphers.0.is_empty()
            && ciphers.0.len().is_multiple_of(2)
            && !compressions.0.is_empty();
        if !plausible {
            return None;
        }
        // Before TLS 1.2 there may be no list of extensions at all.
        let extensions = if message.0.is_empty() {
            Bytes(&[])
        } else {
            message.list()?
        };
        if !message.0.is_empty() {
            return None;
        }
        Self::parse_extensions(extensions)
    }

    fn parse_extensions(mut extensions: Bytes<'a>) -> Option<Self> {
        let mut hello = Hello {
            server_name: None,
            encrypted: false,
        };
        let mut kinds = Vec::new();
        while !extensions.0.is_empty() {
            let kind = extensions.number()?;
            let content = extensions.list()?;
            kinds.push(kind);
            if kind == SERVER_NAME {
                hello.server_name = Some(host_name(content)?);
            }
            hello.encrypted |= ENCRYPTED_HELLO.contains(&kind);
        }
        let count = kinds.len();
        kinds.sort_unstable();
        kinds.dedup();
        (kinds.len() == count).then_some(hello)
    }
}

/// Exactly one name, of the only kind there is.
fn host_name(mut content: Bytes<'_>) -> Option<&[u8]> {
    let mut names = content.list()?;
    let [kind] = *names.take(1)? else { return None };
    let name = names.list()?;
    (kind == HOST_NAME && names.0.is_empty() && content.0.is_empty()).then_some(name.0)
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// What follows its length of two bytes.
    fn list(&mut self) -> Option<Bytes<'a>> {
        let length = self.number()?;
        self.take(usize::from(length)).map(Bytes)
    }

    /// What follows its length of one byte.
    fn short_list(&mut self) -> Option<Bytes<'a>> {
        let [length] = *self.take(1)? else { return None };
        self.take(usize::from(length)).map(Bytes)
    }
}
