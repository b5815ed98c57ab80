"""A delivery that comes again: retries of what failed pass, replays of what was delivered do not.

The application fails, hangs and hangs up; the providers try again in their ways; Envoy's access log tells hookwarden
what became of each try.
"""

import dataclasses
import socket

import pytest

from client import HOST, Http1
from harness import unique_body
from stack import ROOT, Stack, substitute, wait_for

FICKLE = ROOT / "tests" / "e2e" / "fickle.py"
ROUTE = "              - match: { prefix: / }\n                route: { cluster: app, timeout: %s }\n"


@dataclasses.dataclass(frozen=True)
class Style:
    """How a provider tries again."""

    name: str
    provider: str
    signed_anew: bool = False  # with a new time; else the bytes of the first try
    patience: float = 0.3  # seconds it waits for an answer
    secret: str = "github"


STYLES = [
    Style("github", "github"),
    Style("smartsheet", "smartsheet", secret="smartsheet"),
    Style("webex", "webex", secret="webex"),
    Style("bracken", "bracken", secret="bracken"),
    Style("shopify", "shopify"),
    Style("intercom", "intercom"),
    Style("slack", "slack", signed_anew=True, secret="slack"),
    Style("stripe", "stripe", signed_anew=True, secret="stripe"),
    Style("standard-webhooks", "standard-webhooks", signed_anew=True, secret="standard-webhooks"),
    Style("zoom", "zoom", signed_anew=True),
]
# What becomes of the tries before the one that succeeds.
TROUBLES = [["500"], ["503", "503", "429"], ["hang"], ["reset"], ["hang", "500", "reset", "404"], []]


def endpoint(style, secrets):
    return (
        f"  retry-{style.name}:\n"
        f"    match: {{ path: /retry/{style.name} }}\n"
        f"    provider: {style.provider}\n"
        "    on_duplicate: deny\n"
        f"    secrets: [{{ id: main, file: {secrets}/{style.secret} }}]\n"
    )


@pytest.fixture(scope="module")
def fickle():
    import conftest

    def make(directory):
        extra = "".join(endpoint(style, directory / "secrets") for style in STYLES)
        changes = ((ROUTE % "30s", ROUTE % "1s"),)
        stack = Stack(directory, extra, changes, application=FICKLE)
        text = stack.config.read_text()
        stack.config.write_text(substitute(text, ("outcomes: access_log\n", "outcomes: access_log\noutcome_timeout: 3s\n")))
        return stack

    with conftest.Running(make) as stack:
        yield stack
    conftest.RUNNING.remove(stack)


def attempt(stack, request, script, patience):
    """One try; nothing where the provider lost patience."""
    try:
        with Http1(stack.edge, timeout=patience) as connection:
            return connection.send(request.add(("x-script", script)))
    except (socket.timeout, TimeoutError):
        return None


def reason_of(stack, response):
    return stack.log.last(response.request_id)["reason"]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_retries_pass_and_replays_do_not(fickle, figure, style):
    honest = refused = held = forwarded_twice = 0
    for troubles in TROUBLES:
        body = unique_body()
        sign = lambda: fickle.sign(f"retry-{style.name}", body, url=f"https://{HOST}/retry/{style.name}")
        request = sign()
        for script in [*troubles, "ok"]:
            request = sign() if style.signed_anew else request
            response = attempt(fickle, request, script, 3 if script == "ok" else style.patience)
            honest += 1
            # Whoever is told to come back does, as after any other 503.
            while response is not None and response.status == 503 and reason_of(fickle, response) == "outcome_pending":
                held += 1
                response = attempt(fickle, request, script, 3 if script == "ok" else style.patience)
            refused += response is not None and reason_of(fickle, response) != "verified"
            if script == "ok":
                assert response.status == 200, response

        taken = lambda: [r for r in fickle.received(request.path) if r["body_bytes"] == len(body) and dict(r["headers"])["x-request-id"] == response.request_id]
        assert len(taken()) == 1
        count = len(fickle.received(request.path))
        for script in ("ok", "500"):
            again = attempt(fickle, request, script, 3)
            forwarded_twice += reason_of(fickle, again) == "verified"
            assert (again.status, reason_of(fickle, again)) == (409, "replayed")
        assert len(fickle.received(request.path)) == count

    assert (refused, forwarded_twice) == (0, 0)
    figure(f"retries of {style.name}: {honest} honest tries, {refused} refused, {held} asked to come back; {forwarded_twice} replays forwarded")


def test_a_stream_that_is_lost(fickle):
    """Through an Envoy that tells nothing, an outcome stays unknown: the twin is held, and passes when the wait is over."""
    body = unique_body()
    request = fickle.sign("retry-github", body, url=f"https://{HOST}/retry/github")
    silent = fickle.proxy("silent", ("cluster_name: hookwarden } }\n                buffer_flush_interval: 0.1s", "cluster_name: app } }\n                buffer_flush_interval: 0.1s"))
    with Http1(silent.edge, timeout=5) as connection:
        assert connection.send(request).status == 200
        held = connection.send(request)
    assert (held.status, reason_of(fickle, held)) == (503, "outcome_pending")

    def passed():
        with Http1(silent.edge, timeout=5) as connection:
            response = connection.send(request)
        return response if response.status == 200 else None

    response = wait_for("the wait is over", passed, deadline=10)
    told = [dict(r["headers"]) for r in fickle.received(request.path) if dict(r["headers"])["x-request-id"] == response.request_id]
    assert told[0]["x-hookwarden-duplicate"] == "unknown"


def test_upstream_metrics(fickle):
    request = fickle.sign("retry-github", unique_body(), url=f"https://{HOST}/retry/github")
    before = metric(fickle, "delivered")
    assert attempt(fickle, request, "ok", 3).status == 200
    wait_for("the outcome is counted", lambda: metric(fickle, "delivered") == before + 1)
    assert 'hookwarden_upstream_duration_seconds_count{endpoint="retry-github"}' in fickle.metrics()


def metric(stack, outcome):
    name = f'hookwarden_upstream_deliveries_total{{endpoint="retry-github",outcome="{outcome}"}} '
    return sum(int(line.removeprefix(name)) for line in stack.metrics().splitlines() if line.startswith(name))
