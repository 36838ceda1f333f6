"""The machines that are measured: one VMM process each, all with the same kernel and the same initramfs."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARIES = ROOT / "target/x86_64-unknown-linux-gnu/release"
PORT = 5000
# An address of the host that only these measurements have.
HOST = "192.0.2.77"
MEMORY_MIB = 256
# Firecracker's own boot arguments, from its boot time test: its best, not our idea of it.
FIRECRACKER_ARGS = (
    "reboot=k panic=-1 pci=off nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd "
    "swiotlb=noforce cryptomgr.notests quiet rdinit=/init"
)
# What ours has of its own accord, as far as it means anything there.
CLOUD_HYPERVISOR_ARGS = (
    "console=ttyS0 quiet panic=-1 no_timer_check tsc=reliable cryptomgr.notests swiotlb=noforce "
    "random.trust_cpu=on rdinit=/init"
)
# The lab's emulated processor does not show its hypervisor a guest's XSETBV, so XSAVE fails in a guest of any VMM.
LAB_ARGS = ["noxsave"] if "COFFERDAM_LAB" in os.environ else []


class Refused(Exception):
    """This machine cannot be measured, and why."""


class Machine:
    """One VMM process with one guest. Its folder goes with it."""

    kernel = None
    initramfs = None

    def __init__(self, mode, vcpus=1, share=None):
        self.folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/run" if os.access("/run", os.W_OK) else None))
        self.share = share
        self.helpers = []
        if mode == "net":
            self.listener = socket.create_server(("0.0.0.0", PORT))
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(self.folder / f"vsock_{PORT}"))
            self.listener.listen()
        self.listener.settimeout(60)
        self.started = time.monotonic()
        self.process = self.start(mode, vcpus)
        if mode == "net":
            self.add_network()

    def add_network(self):
        """What a guest's network needs besides its machine."""

    def connect(self):
        try:
            self.stream, _ = self.listener.accept()
        except TimeoutError:
            self.process.kill()
            sys.exit(f"bench: a guest under {self.name} never dialed; its console:\n{self.said()}")
        self.connected = time.monotonic() - self.started
        return self.stream

    def said(self):
        """The end of everything it or a helper of its wrote."""
        files = [path for path in (self.folder / "console", self.folder / "virtiofsd.log") if path.exists()]
        return "".join(path.read_text(errors="replace")[-2000:] for path in files)

    def end(self, kill=False):
        for process in [self.process, *self.helpers]:
            if kill:
                process.kill()
            process.wait(timeout=60)
        self.lived = time.monotonic() - self.started
        self.listener.close()
        shutil.rmtree(self.folder)

    def spawn(self, command):
        """What it says is in the file named console."""
        with (self.folder / "console").open("ab") as console:
            return subprocess.Popen(command, stdout=console, stdin=subprocess.DEVNULL, stderr=console)


def default_patterns(name):
    """What the bridge hides or protects unless told otherwise: every name the guest looks up is held against these."""
    source = (ROOT / "crates/share-policy/src/defaults.rs").read_text()
    body = source[source.index(f"{name}: &[&str] = &["):]
    lines = [line for line in body[:body.index("];")].splitlines() if not line.lstrip().startswith("//")]
    return re.findall(r'"([^"]+)"', "\n".join(lines))


class Coffer(Machine):
    name = "coffer-vmm"
    # Where a guest finds the folder, and how the agent mounts it.
    share_words = "--tag cofferdam --folder bench --read-ahead 1024"

    def start(self, mode, vcpus):
        config = {
            "version": 1, "vcpus": vcpus, "memory": MEMORY_MIB,
            "kernel": str(self.kernel), "initramfs": str(self.initramfs),
            "kernel_args": [f"bench={mode}", *LAB_ARGS], "disks": [],
            "vsock": {"cid": 3, "socket": str(self.folder / "vsock"), "ports": [PORT]},
            "console": {"log": str(self.folder / "console"), "max_bytes": 65536},
            "control": str(self.folder / "control"), "net": mode == "net",
        }
        if mode == "net":
            config["kernel_args"].append(f"net=198.18.0.2/24,198.18.0.1,{HOST}:{PORT},65520")
        (self.folder / "config").write_text(json.dumps(config))
        command = [BINARIES / "coffer-vmm", "--config", self.folder / "config"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def connect(self):
        stream = super().connect()
        if self.share:
            self.add_share()
        return stream

    def add_network(self):
        """As the bridge does: a coffer-egress of its own, whose link travels as a descriptor."""
        rule = {"effect": "allow", "pattern": {"range": f"{HOST}/32"}, "ports": "all"}
        config = {
            "version": 1, "policy": {"rules": [rule]}, "resolver": {"nameservers": [], "hosts": []},
            "upstream": {"http": None, "https": None, "no_proxy": []},
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs, (self.folder / "egress.log").open("wb") as log:
            egress = subprocess.Popen([BINARIES / "coffer-egress"], stdin=subprocess.PIPE, stdout=log, stderr=log,
                                      preexec_fn=lambda: os.dup2(theirs.fileno(), 3), close_fds=False)
            self.helpers.append(egress)
            egress.stdin.write(json.dumps(config).encode() + b"\n")
            egress.stdin.flush()
            self.ask({"do": "net-link"}, ours.fileno())

    def add_share(self):
        """As the bridge does: the folder travels as a descriptor beside the request."""
        share = {
            "name": "bench", "mode": "read-write", "cache": "shared",
            "hide": default_patterns("DEFAULT_HIDDEN"), "protect": default_patterns("DEFAULT_PROTECTED"),
        }
        folder = os.open(self.share, os.O_PATH | os.O_DIRECTORY)
        self.ask({"do": "share-add", "share": share}, folder)
        os.close(folder)

    def ask(self, request, descriptor):
        with socket.socket(socket.AF_UNIX) as control:
            while control.connect_ex(str(self.folder / "control")) != 0:
                time.sleep(0.01)
            socket.send_fds(control, [json.dumps(request).encode() + b"\n"], [descriptor])
            answer = json.loads(control.makefile().readline() or '{"why": "no answer"}')
        if answer.get("answer") != "done":
            raise Refused(f"{self.name} does not {request['do']}: {answer.get('why', answer)}")


class Qemu(Machine):
    """The machine it has for this, with its user network."""

    name = "qemu"
    path = None

    def start(self, mode, vcpus):
        words = f"console=ttyS0 quiet panic=-1 rdinit=/init bench={mode} net=10.0.2.15/24,10.0.2.2,10.0.2.2:{PORT},1500"
        return self.spawn([
            self.path, "-M", "microvm", "-accel", "kvm", "-cpu", "host", "-smp", str(vcpus), "-m", str(MEMORY_MIB),
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{self.folder / 'serial'}",
            "-kernel", self.kernel, "-initrd", self.initramfs, "-append", " ".join([words, *LAB_ARGS]),
            "-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net",
        ])


class Firecracker(Machine):
    name = "firecracker"
    path = None

    def start(self, mode, vcpus):
        config = {
            "boot-source": {
                "kernel_image_path": str(self.kernel), "initrd_path": str(self.initramfs),
                "boot_args": " ".join([FIRECRACKER_ARGS, *LAB_ARGS, f"bench={mode}"]),
            },
            "drives": [],
            "machine-config": {"vcpu_count": vcpus, "mem_size_mib": MEMORY_MIB},
            "vsock": {"guest_cid": 3, "uds_path": str(self.folder / "vsock")},
            # The devices that a machine of ours always has.
            "entropy": {},
            "balloon": {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 0},
        }
        (self.folder / "config").write_text(json.dumps(config))
        return self.spawn([self.path, "--no-api", "--config-file", self.folder / "config"])


class CloudHypervisor(Machine):
    """With virtiofsd for the folder."""

    name = "cloud-hypervisor"
    path = None
    virtiofsd = None
    share_words = "--tag bench"

    def start(self, mode, vcpus):
        command = [
            self.path, "--kernel", self.kernel, "--initramfs", self.initramfs,
            "--cmdline", " ".join([CLOUD_HYPERVISOR_ARGS, *LAB_ARGS, f"bench={mode}"]),
            "--cpus", f"boot={vcpus}", "--memory", f"size={MEMORY_MIB}M,shared=on",
            "--serial", f"file={self.folder / 'console'}", "--console", "off",
            "--vsock", f"cid=3,socket={self.folder / 'vsock'}",
        ]
        if self.share:
            command += ["--fs", f"tag=bench,socket={self.serve()},num_queues=1,queue_size=1024"]
        return self.spawn(command)

    def serve(self):
        path = self.folder / "virtiofsd"
        # Listening before it is started, it is there before anyone asks.
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            descriptor = listener.fileno()
            os.set_inheritable(descriptor, True)
            command = [self.virtiofsd, "--fd", str(descriptor), "--shared-dir", self.share, "--cache", "auto"]
            command += ["--sandbox", "chroot" if os.geteuid() == 0 else "none"]
            with (self.folder / "virtiofsd.log").open("wb") as log:
                self.helpers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                     pass_fds=[descriptor]))
        return path
