"""Only hookwarden says what the application may believe: `x-hookwarden-*` from outside never arrives."""

import pytest

from harness import JOINED, NO_STRIPPING, RAW, deliver, unique_body
from stack import lowered

# With Envoy's own stripping, and without it: then hookwarden alone must see to it.
VARIANTS = [RAW, JOINED, NO_STRIPPING, NO_STRIPPING + JOINED]
EACH = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
HTTP = pytest.mark.parametrize("http", ["1.1", "2"])

SPOOFED = (
    ("X-Hookwarden-Verified-By", "mtls"),
    ("x-hookwarden-verified-by", "jwt"),
    ("X-HOOKWARDEN-ENDPOINT", "admin"),
    ("x-hookwarden-secret-id", "spoofed"),
    ("x-hookwarden-tag-mode", "live"),
    ("x-hookwarden-tag-mode", "test"),
    ("x-hookwarden-anything-else", "spoofed"),
    ("x-hookwarden-", "spoofed"),
    ("x-envoy-auth-partial-body", "true"),
)


@HTTP
@EACH
def test_spoofed_headers_never_arrive(stack, variant, http):
    request = stack.sign("github", unique_body()).add(*SPOOFED)
    seen = deliver(stack, request, http, variant)

    assert seen.outcome == (200, "allow", "verified", True)
    expected = {"endpoint": "github", "provider": "github", "verified-by": "signature", "secret-id": "main"}
    assert seen.told == expected
    assert "x-envoy-auth-partial-body" not in dict(lowered(seen.record["headers"]))


@EACH
def test_spoofed_headers_prove_nothing(stack, variant):
    request = stack.sign("github", unique_body()).without("X-Hub-Signature-256").add(*SPOOFED)
    assert deliver(stack, request, variant=variant).outcome == (401, "deny", "signature_missing", False)


@EACH
def test_what_is_observed_is_marked_as_such(stack, variant):
    """An endpoint that only observes forwards what it would reject; the mark is all that tells them apart."""
    request = stack.sign("observed", unique_body(), url="https://hooks.example.com/observed").one_byte_changed()
    seen = deliver(stack, request.add(*SPOOFED), variant=variant)

    assert seen.outcome == (200, "observe", "signature_mismatch", True)
    assert seen.told == {
        "endpoint": "observed",
        "provider": "github",
        "verified-by": "observe",
        "reason": "signature_mismatch",
    }
