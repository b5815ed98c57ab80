"""What the benchmarks share: programs that run as long as they are measured, the loads, and the page that is written."""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILT = HERE / "target" / "release"
PRODUCT = pathlib.Path(os.environ.get("HOOKWARDEN_BIN", ROOT / "target" / "release" / "hookwarden"))
SECRET = "a secret of the benchmarks"  # as in src/deliveries.rs
NOT_BUILT = "not built: {}; run `cargo build --release --locked`, and the same with `--manifest-path tests/bench/Cargo.toml`"


def prepare():
    """Makes sure that everything is built, and that whoever ends us ends what we started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    for program in (PRODUCT, BUILT / "floor", BUILT / "load"):
        if not program.exists():
            raise SystemExit(NOT_BUILT.format(program))


# ── programs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def pinned(core, command):
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core % len(cores)]), *map(str, command)]


class Unavailable(SystemExit):
    """A program did not come up."""


@contextlib.contextmanager
def running(command, log, **options):
    """A program, ended by its own handle. What it says goes to a file, whose end is told if it does not come up."""
    with open(log, "ab") as output:
        command = [str(part) for part in command]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **{"stdout": output, "stderr": output, **options})
    process.log = log
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def wait_for(what, probe, process, deadline=10):
    """Asks `probe` until it returns something true, and returns that."""
    end = time.monotonic() + deadline
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, json.JSONDecodeError):
            if result := probe():
                return result
        time.sleep(0.005)
    last = "\n".join(process.log.read_text(errors="replace").splitlines()[-20:])
    raise Unavailable(f"{what}: not from {process.args[0]}, which said:\n{last}")


def wait_until_it_listens(target, process):
    def connects():
        path = target.removeprefix("unix:")
        with socket.socket(socket.AF_UNIX if path != target else socket.AF_INET) as probe:
            return probe.connect_ex(path if path != target else (target.split(":")[0], int(target.split(":")[1]))) == 0

    wait_for(f"a server at {target}", connects, process)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fresh(directory, suffix):
    """A path that nothing has been at."""
    return pathlib.Path(directory) / f"{time.monotonic_ns()}{suffix}"


@contextlib.contextmanager
def hookwarden(directory, configuration, target, pin=list):
    """hookwarden with a configuration, once it listens at `target`."""
    file = fresh(directory, ".yaml")
    file.write_text(configuration)
    command = [PRODUCT, "serve", "--config", file, "--log-level", "error"]
    with running(pin(command), file.with_suffix(".log")) as process:
        wait_until_it_listens(target, process)
        yield process


@contextlib.contextmanager
def floor(directory, target, pin=list):
    """The server that looks at nothing."""
    with running(pin([BUILT / "floor", target]), fresh(directory, ".log")) as process:
        wait_until_it_listens(target, process)
        yield process


# ── loads ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def said(program, *arguments, pin=list):
    """What one of our own programs printed."""
    command = pin([str(part) for part in (BUILT / program, *arguments)])
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{program} ended with {ended.returncode}")
    return ended.stdout


def ask(program, *arguments, pin=list):
    """What one of our own programs measured."""
    return json.loads(said(program, *arguments, pin=pin))


def discerns(target, *signatures):
    """Ends where a server does not allow what is right and refuse what is wrong."""
    probed = ask("probe", target, *signatures)
    if probed != {"right": "allowed", "wrong": "401 signature_mismatch"}:
        raise SystemExit(f"what is right and what is wrong got {probed}")


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def verdict(values, most):
    return "met" if statistics.median(values) <= most else "**not met**"


def judged(what, values, most):
    """One line about a figure that has a bound."""
    return f"Judged: {what}, {spread(values)}; at most {most}: {verdict(values, most)}."


def about(options):
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release().split('-')[0]}"
    rounds = f"{options.rounds} interleaved rounds of {options.seconds:g} s: median (least–most) of the rounds' ratios"
    return f"{datetime.date.today()}, {machine}; {rounds}."


def parts(page, name):
    """What is before and after the place for what is called so."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->\n"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{page} has no place for {name}: {begin.strip()} and {end.strip()}")
    return before + begin, end + after


def write(page, name, lines):
    before, after = parts(page, name)
    page.write_text(before + "\n".join(lines) + "\n" + after)
