"""Replicas that share a real Redis: one of many copies passes, and what happens to Redis lets no replay through."""

import contextlib
import hashlib
import hmac
import os
import random
import threading
import time

import pytest

import throwaway
from client import Http1, Request
from harness import Crowd, unique_body
from redis_server import LOCAL, RedisServer, Replicas, bodies_received, digest, free_port, reason, stripe, wait_until_complete
from stack import wait_for

# `make test-faults` asks for what the issue that wanted this asked for.
RACES = int(os.environ.get("HOOKWARDEN_RACES", "10"))
FAULT_SECONDS = float(os.environ.get("HOOKWARDEN_FAULT_SECONDS", "3"))
COPIES = 1000
RECOVERED_WITHIN = 5.0


@pytest.fixture
def servers(tmp_path):
    """Makes servers, and ends them."""
    started = []

    def make(*arguments, **options):
        server = RedisServer(tmp_path, *arguments, **options)
        started.append(server)
        return server

    yield make
    for server in started:
        server.stop()


def up(stack):
    return "hookwarden_store_up 1\n" in stack.metrics()


def in_parallel(work, number):
    """What `work` returns for each number; an error in one is an error."""
    results, errors = [None] * number, []

    def run(n):
        try:
            results[n] = work(n)
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]
    return results


# ── one of many ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_of_a_thousand_copies(servers, figure):
    """The same bytes at three replicas at once, over and over: the applications together get them once."""
    redis = servers().start()
    connections = 12
    with Replicas(3, f"redis://127.0.0.1:{redis.port}") as stacks:
        wait_until_complete(stacks)
        forwarded, statuses, begun = [], {}, time.monotonic()
        for _ in range(RACES):
            copy = stripe(stacks[0])
            together = threading.Barrier(connections)

            def send(n):
                with Http1(stacks[n % 3].edge) as connection:
                    together.wait(30)
                    return [connection.send(copy).status for _ in range(n, COPIES, connections)]

            for status in sum(in_parallel(send, connections), []):
                statuses[status] = statuses.get(status, 0) + 1
            forwarded.append(sum(bodies_received(stack, "/stripe").count(digest(copy)) for stack in stacks))
        took = time.monotonic() - begun
        figure(f"{RACES} races of {COPIES} copies to 3 replicas with one Redis: forwarded {sorted(set(forwarded))} each; {statuses} in {took:.0f} s")
        assert forwarded == [1] * RACES
        assert statuses[200] == RACES and set(statuses) <= {200, 409, 503}


def test_an_outcome_told_to_one_replica_is_known_to_all(servers):
    redis = servers().start()
    with Replicas(2, f"redis://127.0.0.1:{redis.port}") as (one, other):
        wait_until_complete([one, other])
        request = stripe(one)
        assert one.send(request).status == 200
        refused = wait_for("it is settled", lambda: (r := other.send(request)).status == 409 and r)
        assert reason(other, refused) == "replayed"


# ── what happens to Redis ────────────────────────────────────────────────────────────────────────────────────────────


class Traffic(Crowd):
    """New deliveries and replays, at two replicas, to an endpoint that refuses and one that goes on by itself."""

    def __init__(self, stacks, threads=2):
        super().__init__(threads)
        self._stacks = stacks
        self._lock = threading.Lock()
        self.passed = []  # what `deny` let through: at which replica, and what
        self.fresh, self.replays, self.local, self.errors = [], [], [], []

    def _run(self, number):
        try:
            with contextlib.ExitStack() as open_ones:
                self._send(random.Random(number), [open_ones.enter_context(Http1(stack.edge)) for stack in self._stacks])
        except Exception as error:  # noqa: BLE001 - told by the test
            self.errors.append(repr(error))

    def _send(self, chance, connections):
        while not self._over.is_set():
            at = chance.randrange(len(connections))
            request = stripe(self._stacks[at])
            status = connections[at].send(request).status
            self.fresh.append((time.monotonic(), status))
            if status == 200:
                with self._lock:
                    self.passed.append(request)
            with self._lock:
                # What was delivered a moment ago, or any time: the latest is what a server forgets.
                old = chance.choice(self.passed[-3:] + chance.sample(self.passed, min(3, len(self.passed)))) if self.passed else None
            if old:
                at = chance.randrange(len(connections))
                self.replays.append((time.monotonic(), connections[at].send(old).status))
            at = chance.randrange(len(connections))
            self.local.append((time.monotonic(), connections[at].send(stripe(self._stacks[at], "/local")).status))

    def wait_for_passed(self, after, what):
        """When the first new delivery passed after a moment."""
        return wait_for(what, lambda: self.errors or [at for at, status in list(self.fresh) if at > after and status == 200], 20)


def judge(traffic, stacks, what, recovered, figure):
    """None that was delivered came twice, and none was refused where a replica goes on by itself."""
    received = [body for stack in stacks for body in bodies_received(stack, "/stripe")]
    twice = len(received) - len(set(received))
    refused = [status for _, status in traffic.local if status != 200]
    count = lambda shots: {status: sum(1 for _, s in shots if s == status) for status in sorted({s for _, s in shots})}
    figure(
        f"Redis {what}: `deny` {count(traffic.fresh)} new, {count(traffic.replays)} replays, {twice} accepted; "
        f"`local_only` {count(traffic.local)}; the first new one passed {recovered:.1f} s after it was back"
    )
    assert not traffic.errors, traffic.errors
    assert twice == 0
    assert not refused, refused[:5]
    assert set(count(traffic.fresh)) <= {200, 503}
    assert recovered <= RECOVERED_WITHIN
    assert len(traffic.replays) > 50


def while_traffic(store, what, fault, figure, settings=""):
    """Lets `fault` happen under load; it returns when the server is well again."""
    with Replicas(2, store, settings, LOCAL) as stacks:
        wait_until_complete(stacks)
        with Traffic(stacks) as traffic:
            wait_for("some are delivered", lambda: traffic.errors or len(traffic.passed) > 30)
            fault(traffic, stacks)
            back = time.monotonic()
            traffic.wait_for_passed(back, "a new delivery passes again")
            recovered = min(at for at, status in traffic.fresh if at > back and status == 200) - back
            seen = len(traffic.replays)
            wait_for("more replays", lambda: traffic.errors or len(traffic.replays) > seen + 50, 30)
        judge(traffic, stacks, what, recovered, figure)
        wait_for("the gauge says that the store is up", lambda: all(up(stack) for stack in stacks))


def down_for_a_while(traffic, stacks):
    """Lets the fault last, and sees that it is one."""
    begun = time.monotonic()
    wait_for("`deny` refuses", lambda: traffic.errors or any(at > begun and status == 503 for at, status in list(traffic.fresh)))
    wait_for("the gauge says that the store is down", lambda: not any(up(stack) for stack in stacks))
    while time.monotonic() < begun + FAULT_SECONDS and not traffic.errors:
        time.sleep(0.05)


def test_redis_is_killed(servers, figure):
    """Killed without having saved anything: it comes back empty."""
    redis = servers().start()

    def fault(traffic, stacks):
        redis.kill()
        down_for_a_while(traffic, stacks)
        redis.start(redis.port)

    while_traffic(f"redis://127.0.0.1:{redis.port}", "killed", fault, figure)


def test_redis_is_paused(servers, figure):
    """Stopped, with connections that stay open and commands that it reads much later."""
    redis = servers().start()

    def fault(traffic, stacks):
        redis.pause()
        down_for_a_while(traffic, stacks)
        redis.go_on()

    while_traffic(f"redis://127.0.0.1:{redis.port}", f"paused for {FAULT_SECONDS:.0f} s", fault, figure)


def test_redis_is_emptied(servers, figure):
    redis = servers().start()
    while_traffic(f"redis://127.0.0.1:{redis.port}", "emptied", lambda *_: redis.command("FLUSHALL"), figure)


def test_redis_fails_over(servers, figure):
    """The master dies, and its sentinels promote a replica that may not have heard the last of it."""
    master = servers("master").start()
    replica = servers("replica", f"replicaof 127.0.0.1 {master.port}").start()
    wait_for("the replica follows", lambda: "master_link_status:up" in replica.command("INFO", "replication"))
    sentinel = servers(
        "sentinel",
        f"sentinel monitor main 127.0.0.1 {master.port} 1",
        "sentinel down-after-milliseconds main 500",
        "sentinel failover-timeout main 3000",
        sentinel=True,
    ).start()
    wait_for("the sentinel knows the replica", lambda: f"{replica.port}" in sentinel.command("SENTINEL", "replicas", "main"))

    def fault(traffic, stacks):
        master.kill()
        # The sentinel also closes the connections of all clients when it promotes, that of the question among them.
        role = lambda: replica.command("INFO", "replication", check=False)
        wait_for("the replica is the master", lambda: "role:master" in role(), 30)

    while_traffic(f"redis+sentinel://127.0.0.1:{sentinel.port}/main", "failed over", fault, figure)


def test_what_was_claimed_although_nobody_waited_is_given_back(servers):
    """A command that a stopped server reads much later must not refuse the provider's next try."""
    redis = servers().start()
    with Replicas(1, f"redis://127.0.0.1:{redis.port}") as (stack,):
        wait_until_complete([stack])
        redis.pause()
        request = stripe(stack)
        refused = stack.send(request)
        assert (refused.status, reason(stack, refused)) == (503, "store_unavailable")
        redis.go_on()
        again = wait_for("the next try passes", lambda: (r := stack.send(request)).status == 200 and r)
        assert reason(stack, again) == "verified"
        assert bodies_received(stack, "/stripe").count(digest(request)) == 1


# ── what else is shared ──────────────────────────────────────────────────────────────────────────────────────────────

def test_leases_and_learned_secrets_are_shared(servers):
    redis = servers().start()
    learning = (
        "  learning:\n    match: {{ path: /learning }}\n    provider: asana\n"
        '    enrolment: {{ until: "2099-01-01T00:00:00Z" }}\n'
    )
    with Replicas(2, f"redis://127.0.0.1:{redis.port}", endpoints=learning) as (one, other):
        wait_until_complete([one, other])
        url = one.sign("verify-token", challenge=True).url
        lease = lambda stack: stack.send(Request("POST", url.partition("?")[0], (), unique_body()), "203.0.113.9").status
        assert lease(other) == 401
        assert one.send(one.sign("verify-token", challenge=True), "203.0.113.9").status == 200
        assert lease(other) == 200

        secret = "c0ffee" * 8
        path = url.partition("/verify-token")[0] + "/learning"
        assert one.send(Request("POST", path, (("X-Hook-Secret", secret),), b"{}")).status == 200
        body = unique_body()
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        delivery = Request("POST", path, (("X-Hook-Signature", signature),), body)
        wait_for("the other replica knows the secret", lambda: other.send(delivery).status == 200)
        # Another one is learned by none of them, also after a restart.
        for stack in (one, other):
            assert stack.send(Request("POST", path, (("X-Hook-Secret", "0ddba11" * 7),), b"{}")).status >= 400
        one.hookwarden.kill()
        one.start_hookwarden()
        wait_for("it is known after a restart", lambda: one.send(delivery).status in (200, 409))
        assert lease(one) == 200


# ── how it is reached ────────────────────────────────────────────────────────────────────────────────────────────────


def test_over_tls_with_a_password(servers, tmp_path):
    tls = tmp_path / "tls"
    throwaway.make_certificate(tls, "localhost")
    password = tmp_path / "password"
    password.write_text("a password of the tests\n")
    redis = servers(
        "redis",
        "tls-auth-clients no",
        *(f"tls-{what} {tls}/{file}" for what, file in [("cert-file", "tls.crt"), ("key-file", "tls.key"), ("ca-cert-file", "ca.crt")]),
        "user default off",
        # What docs/replay.md says that it needs, and no more.
        f"user hookwarden on #{sha256_hex('a password of the tests')} resetchannels ~{{ours}}:* -@all "
        "+@connection +@scripting +@read +@write +info +time",
    )
    redis.arguments = ["--tls", "--cacert", str(tls / "ca.crt"), "--user", "hookwarden", "--pass", "a password of the tests", "--no-auth-warning"]
    redis.settings = (*redis.settings, "tls-port {port}")
    start_with_tls(redis)
    settings = f"redis: {{ username: hookwarden, password: {{ file: {password} }}, ca_file: {tls}/ca.crt, prefix: ours, timeout: 100ms }}\n"
    store = f"rediss://localhost:{redis.port}/0"
    with Replicas(1, store, settings) as (stack,):
        wait_until_complete([stack])
        request = stripe(stack)
        assert stack.send(request).status == 200
        wait_for("it is settled", lambda: stack.send(request).status == 409)
        assert redis.command("KEYS", "{ours}:claim:*")
        assert "a password" not in stack.hookwarden.log_text()

    # Neither another authority nor another password is good enough, and both are said.
    other = tmp_path / "other"
    throwaway.make_certificate(other, "localhost")
    wrong = tmp_path / "wrong"
    wrong.write_text("another password\n")
    for settings in (settings.replace(f"{tls}/ca.crt", f"{other}/ca.crt"), settings.replace(str(password), str(wrong))):
        with Replicas(1, store, settings) as (stack,):
            refused = stack.send(stripe(stack))
            assert (refused.status, reason(stack, refused)) == (503, "store_unavailable")
            assert not up(stack)
            assert "the store cannot be reached" in stack.hookwarden.log_text()


def sha256_hex(text):
    return hashlib.sha256(text.encode()).hexdigest()


def start_with_tls(redis):
    """On a port that speaks TLS alone."""
    port = free_port()
    redis.settings = tuple(line.format(port=port) if "{port}" in line else line for line in redis.settings)
    redis.settings = (*redis.settings, "port 0")
    redis.start(port)


def test_a_cluster(servers):
    """Three masters; keys that belong together lie together."""
    nodes = [servers(f"node-{n}", "cluster-enabled yes", "cluster-node-timeout 2000").start() for n in range(3)]
    addresses = [f"127.0.0.1:{node.port}" for node in nodes]
    nodes[0].command("--cluster", "create", *addresses, "--cluster-yes")
    wait_for("the cluster is well", lambda: all("cluster_state:ok" in node.command("CLUSTER", "INFO") for node in nodes))
    with Replicas(2, f"redis+cluster://{','.join(addresses)}", "redis: { timeout: 100ms }\n") as (one, other):
        wait_until_complete([one, other])
        request = stripe(one)
        assert one.send(request).status == 200
        wait_for("it is settled", lambda: other.send(request).status == 409)


def test_a_server_that_is_not_there_holds_nothing_up(servers):
    """`deny` says at once that it cannot tell; `local_only` delivers; and the store is found when it comes."""
    redis = servers().start()
    redis.kill()
    with Replicas(1, f"redis://127.0.0.1:{redis.port}", "", LOCAL) as (stack,):
        begun = time.monotonic()
        refused = stack.send(stripe(stack))
        assert (refused.status, reason(stack, refused)) == (503, "store_unavailable")
        assert time.monotonic() - begun < 1
        assert stack.send(stripe(stack, "/local")).status == 200
        redis.start(redis.port)
        wait_until_complete([stack])
        assert up(stack)
