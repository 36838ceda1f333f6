use super::*;

fn read(set: &[(&'static str, &'static str)]) -> Result<Upstream> {
    let find = |name: &str| set.iter().find(|(key, _)| *key == name);
    upstream(|name| find(name).map(|(_, value)| (*value).to_owned()))
}

fn proxies(set: &[(&'static str, &'static str)]) -> (Option<String>, Option<String>) {
    let upstream = read(set).unwrap();
    (upstream.http, upstream.https)
}

fn both(proxy: &str) -> (Option<String>, Option<String>) {
    (Some(proxy.to_owned()), Some(proxy.to_owned()))
}

#[test]
fn each_kind_of_connection_has_its_variable_and_all_is_for_the_rest() {
    assert_eq!(proxies(&[]), (None, None));
    assert_eq!(
        proxies(&[("ALL_PROXY", "socks5://p.test:1")]),
        both("socks5://p.test:1")
    );
    assert_eq!(
        proxies(&[("all_proxy", "p.test:1"), ("HTTPS_PROXY", "http://q.test")]),
        (Some("http://p.test:1".into()), Some("http://q.test".into()))
    );
    assert_eq!(
        proxies(&[("http_proxy", "HTTP://u:p@[::1]:80/")]),
        (Some("http://u:p@[::1]:80".into()), None)
    );
}

#[test]
fn the_lower_case_spelling_is_meant_and_an_empty_one_is_not_set() {
    let set = [("https_proxy", "http://a.test"), ("HTTPS_PROXY", "http://b.test")];
    assert_eq!(proxies(&set), (None, Some("http://a.test".into())));
    let set = [("https_proxy", ""), ("HTTPS_PROXY", "http://b.test")];
    assert_eq!(proxies(&set), (None, None));
}

#[test]
fn what_is_reached_without_a_proxy_is_a_list_and_a_star_is_everything() {
    let set = [
        ("ALL_PROXY", "p.test"),
        ("no_proxy", "A.test, .b.test\t10.0.0.0/8,,"),
    ];
    assert_eq!(read(&set).unwrap().no_proxy, ["a.test", ".b.test", "10.0.0.0/8"]);
    let set = [("ALL_PROXY", "p.test"), ("NO_PROXY", "a.test,*")];
    assert_eq!(read(&set).unwrap(), Upstream::default());
}

#[test]
fn a_proxy_that_cannot_be_used_is_told_by_its_variable_and_never_by_its_value() {
    for value in [
        "https://u:hunter2@p.test",
        "socks4://hunter2",
        "http://u:hunter2@",
        "http://u:hunter2@:80",
        "http://u:hunter2@p.test:99999",
        "http://u:hunter2@p.test:0",
        "http://u:hunter2@[::1]:x",
        "http://u:hunter2@[::1",
        "http://u:hunter2@2001:db8::1",
        "http://u:hunter2@p.test: 1",
        "http://hunter2\x1b[2J.test",
    ] {
        for variable in ["ALL_PROXY", "http_proxy", "HTTPS_PROXY"] {
            let error = read(&[(variable, value)]).unwrap_err();
            let text = format!("{} {:?} {error:?}", error.line(), error.hint());
            assert!(text.contains(variable) && !text.contains("hunter2"), "{text}");
        }
    }
}

#[test]
fn a_bad_proxy_for_the_rest_is_no_error_when_there_is_no_rest() {
    let set = [
        ("ALL_PROXY", "ftp://p.test"),
        ("HTTP_PROXY", "http://a.test"),
        ("HTTPS_PROXY", "http://b.test"),
    ];
    assert_eq!(
        proxies(&set),
        (Some("http://a.test".into()), Some("http://b.test".into()))
    );
}
