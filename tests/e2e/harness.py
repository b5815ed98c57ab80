"""What the end-to-end tests share: the endpoints and variants they add, and one delivery with everything seen of it."""

import base64
import dataclasses
import hashlib
import itertools
import json
import threading
import time
from typing import Optional

import client
import http2
from providers import PROVIDERS
from stack import Stack, Unexpected, lowered, wait_for

FILTER_LIMIT = 1 << 20  # `max_request_bytes` of the filter in deploy/envoy.yaml
GITHUB_LIMIT = 25 << 20  # and of the github route

BY_NAME = {provider.name: provider for provider in PROVIDERS}

# ── endpoints beyond those of deploy/hookwarden.yaml, all chosen by path ─────────────────────────────────────────────

EXTRA_ENDPOINTS = """
  observed:
    match: {{ path: /observed }}
    provider: github
    mode: observe
    secrets: [{{ id: main, file: {secrets}/github }}]
  limited:
    match: {{ path: /limited/* }}
    provider: github
    body_limit: 1KiB
    secrets: [{{ id: main, file: {secrets}/github }}]
  tagged:
    match: {{ path: /tagged }}
    provider: stripe
    secrets:
      - {{ id: live, file: {secrets}/stripe }}
      - {{ id: test, file: {secrets}/stripe-test, tags: {{ mode: test }} }}
"""


def make_stack(directory):
    """The committed configuration, and the endpoints above."""
    stack = Stack(directory, EXTRA_ENDPOINTS.format(secrets=directory / "secrets"))
    # These tests say by a signal when to reload, and count.
    stack.config.write_text("watch: false\n" + stack.config.read_text())
    (stack.secrets / "stripe-test").write_text("whsec_" + base64.b16encode(b"a secret of the tests").decode() + "\n")
    return stack


# ── variants of deploy/envoy.yaml: exact changes, each of which must apply once ──────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Variant:
    """An Envoy that differs from the committed one by the named changes."""

    name: str
    changes: tuple = ()

    def __add__(self, other):
        return Variant(f"{self.name}-{other.name}", (*self.changes, *other.changes))


RAW = Variant("envoy")
JOINED = Variant("joined", (("encode_raw_headers: true ", "encode_raw_headers: false "),))
NO_STRIPPING = Variant(
    "no-stripping",
    (
        (
            "                request_mutations:\n"
            "                - remove_on_match: { key_matcher: { prefix: x-hookwarden-, ignore_case: true } }\n"
            "                - remove: x-envoy-auth-partial-body\n",
            "                request_mutations: []\n",
        ),
    ),
)
WEBSOCKET = Variant(
    "websocket", (("          codec_type: AUTO\n", "          codec_type: AUTO\n          upgrade_configs: [{ upgrade_type: websocket }]\n"),)
)
TEXT_BODY = Variant("text-body", (("pack_as_bytes: true                   #", "pack_as_bytes: false                  #"),))
PARTIAL = Variant("partial", (("allow_partial_message: false\n", "allow_partial_message: true\n"),))
SMALL_LIMIT = Variant("small-limit", (("max_request_bytes: 1048576 ", "max_request_bytes: 1024 "),))
NO_BODY = Variant(
    "no-body",
    (
        (
            "              with_request_body:\n"
            "                max_request_bytes: 1048576            # raised per route where a provider sends more\n"
            "                allow_partial_message: false\n"
            "                pack_as_bytes: true                   # Envoy 1.40 heeds this here only, not on a route\n",
            "",
        ),
    ),
)


# ── one delivery, and everything that is seen of it ──────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the client got, what hookwarden decided, what Envoy logged, and what the application received."""

    response: client.Response
    decision: dict
    access: dict
    record: Optional[dict]

    @property
    def outcome(self):
        return self.response.status, self.decision["decision"], self.decision["reason"], self.record is not None

    @property
    def told(self):
        """The trusted headers that the application received; twice the same name would be an error."""
        trusted = [(k, v) for k, v in lowered(self.record["headers"]) if k.startswith("x-hookwarden-")]
        assert len(dict(trusted)) == len(trusted), trusted
        return {name.removeprefix("x-hookwarden-"): value for name, value in trusted}


def send(stack, request, http="1.1", variant=RAW, client_ip=None, **options):
    """Sends a request through a variant of Envoy."""
    edge = stack.proxy(variant.name, *variant.changes).edge
    module = {"1.1": client, "2": http2}[http]
    return module.send(edge, request, client_ip, **options)


def deliver(stack, request, http="1.1", variant=RAW, client_ip=None, **options):
    """Sends a request and gathers what became of it. The two logs must agree about every check."""
    response = send(stack, request, http, variant, client_ip, **options)
    assert response.request_id, f"an answer without a request id: {response}"
    decision = stack.log.last(response.request_id)
    access = stack.proxies[variant.name].log.last(response.request_id)
    for field in "endpoint", "provider", "decision", "reason", "secret_id":
        assert access[field] == decision.get(field), (field, access, decision)
    assert access["status"] == response.status
    return Seen(response, decision, access, stack.received_by_id(request).get(response.request_id))


def assert_never_reached(stack, request):
    """That the application received nothing with this body under this path, by whatever request id."""
    digest = sha256(request.body)
    assert not [record for record in stack.received(request.path) if record["body_sha256"] == digest]


def sha256(body):
    return hashlib.sha256(body).hexdigest()


_numbers = itertools.count(1)


def unique_body(provider="any"):
    """A body that no other test sends, so that finding it anywhere means something."""
    return json.dumps({"event": "test", "provider": provider, "number": f"body-{time.time_ns()}-{next(_numbers)}"}).encode()


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def samples(text):
    """The samples of a Prometheus text page: {(name, ((label, value), …)): number}. Anything malformed is an error."""
    found = {}
    typed = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        if not line or line.startswith("#"):
            continue
        series, _, value = line.rpartition(" ")
        name, _, labels = series.partition("{")
        family = next((name.removesuffix(s) for s in ("_bucket", "_sum", "_count") if name.removesuffix(s) in typed), name)
        assert family in typed, f"no TYPE for {name}"
        key = name, tuple(sorted(parse_labels(labels.removesuffix("}"))))
        assert key not in found, f"twice: {key}"
        found[key] = float(value)
    return found


def parse_labels(text):
    for pair in filter(None, text.split('",')):
        name, quote, value = pair.partition('="')
        assert quote and name.isidentifier(), text
        yield name, value.removesuffix('"')


def sample(text, name, **labels):
    """One sample; 0 where there is none yet."""
    return samples(text).get((name, tuple(sorted(labels.items()))), 0)


# ── load ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Shot:
    """One request of a load, and its answer."""

    at: float
    signed: bool
    status: int
    request_id: str


class Crowd:
    """Threads that run `_run`, each with its number, from the beginning of a block to its end."""

    def __init__(self, threads):
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join(60)


class Load(Crowd):
    """Client threads that send signed and unsigned deliveries in turn until told to stop."""

    def __init__(self, stack, signed, unsigned, threads=16):
        self._stack = stack
        self._requests = (signed, unsigned)
        super().__init__(threads)
        self.shots = []
        self.errors = []

    def _run(self, number):
        try:
            with client.Http1(self._stack.edge) as connection:
                for turn in itertools.count(number):
                    if self._over.is_set():
                        return
                    requests = self._requests[turn % 2]
                    response = connection.send(requests[turn // 2 % len(requests)])
                    self.shots.append(Shot(time.monotonic(), turn % 2 == 0, response.status, response.request_id))
        except Exception as error:  # noqa: BLE001 - told by the test, which fails for it
            self.errors.append(repr(error))

    def wait_for(self, what, wanted, deadline=15):
        """Waits until the shots so far are as wanted, and fails at once if a client failed."""

        def probe():
            if self.errors:
                raise Unexpected(f"clients failed: {self.errors}")
            return wanted(list(self.shots))

        return wait_for(what, probe, deadline)

    def wait_for_more(self, number):
        seen = len(self.shots)
        self.wait_for(f"{number} more answers", lambda shots: len(shots) >= seen + number)
