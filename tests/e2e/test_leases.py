"""`verify-token`: an address that showed the token may deliver, no other may, and a crash forgets nobody.

The clients' addresses come from PROXY lines, as behind a load balancer; all are reserved for documentation.
"""

import json

import pytest

from client import HOST, Request
from harness import deliver, sample, unique_body

URL = f"https://{HOST}/verify-token"


def ask(stack, client_ip, headers=()):
    """Shows the right token."""
    return deliver(stack, stack.sign("verify-token", challenge=True).add(*headers), client_ip=client_ip)


def post(stack, client_ip, headers=()):
    """Delivers, without any token."""
    return deliver(stack, Request("POST", URL, tuple(headers), unique_body()), client_ip=client_ip)


def said(seen):
    return json.loads(seen.response.body)


NO_LEASE = (401, "deny", "lease_missing", False)
GRANTED = (200, "answer", "lease_granted", False)
DELIVERED = (200, "allow", "verified", True)


def test_the_way_of_a_lease(stack):
    before = post(stack, "203.0.113.50")
    assert before.outcome == NO_LEASE and said(before) == {"status": "not authorised"}

    granted = ask(stack, "203.0.113.50")
    assert granted.outcome == GRANTED and said(granted) == {"status": "success"}

    after = post(stack, "203.0.113.50")
    assert after.outcome == DELIVERED and after.told["verified-by"] == "ip-lease"


@pytest.mark.parametrize(
    "query, reason",
    [
        ("?verify_token=wrong", "token_mismatch"),
        ("?verify_token=", "token_missing"),
        ("", "token_missing"),
        ("?verify_token=a&verify_token=b", "token_repeated"),
    ],
    ids=["wrong", "empty", "none", "two"],
)
def test_a_wrong_token_gets_no_lease(stack, query, reason):
    seen = deliver(stack, Request("GET", URL + query), client_ip="203.0.113.51")
    assert seen.outcome == (401, "deny", reason, False)
    assert post(stack, "203.0.113.51").outcome == NO_LEASE


def test_only_the_right_token_is_answered_with_success(stack):
    seen = deliver(stack, Request("GET", URL + "?verify_token=wrong"), client_ip="203.0.113.51")
    assert said(seen) == {"status": "bad token"}


SPOOFED = [
    ("X-Forwarded-For", "203.0.113.60"),
    ("X-Real-IP", "203.0.113.60"),
    ("X-Envoy-External-Address", "203.0.113.60"),
    ("Forwarded", "for=203.0.113.60"),
]


def test_a_spoofed_address_borrows_no_lease(stack):
    assert ask(stack, "203.0.113.60").outcome == GRANTED
    for header in SPOOFED:
        assert post(stack, "198.51.100.60", [header]).outcome == NO_LEASE, header
    assert post(stack, "198.51.100.60", SPOOFED).outcome == NO_LEASE


def test_a_lease_is_for_the_connection_and_not_for_a_spoofed_address(stack):
    assert ask(stack, "198.51.100.61", [("X-Forwarded-For", "203.0.113.61")]).outcome == GRANTED
    assert post(stack, "203.0.113.61").outcome == NO_LEASE
    assert post(stack, "198.51.100.61").outcome == DELIVERED


def test_a_private_address_gets_no_lease(stack):
    """It would be a proxy's, and everybody's behind it. Here it is this machine's own, without a PROXY line."""
    assert ask(stack, None).outcome == (401, "deny", "lease_address_refused", False)
    assert ask(stack, "10.1.2.3").outcome == (401, "deny", "lease_address_refused", False)


def test_a_lease_survives_kill_9(own_stack):
    assert ask(own_stack, "203.0.113.70").outcome == GRANTED
    own_stack.hookwarden.kill()
    own_stack.start_hookwarden()

    assert post(own_stack, "203.0.113.70").outcome == DELIVERED
    assert post(own_stack, "203.0.113.71").outcome == NO_LEASE
    assert sample(own_stack.metrics(), "hookwarden_leases") == 1
