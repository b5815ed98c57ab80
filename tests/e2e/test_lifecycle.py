"""What a crash, a stop and a reload do to deliveries that keep coming."""

import concurrent.futures
import signal
import subprocess
import time

import pytest

from harness import Load, deliver, sample, sha256, unique_body
from stack import BINARY, get, wait_for

RECOVERY = 1.0  # seconds from the restart to the first delivery
STOP = 10.0  # seconds from SIGTERM to the exit


def loads(stack, endpoint="github", number=40, size=0):
    """Signed deliveries of which every body is its own, and the same number of unsigned ones."""
    bodies = lambda: [unique_body() + b" " * size for _ in range(number)]
    signed = [stack.sign(endpoint, body) for body in bodies()]
    unsigned = [request.change(headers=(), body=body) for request, body in zip(signed, bodies())]
    return signed, unsigned


def assert_only_verified_ones_arrived(stack, signed, load):
    """No answer that is neither a verdict nor a fault, and at the application nothing but what was signed."""
    assert not load.errors
    assert {shot.status for shot in load.shots if shot.signed} <= {200, 503}
    assert {shot.status for shot in load.shots if not shot.signed} <= {401, 503}
    received = {record["body_sha256"] for record in stack.received(signed[0].path)}
    assert received and received <= {sha256(request.body) for request in signed}


def test_kill_9_under_load(own_stack, figure):
    signed, unsigned = loads(own_stack)
    with Load(own_stack, signed, unsigned) as load:
        load.wait_for_more(200)
        own_stack.hookwarden.kill()
        load.wait_for("answers while nobody verifies", lambda shots: sum(shot.status == 503 for shot in shots) >= 50)
        restarted = time.monotonic()
        own_stack.hookwarden.start()
        first = load.wait_for("a delivery after the restart", lambda shots: [s for s in shots if s.status == 200 and s.at > restarted])[0]
        load.wait_for_more(200)

    assert_only_verified_ones_arrived(own_stack, signed, load)
    recovery = first.at - restarted
    faults = sum(shot.status == 503 for shot in load.shots)
    figure(f"kill -9 under load: first delivery {recovery * 1000:.0f} ms after the restart began; {len(load.shots)} answers, {faults} of them 503")
    assert recovery <= RECOVERY


def test_kill_9_again_and_again(own_stack):
    """Each time the socket of the one before lies there."""
    signed, unsigned = loads(own_stack, number=10)
    with Load(own_stack, signed, unsigned, threads=4) as load:
        for _ in range(5):
            load.wait_for_more(20)
            own_stack.hookwarden.kill()
            own_stack.start_hookwarden()
        load.wait_for_more(40)
        last = load.shots[-4:]
    assert_only_verified_ones_arrived(own_stack, signed, load)
    assert {shot.status for shot in last} <= {200, 401}


@pytest.mark.parametrize("size", [0, 4 << 20], ids=["small", "4-MiB"])
def test_sigterm_under_load(own_stack, figure, size):
    """What was being decided is decided and told: no answer is lost on the way to Envoy."""
    signed, unsigned = loads(own_stack, number=10 if size else 40, size=size)
    with Load(own_stack, signed, unsigned) as load:
        load.wait_for_more(100)
        begun = time.monotonic()
        own_stack.hookwarden.signal(signal.SIGTERM)
        assert own_stack.hookwarden.wait(STOP + 5) == 0
        took = time.monotonic() - begun
        load.wait_for("answers while nobody verifies", lambda shots: shots[-1].status == 503)

    figure(f"SIGTERM under load ({size >> 20} MiB bodies): exit 0 after {took * 1000:.0f} ms")
    assert took <= STOP
    assert_only_verified_ones_arrived(own_stack, signed, load)
    lost = [shot for shot in load.shots if shot.status == 503 and own_stack.log.lines(shot.request_id)]
    told = [(own_stack.log.lines(shot.request_id), own_stack.proxies["envoy"].log.last(shot.request_id)) for shot in lost]
    assert not told, "decided, and yet the client was told that nobody could decide"


def test_a_slow_check_is_waited_for(own_stack):
    """A pause of a second is no failure: the timeout in deploy/envoy.yaml is five, for each try too. The body is one
    that Envoy does not keep for a second try."""
    request = own_stack.sign("github", unique_body() + b" " * 100_000)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        own_stack.hookwarden.signal(signal.SIGSTOP)
        answer = pool.submit(deliver, own_stack, request)
        concurrent.futures.wait([answer], timeout=1)
        own_stack.hookwarden.signal(signal.SIGCONT)
        assert answer.result(10).outcome == (200, "allow", "verified", True)


def test_sigterm_at_rest(own_stack):
    own_stack.hookwarden.signal(signal.SIGTERM)
    assert own_stack.hookwarden.wait(STOP) == 0


def reload_counts(stack):
    text = stack.metrics()
    return {
        "applied": sample(text, "hookwarden_config_reloads_total", outcome="applied"),
        "refused": sample(text, "hookwarden_config_reloads_total", outcome="refused"),
        "successful": sample(text, "hookwarden_config_last_reload_successful"),
    }


def reload(stack, expected):
    """Sends SIGHUP and waits until the metrics say that it was heeded."""
    stack.hookwarden.signal(signal.SIGHUP)
    wait_for(f"after SIGHUP: {expected}", lambda: reload_counts(stack) == expected, program=stack.hookwarden)


def test_sighup_takes_a_new_secret(own_stack):
    signed_before = own_stack.sign("github", unique_body())
    assert reload_counts(own_stack) == {"applied": 0, "refused": 0, "successful": 1}
    (own_stack.secrets / "github").write_text("a new secret of some length, 0123456789\n")
    signed_after = own_stack.sign("github", unique_body())
    assert deliver(own_stack, signed_after).decision["reason"] == "signature_mismatch"

    reload(own_stack, {"applied": 1, "refused": 0, "successful": 1})
    assert deliver(own_stack, signed_after).outcome == (200, "allow", "verified", True)
    assert deliver(own_stack, signed_before).outcome == (401, "deny", "signature_mismatch", False)


def test_sighup_with_a_broken_configuration_keeps_the_last_good(own_stack):
    good = own_stack.config.read_text()
    own_stack.config.write_text(good.replace("provider: github", "provider: githob"))
    reload(own_stack, {"applied": 0, "refused": 1, "successful": 0})

    assert deliver(own_stack, signed_under(own_stack, good)).outcome == (200, "allow", "verified", True)
    assert get(own_stack.admin_url("/readyz"))[0] == 200

    own_stack.config.write_text(good)
    reload(own_stack, {"applied": 1, "refused": 1, "successful": 1})
    assert deliver(own_stack, own_stack.sign("github", unique_body())).outcome == (200, "allow", "verified", True)


def signed_under(stack, good):
    """Signs with the configuration in force, while the file on disk is broken."""
    broken = stack.config.read_text()
    try:
        stack.config.write_text(good)
        return stack.sign("github", unique_body())
    finally:
        stack.config.write_text(broken)


def test_a_reload_keeps_the_leases(own_stack):
    asked = deliver(own_stack, own_stack.sign("verify-token", challenge=True), client_ip="203.0.113.80")
    assert asked.decision["reason"] == "lease_granted"
    reload(own_stack, {"applied": 1, "refused": 0, "successful": 1})
    request = own_stack.sign("verify-token", unique_body())
    assert deliver(own_stack, request, client_ip="203.0.113.80").outcome == (200, "allow", "verified", True)


def test_a_reload_under_load_disturbs_nobody(own_stack):
    signed, unsigned = loads(own_stack, number=10)
    with Load(own_stack, signed, unsigned, threads=8) as load:
        for applied in range(1, 6):
            load.wait_for_more(40)
            reload(own_stack, {"applied": applied, "refused": 0, "successful": 1})
    assert not load.errors
    assert {(shot.signed, shot.status) for shot in load.shots} == {(True, 200), (False, 401)}


def test_a_broken_configuration_does_not_start(own_stack):
    broken = own_stack.directory / "broken.yaml"
    broken.write_text(own_stack.config.read_text().replace("provider: github", "provider: githob"))
    done = subprocess.run([BINARY, "serve", "--config", broken], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 2
    assert f"{broken}:" in done.stderr and "endpoints.github.provider: is not a preset" in done.stderr


def test_several_threads_serve_and_drain_together(own_stack):
    """Connections are dealt out to four threads; none of them loses a delivery, and all of them end."""
    own_stack.hookwarden.signal(signal.SIGTERM)
    assert own_stack.hookwarden.wait(STOP) == 0
    configuration = own_stack.config.read_text()
    assert "\nlisten:\n" in configuration
    own_stack.config.write_text(configuration.replace("\nlisten:\n", "\nlisten:\n  threads: 4\n", 1))
    own_stack.start_hookwarden()
    assert {"io-1", "io-2", "io-3"} <= own_stack.hookwarden.threads()

    signed, unsigned = loads(own_stack)
    with Load(own_stack, signed, unsigned) as load:
        load.wait_for_more(200)
    assert_only_verified_ones_arrived(own_stack, signed, load)
    own_stack.hookwarden.signal(signal.SIGTERM)
    assert own_stack.hookwarden.wait(STOP) == 0
