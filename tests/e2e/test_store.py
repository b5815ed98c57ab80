"""The store on disk: what was delivered is known after a crash, and a disk that fails costs what was promised."""

import os
import subprocess

import pytest

import conftest
from client import HOST
from harness import deliver, make_stack, unique_body
from stack import substitute, wait_for

DELIVERED = (200, "allow", "verified", True)
REPLAYED = (409, "deny", "replayed", False)


def delivered(stack, endpoint):
    name = f'hookwarden_upstream_deliveries_total{{endpoint="{endpoint}",outcome="delivered"}} '
    return sum(int(line.removeprefix(name)) for line in stack.metrics().splitlines() if line.startswith(name))


def up(stack):
    return "hookwarden_store_up 1\n" in stack.metrics()


def test_kill_9_again_and_again_lets_no_replay_through(own_stack, figure):
    """A delivery counts as delivered once that is on disk; from then on no crash makes it new again."""
    sent, replayed = [], 0
    for _ in range(10):
        before = delivered(own_stack, "stripe")
        fresh = [own_stack.sign("stripe", unique_body()) for _ in range(5)]
        for request in fresh:
            assert deliver(own_stack, request).outcome == DELIVERED
        wait_for("all are settled", lambda: delivered(own_stack, "stripe") == before + len(fresh))
        sent += fresh
        own_stack.hookwarden.kill()
        own_stack.start_hookwarden()
        for request in sent:
            outcome = deliver(own_stack, request).outcome
            replayed += outcome[3]
            assert outcome == REPLAYED
    figure(f"kill -9, 10 times: {len(sent)} deliveries, {sum(range(5, 55, 5))} replays, {replayed} accepted")


SMALL = 4 << 20  # bytes of the volume; an empty store takes about 1.6 MiB of it


@pytest.fixture
def small_volume():
    """A stack whose state lies on a volume of its own, which is easily filled."""
    volumes = []

    def make(directory):
        stack = make_stack(directory)
        volume = directory / "volume"
        volume.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", volume], check=True)
        volumes.append(volume)
        text = stack.config.read_text()
        text = substitute(text, (f"file://{directory}/state.redb", f"file://{volume}/state.redb"))
        stack.config.write_text(
            text
            + "  local:\n    match: { path: /local }\n    provider: stripe\n    store_failure: local_only\n"
            + f"    secrets: [{{ id: main, file: {stack.secrets}/stripe }}]\n"
        )
        return stack

    if os.geteuid() != 0:
        pytest.skip("only root can mount a volume to fill")
    with conftest.Running(make) as stack:
        try:
            yield stack, volumes[0]
        finally:
            stack.stop()
            subprocess.run(["umount", "-l", volumes[0]], check=True)
    conftest.RUNNING.remove(stack)


def fill(volume):
    with open(volume / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError:
            pass


def local(stack):
    return stack.sign("local", unique_body(), url=f"https://{HOST}/local")


def test_a_full_disk(small_volume, figure):
    """`deny` refuses what it cannot remember, `local_only` goes by memory, and both are well again without a restart."""
    stack, volume = small_volume
    assert deliver(stack, stack.sign("stripe", unique_body())).outcome == DELIVERED
    fill(volume)

    def refused():
        return deliver(stack, stack.sign("stripe", unique_body())).outcome == (503, "deny", "store_unavailable", False)

    wait_for("the store is full", refused)
    wait_for("the gauge says so", lambda: not up(stack))
    request = local(stack)
    assert deliver(stack, request).outcome == DELIVERED
    wait_for("it is settled in memory", lambda: delivered(stack, "local") == 1)
    assert deliver(stack, request).outcome == REPLAYED

    os.remove(volume / "filler")
    tries = []

    def accepted():
        tries.append(1)
        return deliver(stack, stack.sign("stripe", unique_body())).outcome == DELIVERED

    wait_for("there is room again", accepted)
    wait_for("the gauge says so", lambda: up(stack))
    assert stack.hookwarden.running
    figure(f"disk full: refused with 503, then {len(tries)} tries until the first delivery after there was room")


def test_a_disk_that_turns_read_only(small_volume, figure):
    """A volume can be turned only while nobody has a file of it open for writing, which is so after the store failed."""
    stack, volume = small_volume
    request = stack.sign("stripe", unique_body())
    assert deliver(stack, request).outcome == DELIVERED
    wait_for("it is settled", lambda: delivered(stack, "stripe") == 1)
    fill(volume)
    wait_for("the store failed", lambda: deliver(stack, stack.sign("stripe", unique_body())).outcome[2] == "store_unavailable")
    os.remove(volume / "filler")
    remount = lambda how: subprocess.run(["mount", "-o", f"remount,{how},size={SMALL}", volume], capture_output=True).returncode == 0
    wait_for("the volume is read-only", lambda: remount("ro"))

    for _ in range(5):
        assert deliver(stack, stack.sign("stripe", unique_body())).outcome == (503, "deny", "store_unavailable", False)
        assert deliver(stack, local(stack)).outcome == DELIVERED
    assert not up(stack) and "Read-only file system" in stack.hookwarden.log_text()
    assert deliver(stack, request).outcome == REPLAYED, "what is remembered is"

    assert remount("rw")
    tries = []

    def accepted():
        tries.append(1)
        return deliver(stack, stack.sign("stripe", unique_body())).outcome == DELIVERED

    wait_for("it can be written again", accepted)
    wait_for("the gauge says so", lambda: up(stack))
    figure(f"disk read-only: refused with 503, then {len(tries)} tries until the first delivery after it could be written")
