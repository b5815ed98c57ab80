"""Real Redis servers, each on a port that was free a moment before, and stacks that share them."""

import hashlib
import hmac
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from client import HOST, Request
from harness import make_stack, unique_body
from stack import Program, Unexpected, substitute, wait_for


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RedisServer:
    """One server; `settings` are lines of its configuration."""

    def __init__(self, directory, name="redis", *settings, sentinel=False):
        self.directory = directory / name
        self.directory.mkdir()
        self.settings, self.sentinel = settings, sentinel
        self.port = None
        self.program = None
        self.arguments = []  # of redis-cli, beside the port

    def start(self, port=None):
        """Starts it, at another port if somebody took the one that was free."""
        for _ in range(10):
            self.port = port or free_port()
            lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.directory}", 'save ""', *self.settings]
            config = self.directory / "redis.conf"
            config.write_text("\n".join(line for line in lines if not (self.sentinel and line.startswith("save"))) + "\n")
            arguments = ["redis-server", config, *(["--sentinel"] if self.sentinel else [])]
            self.program = Program(f"{self.directory.name}-{self.port}", arguments, self.directory)
            self.program.start()
            try:
                wait_for("Redis answers", lambda: "PONG" in self.command("PING", check=False), program=self.program)
                return self
            except Unexpected:
                if self.program.running or port:
                    raise
        raise Unexpected("no port for Redis")

    def command(self, *words, check=True):
        command = ["redis-cli", "-h", "127.0.0.1", "-p", str(self.port), *self.arguments, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=15)
        if check and (done.returncode or done.stdout.startswith("ERR")):
            raise Unexpected(f"{words}: {done.stdout}{done.stderr}")
        return done.stdout.strip() + done.stderr.strip()

    def kill(self):
        self.program.kill()

    def pause(self):
        self.program.signal(signal.SIGSTOP)

    def go_on(self):
        self.program.signal(signal.SIGCONT)

    def stop(self):
        if self.program and self.program.running:
            self.program.signal(signal.SIGCONT)
            self.program.kill()


class Replicas:
    """Several hookwardens, each behind its own Envoy before its own application, which share a store."""

    def __init__(self, number, store, redis_settings="", endpoints=""):
        self._directories = [pathlib.Path(tempfile.mkdtemp(prefix="hookwarden-e2e-")) for _ in range(number)]
        self.stacks = [make_stack(directory) for directory in self._directories]
        for stack in self.stacks:
            text = substitute(stack.config.read_text(), (f"store: file://{stack.directory}/state.redb", f"store: {store}"))
            stack.config.write_text(redis_settings + text + endpoints.format(secrets=self.stacks[0].secrets))
            # All know the same secrets.
            if stack is not self.stacks[0]:
                shutil.rmtree(stack.secrets)
                stack.secrets.symlink_to(self.stacks[0].secrets)

    def __enter__(self):
        import conftest

        for stack in self.stacks:
            conftest.RUNNING.append(stack)
            stack.__enter__()
        return self.stacks

    def __exit__(self, *details):
        import conftest

        for stack in self.stacks:
            stack.__exit__(*details)
            conftest.RUNNING.remove(stack)
        for directory in self._directories:
            shutil.rmtree(directory, ignore_errors=True)


LOCAL = """
  local:
    match: {{ path: /local }}
    provider: stripe
    store_failure: local_only
    secrets: [{{ id: main, file: {secrets}/stripe }}]
"""


def stripe(stack, path="/stripe", body=None, at=None):
    """A delivery as the provider signs it, without starting a program for it."""
    secret = (stack.secrets / "stripe").read_bytes().removesuffix(b"\n")
    body = body or unique_body("stripe")
    at = int(at or time.time())
    signature = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return Request("POST", f"https://{HOST}{path}", (("Stripe-Signature", f"t={at},v1={signature}"),), body)


def reason(stack, response):
    return stack.log.last(response.request_id)["reason"]


def wait_until_complete(stacks):
    """Until deliveries pass: those that were signed before the store began do not."""
    for stack in stacks:
        wait_for("a new delivery passes", lambda: stack.send(stripe(stack)).status == 200)


def bodies_received(stack, path):
    return [record["body_sha256"] for record in stack.received(path)]


def digest(request):
    return hashlib.sha256(request.body).hexdigest()


