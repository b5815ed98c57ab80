#!/usr/bin/env python3
"""What a check costs, as a ratio to a stock server that looks at nothing, in one interleaved run.

    bench.py [--rounds 5] [--seconds 1] [--write docs/performance.md]

Each round runs the floor, the floor again and the product, one after the other, so that a machine that becomes slower does
so for all. What is compared is CPU time of the server's own threads, the kernel's part included; the second floor says how
much two runs of the same program differ here, and nothing closer than that is a difference. The server has one core and
the load another, where there are two.

The product is the whole of it: HMAC-SHA256 over the body, replay guard, metrics, headers for the application, dynamic
metadata. Every delivery is a new one, correctly signed.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILT = HERE / "target" / "release"
PRODUCT = pathlib.Path(os.environ.get("HOOKWARDEN_BIN", ROOT / "target" / "release" / "hookwarden"))
CONFIGURATION = """
listen: {{ ext_authz: "{listen}", admin: "off" }}
watch: false
outcomes: access_log
endpoints:
  github: {{ provider: github, secrets: [{{ id: main, inline: a secret of the benchmarks }}] }}
"""
SETTINGS = [(kind, size, streams) for size, many in ((2048, (1, 16, 64)), (262_144, (16,))) for kind in ("unix", "tcp") for streams in many]
BEGIN, END = "<!-- bench:begin -->\n", "<!-- bench:end -->\n"


def pinned(core, command):
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core % len(cores)]), *map(str, command)]


@contextlib.contextmanager
def server(what, kind, directory):
    """A server on a socket of its own: its process and where it is."""
    if kind == "unix":
        target = listen = f"unix:{directory}/{time.monotonic_ns()}.sock"
        listen = listen.replace("unix:", "unix://")
    else:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            target = listen = f"127.0.0.1:{probe.getsockname()[1]}"
    if what == "product":
        file = pathlib.Path(directory) / f"{time.monotonic_ns()}.yaml"
        file.write_text(CONFIGURATION.format(listen=listen))
        command = [PRODUCT, "serve", "--config", file, "--log-level", "error"]
    else:
        command = [BUILT / "floor", target]
    process = subprocess.Popen(pinned(0, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_it_listens(target, process)
        yield process, target
    finally:
        process.terminate()
        process.wait(15)


def wait_until_it_listens(target, process):
    end = time.monotonic() + 10
    while time.monotonic() < end and process.poll() is None:
        path = target.removeprefix("unix:")
        with socket.socket(socket.AF_UNIX if path != target else socket.AF_INET) as probe:
            address = path if path != target else (target.split(":")[0], int(target.split(":")[1]))
            if probe.connect_ex(address) == 0:
                return
        time.sleep(0.005)
    raise SystemExit(f"no server at {target}")


def measure(what, setting, seconds, directory):
    kind, size, streams = setting
    with server(what, kind, directory) as (process, target):
        load = pinned(1, [BUILT / "load", target, process.pid, streams, size, seconds])
        answer = json.loads(subprocess.run(load, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout)
        if answer["wrong"] or not answer["checks"]:
            raise SystemExit(f"{what} {setting}: {answer}")
        memory = int((pathlib.Path(f"/proc/{process.pid}/status").read_text()).partition("VmRSS:")[2].split()[0])
    return {
        "cpu": answer["cpu_ns"] / answer["checks"] / 1000,
        "rate": answer["checks"] / answer["seconds"],
        "p99": answer["p99_us"],
        "memory": memory,
    }


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def table(rounds, seconds):
    lines = [
        "| socket | body | streams | no-op, µs | no-op again | hookwarden | rate | p99 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory(prefix="hookwarden-bench-") as directory:
        for setting in SETTINGS:
            runs = {name: [] for name in ("floor", "again", "product")}
            for _ in range(rounds):
                for name in runs:
                    runs[name].append(measure(name, setting, seconds, directory))
            ratio = lambda name, of: [run[of] / floor[of] for run, floor in zip(runs[name], runs["floor"])]
            kind, size, streams = setting
            floor = statistics.median(run["cpu"] for run in runs["floor"])
            lines.append(
                f"| {kind} | {size >> 10} KiB | {streams} | {floor:.1f} | {spread(ratio('again', 'cpu'))} | **{spread(ratio('product', 'cpu'))}** "
                f"| {statistics.median(ratio('product', 'rate')):.2f} | {statistics.median(ratio('product', 'p99')):.2f} |"
            )
            print(lines[-1], flush=True)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--write", type=pathlib.Path, help="a page whose table is replaced")
    options = parser.parse_args()
    lines = table(options.rounds, options.seconds)
    if options.write:
        page = options.write.read_text()
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        about = (
            f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}, Linux {platform.release().split('-')[0]}; "
            f"{options.rounds} interleaved rounds of {options.seconds:g} s: median (least–most) of the rounds' ratios.\n\n"
        )
        options.write.write_text(before + BEGIN + about + "\n".join(lines) + "\n" + END + after)


if __name__ == "__main__":
    main()
