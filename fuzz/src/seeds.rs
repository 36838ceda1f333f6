//! What the fuzzer begins with: sessions that reach every operation, and attacks somebody thought of.

use crate::{Fields, Input, Kind, Step, names::number_of};

/// Numbers of the nodes a guest of [`crate::share_fs`] knows from the start.
mod node {
    pub(super) const RW: u8 = 2;
    pub(super) const RO: u8 = 3;
    pub(super) const TINY: u8 = 4;
    pub(super) const GIT: u8 = 5;
    pub(super) const HOOKS: u8 = 6;
    pub(super) const PRE_COMMIT: u8 = 7;
    pub(super) const DIR: u8 = 8;
    pub(super) const INNER: u8 = 9;
    pub(super) const FILE: u8 = 10;
    pub(super) const PROJECT: u8 = 11;
    pub(super) const TINY_FILE: u8 = 15;
    /// The first one that is told of later.
    pub(super) const NEXT: u8 = 17;
}

/// The name of a seed, and what is in it.
pub type Seed = (String, Input);

/// As a target reads them.
pub fn of(target: &str) -> Vec<(String, Vec<u8>)> {
    match target {
        "dns_question" => questions(),
        _ => all()
            .into_iter()
            .map(|(name, input)| (name, input.to_bytes()))
            .collect(),
    }
}

/// For either target of the shares: they read the same steps.
pub fn all() -> Vec<Seed> {
    let mut seeds = everything_once();
    seeds.extend(sessions());
    seeds
}

/// Of [`crate::question`].
pub fn questions() -> Vec<(String, Vec<u8>)> {
    const EXAMPLE: &[u8] = b"\x07eXample\x03com\0";
    let plain = |name: &[u8], kind: u16| question([1, 0, 0, 0], name, kind, &[]);
    let edns = |version: u8| [b"\0\0\x29\x04\xd0\0", [version].as_slice(), b"\0\0\0\0"].concat();
    let reverse = b"\x011\x011\x0218\x03198\x07in-addr\x04arpa\0";
    let long = [
        [&[63][..], &[b'n'; 63]].concat().repeat(3),
        b"\x3d".to_vec(),
        vec![b'n'; 61],
        vec![0],
    ]
    .concat();
    let seeds: [(&str, u8, Vec<Vec<u8>>); 10] = [
        (
            "a-name",
            0,
            vec![plain(EXAMPLE, 1), plain(EXAMPLE, 28), plain(EXAMPLE, 65)],
        ),
        (
            "edns",
            3,
            vec![
                question([1, 0, 0, 1], EXAMPLE, 1, &edns(0)),
                question([1, 0, 0, 1], EXAMPLE, 1, &edns(1)),
            ],
        ),
        (
            "two-of-edns",
            1,
            vec![question([1, 0, 0, 2], EXAMPLE, 1, &edns(0).repeat(2))],
        ),
        (
            "odd-kinds",
            7,
            [0, 10, 16, 252, 255].map(|kind| plain(EXAMPLE, kind)).to_vec(),
        ),
        (
            "the-root-and-localhost",
            0,
            vec![plain(b"\0", 2), plain(b"\x09localhost\0", 1)],
        ),
        ("backwards", 2, vec![plain(EXAMPLE, 1), plain(reverse, 12)]),
        (
            "the-longest-name",
            9,
            vec![plain(&long, 1), plain(&[b"\x01n", long.as_slice()].concat(), 1)],
        ),
        ("a-pointer-to-itself", 0, vec![plain(b"\xc0\x0c", 1)]),
        (
            "no-question-and-two",
            0,
            vec![
                question([0; 4], b"", 1, &[]),
                question([2, 0, 0, 0], EXAMPLE, 1, EXAMPLE),
            ],
        ),
        (
            "letters-of-no-name",
            5,
            vec![
                plain(b"\x03a.b\x01\0\0", 1),
                plain(b"\x02\xff\xfe\0", 1),
                Vec::new(),
            ],
        ),
    ];
    let write = |(name, cut, messages): (&str, u8, Vec<Vec<u8>>)| {
        let verdicts = 0b0101_0101;
        (
            name.to_owned(),
            [&[verdicts, cut][..], &messages.join(crate::question::NEXT)].concat(),
        )
    };
    seeds.into_iter().map(write).collect()
}

fn question(counts: [u16; 4], name: &[u8], kind: u16, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0];
    message.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    message.extend(name);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message.extend(rest);
    message
}

/// Each operation by itself, on a directory and on a file.
fn everything_once() -> Vec<Seed> {
    let requests = Kind::ALL.iter().map(|kind| {
        let on = |node| {
            Step::of(*kind)
                .on(node)
                .named("file")
                .to(node::FILE, "a")
                .carrying(b"text")
                .with(4, 0)
        };
        let input = Input {
            steps: vec![on(node::RW), on(node::FILE)],
        };
        (format!("once-{kind:?}").to_lowercase(), input)
    });
    requests.collect()
}

fn sessions() -> Vec<Seed> {
    use Kind::*;
    use node::*;
    let step = Step::of;
    let sessions: Vec<(&str, Vec<Step>)> = vec![
        (
            "made-written-read-removed",
            vec![
                step(Create).on(RW).named("a").mode(0o644),
                step(Write).on(NEXT).carrying(b"text").with(6, 0),
                step(FSync).on(NEXT),
                step(Read).on(NEXT).with(6, 0),
                step(Rename).on(RW).named("a").to(DIR, "b"),
                step(SetSize).on(NEXT).with(1, 3),
                step(Unlink).on(DIR).named("b"),
                step(Read).on(NEXT).with(6, 0),
                step(Forget).on(NEXT).number(1),
            ],
        ),
        (
            "a-tree-is-made-and-listed",
            vec![
                step(MkDir).on(RW).named("a").mode(0o755),
                step(MkDir).on(NEXT).named("b").mode(0o700),
                step(Symlink).on(NEXT).named("up").carrying(b"../../canary"),
                step(MkNod).on(NEXT + 1).named("file").mode(0o100_644),
                step(ReadDirPlus).on(NEXT).with(6, 0),
                step(ReadDir).on(RW).with(4, 0),
                step(ReadLink).on(NEXT + 2),
                step(RmDir).on(NEXT).named("b"),
            ],
        ),
        (
            "hooks-by-every-way",
            vec![
                step(Write).on(PRE_COMMIT).carrying(b"evil").with(3, 0),
                step(SetMode).on(PRE_COMMIT).mode(0o777),
                step(Create).on(HOOKS).named("a").mode(0o755),
                step(Rename).on(RW).named(".git").to(RW, "a"),
                step(Rename2).on(RW).named("dir").to(RW, ".git").flags(2),
                step(Link).on(RW).named("b").to(PRE_COMMIT, ""),
                step(Lookup).on(RW).named("hook-alias"),
                step(Write).on(PRE_COMMIT).carrying(b"evil").with(3, 0),
                step(Unlink).on(RW).named("hook-alias"),
                step(Rename).on(RW).named("project").to(RW, "moved"),
                step(SetTimes).on(PRE_COMMIT).flags(0xf),
                step(SetXattr).on(PRE_COMMIT).named("user.a").carrying(b"value"),
                step(CopyFileRange).on(FILE).to(PRE_COMMIT, "").with(4, 0),
                step(FAllocate).on(PRE_COMMIT).with(6, 0),
            ],
        ),
        (
            "a-hook-by-a-name-the-host-gave-it",
            vec![
                step(Forget).on(PRE_COMMIT).number(u64::MAX),
                step(Lookup).on(RW).named("hook-alias"),
                step(Write).on(NEXT).carrying(b"evil").with(3, 0),
                step(SetMode).on(NEXT).mode(0o777),
                step(SetSize).on(NEXT),
                step(Rename).on(RW).named("hook-alias").to(RW, "a"),
                step(Create).on(RW).named("a").mode(0o644).flags(0o1000),
            ],
        ),
        (
            "what-is-hidden",
            vec![
                step(Lookup).on(RW).named(".ssh"),
                step(Lookup).on(NEXT).named("id_rsa"),
                step(Read).on(NEXT + 1).with(6, 0),
                step(Lookup).on(RW).named(".Ssh"),
                step(MkDir).on(RW).named(".Ssh").mode(0o755),
                step(Rename).on(RW).named(".ssh").to(RW, "a"),
                step(Rename).on(RW).named("dir").to(PROJECT, ".ssh"),
                step(ReadDirPlus).on(RW).with(10, 0),
            ],
        ),
        (
            "hooks-of-a-project-that-is-built-elsewhere",
            vec![
                step(MkDir).on(RW).named("a").mode(0o755),
                step(MkDir).on(NEXT).named("hooks").mode(0o755),
                step(Create).on(NEXT + 1).named("pre-commit").mode(0o755),
                step(Rename).on(RW).named("a").to(PROJECT, ".git"),
                step(Rename).on(NEXT).named("hooks").to(GIT, "modules"),
                step(Rename).on(RW).named("a").to(DIR, ".GIT"),
                step(Symlink).on(DIR).named(".git").carrying(b"../a"),
            ],
        ),
        (
            "out-by-links-and-dots",
            vec![
                step(Lookup).on(RW).named("out"),
                step(Lookup).on(NEXT).named("secret").carrying(b"secret"),
                step(Lookup).on(RW).named(".."),
                step(Lookup).on(RW).named("../canary"),
                step(ReadDir).on(NEXT).with(6, 0),
                step(Read).on(NEXT).with(6, 0),
                step(Write).on(NEXT).with(3, 0),
                step(SetMode).on(NEXT).mode(0o777),
                step(SetTimes).on(NEXT).flags(0xf),
                step(Create).on(RW).named("out-file").mode(0o644).flags(0o1000),
                step(Link).on(RW).named("a").to(NEXT, ""),
                step(Rename2).on(RW).named("out").to(RW, "dir").flags(2),
                step(Lookup).on(DIR).named("inner"),
            ],
        ),
        (
            "from-folder-to-folder",
            vec![
                step(Rename).on(RO).named("file").to(RW, "a"),
                step(Link).on(RW).named("a").to(TINY_FILE, ""),
                step(CopyFileRange).on(FILE).to(TINY_FILE, "").with(4, 0),
                step(Write).on(RO).with(3, 0),
                step(Create).on(RO).named("a").mode(0o644),
                step(TmpFile).on(TINY).mode(0o600),
            ],
        ),
        (
            "up-to-the-limits",
            vec![
                step(Create).on(TINY).named("a").mode(0o644),
                step(Write).on(NEXT).carrying(b"x").with(10, 0),
                step(Unlink).on(TINY).named("a"),
                step(Create).on(TINY).named("b").mode(0o644),
                step(Write).on(NEXT + 1).carrying(b"x").with(10, 0),
                step(SetSize).on(NEXT).with(0, 0),
                step(Create).on(TINY).named("file").mode(0o644),
                step(FAllocate).on(TINY_FILE).with(10, 0),
                step(MkDir).on(TINY).named("c").carrying(b"c").mode(0o755),
                step(Symlink).on(TINY).named("out").carrying(b"/"),
            ],
        ),
        (
            "more-files-than-allowed",
            (b'a'..b'k')
                .map(|letter| step(MkDir).on(TINY).named("?").carrying(&[letter]).mode(0o755))
                .collect(),
        ),
        (
            "more-open-files-than-allowed",
            (0..64)
                .map(|number| {
                    step(Create)
                        .on(RW)
                        .named("?")
                        .carrying(&[b'A' + number])
                        .mode(0o644)
                })
                .collect(),
        ),
        (
            "a-temporary-file-gets-a-name",
            vec![
                step(TmpFile).on(RW).mode(0o600),
                step(Write).on(NEXT).carrying(b"x").with(3, 0),
                step(Link).on(DIR).named("a").to(NEXT, ""),
                step(Link).on(HOOKS).named("a").to(NEXT, ""),
                step(Release).on(NEXT).number(1),
            ],
        ),
        (
            "special-bits-and-attributes",
            vec![
                step(Create).on(RW).named("a").mode(0o6777),
                step(SetMode).on(FILE).mode(0o6755),
                step(MkDir).on(RW).named("b").mode(0o7777),
                step(MkNod).on(RW).named("host").mode(0o010_644),
                step(MkNod).on(RW).named("host").mode(0o020_644),
                step(MkNod).on(RW).named("host").mode(0o060_644),
                step(MkNod).on(RW).named("host").mode(0o140_644),
                step(SetXattr).on(FILE).named("user.a").carrying(b"value"),
                step(GetXattr).on(FILE).named("user.a").with(4, 0),
                step(ListXattr).on(FILE).with(4, 0),
                step(RemoveXattr).on(FILE).named("user.a"),
                step(SetXattr)
                    .on(FILE)
                    .named("security.capability")
                    .carrying(&[1; 20]),
                step(SetXattr).on(FILE).named("trusted.a").carrying(b"value"),
            ],
        ),
        (
            "the-host-swaps-a-directory-for-a-link",
            vec![
                step(Lookup).on(DIR).named("inner"),
                step(Host).flags(1 << 4 | 5),
                step(Lookup).on(DIR).named("inner"),
                step(Read).on(INNER).with(6, 0),
                step(Create).on(DIR).named("a").mode(0o644),
                step(Lookup).on(RW).named("dir"),
                step(Lookup).on(DIR).named("up"),
                step(ReadDirPlus).on(DIR).with(6, 0),
                step(Unlink).on(DIR).named("inner"),
            ],
        ),
        (
            "the-host-edits-and-the-agent-repeats-it",
            vec![
                step(Watch).named("a").number(u64::MAX),
                step(Host).flags(0),
                step(News),
                step(News),
                step(Lookup).on(RW).named("host").by_the_agent(),
                step(MkNod).on(RW).named("host").mode(0o100_600).by_the_agent(),
                step(Host).flags(2),
                step(News),
                step(News),
                step(Lookup).on(RW).named("host").by_the_agent(),
                step(Unlink).on(RW).named("host").by_the_agent(),
                step(Write).on(FILE).with(3, 0).by_the_agent(),
            ],
        ),
        (
            "the-session-ends-and-begins",
            vec![
                step(Destroy),
                step(Lookup).on(RW).named("file"),
                step(Init).number(u64::MAX),
                step(Lookup).on(RW).named("file"),
                step(Init).number(0).flags(1),
                step(BatchForget).on(FILE).to(DIR, "").number(9),
                step(Interrupt).number(3),
            ],
        ),
    ];
    sessions
        .into_iter()
        .map(|(name, steps)| (name.to_owned(), Input { steps }))
        .collect()
}

/// Steps as a person writes them.
impl Step {
    fn of(kind: Kind) -> Self {
        let mut step = Step::default();
        step.fields.kind = kind.number();
        step.fields.at = 40;
        step
    }

    fn set(mut self, change: impl FnOnce(&mut Fields)) -> Self {
        change(&mut self.fields);
        self
    }

    fn on(self, node: u8) -> Self {
        self.set(|fields| fields.node = node)
    }

    /// A name that is in no dictionary is carried as the blob.
    fn named(self, name: &str) -> Self {
        self.set(|fields| fields.name = number_of(name.as_bytes()).unwrap_or(u8::MAX))
    }

    fn to(self, node: u8, name: &str) -> Self {
        self.set(|fields| {
            fields.other = node;
            fields.new_name = number_of(name.as_bytes()).unwrap_or(u8::MAX);
        })
    }

    fn carrying(mut self, blob: &[u8]) -> Self {
        self.blob = blob.to_vec();
        let len = u8::try_from(blob.len()).expect("a blob is short");
        self.set(|fields| fields.blob_len = len)
    }

    fn with(self, size: u8, offset: u8) -> Self {
        self.set(|fields| (fields.size, fields.offset) = (size, offset))
    }

    fn mode(self, mode: u16) -> Self {
        self.set(|fields| fields.mode = mode)
    }

    fn flags(self, flags: u32) -> Self {
        self.set(|fields| fields.flags = flags)
    }

    fn number(self, number: u64) -> Self {
        self.set(|fields| fields.number = number)
    }

    fn by_the_agent(self) -> Self {
        self.set(|fields| fields.who = 7)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_seed_is_a_finding_for_the_server() {
        for (name, input) in super::all() {
            println!("{name}");
            crate::fuse_server::run(&input);
        }
    }

    #[test]
    fn no_seed_is_a_finding_for_the_folders() {
        for (name, input) in super::all() {
            println!("{name}");
            crate::share_fs::run(&input);
        }
    }
}
