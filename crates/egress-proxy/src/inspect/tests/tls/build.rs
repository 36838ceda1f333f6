//! Hellos by hand.

#[derive(Clone)]
pub(super) struct Built {
    extensions: Option<Vec<u8>>,
}

impl Default for Built {
    fn default() -> Self {
        Self {
            extensions: Some(Vec::new()),
        }
    }
}

impl Built {
    pub(super) fn named(name: &str) -> Self {
        Self::default().with(0, &server_name(name))
    }

    pub(super) fn with(mut self, kind: u16, content: &[u8]) -> Self {
        self.extensions
            .get_or_insert_default()
            .extend(extension(kind, content));
        self
    }

    pub(super) fn without_extensions(mut self) -> Self {
        self.extensions = None;
        self
    }

    pub(super) fn message(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([9; 32]);
        body.extend([4, 1, 2, 3, 4]);
        body.extend(list(&[0x13, 1, 0x13, 2]));
        body.extend([1, 0]);
        body.extend(self.extensions.as_deref().map(list).unwrap_or_default());
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    pub(super) fn hello(&self) -> Vec<u8> {
        self.in_records(16_384)
    }

    pub(super) fn in_records(&self, size: usize) -> Vec<u8> {
        records(&self.message(), size)
    }

    /// Where the low byte of each length is, in a hello of [`Self::named`] in one record with one more extension.
    pub(super) fn lengths(&self) -> Vec<usize> {
        let (record, message) = (4, 8);
        let session = 5 + 4 + 2 + 32;
        let ciphers = session + 1 + 4 + 1;
        let compressions = ciphers + 1 + 4;
        let extensions = compressions + 1 + 1 + 1;
        let first = extensions + 1 + 3;
        let (names, name) = (first + 2, first + 5);
        let second = name + 11 + 4;
        let lengths = vec![
            record,
            message,
            session,
            ciphers,
            compressions,
            extensions,
            first,
            names,
            name,
            second,
        ];
        let hello = self.hello();
        let values: Vec<_> = lengths.iter().map(|at| usize::from(hello[*at])).collect();
        assert_eq!(
            values[2..],
            [4, 4, 1, 27, 16, 14, 11, 3],
            "the map is of another hello"
        );
        assert_eq!(values[0], hello.len() - 5);
        lengths
    }
}

pub(super) fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().as_slice(), &list(content)].concat()
}

pub(super) fn server_name(name: &str) -> Vec<u8> {
    list(&[b"\0".as_slice(), &list(name.as_bytes())].concat())
}

pub(super) fn list(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [length.as_slice(), content].concat()
}

pub(super) fn records(message: &[u8], size: usize) -> Vec<u8> {
    message
        .chunks(size)
        .flat_map(|part| [b"\x16\x03\x01".as_slice(), &list(part)].concat())
        .collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

/// What a client or server said, as it was recorded.
pub(super) fn recorded(name: &str) -> Vec<u8> {
    let found = RECORDED.iter().find(|(known, _)| *known == name);
    from_hex(found.expect("a recording").1)
}

/// In hexadecimal lines. None of them has a key or an address in it.
const RECORDED: &[(&str, &str)] = &[
    ("java", include_str!("../recorded/java.hex")),
    ("openssl-no-name", include_str!("../recorded/openssl-no-name.hex")),
    (
        "openssl-other-name",
        include_str!("../recorded/openssl-other-name.hex"),
    ),
    ("openssl-tls12", include_str!("../recorded/openssl-tls12.hex")),
    ("openssl-tls13", include_str!("../recorded/openssl-tls13.hex")),
    ("plain-0-guest", include_str!("../recorded/plain-0-guest.hex")),
    ("plain-1-server", include_str!("../recorded/plain-1-server.hex")),
    ("plain-2-guest", include_str!("../recorded/plain-2-guest.hex")),
    ("retry-0-guest", include_str!("../recorded/retry-0-guest.hex")),
    ("retry-1-server", include_str!("../recorded/retry-1-server.hex")),
    ("retry-2-guest", include_str!("../recorded/retry-2-guest.hex")),
    ("retry-3-server", include_str!("../recorded/retry-3-server.hex")),
    ("rustls", include_str!("../recorded/rustls.hex")),
    (
        "rustls-in-records-of-100",
        include_str!("../recorded/rustls-in-records-of-100.hex"),
    ),
];
