"""Checks asked directly, as in bench.py: with signatures that are dear, and with stores that are not memory."""

import contextlib
import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Signed:
    """Deliveries signed in one way: what `signatures` calls it, and of how many bytes they are."""

    title: str
    name: str
    size: int = SETTING[1]
    # As the configuration calls it; without, they are GitHub's, which the load makes itself.
    algorithm: str = ""
    form: str = ""
    # How many are made beforehand: more than hookwarden answers in a second and the time before. The no-op begins again.
    count: int = 0


SIGNED = [
    Signed("HMAC-SHA256", "hmac-sha256"),
    Signed("HMAC-SHA256 of 256 KiB", "hmac-sha256", 262_144),
    Signed("RSA-2048", "rsa-2048", algorithm="rsa-pkcs1-sha256", count=80_000),
    Signed("ECDSA P-256", "p-256", algorithm="ecdsa-p256-sha256", form="ecdsa_form: p1363\n        ", count=40_000),
]
AT_MOST = 1.25


def signatures(options, directory):
    """What a check costs beside the no-op and the bare verification together."""
    yield "| | no-op, µs | bare verification, µs | no-op again | hookwarden, µs | × no-op and verification |"
    yield "|---|---|---|---|---|---|"
    verdicts = []
    for signed in SIGNED:
        given, discerned, configuration = (), (), bench.CONFIGURATION
        verify = (signed.name, signed.size, options.seconds, "-", measure.SECRET)
        if signed.algorithm:
            file = fresh(directory, ".signatures")
            key = measure.said("signatures", "make", signed.name, signed.size, signed.count, file).strip()
            endpoint = ENDPOINT.format(algorithm=signed.algorithm, form=signed.form, key=key).lstrip("\n")
            configuration = bench.CONFIGURATION.partition("  github:")[0] + endpoint
            given, discerned = (file,), (signed.size, file)
            verify = (signed.name, signed.size, options.seconds, file, key)
        with bench.server("product", SETTING[0], directory, configuration) as (_, target):
            measure.discerns(target, *discerned)
        runs = {kind: [] for kind in KINDS}
        bare = []
        setting = (SETTING[0], signed.size, SETTING[2])
        for _ in range(options.rounds):
            for kind in runs:
                runs[kind].append(bench.sample(kind, setting, options.seconds, directory, configuration, given)["cpu"])
            pin = functools.partial(measure.pinned, 0)
            bare.append(int(measure.said("signatures", "verify", *verify, pin=pin)) / 1000)
        floor, middle = runs["floor"], statistics.median
        again = [one / other for one, other in zip(runs["again"], floor)]
        beside = [one / (other + alone) for one, other, alone in zip(runs["product"], floor, bare)]
        yield (
            f"| {signed.title} | {middle(floor):.1f} | {middle(bare):.1f} | {spread(again)} "
            f"| {middle(runs['product']):.1f} | **{spread(beside)}** |"
        )
        if signed.algorithm:
            verdicts.append(judged(f"{signed.title}, hookwarden to no-op and bare verification", beside, AT_MOST))
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
