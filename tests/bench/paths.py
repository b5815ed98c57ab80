#!/usr/bin/env python3
"""What hookwarden costs where it stands: dear signatures, stores, the whole path of a delivery, other ways to verify it,
memory, and large bodies.

    paths.py [--rounds 9] [--seconds 1] [--write docs/performance.md] [--install] [SET…]

signatures  RSA and ECDSA, beside a server that looks at nothing and the library's verification by itself
stores      replays remembered in memory, in a file and in Redis
envoy       a sidecar behind Envoy: hookwarden beside a stock server that looks at nothing
nginx       hookwarden behind nginx, beside the same check inside nginx
rivals      the same delivery by other ways to verify it
memory      with 150 and 1,000 endpoints, with 64 bodies of 10 MiB at once, and the time to the first check
beside      small checks while large bodies are verified

All of a set is run in turn in each round, so that a machine that becomes slower does so for all, and what counts are the
ratios of a round. Every delivery is a new one and correctly signed; each set begins by making sure that one which is not is
refused. CPU is that of all threads and children, the kernel's part included.
"""

import argparse
import pathlib
import tempfile

import direct
import fronts
import large
import measure
import whole_path

SETS = {
    "signatures": direct.signatures,
    "stores": direct.stores,
    "envoy": whole_path.envoy,
    "nginx": whole_path.nginx,
    "rivals": whole_path.rivals,
    "memory": large.memory,
    "beside": large.beside,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--write", type=pathlib.Path, help="a page whose tables are replaced")
    parser.add_argument("--install", action="store_true", help="first install what is missing")
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(SETS) + "; all of them if none is named")
    options = parser.parse_args()
    if unknown := [name for name in options.sets if name not in SETS]:
        parser.error(f"no such set: {', '.join(unknown)}")
    measure.prepare()
    sets = options.sets or list(SETS)
    if options.write:
        # Not after an hour.
        for name in sets:
            measure.parts(options.write, f"bench-paths:{name}")
    if options.install:
        fronts.install()
    for name in sets:
        print(f"\n{name}\n", flush=True)
        lines = []
        with tempfile.TemporaryDirectory(prefix="hookwarden-bench-") as directory:
            for line in SETS[name](options, directory):
                print(line, flush=True)
                lines.append(line)
        if options.write and lines:
            measure.write(options.write, f"bench-paths:{name}", [measure.about(options), "", *lines])


if __name__ == "__main__":
    main()
