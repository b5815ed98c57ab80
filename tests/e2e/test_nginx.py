"""Stock nginx in front, by `X-Accel-Redirect`, and once more with njs: the same decisions, and the same bytes upstream."""

import dataclasses
import datetime
import json
import os
import socket
import statistics
import threading
import time

import pytest

import conftest
import vectors
from client import HOST, Http1, Request
from harness import GITHUB_LIMIT, sha256, unique_body
from nginx_server import NginxStack
from stack import JsonLog, lowered, wait_for
from test_clock import Calendar

EXTRA = """
  observed:
    match: {{ path: /observed }}
    provider: github
    mode: observe
    secrets: [{{ id: main, file: {secrets}/github }}]
  tagged:
    match: {{ path: /tagged }}
    provider: github
    secrets: [{{ id: main, file: {secrets}/github, tags: {{ mode: test }} }}]
"""
FIVE = ("smartsheet", "verify-token", "webex", "smartthings", "bracken")


def running(make):
    with conftest.Running(make) as stack:
        yield stack
    conftest.RUNNING.remove(stack)


@pytest.fixture(scope="module", params=[False, True], ids=["accel", "njs"])
def nginx(request):
    yield from running(lambda directory: NginxStack(directory, request.param, EXTRA.format(secrets=directory / "secrets")))


@pytest.fixture
def own_nginx():
    yield from running(NginxStack)


def deliver(stack, request, client_ip=None, **options):
    """What the client got, what was decided, and what the application received."""
    response = stack.send(request, client_ip, **options)
    decision = stack.log.last(response.request_id)
    return response, (decision["decision"], decision["reason"]), stack.received_by_id(request).get(response.request_id)


def told(record):
    trusted = [(name, value) for name, value in lowered(record["headers"]) if name.startswith("x-hookwarden-")]
    assert len(dict(trusted)) == len(trusted), trusted
    return {name.removeprefix("x-hookwarden-"): value for name, value in trusted}


# ── the vectors of five providers ────────────────────────────────────────────────────────────────────────────────────


class Frozen(Calendar):
    """A calendar that stands still where it is put."""

    def environment(self):
        return {**super().environment(), "TZ": "UTC"}

    def stand(self, at):
        moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
        new = self._file.with_suffix(".new")
        new.write_text(moment.strftime("%Y-%m-%d %H:%M:%S\n"))
        new.replace(self._file)


def test_the_vectors_of_five_providers(figure):
    """Each at an endpoint and a moment of its own: what one leaves behind is none of another's business."""
    wanted = [case for preset in FIVE for case in vectors.cases(preset)]
    # nginx always knows whose connection it is.
    cases = [case for case in wanted if case.expect["reason" if "reason" in case.expect else "decision"] != "client_address_unknown"]
    endpoints, calendars = "", []
    for number, case in enumerate(cases):
        endpoint = {"match": {"host": f"v{number}.example.com", "path": "/*"}, **case.endpoint}
        endpoints += f"  v{number}: {json.dumps(endpoint)}\n"

    def make(directory):
        calendars.append(Frozen(directory))
        return NginxStack(directory, endpoints=endpoints, only=True, environment=calendars[0].environment())

    with conftest.Running(make) as stack:
        failures, outcomes, refused_by_nginx = [], {}, []
        for number, case in enumerate(cases):
            calendars[0].stand(case.now)
            _, _, rest = case.request.url.partition("://")[2].partition("/")
            request = case.request.change(url=f"https://v{number}.example.com/{rest}")
            if stack.send(request.change(url=f"https://none.example.com/{rest}"), case.client_ip).header("x-hookwarden-request-id") is None:
                # What nginx does not take for a request it refuses by itself, whoever it is for.
                refused_by_nginx.append(case.title)
                response = stack.send(request, case.client_ip)
                forwarded = response.request_id in stack.received_by_id(request)
                if case.expect["decision"] != "deny" or response.status != 400 or forwarded:
                    failures.append((case.title, response.status, forwarded))
                continue
            response, decided, record = deliver(stack, request, case.client_ip)
            # nginx sends nobody's `Upgrade` on, so there is none.
            upgrade = case.expect.get("reason") == "upgrade_refused"
            expected = ("allow", "verified") if upgrade else (case.expect["decision"], case.expect.get("reason", decided[1]))
            if decided != expected or (record is not None) != (decided[0] == "allow"):
                failures.append((case.title, expected, decided, response.status))
            if decided[0] != "allow" and response.status != case.expect.get("status", response.status):
                failures.append((case.title, case.expect["status"], response.status))
            if decided[0] == "answer" and "body" in case.expect and response.body.decode() != case.expect["body"]:
                failures.append((case.title, case.expect["body"], response.body))
            outcomes[decided[0]] = outcomes.get(decided[0], 0) + 1
        conftest.RUNNING.remove(stack)
    figure(f"nginx: {len(cases)} vectors of {len(FIVE)} providers decide as they say: {outcomes}, and nginx itself refuses {len(refused_by_nginx)}")
    assert not failures, failures
    assert len(cases) > 100 and len(refused_by_nginx) < 10 and set(outcomes) == {"allow", "answer", "deny"}


# ── what arrives, and what does not ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body, options",
    [
        (bytes(range(256)) * 8, {}),
        (b"", {}),
        (os.urandom(1 << 20), {"chunk": 65536}),
        (os.urandom(GITHUB_LIMIT), {}),
        (os.urandom(GITHUB_LIMIT), {"chunk": 1 << 20}),
    ],
    ids=["every-byte", "empty", "chunked", "25-mib", "25-mib-chunked"],
)
def test_what_is_verified_is_what_arrives(nginx, body, options):
    request = nginx.sign("github", body, arguments=["--header", "X-Custom: as it was, sent"])
    response, decided, record = deliver(nginx, request, **options)
    assert (response.status, decided) == (200, ("allow", "verified"))
    assert (record["method"], record["path"]) == ("POST", "/github")
    assert (record["body_bytes"], record["body_sha256"]) == (len(body), sha256(body))
    assert set(lowered(request.headers)) <= set(lowered(record["headers"]))
    assert told(record) == {"endpoint": "github", "provider": "github", "verified-by": "signature", "secret-id": "main"} | (
        {"duplicate": told(record)["duplicate"]} if "duplicate" in told(record) else {}
    )


def test_long_bodies_are_verified_and_not_held(own_nginx, figure):
    """Eight times 25 MiB at once: nginx keeps them in files, and hookwarden looks at them as they pass."""
    requests = [own_nginx.sign("github", os.urandom(GITHUB_LIMIT)) for _ in range(8)]
    statuses = []
    threads = [threading.Thread(target=lambda r=request: statuses.append(own_nginx.send(r).status)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == [200] * len(requests)
    most = own_nginx.hookwarden.most_memory()
    figure(f"nginx: 8 bodies of 25 MiB at once, verified as they come in: hookwarden had {most >> 20} MiB at most")
    assert most < 48 << 20


def test_one_connection_serves_many(nginx):
    with Http1(nginx.edge, "203.0.113.7") as connection:
        for turn in range(20):
            request = nginx.sign("github", unique_body())
            good = connection.send(request)
            bad = connection.send(request.one_byte_changed())
            assert (good.status, bad.status) == (200, 401), turn


def test_one_changed_byte_is_refused(nginx):
    response, decided, record = deliver(nginx, nginx.sign("github", unique_body()).one_byte_changed())
    assert (response.status, decided, record) == (401, ("deny", "signature_mismatch"), None)
    assert response.body.decode() == f"rejected, request {response.request_id}\n"
    assert not [name for name, _ in lowered(response.headers) if name.startswith("x-hookwarden-") and name != "x-hookwarden-request-id"]


def test_refusals_keep_their_words(nginx):
    response, decided, _ = deliver(nginx, Request("POST", f"https://{HOST}/bracken", (), unique_body()))
    assert (response.status, decided[0]) == (403, "deny")
    assert response.body == b"Do not trust, not from a Bracken webhook"


@pytest.mark.parametrize("endpoint", ["slack", "smartsheet", "smartthings"])
def test_a_challenge_is_answered_and_not_forwarded(nginx, endpoint):
    response, decided, record = deliver(nginx, nginx.sign(endpoint, challenge=True))
    assert (response.status, decided, record) == (200, ("answer", "challenge"), None)
    assert response.body


def test_a_lease_belongs_to_the_address_that_asked(nginx):
    ask = nginx.sign("verify-token", challenge=True)
    # What a client says of its address is nothing: nginx overwrites it.
    assert deliver(nginx, ask.add(("X-Real-IP", "203.0.113.61")), "203.0.113.60")[1] == ("answer", "lease_granted")
    post = Request("POST", f"https://{HOST}/verify-token", (), unique_body())
    assert deliver(nginx, post, "203.0.113.61")[1] == ("deny", "lease_missing")
    assert deliver(nginx, post.add(("X-Real-IP", "203.0.113.60")), "203.0.113.62")[1] == ("deny", "lease_missing")
    response, decided, record = deliver(nginx, post, "203.0.113.60")
    assert (response.status, decided) == (200, ("allow", "verified"))
    assert told(record)["verified-by"] == "ip-lease"


def test_what_only_hookwarden_may_say(nginx):
    request = nginx.sign("github", unique_body())
    for spoof in ("X-Hookwarden-Endpoint", "X-Hookwarden-Of-Tomorrow", "X-Hookwarden-Verdict"):
        response, decided, record = deliver(nginx, request.add((spoof, "allow")))
        assert (response.status, decided, record) == (400, ("deny", "trusted_header_sent"), None), spoof
    # An order of nginx's own in a request is no order.
    response, decided, record = deliver(nginx, request.one_byte_changed().add(("X-Accel-Redirect", "@app")))
    assert (response.status, record) == (401, None)
    _, decided, record = deliver(nginx, nginx.sign("observed", unique_body(), url=f"https://{HOST}/observed").one_byte_changed())
    assert decided == ("observe", "signature_mismatch")
    assert (told(record)["verified-by"], told(record)["reason"]) == ("observe", "signature_mismatch")
    _, _, record = deliver(nginx, nginx.sign("tagged", unique_body(), url=f"https://{HOST}/tagged"))
    assert told(record)["tag-mode"] == "test"


@pytest.mark.parametrize("target", ["/github#/../../admin", "/github?u=1#&u=2", "/github?#%2f.."])
def test_what_stands_behind_a_mark_is_not_forwarded(nginx, target):
    """nginx sends it on to the application, and it was not verified."""
    request = nginx.sign("github", unique_body())
    response = nginx.send(dataclasses.replace(request, url=f"https://{HOST}{target}"), raw_target=target)
    assert response.status == 400
    assert sha256(request.body) not in {record["body_sha256"] for record in nginx.received("/github")}


def test_a_client_does_not_choose_its_address(nginx):
    """nginx appends to `x-forwarded-for`, so its last entry is nginx's word."""
    request = nginx.sign("github", unique_body()).add(("X-Forwarded-For", "203.0.113.7"), ("X-Real-IP", "203.0.113.7"))
    _, _, record = deliver(nginx, request, "203.0.113.99")
    headers = dict(lowered(record["headers"]))
    assert headers["x-real-ip"] == "203.0.113.99"
    assert headers["x-forwarded-for"] == "203.0.113.7, 203.0.113.99"


def test_the_access_log_tells_the_endpoint_of_what_was_forwarded(nginx):
    log = JsonLog(nginx.nginx.program)
    request = nginx.sign("github", unique_body())
    for sent, endpoint in ((request, "github"), (request.one_byte_changed(), "")):
        response = nginx.send(sent)
        line = log.last(response.request_id)
        assert (line["endpoint"], line["status"], line["path"]) == (endpoint, response.status, "/github")


def test_too_long_a_body_is_refused_by_nginx(nginx):
    request = nginx.sign("github", bytes(27 << 20))
    assert nginx.send(request).status == 413
    assert sha256(request.body) not in {record["body_sha256"] for record in nginx.received("/github")}


def test_the_internal_locations_are_internal(nginx):
    for path in ("/@app", "/_hookwarden", "/%40app", "/"):
        response = nginx.send(Request("POST", f"https://{HOST}{path}", (), unique_body()))
        assert response.status in (400, 404), path
        assert not nginx.received(path)


# ── when something is gone ───────────────────────────────────────────────────────────────────────────────────────────


def test_nobody_to_ask(own_nginx):
    request = own_nginx.sign("github", unique_body())
    own_nginx.hookwarden.kill()
    assert own_nginx.send(request).status == 502
    assert not own_nginx.received("/github")
    own_nginx.start_hookwarden()
    assert deliver(own_nginx, request)[1] == ("allow", "verified")


def test_a_stop_ends_both_listeners_at_once(own_nginx):
    """A request that hangs in its body holds up nobody else's drain."""
    hanging = socket.socket(socket.AF_UNIX)
    hanging.connect(str(own_nginx.verify_socket))
    hanging.sendall(b"POST /github HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\nx-hub-signature-256: sha256=" + b"0" * 64 + b"\r\n\r\n12345")
    own_nginx.send(own_nginx.sign("github", unique_body()))
    own_nginx.hookwarden.signal(15)

    def refused():
        asking = socket.socket(socket.AF_UNIX)
        try:
            return asking.connect_ex(str(own_nginx.socket)) != 0
        finally:
            asking.close()

    begun = time.monotonic()
    wait_for("the ext_authz listener is gone", refused)
    assert time.monotonic() - begun < 5, "while the other still waits"
    hanging.close()
    assert own_nginx.hookwarden.wait(12) == 0


def test_a_stop_finishes_what_is_under_way(own_nginx):
    """SIGTERM while deliveries of 4 MiB come in: none is cut, and each that was forwarded was verified."""
    statuses, requests = [], [own_nginx.sign("github", os.urandom(4 << 20)) for _ in range(8)]

    def send(request):
        statuses.append(own_nginx.send(request).status)

    threads = [threading.Thread(target=send, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    wait_for("some are under way", lambda: statuses)
    own_nginx.hookwarden.signal(15)
    assert own_nginx.hookwarden.wait(10) == 0
    for thread in threads:
        thread.join(30)
    # Those that came after it was gone: nginx says 502.
    assert set(statuses) <= {200, 502} and statuses.count(200) == len(own_nginx.received("/github"))


def test_slow_clients_hold_up_nobody(own_nginx, figure):
    """Hundreds that never finish a request's head, at nginx's place: honest deliveries pass, and those are cut."""
    slow = []
    for _ in range(400):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(own_nginx.verify_socket))
        connection.sendall(b"POST /github HTTP/1.1\r\nhost: h\r\nx-slow: ")
        slow.append(connection)
    begun = time.monotonic()
    took = []
    with Http1(own_nginx.edge, "203.0.113.7") as connection:
        for _ in range(50):
            request = own_nginx.sign("github", unique_body())
            sent = time.monotonic()
            assert connection.send(request).status == 200
            took.append(time.monotonic() - sent)
    for connection in slow:
        connection.settimeout(15)
        assert connection.recv(4096) == b"", "cut without an answer"
        connection.close()
    cut = time.monotonic() - begun
    figure(f"nginx: 400 slow heads: cut within {cut:.1f} s, 50 honest deliveries meanwhile, median {statistics.median(took) * 1000:.1f} ms")
    assert cut < 12
