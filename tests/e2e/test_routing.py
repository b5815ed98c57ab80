"""Which requests are asked about at all, and as which endpoint."""

import pytest

from client import HOST, Request
from harness import deliver, send, unique_body
from stack import get

HTTP = pytest.mark.parametrize("http", ["1.1", "2"])
URL = f"https://{HOST}"


@HTTP
@pytest.mark.parametrize("path", ["/nowhere", "/", "/github/", "/GITHUB", "/githubx", "/_received", "/metrics"])
def test_what_no_endpoint_receives_is_refused(stack, http, path):
    request = stack.sign("github", unique_body(), url=URL + path)
    assert deliver(stack, request, http).outcome == (404, "deny", "unknown_endpoint", False)


@HTTP
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_wrong_method_is_refused(stack, http, method):
    request = stack.sign("github", b"", arguments=["--method", method])
    seen = deliver(stack, request, http)
    assert seen.outcome == (405, "deny", "method_not_allowed", False)
    assert seen.response.header("allow") == "POST"


def test_the_methods_of_a_preset(stack):
    request = Request("PUT", f"{URL}/verify-token", (), unique_body())
    seen = deliver(stack, request)
    assert seen.outcome == (405, "deny", "method_not_allowed", False)
    assert seen.response.header("allow") == "GET, POST"


@pytest.mark.parametrize("path", ["//github", "/./github", "/x/../github", "/%67ithub"])
def test_spellings_that_envoy_normalises_are_one_path(stack, path):
    """What was signed there is a matter of the scheme; here the signature covers the body alone."""
    request = stack.sign("github", unique_body()).change(url=URL + path)
    seen = deliver(stack, request)
    assert seen.response.status == 200 and seen.decision["path"] == "/github"


@pytest.mark.parametrize("path", ["/x%2f..%2fgithub", "/%2fgithub", "/x%5cgithub"])
def test_escaped_slashes_are_refused_by_envoy(stack, path):
    request = stack.sign("github", unique_body()).change(url=URL + path)
    assert send(stack, request).status == 400


@HTTP
def test_health_is_answered_by_envoy_alone(stack, http):
    response = send(stack, Request("GET", f"{URL}/healthz"), http)
    assert (response.status, response.body) == (200, b"ok\n")
    assert not stack.received("/healthz")


def test_the_configuration_can_choose_by_path(stack):
    """The catch-all route names no endpoint; `match` in hookwarden.yaml does."""
    request = stack.sign("limited", b"{}", url=f"{URL}/limited/a/b?c=d")
    seen = deliver(stack, request)
    assert seen.outcome == (200, "allow", "verified", True)
    assert seen.told["endpoint"] == "limited"


def test_a_header_does_not_choose_the_endpoint(stack):
    request = stack.sign("github", unique_body(), url=f"{URL}/nowhere").add(("endpoint", "github"), ("x-endpoint", "github"))
    assert deliver(stack, request).outcome == (404, "deny", "unknown_endpoint", False)


def test_the_applications_own_pages_are_not_public(stack):
    """It has them, and only whoever stands beside it sees them."""
    assert get(f"http://127.0.0.1:{stack.app_port}/_received")[0] == 200
    request = Request("GET", f"{URL}/_received")
    assert deliver(stack, request).outcome == (404, "deny", "unknown_endpoint", False)
