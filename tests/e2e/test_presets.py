"""Every preset through a real Envoy: over both HTTP versions, and with both ways in which Envoy tells headers."""

import json
import time

import pytest

from harness import JOINED, RAW, assert_never_reached, deliver, sha256, unique_body
from providers import PROVIDERS
from stack import lowered

HTTP = pytest.mark.parametrize("http", ["1.1", "2"])
HEADERS = pytest.mark.parametrize("variant", [RAW, JOINED], ids=["raw-headers", "joined-headers"])
EACH = lambda providers: pytest.mark.parametrize("provider", providers, ids=lambda provider: provider.name)

SIGNED = [provider for provider in PROVIDERS if provider.tampered]
TIMED = [provider for provider in PROVIDERS if provider.stale]
UNTIMED = [provider for provider in SIGNED if not provider.stale]


def address(http, variant):
    """An address per combination, so that a lease of one is no lease of another."""
    return f"203.0.113.{10 + 2 * ['1.1', '2'].index(http) + [RAW, JOINED].index(variant)}"


@HTTP
@HEADERS
@EACH(PROVIDERS)
def test_a_good_delivery_arrives_as_it_was_sent(stack, provider, http, variant):
    client_ip = address(http, variant)
    if provider.name == "verify-token":
        deliver(stack, stack.sign(provider.name, challenge=True), http, variant, client_ip)
    request = stack.sign(provider.name, unique_body(provider.name), arguments=["--header", "X-Custom: as it was, sent"])
    seen = deliver(stack, request, http, variant, client_ip)

    assert seen.outcome == (200, "allow", "verified", True)
    assert seen.response.body == b"received\n"
    assert seen.told == told(provider)
    assert seen.access["verified_by"] == provider.verified_by
    assert (seen.record["method"], seen.record["path"]) == (request.method, request.target)
    assert seen.record["body_sha256"] == sha256(request.body)
    assert set(lowered(request.headers)) <= set(lowered(seen.record["headers"]))


def told(provider):
    """What the application learns, and nothing more."""
    told = {"endpoint": provider.name, "provider": provider.name, "verified-by": provider.verified_by}
    return told | ({"secret-id": provider.secret_id} if provider.secret_id else {})


@HTTP
@HEADERS
@EACH(SIGNED)
def test_one_changed_byte_is_refused(stack, provider, http, variant):
    tampered = stack.sign(provider.name, unique_body(provider.name)).one_byte_changed()
    seen = deliver(stack, tampered, http, variant)

    assert seen.outcome == (provider.refusal, "deny", provider.tampered, False)
    assert_never_reached(stack, tampered)
    assert_tells_only_the_request_id(seen, provider)


def assert_tells_only_the_request_id(seen, provider):
    assert seen.response.header("x-hookwarden-request-id") == seen.response.request_id
    text = seen.response.body.decode()
    if provider.name == "bracken":
        assert text == "Do not trust, not from a Bracken webhook"
    else:
        assert text == f"rejected, request {seen.response.request_id}\n"


@HTTP
@HEADERS
@EACH(TIMED)
@pytest.mark.parametrize(
    "offset, reason", [(-3600, "timestamp_too_old"), (3600, "timestamp_too_new")], ids=["an-hour-late", "an-hour-early"]
)
def test_what_was_signed_at_another_time_is_refused(stack, provider, http, variant, offset, reason):
    request = stack.sign(provider.name, unique_body(provider.name), now=time.time() + offset)
    seen = deliver(stack, request, http, variant)

    assert seen.outcome == (provider.refusal, "deny", reason, False)
    assert_never_reached(stack, request)


@EACH(UNTIMED)
def test_a_scheme_that_signs_no_time_cannot_tell_a_late_delivery(stack, provider):
    """Not a wish: what these schemes are. If a preset ever signs a time, this fails and the documentation must follow."""
    late = stack.sign(provider.name, unique_body(provider.name), now=time.time() - 3600)
    assert deliver(stack, late).outcome == (200, "allow", "verified", True)


@HTTP
@HEADERS
@EACH(SIGNED)
def test_an_unsigned_delivery_is_refused(stack, provider, http, variant):
    signed = stack.sign(provider.name, unique_body(provider.name))
    unsigned = signed.change(headers=(("content-type", "application/json"),))
    seen = deliver(stack, unsigned, http, variant)

    assert seen.outcome == (provider.refusal, "deny", "signature_missing", False)
    assert_never_reached(stack, unsigned)


@HTTP
@HEADERS
@EACH(SIGNED)
def test_a_doubled_signature_is_refused(stack, provider, http, variant):
    signed = stack.sign(provider.name, unique_body(provider.name))
    header = signature_header(signed)
    doubled = signed.add((header, signed.header(header)))
    seen = deliver(stack, doubled, http, variant)

    assert seen.outcome == (provider.refusal, "deny", reason_for_doubled(provider, variant), False)
    assert_never_reached(stack, doubled)


def reason_for_doubled(provider, variant):
    """What one value with a comma in it looks like to the scheme, where lines are joined: all of them in the joined
    form, and `Authorization` in any case, by Envoy's own header map. Only Stripe's form has commas of its own, and
    then it is the time that occurs twice."""
    if variant is JOINED:
        reasons = {"smartthings": "signature_malformed", "standard-webhooks": "signature_malformed", "stripe": "timestamp_repeated"}
    else:
        reasons = {"smartthings": "signature_malformed", "bracken": "signature_malformed"}
    return reasons.get(provider.name, "signature_repeated")


def signature_header(request):
    names = [name for name, _ in request.headers]
    (name,) = [n for n in names if n.lower().endswith(("signature", "signature-256", "sha256", "authorization"))]
    return name


@HTTP
@HEADERS
@pytest.mark.parametrize("endpoint", ["slack", "smartsheet", "smartthings", "verify-token"])
def test_a_handshake_is_answered_and_never_forwarded(stack, endpoint, http, variant):
    request = stack.sign(endpoint, challenge=True)
    seen = deliver(stack, request, http, variant, address(http, variant))

    reason = "lease_granted" if endpoint == "verify-token" else "challenge"
    assert seen.outcome == (200, "answer", reason, False)
    ANSWERS[endpoint](request, seen.response)
    assert seen.response.header("x-content-type-options") == "nosniff"
    assert seen.response.header("cache-control") == "no-store"
    assert seen.response.header("content-security-policy") == "default-src 'none'"


def answers_slack(request, response):
    assert response.body.decode() == json.loads(request.body)["challenge"]
    assert response.header("content-type").startswith("text/plain")


def answers_smartsheet(request, response):
    challenge = request.header("Smartsheet-Hook-Challenge")
    assert response.header("Smartsheet-Hook-Response") == challenge
    assert json.loads(response.body) == {"smartsheetHookResponse": challenge}


def answers_smartthings(request, response):
    challenge = json.loads(request.body)["pingData"]["challenge"]
    assert json.loads(response.body) == {"pingData": {"challenge": challenge}}


def answers_verify_token(_, response):
    assert json.loads(response.body) == {"status": "success"}


ANSWERS = {
    "slack": answers_slack,
    "smartsheet": answers_smartsheet,
    "smartthings": answers_smartthings,
    "verify-token": answers_verify_token,
}


@pytest.mark.parametrize("challenge", ["<script>alert(1)</script>", "a" * 10_240, "caf\u00e9", 'a","b":"c'])
def test_what_is_not_a_challenge_is_not_echoed(stack, challenge):
    """CR and LF are not among these: no HTTP client can send them in a header, which is Envoy's own business."""
    body = json.dumps({"challenge": challenge, "webhookId": 1}).encode()
    request = stack.sign("smartsheet", body).add(("Smartsheet-Hook-Challenge", challenge))
    seen = deliver(stack, request)

    assert seen.outcome == (400, "deny", "challenge_malformed", False)
    assert challenge.encode() not in seen.response.body
    assert seen.response.header("Smartsheet-Hook-Response") is None


def test_a_challenge_with_line_breaks_is_not_echoed(stack):
    """In JSON they can be sent, and would split the answer's header."""
    body = json.dumps({"lifecycle": "PING", "pingData": {"challenge": "a\r\nset-cookie: b=c"}}).encode()
    request = stack.sign("smartthings", challenge=True).change(body=body)
    seen = deliver(stack, request)

    assert seen.outcome == (400, "deny", "challenge_malformed", False)
    assert seen.response.header("set-cookie") is None


def test_challenges_that_disagree_are_refused(stack):
    body = json.dumps({"challenge": "one", "webhookId": 1}).encode()
    request = stack.sign("smartsheet", body).add(("Smartsheet-Hook-Challenge", "another"))
    assert deliver(stack, request).outcome == (400, "deny", "challenge_mismatch", False)


def test_a_signed_handshake_needs_its_signature(stack):
    """Slack signs its challenge, so an unsigned one is not answered."""
    request = stack.sign("slack", challenge=True).without("X-Slack-Signature")
    seen = deliver(stack, request)
    assert seen.outcome == (401, "deny", "signature_missing", False)
    assert json.loads(request.body)["challenge"].encode() not in seen.response.body


def test_an_unknown_key_id_is_refused(stack):
    request = stack.sign("smartthings", unique_body())
    authorization = request.header("authorization").replace("/SmartThings/", "/Elsewhere/")
    request = request.without("authorization").add(("Authorization", authorization))
    assert deliver(stack, request).outcome == (401, "deny", "key_id_unknown", False)


def test_the_secret_that_matched_is_told_with_its_tags(stack):
    request = stack.sign("tagged", unique_body(), arguments=["--secret", "test"])
    seen = deliver(stack, request)
    assert seen.outcome == (200, "allow", "verified", True)
    expected = {"endpoint": "tagged", "provider": "stripe", "verified-by": "signature", "secret-id": "test", "tag-mode": "test"}
    assert seen.told == expected
