"""`hookwarden send`, as an operator tries out a set-up: through TLS, to Envoy, by an address of its own."""

import subprocess

import pytest

import throwaway
from client import HOST
from harness import sha256, unique_body
from providers import PROVIDERS
from stack import BINARY


def send(stack, *arguments, ca_file=None):
    command = [BINARY, "send", "--ca-file", ca_file or stack.tls / "ca.crt", "--connect-to", f"127.0.0.1:{stack.edge.port}", *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=30, check=False)


def bodies(stack, path):
    return {record["body_sha256"] for record in stack.received(path)}


@pytest.mark.parametrize("provider", [p for p in PROVIDERS if p.tampered], ids=lambda provider: provider.name)
def test_a_signed_delivery_arrives(stack, provider):
    body = unique_body()
    url = f"https://{HOST}{provider.path}"
    done = send(stack, *stack.signer(provider.name), "--url", url, "--body", body.decode())
    assert done.returncode == 0, done.stderr
    assert "200" in done.stdout and "received" in done.stdout
    assert sha256(body) in bodies(stack, provider.path)


def test_a_handshake_is_answered(stack):
    done = send(stack, *stack.signer("smartsheet"), "--url", f"https://{HOST}/smartsheet", "--challenge")
    assert done.returncode == 0, done.stderr
    assert "smartsheetHookResponse" in done.stdout


def test_a_refusal_is_told_by_the_exit_code(stack):
    body = unique_body()
    file = stack.directory / "other-secret"
    file.write_text("another secret than the endpoint's")
    done = send(stack, "--provider", "github", "--secret-file", file, "--url", f"https://{HOST}/github", "--body", body.decode())
    assert done.returncode == 1
    assert "401" in done.stdout + done.stderr
    assert sha256(body) not in bodies(stack, "/github")


def test_a_certificate_of_another_ca_is_not_trusted(stack):
    other = stack.directory / "other-ca"
    throwaway.make_certificate(other, HOST)
    done = send(stack, *stack.signer("github"), "--url", f"https://{HOST}/github", "--body", "{}", ca_file=other / "ca.crt")
    assert done.returncode == 1
    assert "certificate" in done.stderr.lower(), done.stderr
