use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use super::*;

/// A host with these programs, each a script of a shell, and nothing else.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Host(tempfile::tempdir().unwrap());
        fs::create_dir(host.0.path().join("bin")).unwrap();
        host
    }

    fn with(self, program: &str, script: &str) -> Self {
        let path = self.0.path().join("bin").join(program);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn saying(self, program: &str, output: &str) -> Self {
        assert!(!output.contains("END"));
        self.with(
            program,
            &format!("while read -r line; do printf '%s\\n' \"$line\"; done <<'END'\n{output}\nEND"),
        )
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn tools(&self, deadline: Duration) -> Tools {
        let bin = self.0.path().join("bin");
        Tools::with(
            &[
                ("PATH", bin.as_os_str()),
                ("HOME", self.0.path().as_os_str()),
                ("GREETING", OsStr::new("hello")),
                ("NPM_CONFIG_REGISTRY", OsStr::new("http://mirror.test:4873/")),
            ],
            deadline,
        )
    }

    fn learn(&self, name: &str) -> Result<Set> {
        self.learn_within(name, Duration::from_secs(60))
    }

    fn learn_within(&self, name: &str, deadline: Duration) -> Result<Set> {
        find(&self.tools(deadline), &name.parse().unwrap(), Effect::Allow).unwrap()
    }

    fn rules(&self, name: &str) -> Vec<String> {
        texts(&self.learn(name).unwrap())
    }

    fn why(&self, name: &str) -> String {
        self.learn(name).unwrap_err().to_string()
    }
}

fn texts(set: &Set) -> Vec<String> {
    set.rules.iter().map(Rule::without_origin).collect()
}

fn pip(settings: &str) -> Host {
    let said = format!(
        r#"{{"index": "https://index.example.com/simple", "files": "files.example.com", "settings": {settings}}}"#
    );
    Host::new().saying("python3", &said)
}

fn env_of(set: &Set) -> Vec<(&str, &str)> {
    set.env
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

#[test]
fn pip_that_nobody_configured_uses_its_own_index_and_the_host_of_its_files() {
    let set = pip("{}").learn("pip").unwrap();
    assert_eq!(texts(&set), ["index.example.com:443", "files.example.com:443"]);
    assert_eq!(set.rules[0].from, "@pip");
    assert!(set.env.is_empty() && set.notes.is_empty());
}

#[test]
fn a_mirror_of_pip_takes_the_place_of_its_index_and_the_guest_is_told() {
    let set = pip(r#"{"global.index-url": "http://weak.test/simple",
            ":env:.index-url": "http://mirror.test:3141/root/simple/",
            "global.extra-index-url": "\nhttps://a.test/x\nhttps://b.test",
            "install.find-links": "/srv/wheels https://wheels.test/",
            "global.trusted-host": "mirror.test"}"#)
    .learn("pip")
    .unwrap();
    assert_eq!(
        texts(&set),
        ["mirror.test:3141", "a.test:443", "b.test:443", "wheels.test:443"]
    );
    assert_eq!(
        env_of(&set),
        [
            ("PIP_INDEX_URL", "http://mirror.test:3141/root/simple/"),
            ("PIP_EXTRA_INDEX_URL", "https://a.test/x https://b.test"),
            ("PIP_TRUSTED_HOST", "mirror.test"),
        ]
    );
}

#[test]
fn a_mirror_by_its_address_is_that_one_address_and_that_port() {
    let host = pip(r#"{"global.index-url": "http://192.0.2.7:3141/simple"}"#);
    assert_eq!(host.rules("pip"), ["192.0.2.7:3141"]);
}

#[test]
fn a_password_in_a_url_is_in_no_rule_and_no_variable_and_no_note() {
    let set = pip(r#"{"global.index-url": "https://me:s3cret@mirror.test/simple"}"#)
        .learn("pip")
        .unwrap();
    assert_eq!(texts(&set), ["mirror.test:443"]);
    assert!(set.env.is_empty());
    assert!(set.notes[0].contains("PIP_INDEX_URL"), "{:?}", set.notes);
    assert!(!format!("{set:?}").contains("s3cret"));
}

#[test]
fn pip_without_an_index_uses_nothing() {
    let why = pip(r#"{"global.no-index": "true"}"#).why("pip");
    assert_eq!(why, "@pip: pip uses nothing on the network here");
    let host = Host::new().saying("python3", "null");
    assert_eq!(host.why("pip"), "@pip: pip is not installed here");
}

const NPM: &str = r#"case "$2" in
get) echo ${NPM_CONFIG_REGISTRY:-https://registry.example.com/} ;;
*) echo '{"registry": "CONFIGURED", "@ours:registry": "https://scope.test/npm/", "proxy": "https://no.test", "a": null}' ;;
esac"#;

#[test]
fn npm_uses_its_registry_and_those_of_scopes() {
    let usual = Host::new().with("npm", &NPM.replace("CONFIGURED", "https://registry.example.com/"));
    let set = usual.learn("npm").unwrap();
    assert_eq!(texts(&set), ["scope.test:443", "registry.example.com:443"]);
    assert!(set.env.is_empty());
    let mirror = Host::new().with("npm", &NPM.replace("CONFIGURED", "http://mirror.test:4873/"));
    let set = mirror.learn("npm").unwrap();
    assert_eq!(texts(&set), ["scope.test:443", "mirror.test:4873"]);
    assert_eq!(
        env_of(&set),
        [("npm_config_registry", "http://mirror.test:4873/")]
    );
}

#[test]
fn apt_uses_each_of_its_sources_once_and_what_is_no_host_is_left_out() {
    let said = "http://deb.test/debian\nhttp://deb.test/security\nfile:/srv/x\ncdrom:[x]/\nmirror+https://m.test/l\n";
    let host = Host::new().saying("apt-get", said);
    assert_eq!(host.rules("apt"), ["deb.test:80", "m.test:443"]);
}

fn used(host: Host, registry: &str, downloads: &str) -> Host {
    let index = format!(".cargo/registry/index/{registry}-0123456789abcdef/config.json");
    host.file(
        &index,
        &format!(r#"{{"dl": "{downloads}", "api": "https://api.test"}}"#),
    )
}

#[test]
fn cargo_uses_the_registries_it_has_used_and_where_they_say_that_packages_are() {
    let host = used(
        Host::new(),
        "index.example.com",
        "https://static.example.com/crates",
    )
    .file(
        ".cargo/registry/index/old.test-0123456789abcdef/HEAD",
        "from the time of git",
    );
    assert_eq!(
        host.rules("cargo"),
        ["index.example.com:443", "static.example.com:443"]
    );
}

#[test]
fn a_registry_in_place_of_cargos_own_is_the_only_one_and_that_is_said() {
    let config = "[source.own]\nreplace-with = 'near'\n[source.near]\nreplace-with = 'mirror'\n\
        [source.mirror]\nregistry = 'sparse+http://mirror.test:8080/index/'\n\
        [source.patched]\ngit = 'https://git.test/x'\nreplace-with = 'mirror'\n\
        [registries.our-own]\nindex = 'sparse+https://ours.test/'\n[net]\noffline = false\n";
    let host = used(
        Host::new(),
        "index.example.com",
        "https://static.example.com/crates",
    );
    let host =
        used(host, "mirror.test", "http://mirror.test:8080/dl/{crate}").file(".cargo/config.toml", config);
    let set = host.learn("cargo").unwrap();
    assert_eq!(texts(&set), ["ours.test:443", "mirror.test:8080"]);
    assert_eq!(
        env_of(&set),
        [("CARGO_REGISTRIES_OUR_OWN_INDEX", "sparse+https://ours.test/")]
    );
    assert_eq!(set.notes.len(), 2, "{:?}", set.notes);
}

#[test]
fn a_cargo_that_used_nothing_or_goes_in_circles_or_has_no_configuration_that_reads_is_told() {
    let config = |text| Host::new().file(".cargo/config.toml", text).why("cargo");
    assert!(Host::new().why("cargo").ends_with("cargo is not installed here"));
    assert!(config("").contains("cargo fetch"), "{}", config(""));
    assert!(config("[source.a]\nreplace-with='b'\n[source.b]\nreplace-with='a'").contains("circle"));
    assert!(config("[source").contains("cannot be read"));
    let folder = "[source.a]\nreplace-with='b'\n[source.b]\ndirectory='/srv/x'";
    assert!(
        config(folder).contains("nothing on the network"),
        "{}",
        config(folder)
    );
    let deep = "[".repeat(200_000);
    assert!(config(&format!("a = {deep}")).contains("cannot be read"));
}

#[test]
fn a_tool_that_is_missing_is_told_with_what_to_do_instead() {
    for (set, program) in [("pip", "python3"), ("npm", "npm"), ("apt", "apt-get")] {
        let error = Host::new().learn(set).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("@{set}: {program} is not installed here")
        );
        assert!(error.hint().unwrap().contains(&format!("sets/{set}")));
    }
}

#[test]
fn a_tool_that_says_nonsense_or_fails_teaches_nothing() {
    for script in [
        "echo nonsense",
        "echo '[1]'",
        "printf '\\377\\376'",
        "echo '{}'; exit 1",
        "kill -9 $$",
        ":",
    ] {
        for (set, program) in [("pip", "python3"), ("npm", "npm"), ("apt", "apt-get")] {
            let host = Host::new().with(program, script);
            assert!(host.learn(set).is_err(), "{script} {set}");
        }
    }
    let broken = pip(r#"{"global.index-url": "https://a b\u001b[31m.test/"}"#);
    assert!(broken.learn("pip").is_err());
}

#[test]
fn a_tool_without_end_is_ended_with_what_it_started() {
    let host = Host::new().with(
        "npm",
        "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
    );
    assert_eq!(host.why("npm"), "@npm: npm says too much");
    for (script, why) in [
        (
            "/bin/sleep 600 & echo $! > pid; wait",
            "@npm: npm does not answer",
        ),
        (
            "echo '{}'; exec >&-; /bin/sleep 600 & echo $! > pid; wait",
            "@npm: npm does not end",
        ),
    ] {
        let host = Host::new();
        let pid = host.0.path().join("pid");
        let script = script.replace("> pid", &format!("> {}", pid.display()));
        let host = host.with("npm", &script);
        let start = Instant::now();
        let error = host.learn_within("npm", Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.to_string(), why);
        assert!(start.elapsed() < Duration::from_secs(60));
        let pid: u32 = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        assert!(is_gone(pid), "{why}");
    }
}

/// Killed, it is at most a zombie that nobody has waited for.
fn is_gone(pid: u32) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => std::thread::yield_now(),
            _ => return true,
        }
    }
    false
}

#[test]
fn a_tool_has_our_environment_and_starts_where_nothing_of_a_project_is() {
    let host = Host::new().with(
        "apt-get",
        "[ -t 0 ] || read line || [ \"$PWD $GREETING\" = '/ hello' ] && echo http://good.test",
    );
    assert_eq!(host.rules("apt"), ["good.test:80"]);
}

#[test]
fn a_program_in_a_relative_folder_is_nobodys() {
    let host = Host::new().with("apt-get", "echo http://bad.test");
    let tools = Tools::with(&[("PATH", OsStr::new("bin:.:"))], Duration::from_secs(60));
    assert!(Path::new("/bin").exists() && host.0.path().exists());
    let why = find(&tools, &"apt".parse().unwrap(), Effect::Allow)
        .unwrap()
        .unwrap_err();
    assert_eq!(why.to_string(), "@apt: apt-get is not installed here");
}

#[test]
fn a_set_in_a_file_may_have_what_is_learned_and_a_file_of_its_name_counts_for_more() {
    let host = Host::new()
        .saying("apt-get", "http://deb.test/")
        .file("sets/work", "@apt\nmore.test");
    let tools = host.tools(Duration::from_secs(60));
    let sets = host.0.path().join("sets");
    let expand =
        |name: &str| super::super::expand(&sets, &tools, &name.parse().unwrap(), Effect::Deny).unwrap();
    let shown = |set: &Set| set.rules.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        shown(&expand("work")),
        ["deb.test:80 (@work)", "more.test (@work)"]
    );
    assert_eq!(shown(&expand("apt")), ["deb.test:80 (@apt)"]);
    let host = host.file("sets/apt", "mine.test");
    let set = expand("apt");
    assert_eq!(shown(&set), ["mine.test (@apt)"]);
    assert!(
        set.notes[0].starts_with("@apt is what the file says"),
        "{:?}",
        set.notes
    );
    assert_eq!(set.rules[0].effect, Effect::Deny);
    drop(host);
}
