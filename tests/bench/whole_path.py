"""Deliveries over HTTP, through a proxy, to an application: what verifying adds to that, and what other ways to verify cost."""

import contextlib
import dataclasses
import functools
import hashlib
import hmac
import http.client
import statistics
from typing import Callable

import fronts
import measure
from measure import SECRET, fresh, judged, spread

CONNECTIONS, BODY = 16, 2048
CONFIGURATION = """
listen: {{ ext_authz: "unix://{ext_authz}", {verify}admin: "off" }}
watch: false
{more}
endpoints:
  github: {{ match: {{ path: /github }}, provider: github, secrets: [{{ id: main, inline: {secret} }}] }}
"""

# ── the ways ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Way:
    """A way of a delivery to the application. `start` yields where it begins, and its processes by what they are."""

    name: str
    start: Callable
    needs: tuple
    verifies: bool = True
    path: str = "/github"


@contextlib.contextmanager
def through_envoy(sidecar, directory, outcomes=False):
    """Envoy alone, or with a sidecar: the no-op or hookwarden."""
    with contextlib.ExitStack() as stack:
        application, port = stack.enter_context(fronts.upstream(directory))
        processes, socket = {"upstream": application}, None
        if sidecar:
            socket = fresh(directory, ".sock")
            more = "outcomes: access_log" if outcomes else ""
            configuration = CONFIGURATION.format(ext_authz=socket, verify="", more=more, secret=SECRET)
            server = measure.floor if sidecar == "no-op" else functools.partial(measure.hookwarden, configuration=configuration)
            processes["sidecar"] = stack.enter_context(server(directory, target=f"unix:{socket}"))
        processes["proxy"], address = stack.enter_context(fronts.envoy(directory, port, socket, outcomes))
        yield address, processes


@contextlib.contextmanager
def through_nginx(way, directory):
    with contextlib.ExitStack() as stack:
        application, port = stack.enter_context(fronts.upstream(directory))
        processes, socket = {"upstream": application}, None
        if way == "hookwarden":
            socket = fresh(directory, ".verify.sock")
            configuration = CONFIGURATION.format(
                ext_authz=fresh(directory, ".sock"),
                verify=f'verify: "unix://{socket}", ',
                more='verify: { dialect: nginx-accel, forward_to: "@app", peer_header: x-real-ip }',
                secret=SECRET,
            )
            processes["sidecar"] = stack.enter_context(measure.hookwarden(directory, configuration, f"unix:{socket}"))
        processes["proxy"], address = stack.enter_context(fronts.nginx(directory, port, way, socket))
        yield address, processes


@contextlib.contextmanager
def to_flask(directory):
    with fronts.gunicorn(directory) as (application, address):
        with fronts.envoy(directory, address.rpartition(":")[2]) as (proxy, address):
            yield address, {"application": application, "proxy": proxy}


@contextlib.contextmanager
def to_webhook(directory):
    with fronts.webhook(directory) as (application, address):
        yield address, {"application": application}


def envoy_way(name, sidecar=None, **options):
    start = functools.partial(through_envoy, sidecar, **options)
    return Way(name, start, ("envoy",), verifies=sidecar == "hookwarden")


def nginx_way(name, way):
    needs = ("nginx", way) if way in ("njs", "Lua") else ("nginx",)
    return Way(name, functools.partial(through_nginx, way), needs, verifies=way != "plain")


# ── measuring them ───────────────────────────────────────────────────────────────────────────────────────────────────


def available(ways):
    """The ways for which everything is there; what is not is told."""
    for way in ways:
        lacking = [name for name in way.needs if not fronts.found(name)]
        if lacking:
            print(f"(left out: {way.name}; not installed: {', '.join(lacking)}; see --install)", flush=True)
        else:
            yield way


def status(address, path, signature):
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        headers = {"content-type": "application/json", "x-hub-signature-256": f"sha256={signature}"}
        connection.request("POST", path, b'{"event":"ping"}', headers)
        return connection.getresponse().status


def check(way, directory):
    """That a right signature is forwarded and, where something verifies, a wrong one is not."""
    with way.start(directory=directory) as (address, _):
        wrong = status(address, way.path, "0" * 64)
        right = status(address, way.path, hmac.new(SECRET.encode(), b'{"event":"ping"}', hashlib.sha256).hexdigest())
    if (wrong, right) != (401 if way.verifies else 200, 200):
        raise SystemExit(f"{way.name}: a wrong signature got {wrong}, a right one {right}")


def sample(way, seconds, directory):
    with way.start(directory=directory) as (address, processes):
        pids = [f"{name}={process.pid}" for name, process in processes.items()]
        answer = measure.ask("http_load", address, way.path, CONNECTIONS, BODY, seconds, *pids)
    if answer["wrong"] or not answer["requests"]:
        raise SystemExit(f"{way.name}: {answer}")
    cpu = {name: spent / answer["requests"] / 1000 for name, spent in answer["cpu_ns"].items()}
    return {
        **cpu,
        "beside upstream": sum(cpu.values()) - cpu.get("upstream", 0),
        "total": sum(cpu.values()),
        "rate": answer["requests"] / answer["seconds"],
        "p50": answer["p50_us"],
        "p99": answer["p99_us"],
        "memory": sum(kb for name, kb in answer["memory_kb"].items() if name != "upstream") / 1024,
    }


class Runs:
    """What was measured of each way, round by round; of none, where there is not what they are to be compared with."""

    def __init__(self, ways, needed, options, directory):
        self.ways = list(available(ways))
        self._runs = {way.name: [] for way in self.ways}
        if lacking := [name for name in needed if name not in self._runs]:
            print(f"(nothing is measured without {' and '.join(lacking)})", flush=True)
            self.ways = []
        for way in self.ways:
            check(way, directory)
        for _ in range(options.rounds):
            for way in self.ways:
                self._runs[way.name].append(sample(way, options.seconds, directory))

    def median(self, name, of):
        return statistics.median(run[of] for run in self._runs[name])

    def ratios(self, name, other, of):
        return [run[of] / base[of] for run, base in zip(self._runs[name], self._runs[other])]


# ── the sets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def envoy(options, directory):
    """What a sidecar costs behind Envoy, beside one that looks at nothing, with the same filter."""
    base, product = "no-op", "hookwarden"
    runs = Runs(
        [
            envoy_way("Envoy alone"),
            envoy_way(base, "no-op"),
            envoy_way("no-op again", "no-op"),
            envoy_way(product, "hookwarden"),
            envoy_way("hookwarden, told outcomes", "hookwarden", outcomes=True),
        ],
        (base, product),
        options,
        directory,
    )
    if not runs.ways:
        return
    yield "| | CPU of the sidecar, µs | × no-op | Envoy and sidecar × | and upstream × | rate × | p50 × | p99 × |"
    yield "|---|---|---|---|---|---|---|---|"
    for way in runs.ways:
        ratio = lambda of: spread(runs.ratios(way.name, base, of))
        alone = way.name == "Envoy alone"
        sidecar = "– | –" if alone else f"{runs.median(way.name, 'sidecar'):.1f} | {ratio('sidecar')}"
        yield f"| {way.name} | {sidecar} | {' | '.join(map(ratio, ('beside upstream', 'total', 'rate', 'p50', 'p99')))} |"
    yield ""
    total, rate, p99 = (runs.median(base, of) for of in ("total", "rate", "p99"))
    yield f"With the no-op: {total:.0f} µs of CPU in all, {rate:.0f} deliveries a second, p99 {p99 / 1000:.1f} ms."
    yield ""
    yield judged("CPU of the sidecar, hookwarden to no-op", runs.ratios(product, base, "sidecar"), 0.85)


def nginx(options, directory):
    """hookwarden behind nginx, beside a check inside nginx."""
    base, product = "njs", "hookwarden"
    runs = Runs(
        [
            nginx_way("no check", "plain"),
            nginx_way(base, "njs"),
            nginx_way("njs again", "njs"),
            nginx_way(product, "hookwarden"),
        ],
        (base, product),
        options,
        directory,
    )
    if not runs.ways:
        return
    yield "| | CPU in all, µs | × njs | of it nginx, µs | hookwarden | upstream | rate × njs | p50 × njs | p99 × njs |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for way in runs.ways:
        ratio = lambda of: spread(runs.ratios(way.name, base, of))
        own = lambda of: f"{runs.median(way.name, of):.1f}"
        sidecar = own("sidecar") if way.name == product else "–"
        yield (
            f"| {way.name} | {own('total')} | {ratio('total')} | {own('proxy')} | {sidecar} | {own('upstream')} "
            f"| {' | '.join(map(ratio, ('rate', 'p50', 'p99')))} |"
        )
    yield ""
    yield judged("CPU in all, hookwarden to njs", runs.ratios(product, base, "total"), 0.9)


def rivals(options, directory):
    """The same delivery by other ways to verify it."""
    base = "Envoy, hookwarden"
    runs = Runs(
        [
            envoy_way(base, "hookwarden"),
            nginx_way("nginx, hookwarden", "hookwarden"),
            Way("Envoy, Flask verifies (gunicorn, 2 workers)", to_flask, ("envoy", "gunicorn")),
            nginx_way("nginx with njs", "njs"),
            nginx_way("nginx with Lua and libcrypto", "Lua"),
            Way("webhook, waits for /bin/true", to_webhook, ("webhook",), path="/hooks/github"),
        ],
        (base,),
        options,
        directory,
    )
    if not runs.ways:
        return
    yield "| | CPU in all, µs | × | rate, 1/s | × | p50, ms | p99, ms | × | memory, MiB |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for way in runs.ways:
        total, rate, p50, p99, memory = (runs.median(way.name, of) for of in ("total", "rate", "p50", "p99", "memory"))
        ratio = lambda of: spread(runs.ratios(way.name, base, of))
        yield (
            f"| {way.name} | {total:.0f} | {ratio('total')} | {rate:.0f} | {ratio('rate')} "
            f"| {p50 / 1000:.1f} | {p99 / 1000:.1f} | {ratio('p99')} | {memory:.0f} |"
        )
