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

    /// `heads` is where requests begin in `said`, whose heads are whole and have been found good. A target that is a
    /// URL already stays as it is.
    pub(crate) fn put_into(&self, said: &[u8], heads: &[usize]) -> Vec<u8> {
        let mut whole = Vec::with_capacity(said.len() + heads.len() * self.site.len());
        let mut done = 0;
        for head in heads {
            let request = said.get(*head..).unwrap_or_default();
            let method = request.iter().position(|byte| *byte == b' ');
            let target = head + method.map_or(0, |length| length + 1);
            whole.extend_from_slice(said.get(done..target).unwrap_or_default());
            done = target;
            match said.get(target) {
                Some(b'/') => whole.extend_from_slice(self.site.as_bytes()),
                // Of OPTIONS: about the server as a whole, which is a URL without a path.
                Some(b'*') => {
                    whole.extend_from_slice(self.site.as_bytes());
                    done += 1;
                }
                _ => {}
            }
        }
        whole.extend_from_slice(said.get(done..).unwrap_or_default());
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(said: &str, heads: &[usize]) -> String {
        let name = HostName::try_from("far.test".to_owned()).unwrap();
        String::from_utf8(WholeUrls::new(&name).put_into(said.as_bytes(), heads)).unwrap()
    }

    #[test]
    fn every_request_gets_its_url_and_nothing_else_is_touched() {
        let first = "POST /a?b=/c HTTP/1.1\r\nHost: far.test\r\n\r\n";
        let said =
            format!("{first}GET /body OPTIONS * HTTP/1.1\r\n\r\nGET HTTP://FAR.test/d HTTP/1.0\r\n\r\n");
        let second = first.len() + "GET /body ".len();
        let third = second + "OPTIONS * HTTP/1.1\r\n\r\n".len();
        assert_eq!(
            put(&said, &[0, second, third]),
            "POST http://far.test/a?b=/c HTTP/1.1\r\nHost: far.test\r\n\r\n\
             GET /body OPTIONS http://far.test HTTP/1.1\r\n\r\n\
             GET HTTP://FAR.test/d HTTP/1.0\r\n\r\n"
        );
        assert_eq!(put("GET / is a body", &[]), "GET / is a body");
    }
}
