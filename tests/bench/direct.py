"""Checks asked directly, as in bench.py: with signatures that are dear, and with stores that are not memory."""

import contextlib
import functools
import subprocess
import statistics

import bench
import measure
from measure import fresh, judged, spread

SETTING = ("unix", 2048, 16)
KINDS = ("floor", "again", "product")

# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────────

ENDPOINT = """
  github:
    scheme:
      public_key:
        algorithms: [{algorithm}]
        {form}signed_content: "{{body}}"
        signature: {{ header: x-signature, encoding: base64 }}
    public_keys: [{{ id: main, format: spki_base64, inline: "{key}" }}]
"""
# As `signatures` and as the configuration call them, and how many are made: more than anything answers while it is measured.
ALGORITHMS = {
    "rsa-2048": ("RSA-2048", "rsa-pkcs1-sha256", "", 60_000),
    "p-256": ("ECDSA P-256", "ecdsa-p256-sha256", "ecdsa_form: p1363\n        ", 40_000),
}
AT_MOST = 1.25


def signatures(options, directory):
    """What a check costs beside the no-op and the bare verification together."""
    size = SETTING[1]
    yield "| | no-op, µs | bare verification, µs | no-op again | hookwarden, µs | × no-op and verification |"
    yield "|---|---|---|---|---|---|"
    verdicts = []
    for name, (title, algorithm, form, count) in {"hmac-sha256": ("HMAC-SHA256", None, None, 0), **ALGORITHMS}.items():
        given, configuration, verify = (), bench.CONFIGURATION, (name, size, options.seconds, "-", measure.SECRET)
        if algorithm:
            file = fresh(directory, ".signatures")
            key = measure.said("signatures", "make", name, size, count, file).strip()
            endpoint = ENDPOINT.format(algorithm=algorithm, form=form, key=key).lstrip("\n")
            configuration = bench.CONFIGURATION.partition("  github:")[0] + endpoint
            given, verify = (file,), (name, size, options.seconds, file, key)
            with bench.server("product", SETTING[0], directory, configuration) as (_, target):
                measure.discerns(target, size, file)
        runs = {kind: [] for kind in KINDS}
        bare = []
        for _ in range(options.rounds):
            for kind in runs:
                runs[kind].append(bench.sample(kind, SETTING, options.seconds, directory, configuration, given)["cpu"])
            pin = functools.partial(measure.pinned, 0)
            bare.append(int(measure.said("signatures", "verify", *verify, pin=pin)) / 1000)
        floor, middle = runs["floor"], statistics.median
        again = [one / other for one, other in zip(runs["again"], floor)]
        beside = [one / (other + alone) for one, other, alone in zip(runs["product"], floor, bare)]
        yield (
            f"| {title} | {middle(floor):.1f} | {middle(bare):.1f} | {spread(again)} "
            f"| {middle(runs['product']):.1f} | **{spread(beside)}** |"
        )
        if algorithm:
            verdicts.append(judged(f"{title}, hookwarden to no-op and bare verification", beside, AT_MOST))
    for line in verdicts:
        yield ""
        yield line


# ── stores ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def redis(directory):
    """A Redis of our own, with nothing on disk."""
    port = measure.free_port()
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with measure.running(command, fresh(directory, ".log")) as process:
        measure.wait_until_it_listens(f"127.0.0.1:{port}", process)
        yield f"redis://127.0.0.1:{port}/0"


def stores(options, directory):
    """What the place costs in which replays are remembered."""
    with redis(directory) as address:
        # A file of its own for each run: what is in it already would be measured too.
        places = {
            "memory": lambda: "memory",
            "memory again": lambda: "memory",
            "file": lambda: f"file://{fresh(directory, '.redb')}",
            "Redis on this machine": lambda: address,
        }
        for place in places.values():
            with bench.server("product", SETTING[0], directory, f"store: {place()}{bench.CONFIGURATION}") as (_, target):
                measure.discerns(target)
        runs = {name: [] for name in places}
        for _ in range(options.rounds):
            for name, place in places.items():
                subprocess.run(["redis-cli", "-u", address, "flushall"], check=True, stdout=subprocess.DEVNULL)
                configuration = f"store: {place()}{bench.CONFIGURATION}"
                runs[name].append(bench.sample("product", SETTING, options.seconds, directory, configuration))
    yield "| store | CPU of a check, µs | × memory | rate × memory | p99 × memory |"
    yield "|---|---|---|---|---|"
    for name, samples in runs.items():
        ratio = lambda of: spread([run[of] / memory[of] for run, memory in zip(samples, runs["memory"])])
        middle = statistics.median(run["cpu"] for run in samples)
        yield f"| {name} | {middle:.1f} | {ratio('cpu')} | {ratio('rate')} | {ratio('p99')} |"
