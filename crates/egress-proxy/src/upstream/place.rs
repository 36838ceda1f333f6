//! Where a proxy is, as an environment variable says it.

use egress_policy::host_and_port;

#[derive(PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(super) scheme: Scheme,
    /// A name or an address.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) login: Option<Login>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Socks,
}

#[derive(PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Vec<u8>,
    pub(super) password: Vec<u8>,
}

impl Proxy {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("http", text.trim()));
        let (scheme, standard) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Scheme::Http, 80),
            // The name always goes to the proxy: what this host finds for it is of no use behind one.
            "socks5" | "socks5h" => (Scheme::Socks, 1080),
            _ => return None,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(Login::parse(login)?), place),
            None => (None, authority),
        };
        let (host, port) = host_and_port(place)?;
        let port = port.map_or(Some(standard), |port| port.parse().ok().filter(|port| *port != 0));
        Some(Proxy {
            scheme,
            host: host.to_ascii_lowercase(),
            port: port?,
            login,
        })
    }
}

impl Login {
    /// SOCKS has a byte for each length.
    const MAX: usize = 255;

    fn parse(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let (user, password) = (unescaped(user)?, unescaped(password)?);
        let fits = user.len() <= Self::MAX && password.len() <= Self::MAX;
        (fits && !user.contains(&b':')).then_some(Login { user, password })
    }
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(plain)
}

/// Without the secret.
impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("scheme", &self.scheme)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Scheme, String, u16) {
        let proxy = Proxy::parse(text).unwrap();
        (proxy.scheme, proxy.host, proxy.port)
    }

    #[test]
    fn proxies_are_read_as_people_write_them() {
        assert_eq!(
            parsed("http://Proxy.example:3128/"),
            (Scheme::Http, "proxy.example".to_owned(), 3128)
        );
        assert_eq!(
            parsed("proxy.example:3128"),
            (Scheme::Http, "proxy.example".to_owned(), 3128)
        );
        assert_eq!(
            parsed("http://proxy.example"),
            (Scheme::Http, "proxy.example".to_owned(), 80)
        );
        assert_eq!(
            parsed("socks5h://[2001:db8::1]"),
            (Scheme::Socks, "2001:db8::1".to_owned(), 1080)
        );
        assert_eq!(
            parsed("SOCKS5://192.0.2.1:9"),
            (Scheme::Socks, "192.0.2.1".to_owned(), 9)
        );
    }

    #[test]
    fn logins_are_unescaped_and_never_shown() {
        let proxy = Proxy::parse("http://us%40er:pa%3ass@proxy.example:1").unwrap();
        let login = proxy.login.as_ref().unwrap();
        assert_eq!(
            (&login.user[..], &login.password[..]),
            (&b"us@er"[..], &b"pa:ss"[..])
        );
        assert!(!format!("{proxy:?}{login:?}").contains("us"));
    }

    #[test]
    fn what_is_no_proxy_is_none() {
        for text in [
            "",
            "https://proxy.example:1",
            "ftp://proxy.example",
            "http://",
            "http://:80",
            "http://proxy.example:port",
            "http://proxy.example:0",
            "http://proxy.example:70000",
            "http://[::1",
            "http://[proxy]:1",
            "http://a:b%2@proxy.example",
            "http://a%3ab:c@proxy.example",
        ] {
            assert_eq!(Proxy::parse(text), None, "{text}");
        }
    }
}
