//! Requests as an HTTP proxy wants them that makes no tunnel: each names the whole URL (RFC 9112, 3.2.2).

use egress_policy::HostName;

#[derive(Debug)]
pub(crate) struct WholeUrls {
    /// `http://name`
    site: String,
}

impl WholeUrls {
    pub(super) fn new(name: &HostName) -> Self {
        WholeUrls {
            site: format!("http://{name}"),
        }
    }

    /// `said` begins with a request whose head is whole and has been found good. A target that is a URL already stays as
    /// it is.
    pub(crate) fn put_into(&self, said: &[u8]) -> Vec<u8> {
        let method = said.iter().position(|byte| *byte == b' ');
        let (method, rest) = said.split_at(method.map_or(0, |length| length + 1));
        let (site, rest) = match rest {
            [b'/', ..] => (self.site.as_str(), rest),
            // Of OPTIONS: about the server as a whole, which is a URL without a path.
            [b'*', rest @ ..] => (self.site.as_str(), rest),
            _ => ("", rest),
        };
        [method, site.as_bytes(), rest].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_its_url_and_nothing_else_is_touched() {
        let urls = WholeUrls::new(&HostName::try_from("far.test".to_owned()).unwrap());
        for (said, expected) in [
            (
                "POST /a?b=/c HTTP/1.1\r\nHost: far.test\r\n\r\nGET /body",
                "POST http://far.test/a?b=/c HTTP/1.1\r\nHost: far.test\r\n\r\nGET /body",
            ),
            (
                "OPTIONS * HTTP/1.1\r\n\r\n",
                "OPTIONS http://far.test HTTP/1.1\r\n\r\n",
            ),
            (
                "GET HTTP://FAR.test/d HTTP/1.0\r\n\r\n",
                "GET HTTP://FAR.test/d HTTP/1.0\r\n\r\n",
            ),
        ] {
            assert_eq!(urls.put_into(said.as_bytes()), expected.as_bytes());
        }
    }
}
