"""What is verified is the whole body, byte for byte, and exactly that is forwarded."""

import concurrent.futures
import os
import statistics

import pytest

from harness import (
    FILTER_LIMIT,
    GITHUB_LIMIT,
    NO_BODY,
    PARTIAL,
    RAW,
    SMALL_LIMIT,
    TEXT_BODY,
    WEBSOCKET,
    Variant,
    assert_never_reached,
    deliver,
    send,
    sha256,
    unique_body,
)
from http2 import FRAME

HTTP = pytest.mark.parametrize("http", ["1.1", "2"])
MIB = 1 << 20


@pytest.mark.parametrize(
    "http, options",
    [("1.1", {}), ("2", {}), ("1.1", {"chunk": 65536})],
    ids=["http1", "http2", "http1-chunked"],
)
def test_25_mib_arrive_byte_for_byte(stack, http, options):
    """Exactly the route's limit, of all byte values."""
    request = stack.sign("github", os.urandom(GITHUB_LIMIT))
    seen = deliver(stack, request, http, **options)

    assert seen.outcome == (200, "allow", "verified", True)
    assert (seen.record["body_bytes"], seen.record["body_sha256"]) == (GITHUB_LIMIT, sha256(request.body))


@HTTP
def test_every_byte_value_is_verified_and_forwarded(stack, http):
    request = stack.sign("github", bytes(range(256)) * 8)
    seen = deliver(stack, request, http)
    assert seen.outcome == (200, "allow", "verified", True)
    assert seen.record["body_sha256"] == sha256(request.body)


@HTTP
def test_an_empty_body_is_verified_as_such(stack, http):
    assert deliver(stack, stack.sign("github", b""), http).outcome == (200, "allow", "verified", True)


def test_an_empty_body_that_nothing_announces_is_refused(stack):
    """In HTTP/2 a request without a length may or may not have a body, and Envoy does not say which: it buffered none,
    or was not told to. The safe reading costs only senders of empty bodies that do not even say so."""
    request = stack.sign("github", b"")
    assert deliver(stack, request, "2", announced=False).outcome == (400, "deny", "body_missing", False)


@pytest.mark.parametrize("length", [1, 100_000])
def test_a_body_that_nothing_announces_is_verified(stack, length):
    request = stack.sign("github", os.urandom(length))
    assert deliver(stack, request, "2", announced=False).outcome == (200, "allow", "verified", True)


@pytest.mark.parametrize(
    "endpoint, variant, limit",
    [("slack", RAW, FILTER_LIMIT), ("github", RAW, GITHUB_LIMIT), ("slack", SMALL_LIMIT, 1024)],
    ids=["filter-limit", "route-limit", "one-frame"],
)
def test_one_byte_over_the_limit_at_the_end_of_an_http2_stream(stack, endpoint, variant, limit):
    """Envoy does not refuse this: when the DATA frame that crosses the limit also ends the stream, it asks about the
    first `limit` bytes and would forward all of them. So hookwarden must refuse the part."""
    request = stack.sign(endpoint, os.urandom(limit + 1))
    seen = deliver(stack, request, "2", variant, cuts=crossing(limit))

    assert seen.outcome == (413, "deny", "body_truncated", False)
    assert_never_reached(stack, request)


def crossing(limit):
    """Frame lengths for `limit + 1` bytes of which the last frame has two: one on either side of the limit."""
    before = limit - 1
    return [FRAME] * (before // FRAME) + ([before % FRAME] if before % FRAME else []) + [2]


def test_a_signature_over_the_part_that_fits_is_refused_too(stack):
    """The attack on a verifier that trusts the part: sign `limit` bytes, send more."""
    whole = stack.sign("github", os.urandom(1024))
    request = whole.change(body=whole.body + b"!")
    seen = deliver(stack, request, "2", SMALL_ROUTE_LIMIT, cuts=crossing(1024))
    assert seen.outcome == (413, "deny", "body_truncated", False)
    assert_never_reached(stack, request)


# The github route has a limit of its own, which wins over the filter's.
SMALL_ROUTE_LIMIT = Variant("small-route-limit", (("max_request_bytes: 26214400,", "max_request_bytes: 1024,"),))


def test_one_byte_over_the_limit_over_http1_is_refused_by_envoy(stack):
    request = stack.sign("slack", os.urandom(FILTER_LIMIT + 1))
    assert send(stack, request).status == 413
    assert_never_reached(stack, request)


@HTTP
@pytest.mark.parametrize("announced", [True, False], ids=["length", "no-length"])
def test_a_part_that_envoy_was_told_to_send_is_refused(stack, http, announced):
    """`allow_partial_message: true`, against all advice."""
    options = {} if announced else {"1.1": {"chunk": 8192}, "2": {"announced": False}}[http]
    request = stack.sign("slack", os.urandom(FRAME))
    seen = deliver(stack, request, http, PARTIAL + SMALL_LIMIT, **options)
    assert seen.outcome == (413, "deny", "body_truncated", False)
    assert_never_reached(stack, request)


def test_a_part_that_envoy_calls_whole_is_refused(stack):
    """With `allow_partial_message: true`, Envoy asks as soon as `max_request_bytes` have come. If these are exactly
    as many, it says that they are not a part, though more may follow and be forwarded. The announced length tells."""
    signed = stack.sign("slack", os.urandom(1024))
    whole = signed.change(body=signed.body + b" and what nobody signed")
    seen = deliver(stack, whole, variant=PARTIAL + SMALL_LIMIT, pause_after=1024)
    assert seen.outcome == (413, "deny", "body_truncated", False)
    assert_never_reached(stack, whole)


@HTTP
def test_a_body_as_text_is_refused(stack, http):
    """`pack_as_bytes: false`: Envoy replaces what is not UTF-8, so nothing could be verified with certainty."""
    request = stack.sign("github", unique_body())
    seen = deliver(stack, request, http, TEXT_BODY)
    assert seen.outcome == (400, "deny", "body_not_bytes", False)
    assert_never_reached(stack, request)


@HTTP
def test_a_body_that_envoy_was_not_told_to_send_is_refused(stack, http):
    """No `with_request_body`. A verifier that hashed nothing instead would verify nothing and forward everything."""
    request = stack.sign("slack", unique_body())
    seen = deliver(stack, request, http, NO_BODY)
    assert seen.outcome == (400, "deny", "body_missing", False)
    assert_never_reached(stack, request)


def test_a_signature_over_nothing_does_not_carry_a_body_past(stack):
    """The attack on that verifier: a signature over an empty body, which anybody who saw one can replay."""
    request = stack.sign("slack", b"").change(body=unique_body())
    assert deliver(stack, request, variant=NO_BODY).outcome == (400, "deny", "body_missing", False)
    assert_never_reached(stack, request)


def test_an_upgrade_with_a_body_is_refused(stack):
    """With upgrades on, Envoy asks before it has read the body, and would forward the body unseen."""
    request = stack.sign("github", unique_body()).add(("Connection", "Upgrade"), ("Upgrade", "websocket"))
    seen = deliver(stack, request, variant=WEBSOCKET)
    assert seen.outcome == (400, "deny", "upgrade_refused", False)
    assert_never_reached(stack, request)


def test_an_endpoints_own_limit(stack):
    url = "https://hooks.example.com/limited/here"
    fits = stack.sign("limited", os.urandom(1024), url=url)
    over = stack.sign("limited", os.urandom(1025), url=url)
    assert deliver(stack, fits).outcome == (200, "allow", "verified", True)
    assert deliver(stack, over).outcome == (413, "deny", "body_too_large", False)


def test_bodies_have_the_room_of_those_before(own_stack, figure):
    """Memory that is given back after every body is cleared by the system for the next one, page by page."""
    together, size = 12, 256 << 10
    rounds = [[own_stack.sign("github", os.urandom(size)) for _ in range(together)] for _ in range(8)]
    given = []
    with concurrent.futures.ThreadPoolExecutor(together) as pool:
        for requests in rounds:
            before = own_stack.hookwarden.minor_faults()
            assert {response.status for response in pool.map(lambda request: send(own_stack, request), requests)} == {200}
            given.append((own_stack.hookwarden.minor_faults() - before) / together)
    # More than ever before may be there at once in any round, but not in most of them.
    usual = statistics.median(given)
    figure(f"page faults for a body of 64 pages, {together} at once: {usual:.1f}")
    assert usual < 10
