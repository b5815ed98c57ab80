"""The providers' own packages as judges beside hookwarden.

Two ways. The vectors of a preset are shown to the provider's package: what hookwarden allows, the package must accept, and
where hookwarden is stricter on purpose, the difference is named in STRICTER. And requests that `hookwarden sign` makes now
go through Envoy to the running sidecar: the package accepts what the sidecar allows, and both refuse a changed body.
"""

import base64
import json
import pathlib
import subprocess
import time
import urllib.parse

import pytest
import yaml

from client import HOST, Request
from conftest import Running
from harness import deliver
from stack import Stack

HERE = pathlib.Path(__file__).parent
VECTORS = HERE.parent / "vectors"
ED25519 = "cdd8abf0f74f3bd1fbe9d645df325eaaf8e21158f2434e82c65b36fa8ab0b174"
P256 = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEoEuI7xbR65umYqUDksoiTZLYNon6Jl/pvTJZinK2Fn1oTODqVWekBgPoffJD4bV84JMSQd/4mMStV5BBFSOarA=="

# Where hookwarden is stricter than the package, by the reason it gives.
TIME = {"timestamp_too_old", "timestamp_too_new"}
LISTS = {"signature_malformed", "timestamp_malformed", "header_malformed"}
STRICTER = {
    # These judge the age of a delivery and not its future, or no time at all.
    "cloudinary": {"timestamp_too_new"},
    "contentful": {"timestamp_too_new"},
    "gr4vy": {"timestamp_too_new"},
    "mux": {"timestamp_too_new"},
    "paddle": {"timestamp_too_new"},
    "workos": {"timestamp_too_new"},
    "pusher": TIME,
    "replicate": TIME,
    "sanity": TIME,
    "webflow": TIME,
    # These read the first of several, or what is not in the documented form.
    "stripe": {"timestamp_too_new", "timestamp_repeated", "timestamp_malformed", "signature_malformed"},
    "standard-webhooks": LISTS,
    "svix": LISTS,
    "opennode": {"signature_repeated"},
    "liveblocks": {"signature_missing"},
    # These take any algorithm of the kind, and tokens that never end.
    "livekit": {"algorithm_not_allowed"},
    "messagebird": {"timestamp_missing"},
    # What a proxy may rewrite is none of a package's business.
    "github": {"path_ambiguous"},
}
# Where the package is stricter: hexadecimal digits in upper case, an empty body that is signed, a second header's name.
LOOSER = {
    "github": {"signature-in-upper-case", "body-empty"},
    "stripe": {"signature-in-upper-case"},
    "svix": {"empty-body"},
    "kontent-ai": {"legacy-header"},
}
# The live half leaves out: a header that Envoy replaces is signed; a claim that the preset does not ask for.
NOT_LIVE = {"mercadopago", "messagebird"}


def judge(requests):
    """What the packages say, by the requests' names."""
    told = subprocess.run(
        ["node", HERE / "verify.cjs"], input=json.dumps(requests), capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


PROVIDERS = judge([])


def question(name, provider, endpoint, request, now):
    """A request, and what its package is configured with."""
    key = (endpoint.get("public_keys") or [{}])[0].get("inline")
    return {
        "name": name,
        "provider": provider,
        "method": request["method"],
        "url": request["url"],
        "headers": {header.lower(): value for header, value in request.get("headers", [])},
        "body": request.get("body") or base64.b64decode(request.get("body_base64", "")).decode(),
        "secret": (endpoint.get("secrets") or [{}])[0].get("inline"),
        "public_key": key,
        "public_url": endpoint.get("public_url"),
        "settings": endpoint.get("settings", {}),
        "now": now,
    }


def is_utf8(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def cases(provider):
    """The vectors that change the request or the moment, as (vector, question)."""
    document = yaml.safe_load((VECTORS / provider / "preset.yaml").read_text())
    made = {}
    for vector in document["vectors"]:
        if "request" in vector:
            request, now = vector["request"], vector.get("now", document["now"])
        elif vector["of"] in made:
            request, now = json.loads(json.dumps(made[vector["of"]]))
            ((kind, value),) = vector["change"].items()
            headers = request.setdefault("headers", [])
            if kind == "set_header":
                request["headers"] = [h for h in headers if h[0].lower() != value[0].lower()] + [value]
            elif kind == "remove_header":
                request["headers"] = [h for h in headers if h[0].lower() != value.lower()]
            elif kind == "append_body":
                text = request.get("body") or base64.b64decode(request.pop("body_base64", "")).decode()
                request["body"] = text + value
            elif kind in ("body", "url"):
                request[kind] = value
                if kind == "body":
                    request.pop("body_base64", None)
            elif kind == "now":
                now = value
            else:
                continue
        else:
            continue
        made[vector["name"]] = request, now
        # Not every package takes bytes, and handshakes are none of theirs.
        is_text = "body_base64" not in request or is_utf8(base64.b64decode(request["body_base64"]))
        if vector["expect"]["decision"] != "answer" and request["method"] == "POST" and is_text:
            yield vector, question(vector["name"], provider, document["endpoint"], request, now)


def test_there_are_enough():
    assert len(PROVIDERS) >= 45
    assert all((VECTORS / provider).is_dir() for provider in PROVIDERS)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_package_agrees_with_the_vectors(provider):
    asked = list(cases(provider))
    told = judge([question for _, question in asked])
    stricter, looser, both = {}, {}, 0
    for vector, _ in asked:
        accepts, allowed = told[vector["name"]] == "accepts", vector["expect"]["decision"] == "allow"
        both += accepts and allowed
        if allowed and not accepts:
            looser[vector["name"]] = told[vector["name"]]
        if accepts and not allowed:
            stricter[vector["name"]] = vector["expect"]["reason"]
    assert set(stricter.values()) == STRICTER.get(provider, set()), stricter
    assert set(looser) == LOOSER.get(provider, set()), looser
    assert both


# ── live ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

LIVE = [provider for provider in PROVIDERS if provider not in NOT_LIVE]


def endpoint(provider):
    """The endpoint of the preset's vectors, at a path of its own."""
    written = yaml.safe_load((VECTORS / provider / "preset.yaml").read_text())["endpoint"]
    if provider == "discord":
        written["public_keys"] = [{"id": "*", "inline": ED25519, "format": "raw_hex"}]
    if provider == "sendgrid":
        written["public_keys"] = [{"id": "*", "inline": P256, "format": "spki_base64"}]
    if "public_url" in written:
        written["public_url"] = f"https://{HOST}/oracle/{provider}"
    return {**written, "match": {"path": f"/oracle/{provider}"}}


@pytest.fixture(scope="module")
def sidecar():
    lines = [f"  oracle-{provider}: {json.dumps(endpoint(provider))}\n" for provider in LIVE]
    with Running(lambda directory: Stack(directory, "".join(lines))) as stack:
        yield stack


def body_and_type(provider):
    """What the provider sends: JSON, or the form of its valid vector without the signature."""
    vectors = yaml.safe_load((VECTORS / provider / "preset.yaml").read_text())["vectors"]
    valid = next(v for v in vectors if "request" in v and v["expect"]["decision"] == "allow")["request"]
    headers = {name.lower(): value for name, value in valid.get("headers", [])}
    if "form" in headers.get("content-type", ""):
        fields = urllib.parse.parse_qsl(valid.get("body", ""))
        kept = [(name, value) for name, value in fields if name not in ("bt_signature", "hashed_order")]
        return urllib.parse.urlencode(kept), "application/x-www-form-urlencoded"
    return '{"id":"evt_1","type":"test","n":1}', "application/json"


@pytest.mark.parametrize("provider", LIVE)
def test_the_sidecar_and_the_package_agree_through_envoy(sidecar, provider):
    body, content_type = body_and_type(provider)
    key = {"discord": "ed25519", "sendgrid": "p256"}.get(provider)
    private = ("--private-key", HERE / "keys" / f"{key}.pem") if key else ()
    url = f"https://{HOST}/oracle/{provider}"
    # Some packages look at a header that hookwarden has no use for.
    also = ("--header", "X-GCS-KeyId: key") if provider == "worldline" else ()
    arguments = ("--header", f"Content-Type: {content_type}", *also, *private)
    request = sidecar.sign(f"oracle-{provider}", body.encode(), url=url, arguments=arguments)
    written = endpoint(provider)

    def asked(name, body):
        fields = {"method": request.method, "url": request.url, "headers": list(request.headers), "body": body.decode()}
        return question(name, provider, written, fields, int(time.time()))

    # A field of a form is changed at its end, JSON gets a space; both are signed.
    changed = request.body + (b"" if provider in ("braintree", "opennode") else b"&x=1" if "form" in content_type else b" ")
    if provider in ("braintree", "opennode"):
        changed = request.body.replace(b"bt_payload=", b"bt_payload=AAAA").replace(b"id=", b"id=9", 1)
    told = judge([asked("good", request.body), asked("changed", changed)])
    seen = deliver(sidecar, request)
    assert (told["good"], seen.outcome[1:]) == ("accepts", ("allow", "verified", True))
    bad = deliver(sidecar, Request(request.method, request.url, request.headers, changed))
    assert told["changed"].startswith("refuses"), told
    assert bad.decision["decision"] == "deny" and bad.record is None
    assert bad.decision["reason"] in ("signature_mismatch", "digest_mismatch")
