"""Deliveries signed by the providers' own packages, which were not written here and do not know of us."""

import base64
import datetime
import email.utils
import hashlib
import time
import uuid

import httpsig
import pytest
import standardwebhooks
import stripe
from githubkit.webhooks import sign as github_sign
from slack_sdk.signature import SignatureVerifier

from client import HOST, Request
from harness import assert_never_reached, deliver, sha256, unique_body
from providers import SMARTTHINGS_KEY_ID

JSON = ("Content-Type", "application/json")


def request(endpoint, body, *headers):
    return Request("POST", f"https://{HOST}/{endpoint}", (JSON, *headers), body)


def secret(stack, endpoint):
    return (stack.secrets / endpoint).read_text().rstrip("\n")


def by_github(stack, body):
    """githubkit, the Python counterpart of octokit."""
    return request("github", body, ("X-GitHub-Event", "push"), ("X-Hub-Signature-256", github_sign(secret(stack, "github"), body)))


def by_slack(stack, body):
    now = str(int(time.time()))
    signature = SignatureVerifier(secret(stack, "slack")).generate_signature(timestamp=now, body=body)
    return request("slack", body, ("X-Slack-Request-Timestamp", now), ("X-Slack-Signature", signature))


def by_stripe(stack, body):
    signature = stripe.WebhookSignature.generate_signature_header(body.decode(), secret(stack, "stripe"))
    return request("stripe", body, ("Stripe-Signature", signature))


def by_standard_webhooks(stack, body):
    message, now = f"msg_{uuid.uuid4().hex}", datetime.datetime.now(datetime.timezone.utc)
    signature = standardwebhooks.Webhook(secret(stack, "standard-webhooks")).sign(message, now, body.decode())
    identity = ("webhook-id", message), ("webhook-timestamp", str(int(now.timestamp())))
    return request("standard-webhooks", body, *identity, ("webhook-signature", signature))


def by_httpsig(stack, body):
    """draft-cavage HTTP Signatures, as SmartThings makes them."""
    signed = ["(request-target)", "digest", "date"]
    key = (stack.secrets / "smartthings.key").read_text()
    signer = httpsig.HeaderSigner(SMARTTHINGS_KEY_ID, key, algorithm="rsa-sha256", headers=signed)
    digest = "SHA-256=" + base64.b64encode(hashlib.sha256(body).digest()).decode()
    headers = signer.sign({"Digest": digest, "Date": email.utils.formatdate(usegmt=True)}, method="POST", path="/smartthings")
    return request("smartthings", body, *headers.items())


SIGNERS = pytest.mark.parametrize(
    "signer, reason",
    [
        (by_github, "signature_mismatch"),
        (by_slack, "signature_mismatch"),
        (by_stripe, "signature_mismatch"),
        (by_standard_webhooks, "signature_mismatch"),
        (by_httpsig, "digest_mismatch"),
    ],
    ids=["githubkit", "slack-sdk", "stripe", "standardwebhooks", "httpsig"],
)
HTTP = pytest.mark.parametrize("http", ["1.1", "2"])


@HTTP
@SIGNERS
def test_what_the_official_package_signed_is_allowed(stack, signer, reason, http):
    signed = signer(stack, unique_body())
    seen = deliver(stack, signed, http)
    assert seen.outcome == (200, "allow", "verified", True)
    assert seen.record["body_sha256"] == sha256(signed.body)


@HTTP
@SIGNERS
def test_with_one_byte_changed_it_is_denied(stack, signer, reason, http):
    tampered = signer(stack, unique_body()).one_byte_changed()
    seen = deliver(stack, tampered, http)
    assert seen.outcome == (401, "deny", reason, False)
    assert_never_reached(stack, tampered)


def test_a_date_that_was_changed_is_denied(stack):
    """The signature covers the date, so a fresh date does not freshen an old delivery."""
    signed = by_httpsig(stack, unique_body())
    tomorrow = email.utils.formatdate(time.time() + 60, usegmt=True)
    redated = signed.without("date").add(("Date", tomorrow))
    assert deliver(stack, redated).outcome == (401, "deny", "signature_mismatch", False)


def test_a_delivery_for_another_path_is_denied(stack):
    """The signature covers the target."""
    signed = by_httpsig(stack, unique_body())
    key = (stack.secrets / "smartthings.key").read_text()
    signer = httpsig.HeaderSigner(SMARTTHINGS_KEY_ID, key, algorithm="rsa-sha256", headers=["(request-target)", "digest", "date"])
    headers = dict((k.lower(), v) for k, v in signed.headers if k.lower() in ("digest", "date"))
    elsewhere = signer.sign(headers, method="POST", path="/elsewhere").get("authorization")
    moved = signed.without("authorization").add(("Authorization", elsewhere))
    assert deliver(stack, moved).outcome == (401, "deny", "signature_mismatch", False)
