//! Folders of the host in a guest: where they are, who owns what is in them, and what the guest may not do there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use tests::{Host, Run, Session, cases};

const READ_ONLY: &str = "Read-only file system";

/// A repository with one commit and all kinds of files that are not for the guest.
fn repository(host: &Host, path: &str) -> PathBuf {
    let folder = host.folder(path);
    fs::write(folder.join("note"), "from the host\n").unwrap();
    let script = "git init --quiet --initial-branch main && git add note
        git -c user.name=a -c user.email=a@b commit --quiet --message first
        mkdir -p .ssh directory; echo key > .ssh/id; echo 'use flake' > .envrc; echo x > directory/file
        printf '#!/bin/sh\\n' > .git/hooks/pre-commit; chmod 755 .git/hooks/pre-commit; ln -s note link";
    let done = Command::new("sh")
        .args(["-ec", script])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    folder
}

#[test]
fn a_folder_for_one_command() {
    cases!(Host::new();
        a_repository_is_worked_in_as_on_the_host,
        a_read_only_one_is_read_and_not_written,
        outputs_stay_when_the_sandbox_is_gone,
        what_is_no_folder_to_share_is_told_before_anything_starts,
    );
}

fn a_repository_is_worked_in_as_on_the_host(host: &Host) {
    let folder = repository(host, "project");
    let line = "ls && echo hi > hello && git status";
    let words = ["run", "--share", ".", "--", "sh", "-c", line];
    let ended = host.coffer(words).at(&folder).end().code(0);
    let said = ended.text();
    assert!(
        said.starts_with("directory\nlink\nnote\n") && said.contains("On branch main"),
        "{ended}"
    );
    assert!(
        said.contains("Untracked files:") && said.contains("\thello"),
        "{ended}"
    );
    assert_eq!(ended.stderr, "");
    assert_eq!(fs::read_to_string(folder.join("hello")).unwrap(), "hi\n");
    let [ours, theirs] = ["note", "hello"].map(|name| fs::metadata(folder.join(name)).unwrap());
    assert_eq!((ours.uid(), ours.gid()), (theirs.uid(), theirs.gid()));
    assert_eq!(theirs.permissions().mode() & 0o7777, 0o644);
}

fn a_read_only_one_is_read_and_not_written(host: &Host) {
    let folder = repository(host, "only-read");
    let line = "cat note && git log --format=%s && echo hi > hello";
    let words = ["run", "--share", ".:ro", "--", "sh", "-c", line];
    let ended = host.coffer(words).at(&folder).end().code(2);
    assert_eq!(ended.text(), "from the host\nfirst");
    assert!(ended.stderr.contains(READ_ONLY), "{ended}");
    assert!(!folder.join("hello").exists());
}

fn outputs_stay_when_the_sandbox_is_gone(host: &Host) {
    let line = "mkdir mnt/outputs/deep && echo result > mnt/outputs/deep/report && ln -s /etc/passwd mnt/outputs/link";
    let run = ["run", "--name", "maker", "--", "sh", "-c", line];
    let ended = host.coffer(run).end().code(0);
    let kept = host.root().join("state/cofferdam/outputs/maker");
    assert!(ended.stderr.contains(kept.to_str().unwrap()), "{ended}");
    assert_eq!(fs::read_to_string(kept.join("deep/report")).unwrap(), "result\n");
    assert_eq!(
        fs::read_link(kept.join("link")).unwrap(),
        Path::new("/etc/passwd")
    );
}

fn what_is_no_folder_to_share_is_told_before_anything_starts(host: &Host) {
    let folder = host.folder("refused");
    fs::write(folder.join("file"), "").unwrap();
    let home = folder.join("home");
    fs::create_dir(&home).unwrap();
    let refused = |share: &str, code, what: &str, hint: &str| {
        let run = host.coffer(["run", "--share", share, "--", "true"]);
        let ended = run.at(&folder).env("HOME", &home).end();
        let took = ended.took;
        ended.complains(code, what, hint);
        assert!(took.as_secs() < 5, "{share}: {took:?}");
    };
    refused("file", 125, "not a folder", "folder");
    refused("missing", 125, "missing", "mkdir");
    refused("/", 125, "whole file system", "--i-know");
    refused("home", 125, "home directory", "--i-know");
    refused(".", 125, "home", "--i-know");
    refused("/proc", 125, "/proc", "--i-know");
    refused(".:review", 2, "review is not there yet", "ro");
    assert_eq!(host.coffer(["ls", "-q"]).end().code(0).text(), "");
}

#[test]
fn folders_of_a_session() {
    let host = Host::new();
    let folder = repository(&host, "work");
    let fixed = repository(&host, "other/work");
    let third = repository(&host, "third");
    let path = |folder: &Path, more: &str| format!("{}{more}", folder.display());
    let shares = [path(&folder, ""), path(&fixed, ":ro"), path(&third, ":code")];
    let options = shares.each_ref().map(|share| ["--share", share]).concat();
    let session = host.up("dir", &options);
    cases!(session;
        a_command_starts_in_the_first_one_unless_it_is_told_where,
        each_has_its_name_and_is_listed,
        what_is_in_them_is_the_agents_there_and_ours_here,
        uploads_come_from_the_host_only,
        a_read_only_one_refuses_every_change,
        a_read_only_one_refuses_a_root_that_mounts_it_anew,
        what_is_hidden_is_not_there,
        what_the_host_runs_later_is_not_changed,
        owners_and_rights_that_are_more_than_a_file_are_refused,
        links_lead_to_nothing_of_the_host,
    );
}

fn on_host(session: &Session, path: &str) -> PathBuf {
    session.host().root().join("folders").join(path)
}

fn a_command_starts_in_the_first_one_unless_it_is_told_where(session: &Session) {
    session
        .sh("pwd; cat note")
        .end()
        .says("/sessions/dir/mnt/work\nfrom the host");
    let at = |directory| session.exec(&["-w", directory], ["pwd"]).end();
    at("mnt/code").says("/sessions/dir/mnt/code");
    at(".").says("/sessions/dir");
    at("/usr/bin").says("/usr/bin");
    session.root("pwd").end().says("/sessions/dir/mnt/work");
}

fn each_has_its_name_and_is_listed(session: &Session) {
    session
        .sh("ls ..")
        .end()
        .says("code\noutputs\nuploads\nwork\nwork-2");
    let ended = session.host().coffer(["share", "ls", "dir"]).end().code(0);
    let text = ended.text();
    let names = text.lines().skip(1).filter_map(|line| line.split(' ').next());
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["work", "work-2", "code", "outputs", "uploads"],
        "{ended}"
    );
}

fn what_is_in_them_is_the_agents_there_and_ours_here(session: &Session) {
    let line =
        "umask 027; mkdir made; echo x > made/file; chmod 751 made; stat -c '%U:%G %a' . note made made/file";
    session
        .sh(line)
        .end()
        .says("agent:agent 755\nagent:agent 644\nagent:agent 751\nagent:agent 640");
    let ours = fs::metadata(on_host(session, "work/note")).unwrap();
    for (name, mode) in [("made", 0o751), ("made/file", 0o640)] {
        let found = fs::metadata(on_host(session, "work").join(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (ours.uid(), ours.gid()));
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{name}");
    }
    session.root("echo x > made/of-root && rm -r made").end().code(0);
    assert!(!on_host(session, "work/made").exists());
}

fn uploads_come_from_the_host_only(session: &Session) {
    let uploads = PathBuf::from(session.inspect("uploads"));
    fs::write(uploads.join("given"), "given\n").unwrap();
    session.sh("cat ../uploads/given").end().says("given");
    refuses(
        session,
        "../uploads",
        &["echo x > given", "rm given", "mkdir d"],
        READ_ONLY,
    );
    session.sh("echo x > ../outputs/kept").end().code(0);
    fs::remove_file(uploads.join("given")).unwrap();
}

/// Tries each line in the sandbox, below `directory`, as its user and as its root: none ends well, and each says `word`.
#[track_caller]
fn refuses(session: &Session, directory: &str, lines: &[&str], word: &str) {
    let each = "cd $1 && while IFS= read -r line; do
        said=$(sh -c \"$line\" 2>&1 >/dev/null </dev/null); echo $? $said; done";
    for user in ["agent", "root"] {
        let command = ["sh", "-c", each, "sh", directory];
        let run = session.exec(&["-i", "--user", user], command);
        let ended = run.input(lines.join("\n") + "\n").end().code(0);
        let answers = ended.text();
        assert_eq!(answers.lines().count(), lines.len(), "{ended}");
        for (line, answer) in lines.iter().zip(answers.lines()) {
            let refused = answer.split(' ').next() != Some("0") && answer.contains(word);
            assert!(refused, "{user}: {line}: {answer}, not {word}");
        }
    }
}

const CHANGES: [&str; 16] = [
    "echo hi > new",
    "echo hi > note",
    "echo hi | tee --append note",
    "truncate --size 0 note",
    "rm note",
    "rm -r directory",
    "mkdir new",
    "rmdir directory",
    "mv note new",
    "mv note directory",
    "ln note new",
    "ln -s note new",
    "chmod 600 note",
    "touch note",
    "touch -d yesterday directory",
    "python3 -c 'import os; os.setxattr(\"note\", \"user.x\", b\"y\")'",
];

fn a_read_only_one_refuses_every_change(session: &Session) {
    let before = tree(&on_host(session, "other/work"));
    refuses(session, "../work-2", &CHANGES, READ_ONLY);
    session
        .sh("cd ../work-2 && cat note link directory/file && git status --short")
        .end()
        .code(0);
    assert_eq!(tree(&on_host(session, "other/work")), before);
}

/// Everything about everything below it.
fn tree(folder: &Path) -> String {
    let line =
        r"find . -printf '%P %y %m %U:%G %n %s %T@ %l\n' | sort; find . -type f | sort | xargs sha256sum";
    Run::new(["sh", "-c", line]).at(folder).end().code(0).text()
}

fn a_read_only_one_refuses_a_root_that_mounts_it_anew(session: &Session) {
    let before = tree(&on_host(session, "other/work"));
    session
        .root("mount -o remount,bind,rw /sessions/dir/mnt/work-2 && ! grep -q ' /sessions/dir/mnt/work-2 ro' /proc/self/mountinfo")
        .end()
        .code(0);
    refuses(session, "../work-2", &CHANGES, READ_ONLY);
    assert_eq!(tree(&on_host(session, "other/work")), before);
    session
        .root("mount -o remount,bind,ro,nosuid,nodev /sessions/dir/mnt/work-2")
        .end()
        .code(0);
}

fn what_is_hidden_is_not_there(session: &Session) {
    session
        .root("ls -A")
        .end()
        .says(".envrc\n.git\ndirectory\nlink\nnote");
    refuses(
        session,
        ".",
        &[
            "cat .ssh/id",
            "ls .ssh",
            "cat .SSH/id",
            "cat directory/../.ssh/id",
        ],
        "No such file or directory",
    );
    refuses(
        session,
        ".",
        &[
            "mkdir .ssh",
            "touch .ssh",
            "mv directory .ssh",
            "ln -s . .ssh",
            "mkdir directory/.ssh",
            "ln note .ssh",
        ],
        "",
    );
    let key = on_host(session, "work/.ssh/id");
    assert_eq!(fs::read_to_string(key).unwrap(), "key\n");
    assert_eq!(tree(&on_host(session, "work/directory")).lines().count(), 3);
}

fn what_the_host_runs_later_is_not_changed(session: &Session) {
    let before = tree(&on_host(session, "work"));
    refuses(
        session,
        ".",
        &[
            "echo evil > .git/hooks/pre-commit",
            "echo evil | tee --append .git/hooks/pre-commit",
            "truncate --size 0 .git/hooks/pre-commit",
            "chmod 600 .git/hooks/pre-commit",
            "rm .git/hooks/pre-commit",
            "echo evil > .git/hooks/post-merge",
            "ln -s ../../note .git/hooks/post-merge",
            "ln note .git/hooks/post-merge",
            "mv note .git/hooks/post-merge",
            "mv .git/hooks .git/away",
            "echo evil > .envrc",
            "rm .envrc",
            "mv .envrc other",
            "ln .envrc other",
            "echo evil > directory/.envrc",
            "echo evil > directory/.ENVRC",
            "echo evil > directory/.bashrc",
        ],
        "Permission denied",
    );
    assert_eq!(tree(&on_host(session, "work")), before);
    // What is made elsewhere does not come under such a name afterwards, whatever is moved.
    let attempts = "mkdir -p fake/hooks; echo evil > fake/hooks/pre-commit
        mv fake directory/.git; ln -s ../fake directory/.git
        mv .git away && { echo evil > away/hooks/pre-commit; echo evil > away/hooks/post-merge; mv away .git; }
        mv .git/hooks/pre-commit.sample .git/hooks/pre-push; mv .git/hooks .git/h && mv fake/hooks .git/hooks
        rm -rf fake directory/.git; true";
    session.root(attempts).end().code(0);
    let folder = on_host(session, "work");
    let evil = Run::new(["grep", "-rl", "evil", "."]).at(&folder).end().text();
    assert_eq!(evil, "");
    let hooks = |path| {
        Run::new(["sh", "-c", "sha256sum *"])
            .at(on_host(session, path))
            .end()
            .text()
    };
    assert_eq!(hooks("work/.git/hooks"), hooks("third/.git/hooks"));
}

fn owners_and_rights_that_are_more_than_a_file_are_refused(session: &Session) {
    refuses(
        session,
        ".",
        &["chown 0 note", "chown 33:33 note", "chgrp 0 note"],
        "Operation not permitted",
    );
    session.root("chown agent:agent note").end().code(0);
    session
        .root("cp /usr/bin/id program && { chmod 6755 program; chmod u+s program; true; } && stat -c %a program")
        .end()
        .says("755");
    session
        .root("setcap cap_net_raw+ep program 2>/dev/null; getcap program; ./program -u")
        .end()
        .says("0");
    let mode = fs::metadata(on_host(session, "work/program")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755);
    session.root("rm program").end().code(0);
    refuses(
        session,
        ".",
        &[
            "mknod device c 1 3",
            "mknod device b 7 0",
            "mkfifo pipe",
            "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'",
        ],
        "Operation not permitted",
    );
    assert!(
        !["device", "pipe", "socket"]
            .iter()
            .any(|name| on_host(session, "work").join(name).exists())
    );
}

fn links_lead_to_nothing_of_the_host(session: &Session) {
    let secret = session.host().root().join("secret");
    fs::write(&secret, "secret\n").unwrap();
    let line = format!(
        "ln -s {0} way; cat way; ln -s ../../../secret up; cat up; echo x > {0}; ls ../../../../; true",
        secret.display()
    );
    let ended = session.root(&line).end().code(0);
    assert!(!ended.text().contains("secret"), "{ended}");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret\n");
    assert_eq!(fs::read_link(on_host(session, "work/way")).unwrap(), secret);
    std::os::unix::fs::symlink("/etc/hostname", on_host(session, "work/own")).unwrap();
    session.sh("cat own").end().says("dir");
}
