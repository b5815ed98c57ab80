"""Sentences of the pages that no command shows, held against the program or its source."""

import json
import re
import subprocess

import pages
import pytest
from stack import BINARY

SECRET = "0123456789abcdef0123456789abcdef"


def decided(directory, config, url, *, sign=SECRET, method="POST", headers=(), now=None, endpoint=None):
    """What `hookwarden verify` prints about a request that GitHub could have sent."""
    (directory / "hookwarden.yaml").write_text(config)
    (directory / "secret").write_text(sign)
    run = lambda *command, **options: subprocess.run([BINARY, *map(str, command)], capture_output=True, text=True, **options)
    made = run("sign", "--provider", "github", "--secret-file", directory / "secret", "--url", url, "--method", method, "--body", "{}", "--format", "json")
    more = [*(("--now", now) if now else ()), *(("--endpoint", endpoint) if endpoint else ())]
    seen = run("verify", "--config", directory / "hookwarden.yaml", "--request", "-", *more, input=made.stdout)
    assert seen.stdout, seen.stderr
    return json.loads(seen.stdout)


def endpoints(**places):
    lines = (f"  {name}: {{ match: {match}, provider: github, secrets: [{{ id: a, inline: {SECRET} }}] }}" for name, match in places.items())
    return "endpoints:\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "url, endpoint",
    [
        ("https://a.example/x", "exact_host"),
        ("https://A.Example:8443/x?y=1", "exact_host"),
        ("https://b.example/x", "exact"),
        ("https://a.example/p/q/r", "prefix_host"),
        ("https://b.example/p/q/r", "longer"),
        ("https://b.example/p/r", "shorter"),
        ("https://a.example/p/q/z", "exact_below"),
        ("https://b.example/p", None),
        ("https://b.example/X", None),
        ("https://b.example/x/", None),
    ],
)
def test_endpoints_which_one(url, endpoint, tmp_path):
    config = endpoints(
        exact="{ path: /x }",
        exact_host="{ host: a.example, path: /x }",
        exact_below="{ path: /p/q/z }",
        shorter="{ path: /p/* }",
        longer="{ path: /p/q/* }",
        prefix_host="{ host: a.example, path: /p/* }",
    )
    seen = decided(tmp_path, config, url)
    assert (seen["endpoint"], seen["reason"]) == (endpoint, "verified" if endpoint else "unknown_endpoint")


def test_endpoints_what_a_refused_sender_is_told(tmp_path):
    config = endpoints(a="{ path: /a }").replace("provider:", "on_rejection: { status: 403, text: Do not trust }, provider:")
    told = lambda **how: (lambda seen: (seen["status"], seen["body"]))(decided(tmp_path, config, "https://a.example/a", **how))
    assert told(sign="another-secret-of-somebody-else") == (403, "Do not trust")
    status, body = told(method="PUT")
    assert status == 405 and body != "Do not trust"


@pytest.mark.parametrize(
    "now, reason", [(1_795_219_199, "no_active_secret"), (1_795_219_200, "verified"), (1_795_305_600, "verified"), (1_795_305_601, "no_active_secret")]
)
def test_secrets_bounds_are_inclusive(now, reason, tmp_path):
    config = endpoints(a="{ path: /a }").replace(f"{SECRET} }}", f"{SECRET}, from: 2026-11-21T00:00:00Z, until: 2026-11-22T00:00:00Z }}")
    seen = decided(tmp_path, config, "https://a.example/a", now=now)
    assert seen["reason"] == reason and seen.get("status", 503) == 503


@pytest.mark.parametrize("wrong, reason", [({"sign": "another-secret-of-somebody-else"}, "observe"), ({"method": "PUT"}, "method_not_allowed")])
def test_observe_lets_failed_proofs_through_and_nothing_else(wrong, reason, tmp_path):
    config = endpoints(a="{ path: /a }").replace("provider:", "mode: observe, provider:")
    seen = decided(tmp_path, config, "https://a.example/a", **wrong)
    assert seen.get("verified_by", seen["reason"]) == reason


def test_http_listener_limits():
    """The numbers of its table are those of the source."""
    page = pages.text_of("docs/http-listener.md")
    source = "".join((pages.ROOT / name).read_text() for name in ("src/http_verify.rs", "src/http_verify/pace.rs", "src/server.rs"))
    number = lambda name: int(re.search(rf"^const {name}: \w+ = (?:Duration::from_secs\()?(\d+)", source, re.MULTILINE)[1])
    for said in (
        f"| head of a request | {number('HEAD')} s |",
        # hyper looks at the size when it has read twice as much.
        f"| head of a request | {number('MAX_LINES')} lines, and about {2 * number('MAX_HEAD')} KiB |",
        f"| {number('BODY')} s in all, {number('SILENCE')} s of silence |",
        f"| {number('IDLE')} s, longer than nginx keeps one |",
        f"| {number('VERIFY_CONNECTIONS')} |",
    ):
        assert said in page, said
    readme = " ".join(pages.text_of("README.md").split())
    assert f"serves {number('EXT_AUTHZ_CONNECTIONS')} connections at once" in readme


def test_every_field_of_an_endpoint_is_on_a_page():
    """Of what an operator may write under an endpoint, each word is explained somewhere below docs/."""
    fields = json.loads(subprocess.run([BINARY, "schema"], capture_output=True, check=True).stdout)["$defs"]["Endpoint"]["properties"]
    text = "".join(pages.text_of(page) for page in pages.guides() if page.startswith("docs/") and page != "docs/providers.md")
    assert [name for name in fields if not re.search(rf"`{name}\b|\b{name}:", text)] == []
