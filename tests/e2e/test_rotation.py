"""Secrets that change under load, as Kubernetes changes them: without a signal, and without one refused delivery."""

import datetime
import hashlib
import hmac
import os
import secrets
import statistics
import time

import pytest

import conftest
from client import HOST, Http1, Request
from harness import Crowd, unique_body
from stack import Stack, wait_for

# `make test-faults` asks for the two minutes of the issue that wanted this.
SECONDS = int(os.environ.get("HOOKWARDEN_ROTATION_SECONDS", "15"))
EVERY = 1.0  # seconds
URL = f"https://{HOST}/rotating"


class Mount:
    """A volume of secrets: `name` is a link into `..data`, which is a link to a directory that is swapped whole."""

    def __init__(self, directory):
        self._directory = directory
        self._generation = 0
        self._texts = {}
        self.gone = {}  # when a secret began to leave
        directory.mkdir()

    def write(self, **texts):
        self._generation += 1
        for text in set(self._texts.values()) - set(texts.values()):
            self.gone[text] = time.time()
        self._texts = texts
        data = self._directory / f"..{self._generation}"
        data.mkdir()
        for name, text in texts.items():
            (data / name).write_text(text)
            link = self._directory / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        new = self._directory / "..data_tmp"
        new.symlink_to(data.name)
        os.replace(new, self._directory / "..data")


@pytest.fixture
def rotating():
    mounts = []

    def make(directory):
        mount = Mount(directory / "mount")
        mount.write(current=secrets.token_hex(16), previous=secrets.token_hex(16))
        mounts.append(mount)
        ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=SECONDS // 2 + 5)
        endpoint = (
            "  rotating:\n    match: { path: /rotating }\n    provider: github\n    secrets:\n"
            f"      - {{ id: current, file: {directory}/mount/current }}\n"
            f"      - {{ id: previous, file: {directory}/mount/previous }}\n"
            f"      - {{ id: ending, inline: a secret that ends, until: {ends.strftime('%Y-%m-%dT%H:%M:%SZ')} }}\n"
        )
        return Stack(directory, endpoint, log_level="info"), ends.replace(microsecond=0).timestamp()

    ends = []

    def make_and_keep(directory):
        stack, end = make(directory)
        ends.append(end)
        return stack

    with conftest.Running(make_and_keep) as stack:
        yield stack, mounts[0], ends[0]
    conftest.RUNNING.remove(stack)


def signed(secret):
    body = unique_body()
    signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return Request("POST", URL, (("X-Hub-Signature-256", signature),), body)


class Senders(Crowd):
    """Each signs with what `choose` says at the moment."""

    def __init__(self, stack, choose, number):
        super().__init__(number)
        self.shots = []  # begun, ended, secret, status
        self._stack, self._choose = stack, choose

    def _run(self, _):
        with Http1(self._stack.edge) as connection:
            while not self._over.is_set():
                begun, secret = time.time(), self._choose()
                status = connection.send(signed(secret)).status
                self.shots.append((begun, time.time(), secret, status))


def test_rotation_every_second(rotating, figure):
    stack, mount, ends = rotating
    now = {"secret": "a secret that ends"}
    with (
        Senders(stack, lambda: now["secret"], 4) as honest,
        Senders(stack, lambda: "a secret that ends", 1) as ending,
        Http1(stack.edge) as probe,
    ):
        previous = secrets.token_hex(16)
        over = time.monotonic() + SECONDS
        noticed = []
        while time.monotonic() < over:
            current = secrets.token_hex(16)
            mount.write(current=current, previous=previous)
            written = time.monotonic()
            # A provider that is given a new secret signs with it from then on: not before it is in force here. How
            # long that takes is measured; a machine that stands still for a second is not this test's business.
            wait_for("the new secret is in force", lambda: probe.send(signed(current)).status == 200)
            noticed.append(time.monotonic() - written)
            # What is in force is `previous`, now and after the next swap; whoever signs with it is never refused.
            now["secret"] = previous = current
            wait_for("it is time", lambda: time.monotonic() > written + EVERY)

    # A sender that chose its secret, and then was not run until after that had left the volume, proves nothing.
    in_force = [shot for shot in honest.shots if shot[1] < mount.gone.get(shot[2], shot[1] + 1)]
    refused = [shot for shot in in_force if shot[3] != 200]
    late = [shot for shot in ending.shots if shot[3] == 200 and shot[0] > ends + 1]
    reloads = [line for line in stack.metrics().splitlines() if line.startswith('hookwarden_config_reloads_total{outcome="applied"}')]
    figure(
        f"{len(noticed)} rotations in {SECONDS} s under load: {len(in_force)} deliveries, {len(refused)} refused; "
        f"{len(late)} accepted later than 1 s after `until`; {reloads[0].rpartition(' ')[2]} reloads; "
        f"a new secret in force after {statistics.median(noticed) * 1000:.0f} ms, at most {max(noticed) * 1000:.0f} ms"
    )
    assert not refused, refused[:3]
    assert not late, late[:3]
    assert len(in_force) > 0.99 * len(honest.shots)
    assert any(shot[3] == 401 for shot in ending.shots if shot[0] > ends)
    assert len(noticed) > SECONDS // 2
