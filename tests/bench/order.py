#!/usr/bin/env python3
"""Which functions run from a start with every preset to a few hundred checks, for the linker to put side by side.

    order.py <llvm-profdata> <recording build> <release>

Prints their symbols, those with the most instructions first. Callgrind sees what runs in either build; what the first of them
records besides is part of other functions there, and may not be in the next release.
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile

import large
import measure
from instructions import ask_under_callgrind

CHECKS = 400


def run(program, directory):
    """What callgrind saw, and what the program recorded."""
    socket, file, seen, recorded = (measure.fresh(directory, suffix) for suffix in (".sock", ".yaml", ".out", ".recorded"))
    file.write_text(large.configuration(socket, endpoints=150, more="outcomes: access_log"))
    options = "--demangle=no", "--compress-strings=no"
    ask_under_callgrind(program, file, socket, CHECKS, seen, *options, LLVM_PROFILE_FILE=f"{recorded}/%p.profraw")
    return functions(program, seen), recorded


def functions(program, seen):
    """A program's functions, by the instructions that ran in them."""
    ours, name, counts = False, None, collections.Counter()
    lines = iter(seen.read_text().splitlines())
    for line in lines:
        if line.startswith("ob="):
            ours = line == f"ob={program}"
        elif line.startswith("fn="):
            # Of one that calls itself callgrind makes several.
            name = line.removeprefix("fn=").partition("'")[0]
        elif line.startswith("calls="):
            next(lines)  # what ran in the function that was called
        elif ours and name and re.match(r"[\d+*-]", line):
            counts[name] += int(line.split()[1])
    return counts


def recorded_functions(profdata, recorded):
    merged = recorded / "merged"
    subprocess.run([profdata, "merge", "--sparse", "--output", merged, *recorded.iterdir()], check=True)
    show = [profdata, "show", "--all-functions", merged]
    shown = subprocess.run(show, stdout=subprocess.PIPE, text=True, check=True).stdout
    # A function that only one unit of compilation sees has that unit's name before its own.
    return sorted(re.findall(r"^  (?:\S*;)?(\S+):\n    Hash:", shown, re.MULTILINE))


def main():
    profdata, recording, release = sys.argv[1], *(pathlib.Path(program).resolve() for program in sys.argv[2:])
    measure.prepare()
    with tempfile.TemporaryDirectory(prefix="hookwarden-bench-") as directory:
        seen, recorded = run(recording, pathlib.Path(directory))
        seen_in_release, _ = run(release, pathlib.Path(directory))
        found = [[name for name, _ in counts.most_common()] for counts in (seen_in_release, seen)]
        found.append(recorded_functions(profdata, recorded))
    if any(len(names) < 1000 for names in found):
        sys.exit(f"{[len(names) for names in found]} functions cannot be all")
    print(*dict.fromkeys(name for names in found for name in names), sep="\n")


if __name__ == "__main__":
    main()
