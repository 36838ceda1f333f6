//! The certificates this host trusts, for the guest to trust the same: behind a company's own authority a sandbox
//! that only knew the public ones could reach nothing.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The public authorities of the world are some 220 KB; four times that leaves room for a company's own, and for a
/// session's variables (2 MiB at most) in the one message that carries both.
const MAX_BUNDLE: usize = 1024 * 1024;
const _: () = assert!(MAX_BUNDLE <= agent_protocol::MAX_MESSAGE_TO_GUEST / 4);

/// Where OpenSSL, and with it most programs, is told to look instead.
const VARIABLE: &str = "SSL_CERT_FILE";

/// Where distributions keep the one file with all of them.
const PLACES: [&str; 6] = [
    // Debian, Ubuntu, Arch, Gentoo, NixOS
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, RHEL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    // openSUSE
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    // Alpine
    "/etc/ssl/cert.pem",
];

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";

/// Why the guest is left with its own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    path: Option<PathBuf>,
    why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missing { path, why } = self;
        write!(
            f,
            "the sandbox trusts its image's certificates, not this host's: {why}"
        )?;
        match path {
            Some(path) => write!(f, ": {}", path.display()),
            None => Ok(()),
        }
    }
}

/// The host's bundle as PEM, nothing but certificates.
pub(crate) fn of_this_host() -> Result<Vec<u8>, Missing> {
    let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let places = PLACES.iter().map(PathBuf::from);
    find(named.map(PathBuf::from).into_iter().chain(places))
}

/// The first file that is there decides.
fn find(places: impl Iterator<Item = PathBuf>) -> Result<Vec<u8>, Missing> {
    for path in places {
        let missing = |why: String| {
            Err(Missing {
                path: Some(path.clone()),
                why,
            })
        };
        let Ok(bytes) = read(&path) else { continue };
        if bytes.len() > MAX_BUNDLE {
            return missing(format!("more than {} MiB of them", MAX_BUNDLE >> 20));
        }
        let certificates = certificates_in(&bytes);
        if certificates.is_empty() {
            return missing("no certificate in the file".into());
        }
        return Ok(certificates);
    }
    Err(Missing {
        path: None,
        why: format!("no file of them found, and {VARIABLE} names none that can be read"),
    })
}

/// At most one byte more than may be sent. What is no regular file is not opened for long, and never waited for.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_BUNDLE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Only whole blocks of certificates: comments stay here, and so does the private key that somebody keeps in the
/// same file.
fn certificates_in(bytes: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    let mut block: Option<Vec<u8>> = None;
    for line in bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        match &mut block {
            _ if line == BEGIN => block = Some(with_line(Vec::new(), BEGIN)),
            Some(begun) if line == END => {
                found.append(&mut with_line(std::mem::take(begun), END));
                block = None;
            }
            Some(begun) if line.iter().all(is_base64) => *begun = with_line(std::mem::take(begun), line),
            _ => block = None,
        }
    }
    found
}

fn with_line(mut block: Vec<u8>, line: &[u8]) -> Vec<u8> {
    if !line.is_empty() {
        block.extend_from_slice(line);
        block.push(b'\n');
    }
    block
}

fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nTWFu\nTQ==\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bundle.pem");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn a_private_key_in_the_same_file_stays_on_the_host() {
        let text = format!("{KEY}# A company\n{ONE}{KEY}{ONE}");
        let (_directory, path) = written(&text);
        assert_eq!(find([path].into_iter()), Ok(ONE.repeat(2).into()));
    }

    #[test]
    fn a_key_that_hides_inside_a_certificate_is_not_passed_on() {
        let begun = "-----BEGIN CERTIFICATE-----\nTWFu\n";
        for text in [
            format!("{begun}{KEY}-----END CERTIFICATE-----\n"),
            format!("{begun}{KEY}"),
            begun.to_owned(),
            KEY.replace(
                "-----BEGIN PRIVATE",
                "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE",
            ),
        ] {
            assert_eq!(certificates_in(text.as_bytes()), b"", "{text}");
        }
        let text = format!("{begun}{ONE}");
        assert_eq!(certificates_in(text.as_bytes()), ONE.as_bytes());
    }

    #[test]
    fn lines_that_end_as_windows_ends_them_are_read_all_the_same() {
        assert_eq!(
            certificates_in(ONE.replace('\n', "\r\n").as_bytes()),
            ONE.as_bytes()
        );
    }

    #[test]
    fn a_bundle_that_is_too_long_is_not_sent_in_part() {
        let (_directory, path) = written(&ONE.repeat(MAX_BUNDLE / ONE.len() + 1));
        let missing = find([path.clone()].into_iter()).unwrap_err();
        assert_eq!(missing.path, Some(path));
        assert!(missing.to_string().contains("more than 1 MiB"), "{missing}");
    }

    #[test]
    fn the_first_readable_file_decides_and_none_at_all_is_said() {
        let (directory, path) = written(ONE);
        let nothing = directory.path().join("nothing");
        let places = [nothing.clone(), directory.path().to_owned(), path];
        assert_eq!(find(places.into_iter()), Ok(ONE.into()));
        let missing = find([nothing].into_iter()).unwrap_err();
        assert!(missing.to_string().contains("SSL_CERT_FILE"), "{missing}");
        let (_directory, empty) = written(KEY);
        assert!(
            find([empty].into_iter())
                .unwrap_err()
                .to_string()
                .contains("no certificate")
        );
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_in_the_file_nothing_leaves_but_certificates(text in "(-----(BEGIN|END) (CERTIFICATE|KEY)-----\n|[a-c =-]{0,4}\n|\n){0,12}") {
            let found = certificates_in(text.as_bytes());
            let text = String::from_utf8(found).unwrap();
            let mut inside = false;
            for line in text.lines() {
                match line {
                    "-----BEGIN CERTIFICATE-----" if !inside => inside = true,
                    "-----END CERTIFICATE-----" if inside => inside = false,
                    body => proptest::prop_assert!(inside && body.bytes().all(|byte| is_base64(&byte)), "{}", text),
                }
            }
            proptest::prop_assert!(!inside);
        }
    }
}
