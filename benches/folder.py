"""What a folder costs in a guest, beside Cloud Hypervisor with virtiofsd where paths to both are given.

The guest's half is benches/src/folder.rs, which also runs here without a machine.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machines import BINARIES, Refused

HERE = "no machine"
# A peer's rate times this is what we want at least (issue: folders).
BARS = {"bytes": 1.2, "reads": 1.2, "files": 1.5, "entries": 1.5}
OPERATIONS = [
    "sequential-write", "sequential-read-cold", "random-read-cold", "create", "write-small", "stat-cold",
    "open-read-cold", "readdir-cold", "readdir-large-cold", "rename-cold", "unlink-cold",
]
# The slowest operation of all, in the lab and with patience.
PATIENCE = 300
KVM = Path("/sys/kernel/debug/kvm")


def measure(kinds, options):
    """Every turn of every kind: {kind: {operation: [one dict per turn]}}."""
    show_exits()
    results = {kind.name: {} for kind in kinds} | {HERE: {}}
    left = list(kinds)
    for turn in range(options.runs + 1):
        # The guests take turns operation by operation, and who is first changes from turn to turn.
        left.reverse()
        measured = in_guests(left, options) | {HERE: without_machine(options)}
        for name, figures in measured.items():
            for one in figures if turn > 0 else []:  # the first turn warms the caches
                results[name].setdefault(one["operation"], []).append(one)
        print(f"bench: folders, turn {turn} of {options.runs}", file=sys.stderr)
    return {name: figures for name, figures in results.items() if figures}


def in_guests(kinds, options):
    """One boot of each. A kind that cannot do it leaves the list."""
    figures = {}
    with contextlib.ExitStack() as stack:
        guests = []
        for kind in list(kinds):
            try:
                guests.append(stack.enter_context(Guest(kind, options)))
                figures[kind.name] = []
            except Refused as why:
                print(f"bench: {kind.name} skipped: {why}", file=sys.stderr)
                kinds.remove(kind)
        while guests:
            guests = [guest for guest in guests if guest.step(figures[guest.name])]
    return figures


class Guest:
    """A guest with a folder of its own, and the conversation with the program in it."""

    def __init__(self, kind, options):
        self.name = kind.name
        self.folder = tempfile.TemporaryDirectory(prefix="bench-share-", dir=options.on)
        make_listed(Path(self.folder.name) / "listed", options.listed)
        self.machine = kind("vsock", share=self.folder.name)
        try:
            self.stream = self.machine.connect()
        except Refused:
            self.__exit__()
            raise
        self.stream.settimeout(PATIENCE)
        self.report = self.stream.makefile()
        words = f"{kind.share_words} {read_ahead(options)} {sizes(options)}".encode()
        self.stream.sendall(b"F" + len(words).to_bytes(8, "little") + words)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.machine.end(kill=True)
        self.folder.cleanup()

    def step(self, figures):
        """One operation. False after the last."""
        self.await_word("ready")
        self.stream.sendall(b"p")
        if self.await_word("ready", "done") == ["done"]:
            return False
        exits = kvm_exits(self.machine.process.pid)
        self.stream.sendall(b"g")
        words = self.await_word(*OPERATIONS)
        exits = kvm_exits(self.machine.process.pid) - exits
        figures.append(figure(*words) | {"exits": exits})
        return True

    def await_word(self, *expected):
        try:
            line = self.report.readline()
        except OSError as error:
            line = str(error)
        words = line.split()
        if line.endswith("\n") and words and words[0] in expected:
            return words
        sys.exit(f"bench: a guest under {self.name}: {line.strip()}\nits console:\n{self.machine.said()}")


def make_listed(directory, count):
    """The large directory, as the guest's half makes it where it has to: here it takes no time worth speaking of."""
    directory.mkdir()
    for index in range(count):
        (directory / f"f{index:06}").touch()


def without_machine(options):
    with tempfile.TemporaryDirectory(prefix="bench-share-", dir=options.on) as share:
        command = [BINARIES / "bench-init", "--dir", share, *sizes(options).split()]
        report = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return [figure(*line.split()) for line in report.splitlines()]


def figure(operation, count, unit, nanoseconds):
    rate = int(count) / (int(nanoseconds) / 1e9)
    return {"operation": operation, "count": int(count), "unit": unit, "rate": rate}


def sizes(options):
    return (f"--files {options.files} --mebibytes {options.folder_mebibytes} --reads {options.reads} "
            f"--listed {options.listed}")


def read_ahead(options):
    return f"--read-ahead {options.read_ahead}" if options.read_ahead else ""


def kvm_exits(pid):
    """All exits of that process's machine so far; 0 where that is not ours to see."""
    # KVM names a machine after the thread that made it.
    threads = os.listdir(f"/proc/{pid}/task")
    try:
        counters = [path for thread in threads for path in KVM.glob(f"{thread}-*/exits")]
        return sum(int(counter.read_text()) for counter in counters)
    except OSError:
        return 0


def show_exits():
    """The lab is ours: there the counters may be looked at."""
    if "COFFERDAM_LAB" in os.environ and os.geteuid() == 0 and not KVM.exists():
        subprocess.run(["mount", "-t", "debugfs", "debugfs", KVM.parent], check=True)


def print_table(results):
    names = list(results)
    guests = [name for name in names if name != HERE]
    compared = len(guests) == 2
    head = ["per second, median", *guests, *(["ratio", "bar"] if compared else []), HERE,
            *(f"exits each, {name}" for name in guests)]
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for operation in results[HERE]:
        rates = {name: middle(results[name].get(operation), "rate") for name in names}
        unit = results[HERE][operation][0]["unit"]
        cells = [operation, *(shown(rates[name], unit) for name in guests)]
        if compared:
            cells += [f"{ratio(*(results[name][operation] for name in guests)):.2f}", f"{BARS[unit]}"]
        cells += [shown(rates[HERE], unit), *(exits_each(results[name].get(operation)) for name in guests)]
        print("| " + " | ".join(cells) + " |")


def ratio(ours, theirs):
    """Of each pair, then the median: what else the machine did meanwhile, it did to both."""
    return statistics.median(a["rate"] / b["rate"] for a, b in zip(ours, theirs, strict=True))


def middle(turns, key):
    values = [turn[key] for turn in turns or [] if turn.get(key) is not None]
    return statistics.median(values) if values else None


def shown(rate, unit):
    if rate is None:
        return "–"
    return f"{rate / 2**20:.4g} MiB" if unit == "bytes" else f"{rate:,.0f} {unit}"


def exits_each(turns):
    exits = middle(turns, "exits")
    if not exits:
        return "–"
    # Of bytes, one of anything is a mebibyte.
    count = turns[0]["count"] / (2**20 if turns[0]["unit"] == "bytes" else 1)
    return f"{exits / count:.2f}"
