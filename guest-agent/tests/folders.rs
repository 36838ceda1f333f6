//! Folders of the host: attached, in use, detached. File systems in memory stand for the device's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    unsafe_code,
    reason = "a mount namespace of the test's own has no safe wrapper"
)]

mod support;

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    mem::MaybeUninit,
    os::{fd::IntoRawFd, unix::fs::MetadataExt},
    path::Path,
    time::{Duration, Instant},
};

use agent_protocol::{Failure, FailureKind, Folder, GuestMessage, Reply, Request, Status};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::inotify,
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
};
use support::{Host, HostStream, exec, wait_until};

/// The folders the kernel would mount on the way: `docs` and `pics`. `plain` is a directory of the device.
fn device(at: &Path) -> io::Result<()> {
    let tmpfs = |at: &Path| mount("tmpfs", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"");
    tmpfs(at)?;
    for name in ["docs", "pics"] {
        fs::create_dir(at.join(name))?;
        tmpfs(&at.join(name))?;
    }
    fs::create_dir(at.join("plain"))
}

fn device_with_events(at: &Path) -> io::Result<()> {
    device(at)?;
    fs::write(at.join(".coffer-events"), "")
}

/// `None`, with the reason said: not root, or no right to mount.
fn host(mount: support::MountFolders) -> Option<Host> {
    // SAFETY: takes numbers only. This test and the agent it starts get mounts of their own.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
        skipped::because(format_args!("no mount namespace: {}", io::Error::last_os_error()));
        return None;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    Some(Host::with_folders(mount))
}

fn ready(mount: support::MountFolders) -> Option<Host> {
    let host = host(mount)?;
    host.welcome();
    Some(host)
}

fn folder(name: &str, read_only: bool) -> Folder {
    Folder {
        name: name.into(),
        read_only,
    }
}

fn attach(host: &Host, name: &str, read_only: bool) -> Result<(), Failure> {
    result(host.begin(Request::AttachFolder(folder(name, read_only))))
}

fn begin_detach(host: &Host, name: &str, wait_ms: u64, cut: bool) -> HostStream {
    host.begin(Request::DetachFolder {
        name: name.into(),
        wait_ms,
        cut,
    })
}

fn detach(host: &Host, name: &str, wait_ms: u64, cut: bool) -> Result<(), Failure> {
    result(begin_detach(host, name, wait_ms, cut))
}

fn result(stream: HostStream) -> Result<(), Failure> {
    let outcome = stream.outcome();
    match outcome.failure {
        Some(failure) => Err(failure),
        None => {
            assert_eq!(outcome.replies, [Reply::Done]);
            Ok(())
        }
    }
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

#[test]
fn folders_of_the_welcome_are_there_before_ready_with_their_rights() {
    let Some(host) = host(device) else { return };
    let wanted = [folder("docs", false), folder("pics", true)];
    assert_eq!(host.welcome_with(&wanted), GuestMessage::Ready);
    let mnt = host.home().join("mnt");
    fs::write(mnt.join("docs/file"), "").unwrap();
    let refused = fs::write(mnt.join("pics/file"), "").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn a_folder_asked_for_without_a_device_is_a_failed_setup_that_says_what_is_missing() {
    let host = Host::unwelcoming(None);
    let GuestMessage::SetupFailed { what } = host.welcome_with(&[folder("docs", false)]) else {
        panic!("a session without its folder");
    };
    assert!(what.contains("the kernel has no virtio-fs"), "{what}");
}

#[test]
fn a_folder_the_device_does_not_have_is_a_failed_setup_with_its_name() {
    let Some(host) = host(device) else { return };
    let GuestMessage::SetupFailed { what } = host.welcome_with(&[folder("missing", false)]) else {
        panic!("a session without its folder");
    };
    assert_eq!(what, "cannot attach 'missing': No such file or directory");
}

#[test]
fn a_session_that_is_welcomed_again_goes_on_without_a_folder_that_is_gone() {
    let Some(host) = ready(device) else { return };
    host.hang_up();
    host.await_redial();
    let wanted = [folder("missing", false), folder("pics", true)];
    assert_eq!(host.welcome_with(&wanted), GuestMessage::Ready);
    assert!(fs::write(host.home().join("mnt/pics/file"), "").is_err());
}

#[test]
fn without_a_device_there_is_nothing_to_attach_or_detach() {
    let host = Host::start();
    assert_eq!(
        attach(&host, "docs", false).unwrap_err().kind,
        FailureKind::NotFound
    );
    detach(&host, "docs", 0, false).unwrap();
}

#[test]
fn attaching_again_changes_the_rights() {
    let Some(host) = ready(device) else { return };
    let file = host.home().join("mnt/docs/file");
    attach(&host, "docs", true).unwrap();
    assert!(fs::write(&file, "").is_err());
    attach(&host, "docs", false).unwrap();
    fs::write(&file, "").unwrap();
}

#[test]
fn a_directory_that_is_no_mount_is_not_taken_for_a_folder() {
    let Some(host) = ready(device) else { return };
    let failure = attach(&host, "plain", false).unwrap_err();
    assert_eq!(
        failure.message,
        "cannot attach 'plain': it is no folder of the device"
    );
}

#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    let Some(host) = ready(device) else { return };
    for name in ["", ".", "..", "../x", "docs/..", "/", ".coffer-events", "a\0b"] {
        let kind = attach(&host, name, false).unwrap_err().kind;
        assert_eq!(kind, FailureKind::Invalid, "{name:?}");
        let kind = detach(&host, name, 0, true).unwrap_err().kind;
        assert_eq!(kind, FailureKind::Invalid, "{name:?}");
    }
    assert!(is_mounted(&host.home().join("mnt")));
}

#[test]
fn a_folder_nobody_uses_is_detached_at_once_and_twice_is_no_error() {
    let Some(host) = ready(device) else { return };
    let docs = host.home().join("mnt/docs");
    assert!(is_mounted(&docs));
    detach(&host, "docs", 60_000, false).unwrap();
    assert!(!is_mounted(&docs));
    detach(&host, "docs", 60_000, false).unwrap();
    detach(&host, "never", 0, true).unwrap();
    assert!(is_mounted(&host.home().join("mnt/pics")));
}

#[test]
fn a_folder_in_use_is_busy_and_the_user_is_named() {
    let Some(host) = ready(device) else { return };
    let mut request = exec(&["sleep", "1000"]);
    request.cwd = Some(b"mnt/docs".to_vec());
    request.user = Some("root".into());
    let mut sleeper = host.begin(Request::Exec(request));
    let pid = sleeper.await_started();
    let failure = detach(&host, "docs", 30, false).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Busy);
    assert_eq!(failure.message, format!("'docs' is in use by sleep (pid {pid})"));
    assert!(is_mounted(&host.home().join("mnt/docs")));
}

#[test]
fn an_open_file_a_mapping_and_a_mount_inside_are_uses() {
    let Some(host) = ready(device) else { return };
    let docs = host.home().join("mnt/docs");
    let ours = format!("(pid {})", std::process::id());
    let busy = || detach(&host, "docs", 0, false).unwrap_err().message;

    let file = File::create(docs.join("file")).unwrap();
    assert!(busy().contains(&ours));
    drop(file);

    let inner = docs.join("inner");
    fs::create_dir(&inner).unwrap();
    mount("tmpfs", &inner, "tmpfs", MountFlags::empty(), c"").unwrap();
    assert_eq!(busy(), "'docs' is in use: something is mounted in it");
    rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::empty()).unwrap();

    fs::copy("/bin/sleep", docs.join("sleep")).unwrap();
    let mut program = host.begin(Request::Exec(exec(&["mnt/docs/sleep", "1000"])));
    let pid = program.await_started();
    wait_until("the program runs", || {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(&docs))
    });
    assert!(busy().contains(&format!("sleep (pid {pid})")));
}

#[test]
fn a_detach_waits_for_the_last_user() {
    let Some(host) = ready(device) else { return };
    let docs = host.home().join("mnt/docs");
    let file = File::create(docs.join("file")).unwrap();
    let mut waiting = begin_detach(&host, "docs", 60_000, false);
    waiting.set_patience(Some(Duration::from_millis(100)));
    assert!(waiting.next().is_none(), "detached while in use");
    waiting.set_patience(None);
    drop(file);
    result(waiting).unwrap();
    assert!(!is_mounted(&docs));
}

#[test]
fn a_second_detach_meanwhile_is_refused_and_another_folder_is_not_held_up() {
    let Some(host) = ready(device) else { return };
    let file = File::create(host.home().join("mnt/docs/file")).unwrap();
    let waiting = begin_detach(&host, "docs", 60_000, false);
    let failure = detach(&host, "docs", 0, true).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Busy);
    detach(&host, "pics", 0, false).unwrap();
    drop(file);
    result(waiting).unwrap();
}

#[test]
fn a_host_that_closes_the_stream_calls_the_wait_off() {
    let Some(host) = ready(device) else { return };
    let file = File::create(host.home().join("mnt/docs/file")).unwrap();
    drop(begin_detach(&host, "docs", 3_600_000, false));
    wait_until("the folder is free for the next", || {
        let failure = detach(&host, "docs", 0, false).unwrap_err();
        failure.message.contains("is in use")
    });
    drop(file);
    detach(&host, "docs", 0, false).unwrap();
}

#[test]
fn a_cut_takes_the_folder_from_under_its_users_at_once() {
    let Some(host) = ready(device) else { return };
    let docs = host.home().join("mnt/docs");
    let file = File::create(docs.join("file")).unwrap();
    let start = Instant::now();
    detach(&host, "docs", 60_000, true).unwrap();
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(!is_mounted(&docs) && !docs.join("file").exists());
    drop(file);
}

#[test]
fn a_folder_whose_host_is_silent_is_detached_all_the_same() {
    fn silent(at: &Path) -> io::Result<()> {
        device(at)?;
        for name in ["cut", "waited"] {
            let device = File::options().read(true).write(true).open("/dev/fuse")?;
            // Open to the end of the process: closing it would be an answer.
            let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.into_raw_fd());
            fs::create_dir(at.join(name))?;
            let options = CString::new(options)?;
            mount(
                "silent",
                at.join(name),
                "fuse",
                MountFlags::NODEV,
                options.as_c_str(),
            )?;
        }
        Ok(())
    }
    let Some(host) = ready(silent) else { return };
    for name in ["cut", "waited"] {
        let path = host.home().join("mnt").join(name);
        assert!(is_mounted(&path));
        detach(&host, name, 1000, name == "cut").unwrap();
        assert!(!is_mounted(&path));
    }
}

#[test]
fn a_folder_with_spaces_in_its_name_comes_and_goes() {
    fn spaced(at: &Path) -> io::Result<()> {
        device(at)?;
        fs::create_dir(at.join("my docs\\"))?;
        Ok(mount(
            "tmpfs",
            at.join("my docs\\"),
            "tmpfs",
            MountFlags::empty(),
            c"",
        )?)
    }
    let Some(host) = ready(spaced) else { return };
    attach(&host, "my docs\\", true).unwrap();
    detach(&host, "my docs\\", 0, false).unwrap();
    assert!(attach(&host, "my docs\\", true).is_err());
}

#[test]
fn the_device_hears_what_is_watched_and_a_watcher_hears_what_the_device_says() {
    let Some(host) = ready(device_with_events) else {
        return;
    };
    let mnt = host.home().join("mnt");
    let (docs, events) = (mnt.join("docs"), mnt.join(".coffer-events"));
    let instance = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&instance, &docs, inotify::WatchFlags::CREATE).unwrap();
    let line = format!("{} docs\n", docs.metadata().unwrap().ino());
    wait_until("the set is written", || {
        fs::read_to_string(&events).is_ok_and(|set| set == line)
    });

    fs::write(&events, "C docs/new\0").unwrap();
    let ready = poll(
        &mut [PollFd::new(&instance, PollFlags::IN)],
        Some(&support::PATIENCE.try_into().unwrap()),
    );
    assert_eq!(ready, Ok(1));
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&instance, &mut buffer);
    let event = reader.next().unwrap();
    assert_eq!(event.file_name().unwrap().to_bytes(), b"new");

    // A device that repeats itself: the thread is busy in the folder all the time, and not in the way.
    detach(&host, "docs", 0, false).unwrap();
    wait_until("nothing is watched", || {
        fs::read(&events).is_ok_and(|set| set.starts_with(b"\n"))
    });
    assert_eq!(host.run(&["true"]).status(), Status::Code(0));
}
