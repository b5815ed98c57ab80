#!/usr/bin/env python3
"""Shows hookwarden at work: real deliveries through a real Envoy to an application that knows nothing of webhooks.

For each of the nine presets four requests are sent: a good delivery, a tampered one, one that was signed an hour ago,
and the provider's handshake. The table says what the client saw and what the application received. Then everything
stays up until Ctrl-C; with `--once` it ends, and the exit status is 0 only if every outcome was the expected one.
"""

import argparse
import dataclasses
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from typing import Optional

import stack as machinery
from client import HOST, Request
from providers import PROVIDERS

HOUR = 3600
# The address that shows the token, and one that never did. Both are reserved for documentation, so public.
SENDER, STRANGER = "203.0.113.7", "198.51.100.9"


@dataclasses.dataclass(frozen=True)
class Delivery:
    """One request to show, and what must become of it."""

    provider: object
    kind: str
    request: Optional[Request]
    status: int
    reason: str
    forwarded: bool
    note: str = ""
    client_ip: str = SENDER


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of it."""

    delivery: Delivery
    status: int
    reason: str
    record: Optional[dict]

    @property
    def expected(self):
        wanted = self.delivery
        verified_by = wanted.provider.verified_by if wanted.forwarded else None
        seen = (self.status, self.reason, self.record is not None, self.verified_by)
        return seen == (wanted.status, wanted.reason, wanted.forwarded, verified_by)

    @property
    def verified_by(self):
        return self.told("x-hookwarden-verified-by")

    def told(self, header):
        """What the application was told in a header."""
        return dict(machinery.lowered(self.record["headers"])).get(header) if self.record else None


def deliveries(stack, provider):
    """The requests to show for one preset, in the order in which they are sent.

    The handshake comes first: where an address must show a token, its deliveries depend on it.
    """
    body = json.dumps({"event": "demo", "provider": provider.name, "at": int(time.time())}).encode()
    good = stack.sign(provider.name, body)
    return [
        handshake(stack, provider),
        Delivery(provider, "good", good, 200, "verified", True),
        tampered(provider, good),
        late(stack, provider, body),
    ]


def handshake(stack, provider):
    if not provider.challenge:
        return Delivery(provider, "challenge", None, 0, "none", False, "the provider has no handshake")
    request = stack.sign(provider.name, challenge=True)
    return Delivery(provider, "challenge", request, 200, provider.challenge, False, "answered by hookwarden")


def tampered(provider, good):
    if provider.tampered:
        changed = good.one_byte_changed()
        return Delivery(provider, "tampered", changed, provider.refusal, provider.tampered, False, "one bit of the body changed")
    note = "signs no body: sent from an address that never showed the token"
    return Delivery(provider, "tampered", good, provider.refusal, "lease_missing", False, note, STRANGER)


def late(stack, provider, body):
    request = stack.sign(provider.name, body, now=time.time() - HOUR)
    if provider.stale:
        return Delivery(provider, "an hour late", request, provider.refusal, provider.stale, False)
    note = "signs no time: cannot tell" if provider.tampered else "signs no time: its lease is 24 h"
    return Delivery(provider, "an hour late", request, 200, "verified", True, note)


def show(stack, delivery):
    """Sends one delivery and finds out what became of it."""
    if delivery.request is None:
        return Outcome(delivery, 0, "none", None)
    response = stack.send(delivery.request, delivery.client_ip)
    decision = stack.log.last(response.request_id)
    record = stack.received_by_id(delivery.request).get(response.request_id)
    return Outcome(delivery, response.status, decision["reason"], record)


def row(outcome):
    wanted = outcome.delivery
    seen = str(outcome.status) if outcome.status else "-"
    identity = " ".join(filter(None, [outcome.verified_by, outcome.told("x-hookwarden-secret-id")]))
    received = "yes" if outcome.record else ("no" if wanted.request else "-")
    note = wanted.note if outcome.expected else f"EXPECTED {wanted.status} {wanted.reason}, forwarded: {wanted.forwarded}"
    return wanted.provider.name, wanted.kind, seen, outcome.reason, received, identity or "-", note


def print_table(outcomes):
    title = "provider", "delivery", "client saw", "because", "app received", "verified by", ""
    rows = [row(outcome) for outcome in outcomes]
    widths = [max(map(len, column)) for column in zip(title, *rows)]
    line = lambda cells: "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()
    print("\n" + line(title), "-" * len(line(["-" * width for width in widths[:-1]])), sep="\n")
    for number, cells in enumerate(rows):
        repeats = number > 0 and rows[number - 1][0] == cells[0]
        if number > 0 and not repeats:
            print()
        print(line(("" if repeats else cells[0], *cells[1:])))
    print()


def addresses(stack):
    """Where to look, and a command to try: the same delivery as `good`, made by hand."""
    return f"""Envoy         https://127.0.0.1:{stack.edge.port}   ({HOST}; CA in {stack.tls / 'ca.crt'})
metrics       {stack.admin_url('/metrics')}
application   http://127.0.0.1:{stack.app_port}/_received
logs          {stack.directory}
try           {machinery.BINARY} send --config {stack.config} --endpoint github \\
                --url https://{HOST}/github --body '{{"hello":"world"}}' \\
                --ca-file {stack.tls / 'ca.crt'} --connect-to 127.0.0.1:{stack.edge.port}
"""


def demonstrate(stack):
    print("The application is unmodified and unaware. Envoy asks hookwarden about every request before forwarding it.")
    outcomes = [show(stack, delivery) for provider in PROVIDERS for delivery in deliveries(stack, provider)]
    print_table(outcomes)
    unexpected = [outcome for outcome in outcomes if not outcome.expected]
    if unexpected:
        print(f"{len(unexpected)} of {len(outcomes)} outcomes were not as expected; hookwarden's latest log lines:")
        print(stack.hookwarden.log_tail())
    return not unexpected


def stay(stack):
    """Until Ctrl-C, or until one of the programs ends by itself."""
    print("Everything stays up. Press Ctrl-C to end it.", flush=True)
    over = threading.Event()
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, lambda *_: over.set())
    while not over.wait(1):
        for program in stack.programs():
            if not program.running:
                raise machinery.Unexpected(f"{program.name} ended by itself\n{program.log_tail()}")
    print("\nstopping")


def main():
    parser = argparse.ArgumentParser(description="Shows hookwarden at work.")
    parser.add_argument("--once", action="store_true", help="end after the table, with a status")
    once = parser.parse_args().once
    directory = tempfile.mkdtemp(prefix="hookwarden-demo-")
    print("Making a throw-away CA, keys and secrets; starting the sample application, hookwarden and Envoy.", flush=True)
    try:
        with machinery.Stack(directory) as stack:
            as_expected = demonstrate(stack)
            print(addresses(stack), flush=True)
            if not once:
                stay(stack)
        if once:
            print("Every outcome was as expected." if as_expected else "NOT every outcome was as expected.")
        return 0 if as_expected else 1
    except machinery.Unexpected as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
