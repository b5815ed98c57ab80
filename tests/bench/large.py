"""What hookwarden holds, how soon it answers, and what large bodies do to small ones. It is asked directly, by gRPC."""

import contextlib
import json
import pathlib
import re
import statistics
import subprocess

import measure
from measure import BUILT, ROOT, SECRET, fresh, judged, spread, verdict

MIB = 1 << 20
LARGE, CHECKS = 10 * MIB, 64
STARTS = 20

# ── hookwarden with many endpoints ───────────────────────────────────────────────────────────────────────────────────


def presets():
    """Of each preset that has one, the endpoint of its test vectors, with secrets and keys of the kind that it wants."""
    told = subprocess.run([measure.PRODUCT, "providers", "--format", "json"], stdout=subprocess.PIPE, check=True).stdout
    for name in [preset["name"] for preset in json.loads(told)]:
        file = ROOT / "tests" / "vectors" / name / "preset.yaml"
        if name != "github" and file.exists():
            # Up to the next line that is not indented, and a level deeper than there.
            block = re.search(r"^endpoint:\n((?: .*\n|\n)+)", file.read_text(), re.MULTILINE)
            yield name, re.sub("^", "  ", block[1].rstrip("\n"), flags=re.MULTILINE) + "\n"


def configuration(socket, endpoints=1, more=""):
    """So many endpoints: the one that is asked for, and others with a preset each, which begin anew when there are no more."""
    lines = [
        f'listen: {{ ext_authz: "unix://{socket}", admin: "off" }}\nwatch: false\n{more}\nendpoints:\n',
        f"  github: {{ provider: github, secrets: [{{ id: main, inline: {SECRET} }}] }}\n",
    ]
    others = list(presets()) if endpoints > 1 else []
    for number in range(endpoints - 1):
        again, at = divmod(number, len(others))
        name, block = others[at]
        lines.append(f"  {name}{f'-{again + 1}' if again else ''}:\n{block}")
    return "".join(lines)


@contextlib.contextmanager
def asked(directory, **options):
    """hookwarden, once it has allowed what is right and refused what is wrong: its process and where it is."""
    socket = fresh(directory, ".sock")
    with measure.hookwarden(directory, configuration(socket, **options), f"unix:{socket}") as process:
        measure.discerns(f"unix:{socket}")
        yield process, f"unix:{socket}"


def resident(process):
    """In MiB."""
    return int(pathlib.Path(f"/proc/{process.pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


# ── memory, and the time to the first check ──────────────────────────────────────────────────────────────────────────


def idle(directory, endpoints):
    with asked(directory, endpoints=endpoints) as (process, _):
        return resident(process)


def burst(directory, allowed):
    with asked(directory, more=f"limits: {{ bodies_in_flight: {allowed}MiB }}") as (process, target):
        return measure.ask("burst", target, process.pid, CHECKS, LARGE)


def starts(directory):
    """Milliseconds to the first check that is allowed, of the no-op and of hookwarden with 150 endpoints, in turn."""
    no_op, product = [], []
    for _ in range(STARTS):
        socket = fresh(directory, ".sock")
        no_op.append(measure.ask("start", f"unix:{socket}", BUILT / "floor", f"unix:{socket}")["ms"])
        socket, file = fresh(directory, ".sock"), fresh(directory, ".yaml")
        file.write_text(configuration(socket, endpoints=150))
        serve = [measure.PRODUCT, "serve", "--config", file, "--log-level", "error"]
        product.append(measure.ask("start", f"unix:{socket}", *serve)["ms"])
    return no_op, product


def row(what, values, most=None, digits=1):
    bound = "– | –" if most is None else f"{most:.{digits}f} | {verdict(values, most)}"
    return f"| {what} | {spread(values, digits)} | {bound} |"


def memory(options, directory):
    """Resident memory, and the time from the start to the first check."""
    idles, bursts = {1: [], 150: [], 1000: []}, {256: [], 700: []}
    for _ in range(options.rounds):
        for endpoints, found in idles.items():
            found.append(idle(directory, endpoints))
        for allowed, found in bursts.items():
            found.append(burst(directory, allowed))
    no_op, product = starts(directory)
    yield "| | | at most | |"
    yield "|---|---|---|---|"
    for endpoints, found in idles.items():
        yield row(f"idle, {endpoints:,} endpoint{'s' if endpoints > 1 else ''}, MiB", found, 8 if endpoints == 150 else None)
    yield row(f"from start to first check, 150 endpoints, {STARTS} times, ms", product, 10)
    yield row("the same of the no-op, ms", no_op)
    for allowed, found in bursts.items():
        yield from after_a_burst(f"{CHECKS} × {LARGE // MIB} MiB at once, {allowed} MiB allowed", allowed, found)


def after_a_burst(case, allowed, found):
    told = [each["answers"] for each in found]
    answers = sorted({answer for each in told for answer in each})
    if not all(answer == "allowed" or answer.startswith("503 ") for answer in answers):
        raise SystemExit(f"{case}: {told}")
    yield row(f"{case}: most, MiB", [each["most_kb"] / 1024 for each in found], allowed * 1.05 + 10)
    yield row("… a second after, MiB", [each["after_kb"] / 1024 for each in found], 16)
    for answer in answers:
        yield row(f"… answered {answer}", [each.get(answer, 0) for each in told], digits=0)
    yield row("… without a well-formed answer", [each["broken"] for each in found], 0, digits=0)


# ── small checks while large bodies are verified ─────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def large_load(process, target):
    """Two large bodies at a time, until the end of the block; yields where its figures will be then. It gives way to
    everybody else: what is judged is whom the server lets wait, not what a load takes from it."""
    load = ["nice", "-n", "19", BUILT / "load", target, process.pid, 2, LARGE, "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    told = {}
    with subprocess.Popen([str(part) for part in load], **pipes) as load:
        try:
            if load.stdout.readline() != "under way\n":
                raise SystemExit("the load of large bodies did not begin")
            yield told
            told.update(json.loads(load.communicate(timeout=60)[0]))
        finally:
            load.kill()
    if told["wrong"] or not told["checks"]:
        raise SystemExit(f"large bodies: {told}")


def small_checks(directory, seconds, large):
    """Small checks, while there are large ones at the same server, at another one on this machine, or nowhere."""
    with contextlib.ExitStack() as stack:
        process, target = stack.enter_context(asked(directory))
        told = None
        if large:
            busy = (process, target) if large == "here" else stack.enter_context(asked(directory))
            told = stack.enter_context(large_load(*busy))
        small = measure.ask("load", target, process.pid, 8, 2048, seconds)
    if small["wrong"] or not small["checks"]:
        raise SystemExit(f"small checks: {small}")
    rate = lambda figures: figures["checks"] / figures["seconds"] if figures else 0
    return {"p50": small["p50_us"], "p99": small["p99_us"], "rate": rate(small), "large": rate(told)}


def beside(options, directory):
    """The latency of small checks, alone and beside large bodies."""
    cases = {
        "alone": None,
        "alone again": None,
        "large bodies at another server": "elsewhere",
        "large bodies at the same server": "here",
    }
    runs = {case: [] for case in cases}
    for _ in range(options.rounds):
        for case, large in cases.items():
            runs[case].append(small_checks(directory, options.seconds, large))
    ratios = lambda case, base: [run["p99"] / other["p99"] for run, other in zip(runs[case], runs[base])]
    yield "| small checks, beside them | rate, 1/s | p50, ms | p99, ms | p99 × alone | large checks, 1/s |"
    yield "|---|---|---|---|---|---|"
    for case, large in cases.items():
        rate, p50, p99, many = (statistics.median(run[of] for run in runs[case]) for of in ("rate", "p50", "p99", "large"))
        cells = f"{rate:.0f} | {p50 / 1000:.2f} | {p99 / 1000:.2f} | {spread(ratios(case, 'alone'))}"
        yield f"| {case} | {cells} | {f'{many:.0f}' if large else '–'} |"
    yield ""
    *_, elsewhere, here = cases
    yield judged("p99 beside large bodies to p99 alone", ratios(here, "alone"), 2)
    yield ""
    found = spread(ratios(here, elsewhere))
    yield f"To p99 beside another server with the same work, which is what the machine's cores make of it: {found}."
