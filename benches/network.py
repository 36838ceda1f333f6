#!/usr/bin/env python3
"""What the network costs, natively: a network namespace instead of a guest, beside passt where a path to it is given.

    benches/network.py [--pasta PATH] [--turns N] [--mebibytes N] [--json FILE]

As root, on Linux. Build first: cargo build --release -p egress-proxy -p user-net --bins --examples
Both products get one processor to themselves, client and server share another; they take turns within one run, and
each figure is the median of its turns.
"""

import argparse
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARIES = ROOT / "target/x86_64-unknown-linux-gnu/release"
PIECE = 1 << 20
CONNECTIONS = 200
# Ours and the peer's processor, and the one for both ends.
PRODUCT, ENDS = "0", "1"


def receive(stream, count):
    block = bytearray(PIECE)
    while count > 0:
        got = stream.recv_into(block, min(PIECE, count))
        if got == 0:
            raise EOFError("it closed early")
        count -= got


def send(stream, count):
    block = bytes(PIECE)
    while count > 0:
        count -= stream.send(block[: min(PIECE, count)])


def serve(listener):
    """A letter and a count: U takes that many bytes and says so, D gives them."""

    def one(stream):
        with stream:
            while order := stream.recv(9, socket.MSG_WAITALL):
                letter, count = struct.unpack("<cQ", order)
                if letter == b"U":
                    receive(stream, count)
                    stream.sendall(b"k")
                else:
                    send(stream, count)

    while True:
        stream, _ = listener.accept()
        threading.Thread(target=one, args=(stream,), daemon=True).start()


def transfer(address, letter, flows, total):
    """Gigabits in a second. One process for each few flows would be fairer to nobody: both ends share a processor."""
    streams = [socket.create_connection(address, timeout=60) for _ in range(flows)]
    each = total // flows

    def one(stream):
        stream.sendall(struct.pack("<cQ", letter, each))
        if letter == b"U":
            send(stream, each)
            stream.recv(1, socket.MSG_WAITALL)
        else:
            receive(stream, each)

    threads = [threading.Thread(target=one, args=(stream,)) for stream in streams]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begin
    for stream in streams:
        stream.close()
    return each * flows * 8 / seconds / 1e9


def connects(address):
    times = []
    for _ in range(CONNECTIONS):
        begin = time.monotonic()
        stream = socket.create_connection(address, timeout=10)
        times.append(time.monotonic() - begin)
        stream.close()
    return 1e6 * statistics.median(times)


def refusals(address):
    times = []
    for _ in range(CONNECTIONS):
        begin = time.monotonic()
        try:
            socket.create_connection(address, timeout=10)
            raise SystemExit("bench: a connection that should be refused was not")
        except ConnectionRefusedError:
            times.append(time.monotonic() - begin)
    return 1e6 * statistics.median(times)


def client(words):
    host, port, refused, mebibytes = words
    address, total = (host, int(port)), int(mebibytes) << 20
    # The first packets teach each side who the other is.
    socket.create_connection(address, timeout=10).close()
    figures = {
        "one flow out, Gb/s": transfer(address, b"U", 1, total),
        "one flow in, Gb/s": transfer(address, b"D", 1, total),
        "64 flows out, Gb/s": transfer(address, b"U", 64, total),
        "64 flows in, Gb/s": transfer(address, b"D", 64, total),
        "connect p50, us": connects(address),
    }
    if refused != "-":
        figures["refused connect p50, us"] = refusals((refused, 443))
    print(json.dumps(figures))


def inside(command):
    print(f"bench: {' '.join(map(str, command[:6]))} …", file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=600)
    if done.returncode != 0:
        sys.exit(f"bench: that ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(folder, own, port, mebibytes):
    rule = {"effect": "allow", "pattern": {"range": f"{own}/32"}, "ports": "all"}
    config = {
        "version": 1,
        "policy": {"rules": [rule]},
        "resolver": {"nameservers": [], "hosts": []},
        "upstream": {"http": None, "https": None, "no_proxy": []},
    }
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(config))
    os.environ["CABLE_EVENTS"] = str(Path(folder) / "events")
    cable = ["taskset", "-c", PRODUCT, BINARIES / "examples/cable", BINARIES / "coffer-egress", path, "--"]
    return inside([*cable, "taskset", "-c", ENDS, sys.executable, __file__, "--client", own, port, "192.0.2.200", mebibytes])


def pasta(path, gateway, port, mebibytes):
    command = ["taskset", "-c", PRODUCT, path, "--runas", "0:0", "--config-net", "--foreground", "--quiet", "--"]
    return inside([*command, "taskset", "-c", ENDS, sys.executable, __file__, "--client", gateway, port, "-", mebibytes])


def route():
    """This host's own address, and its gateway's."""
    said = subprocess.run(["ip", "-4", "route", "get", "198.51.100.1"], capture_output=True, text=True, check=True).stdout.split()
    return said[said.index("src") + 1], said[said.index("via") + 1]


def main():
    if sys.argv[1:2] == ["--client"]:
        return client(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pasta", metavar="PATH", help="passt's program for namespaces")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    own, gateway = route()
    listener = socket.create_server(("0.0.0.0", 0), backlog=1024)
    port = str(listener.getsockname()[1])
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    os.sched_setaffinity(0, {int(ENDS)})
    figures = {"cofferdam": [], "passt": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.turns):
            figures["cofferdam"].append(ours(folder, own, port, str(options.mebibytes)))
            if options.pasta:
                figures["passt"].append(pasta(options.pasta, gateway, port, str(options.mebibytes)))
    if not options.pasta:
        print("bench: passt skipped, no path to it was given (--pasta)", file=sys.stderr)
    print("| median | cofferdam | passt | ratio |\n|---|---|---|---|")
    for name in figures["cofferdam"][0]:
        us = [turn[name] for turn in figures["cofferdam"]]
        them = [turn[name] for turn in figures["passt"] if name in turn]
        ratio = statistics.median(a / b for a, b in zip(us, them)) if them else None
        cell = lambda values: f"{statistics.median(values):.2f}" if values else ""
        print(f"| {name} | {cell(us)} | {cell(them)} | {f'{ratio:.2f}' if ratio else ''} |")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1))


main()
