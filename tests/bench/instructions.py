#!/usr/bin/env python3
"""How many instructions a check of 2 KiB takes, beside those of the hashes; fails if they are more than was agreed.

    instructions.py [--plain] [--agree]

Instructions are counted and not timed: they are the same on a busy machine. The hashes are left out because what counts them
knows no SHA instructions, so that their number says nothing (and AWS-LC computes them, as on processors without). Two runs, of
which one asks 2,000 questions more, make the start cancel out.

What was agreed is in instructions.json, for a release that was optimised for a recorded profile and for a plain one. What was
changed since the profile was recorded is not optimised for it; `make profile` records it anew. Who makes a check cheaper, or has
a reason for it to cost more, agrees anew with `--agree` and says why in the commit.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import measure

AGREED = measure.HERE / "instructions.json"
FEW, MANY, STREAMS, BODY = 400, 2400, 16, 2048
SLACK = 1.04  # libraries and processors choose other ways to copy memory
HASHES = re.compile(r"sha2::|sha256|blake3|ghash|gcm_", re.IGNORECASE)
LINE = re.compile(r"\s*([\d,]+)\s+(\S.*)$")


def ask_under_callgrind(program, configuration, socket, count, output, *options, **environment):
    """Has callgrind write what a server executed from its start to the last of so many questions."""
    callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", *options]
    command = [*callgrind, program, "serve", "--config", configuration, "--log-level", "error"]
    with measure.running(command, output.with_suffix(".log"), env={**os.environ, **environment}) as server:
        measure.wait_for("its socket", socket.exists, server, 60)
        asks = [measure.BUILT / "asks", f"unix:{socket}", STREAMS, BODY, count]
        subprocess.run([str(part) for part in asks], check=True, timeout=300)


def counted(count, directory):
    """Instructions by function of a server that was asked so many questions."""
    directory = pathlib.Path(directory)
    socket, output = directory / f"{count}.sock", directory / f"{count}.out"
    configuration = directory / f"{count}.yaml"
    configuration.write_text(
        f'listen: {{ ext_authz: "unix://{socket}", admin: "off" }}\nwatch: false\noutcomes: access_log\n'
        f"endpoints:\n  github: {{ provider: github, secrets: [{{ id: main, inline: {measure.SECRET} }}] }}\n"
    )
    ask_under_callgrind(measure.PRODUCT, configuration, socket, count, output)
    annotated = ["callgrind_annotate", "--threshold=100", "--show-percs=no", str(output)]
    text = subprocess.run(annotated, capture_output=True, text=True, check=True).stdout
    functions = {}
    for line in text.splitlines():
        match = LINE.match(line)
        if match and ":" in match[2]:
            name = match[2].partition(" [")[0]
            functions[name] = functions.get(name, 0) + int(match[1].replace(",", ""))
    return functions


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--agree", action="store_true", help="write down what is counted")
    parser.add_argument("--plain", action="store_true", help="the release was not optimised for a profile")
    options = parser.parse_args()
    measure.prepare()
    kind = "plain" if options.plain else "profiled"
    with tempfile.TemporaryDirectory(prefix="hookwarden-bench-") as directory:
        few, many = counted(FEW, directory), counted(MANY, directory)
    each = {name: (count - few.get(name, 0)) / (MANY - FEW) for name, count in many.items()}
    hashes = sum(count for name, count in each.items() if HASHES.search(name))
    instructions = round(sum(each.values()) - hashes)
    if instructions < 10_000 or hashes < 10_000:
        sys.exit(f"{instructions} instructions and {hashes:.0f} of hashes cannot be right")
    all_agreed = json.loads(AGREED.read_text())
    if options.agree:
        all_agreed[kind] = instructions
        AGREED.write_text(json.dumps(all_agreed) + "\n")
    agreed = all_agreed[kind]
    print(f"{instructions} instructions for each check of 2 KiB without its hashes; agreed are {agreed} ({kind})")
    if instructions > agreed * SLACK:
        for name, count in sorted(each.items(), key=lambda item: -item[1])[:25]:
            print(f"{count:8.0f} {name[:110]}")
        sys.exit("a check has become dearer; see tests/bench/instructions.py")


if __name__ == "__main__":
    main()
