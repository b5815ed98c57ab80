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
import functools
import pathlib
import statistics
import tempfile

import measure
from measure import spread

# `{listen}` is where the server is told to be.
CONFIGURATION = """
listen: { ext_authz: "{listen}", admin: "off" }
watch: false
outcomes: access_log
endpoints:
  github: { provider: github, secrets: [{ id: main, inline: a secret of the benchmarks }] }
"""
SIZES = {2048: (1, 16, 64), 262_144: (16,)}
SETTINGS = [(kind, size, streams) for size, many in SIZES.items() for kind in ("unix", "tcp") for streams in many]


@contextlib.contextmanager
def server(what, kind, directory, configuration=CONFIGURATION):
    """A server on a socket of its own: its process and where it is."""
    target = f"unix:{measure.fresh(directory, '.sock')}" if kind == "unix" else f"127.0.0.1:{measure.free_port()}"
    pin = functools.partial(measure.pinned, 0)
    if what == "product":
        listen = target.replace("unix:", "unix://")
        started = measure.hookwarden(directory, configuration.replace("{listen}", listen), target, pin)
    else:
        started = measure.floor(directory, target, pin)
    with started as process:
        yield process, target


def sample(what, setting, seconds, directory, configuration=CONFIGURATION, signatures=()):
    """What a server cost, in microseconds of CPU for each check, and how it answered."""
    kind, size, streams = setting
    with server(what, kind, directory, configuration) as (process, target):
        asked = (target, process.pid, streams, size, seconds, *signatures)
        answer = measure.ask("load", *asked, pin=functools.partial(measure.pinned, 1))
        if answer["wrong"] or not answer["checks"]:
            raise SystemExit(f"{what} {setting}: {answer}")
    return {
        "cpu": answer["cpu_ns"] / answer["checks"] / 1000,
        "rate": answer["checks"] / answer["seconds"],
        "p99": answer["p99_us"],
    }


def table(rounds, seconds):
    lines = [
        "| socket | body | streams | no-op, µs | no-op again | hookwarden | rate | p99 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory(prefix="hookwarden-bench-") as directory:
        with server("product", "unix", directory) as (_, target):
            measure.discerns(target)
        for setting in SETTINGS:
            runs = {name: [] for name in ("floor", "again", "product")}
            for _ in range(rounds):
                for name in runs:
                    runs[name].append(sample(name, setting, seconds, directory))
            ratio = lambda name, of: [run[of] / floor[of] for run, floor in zip(runs[name], runs["floor"])]
            kind, size, streams = setting
            floor = statistics.median(run["cpu"] for run in runs["floor"])
            lines.append(
                f"| {kind} | {size >> 10} KiB | {streams} | {floor:.1f} "
                f"| {spread(ratio('again', 'cpu'))} | **{spread(ratio('product', 'cpu'))}** "
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
    measure.prepare()
    if options.write:
        measure.parts(options.write, "bench")
    lines = table(options.rounds, options.seconds)
    if options.write:
        measure.write(options.write, "bench", [measure.about(options), "", *lines])


if __name__ == "__main__":
    main()
