//! Machines of every kind boot: each kernel, from one to many CPUs, from little memory to much.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::{Host, Running, Session, cases};

#[test]
fn every_kernel_boots() {
    cases!(Host::new(); debians_kernel_boots, the_kernel_before_it_boots, our_small_kernel_boots);
}

fn debians_kernel_boots(host: &Host) {
    boots(host, "default", "6.12.");
}

fn the_kernel_before_it_boots(host: &Host) {
    boots(host, "bookworm", "6.1.");
}

fn our_small_kernel_boots(host: &Host) {
    boots(host, "small", "6.12.");
}

/// With all devices bound to their drivers, and a root that takes changes up to the limit of the disk.
fn boots(host: &Host, image: &str, version: &str) {
    // The balloon's and the random device's drivers come when commands may run already.
    let line = "for i in $(seq 200); do
            bound=yes; for device in /sys/bus/virtio/devices/*; do [ -e $device/driver ] || bound=; done
            [ -z \"$bound\" ] || break; sleep 0.1
        done
        uname -r; basename -a $(readlink /sys/bus/virtio/devices/*/driver) | sort | paste -sd' ';
        sudo touch /usr/written; stat -c %U /usr/written; df --output=size -BG / | tail -n 1; python3 -c 'print(6 * 7)'";
    let ended = host
        .coffer(["run", "--image", image, "--disk", "8G", "--", "sh", "-c", line])
        .end()
        .code(0);
    let lines: Vec<String> = ended.text().lines().map(|line| line.trim().to_owned()).collect();
    assert!(lines[0].starts_with(version), "{ended}");
    let drivers =
        "virtio_balloon virtio_blk virtio_blk virtio_net virtio_rng virtiofs vmw_vsock_virtio_transport";
    assert_eq!(lines[1..], [drivers, "root", "8G", "42"], "{ended}");
    assert_eq!(ended.stderr, "");
}

#[test]
fn machines_of_every_shape() {
    cases!(Host::new();
        one_cpu_and_the_least_memory,
        four_cpus,
        as_many_cpus_as_there_may_be,
        memory_above_four_gibibytes,
        debians_kernel_with_little_memory,
    );
}

fn shape(host: &Host, image: &str, cpus: &str, memory: &str, line: &str) -> String {
    let shape = [
        "run", "--image", image, "--cpus", cpus, "--memory", memory, "--", "sh", "-c", line,
    ];
    host.coffer(shape).end().code(0).text()
}

const EACH_CPU_WORKS: &str =
    "nproc; for cpu in $(seq 0 $(($(nproc) - 1))); do taskset -c $cpu true || echo $cpu; done";

fn one_cpu_and_the_least_memory(host: &Host) {
    assert_eq!(shape(host, "small", "1", "64M", EACH_CPU_WORKS), "1");
}

fn four_cpus(host: &Host) {
    assert_eq!(shape(host, "default", "4", "512M", EACH_CPU_WORKS), "4");
}

fn as_many_cpus_as_there_may_be(host: &Host) {
    assert_eq!(shape(host, "small", "32", "1G", "nproc"), "32");
}

fn memory_above_four_gibibytes(host: &Host) {
    let kib = shape(
        host,
        "small",
        "1",
        "6G",
        "awk '/MemTotal/ { print $2 }' /proc/meminfo",
    );
    assert!((5_800_000..6 << 20).contains(&kib.parse().unwrap()), "{kib} KiB");
}

fn debians_kernel_with_little_memory(host: &Host) {
    assert_eq!(shape(host, "default", "1", "128M", "nproc"), "1");
}

#[test]
fn a_machine_under_control() {
    let session = Host::new().up("control", &["--image", "small", "--memory", "256M"]);
    cases!(session; paused_nothing_happens_and_resumed_it_goes_on, asked_to_end_it_ends_in_order);
}

fn control(session: &Session, request: &str) -> Value {
    let path = session
        .host()
        .root()
        .join("run/cofferdam")
        .join(session.name())
        .join("control");
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .write_all(format!("{{\"do\":\"{request}\"}}\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

fn paused_nothing_happens_and_resumed_it_goes_on(session: &Session) {
    let exits = || {
        control(session, "status")["statistics"]["exits"]
            .as_u64()
            .unwrap()
    };
    for _ in 0..2 {
        assert_eq!(control(session, "pause")["answer"], "done");
    }
    assert_eq!(control(session, "status")["state"], "paused");
    let (before, running) = (exits(), session.exec(&[], ["echo", "awake"]).start());
    // Nothing tells of what does not happen.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!((exits(), running.said()), (before, String::new()));
    assert_eq!(control(session, "resume")["answer"], "done");
    running.end().says("awake");
}

fn asked_to_end_it_ends_in_order(session: &Session) {
    let running = session
        .sh("trap 'sync; echo in order; exit 5' TERM; echo ready; sleep 1000 & wait")
        .start();
    running.wait_for("ready");
    let machine = session.number("machine_pid");
    kill_process(Pid::from_raw(machine.try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    let ended = running.end();
    assert!(ended.text().ends_with("in order"), "{ended}");
}

#[test]
fn a_machine_alone() {
    cases!(Host::new();
        without_disks_or_initramfs_the_kernel_panics_and_that_is_its_end,
        it_ends_with_its_owner,
        what_is_no_kernel_is_refused,
        what_is_no_configuration_is_refused,
    );
}

fn images() -> PathBuf {
    host_bridge::Paths::from_environment().unwrap().images()
}

/// A machine without a bridge: its configuration on standard input, its events on standard output.
fn machine(host: &Host, kernel: &Path) -> Running {
    let root = host.root();
    let config = json!({
        "version": 1, "vcpus": 1, "memory": 128, "kernel": kernel, "initramfs": null, "vsock": null,
        "console": { "log": root.join("console"), "max_bytes": 65536 }, "control": root.join("control"),
    });
    let mut machine = host
        .program("coffer-vmm", ["--config", "-"])
        .open_input()
        .deadline(60)
        .start();
    machine.send(&format!("{config}\n"));
    machine
}

fn without_disks_or_initramfs_the_kernel_panics_and_that_is_its_end(host: &Host) {
    let machine = machine(host, &images().join("small/vmlinux"));
    machine.wait_for("\"event\":\"exited\"");
    let said = machine.said();
    assert!(
        said.contains("\"event\":\"started\"") && said.contains("\"why\":\"reset\""),
        "{said}"
    );
    let console = std::fs::read_to_string(host.root().join("console")).unwrap();
    assert!(
        console.contains("Kernel panic - not syncing: VFS: Unable to mount root fs"),
        "{console}"
    );
    machine.end();
}

fn it_ends_with_its_owner(host: &Host) {
    let mut machine = machine(host, &images().join("default/vmlinux"));
    machine.wait_for("started");
    machine.close_input();
    assert!(machine.end().text().contains("owner-gone"));
}

fn what_is_no_kernel_is_refused(host: &Host) {
    for kernel in ["/etc/passwd", "/dev/null", "/no/such/kernel", "/"] {
        let machine = machine(host, Path::new(kernel));
        machine.wait_for("\"event\":\"failed\"");
        assert!(machine.said().contains(kernel), "{}", machine.said());
        machine.end();
    }
}

fn what_is_no_configuration_is_refused(host: &Host) {
    for config in ["", "{}", "\u{0}", "{\"version\":9}"] {
        let ended = host
            .program("coffer-vmm", ["--config", "-"])
            .input(format!("{config}\n"))
            .end();
        assert!(
            ended.code != 0 && ended.text().contains("\"event\":\"failed\""),
            "{ended}"
        );
    }
}
