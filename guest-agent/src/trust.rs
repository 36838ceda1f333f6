//! The certificates the host trusts, put where the programs of the guest look for theirs.
//!
//! Java, and browsers with a store of their own, look elsewhere and are not told.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use crate::{log, place};

/// Debian's place, and Go's and Rust's first guess everywhere; made where it is not.
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// Written where the image has their directory, which is where its own programs look.
const OTHER_PLACES: [&str; 4] = [
    // Fedora: the file, and a link to it by its older name
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/pki/tls/certs/ca-bundle.crt",
    // openSUSE
    "etc/ssl/ca-bundle.pem",
    // Alpine, and OpenSSL of BSD descent
    "etc/ssl/cert.pem",
];

/// For programs that bring their own list, or look in a directory of one file for each certificate.
/// curl, git, apt and cargo read [`BUNDLE`] or the first of these anyway.
const VARIABLES: [&str; 4] = [
    // OpenSSL, so Python's ssl and Ruby; uv and others in Rust
    "SSL_CERT_FILE",
    // Python's requests, which brings certifi
    "REQUESTS_CA_BUNDLE",
    // pip before it asked the system
    "PIP_CERT",
    // Node.js: npm, yarn
    "NODE_EXTRA_CA_CERTS",
];

/// At the first Welcome only: what the session makes of them later is its own affair.
pub(crate) fn install(root: &Path, certificates: &[u8]) {
    let bundle = root.join(BUNDLE);
    let placed = bundle.parent().map_or(Ok(()), fs::create_dir_all);
    if let Err(error) = placed.and_then(|()| place::put(&bundle, certificates)) {
        return log::warn(format_args!("cannot install the host's certificates: {error}"));
    }
    for other in OTHER_PLACES {
        let other = root.join(other);
        let has_directory = other.parent().is_some_and(Path::is_dir);
        if has_directory
            && !is_installed(root, &other)
            && let Err(error) = place::put(&other, certificates)
        {
            log::warn(format_args!(
                "cannot install the host's certificates as {}: {error}",
                other.display()
            ));
        }
    }
}

/// What every command starts with, unless the host says otherwise.
pub(crate) fn variables(root: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    if !root.join(BUNDLE).is_file() {
        return Vec::new();
    }
    let path = format!("/{BUNDLE}");
    VARIABLES.map(|name| (name.into(), path.clone().into())).into()
}

/// Distributions link these names to one another: where a name leads to a file of ours, it stays a link, and is
/// right also when the distribution's own tools write that file again.
fn is_installed(root: &Path, path: &Path) -> bool {
    let identity = |path: &Path| -> io::Result<(u64, u64)> {
        let metadata = fs::metadata(path)?;
        Ok((metadata.dev(), metadata.ino()))
    };
    let Ok(found) = identity(path) else { return false };
    [BUNDLE, OTHER_PLACES[0]]
        .iter()
        .any(|ours| path != root.join(ours) && identity(&root.join(ours)).is_ok_and(|ours| ours == found))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----\nTWFu\n-----END CERTIFICATE-----\n";

    fn root_with(directories: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in directories {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        root
    }

    #[test]
    fn an_image_without_a_place_for_certificates_gets_one_and_no_other() {
        let root = root_with(&[]);
        assert_eq!(variables(root.path()), []);
        install(root.path(), PEM);
        assert_eq!(fs::read(root.path().join(BUNDLE)).unwrap(), PEM);
        assert!(!root.path().join("etc/pki").exists());
        let variables = variables(root.path());
        let ssl = (
            b"SSL_CERT_FILE".to_vec(),
            b"/etc/ssl/certs/ca-certificates.crt".to_vec(),
        );
        assert!(variables.contains(&ssl));
        assert_eq!(variables.len(), VARIABLES.len());
    }

    #[test]
    fn fedoras_links_stay_links_and_lead_to_the_hosts_certificates() {
        let root = root_with(&["etc/pki/tls/certs", "etc/pki/ca-trust/extracted/pem", "etc/ssl"]);
        let at = |path: &str| root.path().join(path);
        fs::write(at("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"), "theirs").unwrap();
        let target = "../../ca-trust/extracted/pem/tls-ca-bundle.pem";
        symlink(target, at("etc/pki/tls/certs/ca-bundle.crt")).unwrap();
        symlink("../pki/tls/certs", at("etc/ssl/certs")).unwrap();
        install(root.path(), PEM);
        for path in [
            "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            "etc/pki/tls/certs/ca-bundle.crt",
            "etc/pki/tls/certs/ca-certificates.crt",
            BUNDLE,
        ] {
            assert_eq!(fs::read(at(path)).unwrap(), PEM, "{path}");
        }
        assert!(at("etc/pki/tls/certs/ca-bundle.crt").is_symlink());
    }

    #[test]
    fn alpines_link_stays_a_link() {
        let root = root_with(&["etc/ssl/certs"]);
        symlink("certs/ca-certificates.crt", root.path().join("etc/ssl/cert.pem")).unwrap();
        install(root.path(), PEM);
        assert!(root.path().join("etc/ssl/cert.pem").is_symlink());
        assert_eq!(fs::read(root.path().join("etc/ssl/cert.pem")).unwrap(), PEM);
    }

    #[test]
    fn a_link_that_leads_out_of_the_places_is_not_written_through() {
        let root = root_with(&["etc/ssl/certs", "elsewhere"]);
        let other = root.path().join("elsewhere/file");
        fs::write(&other, "theirs").unwrap();
        symlink(&other, root.path().join("etc/ssl/cert.pem")).unwrap();
        symlink(&other, root.path().join(BUNDLE)).unwrap();
        install(root.path(), PEM);
        assert_eq!(fs::read(&other).unwrap(), b"theirs");
        assert_eq!(fs::read(root.path().join("etc/ssl/cert.pem")).unwrap(), PEM);
    }
}
