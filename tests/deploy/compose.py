"""`deploy/compose.yaml`, run by Debian's Compose."""

import contextlib
import socket

from client import Edge
from stack import Unexpected, get, wait_for
from trial import received

# Published by the file, hence fixed.
HTTPS, ADMIN = 8443, 9193
# Not the folder's name: somebody may be trying the very same file out, and their volumes must live.
PROJECT = "hookwarden-test"


def taken_ports():
    """Which of the published ports somebody else has."""
    return [port for host, port in (("0.0.0.0", HTTPS), ("127.0.0.1", ADMIN)) if not free(host, port)]


def free(host, port):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
        return True


class Compose:
    """Up for as long as the block lasts; then its containers, networks and volumes are gone."""

    def __init__(self, engine, trial):
        self._engine = engine
        self._file = trial.deploy / "compose.yaml"
        self.edge = Edge(HTTPS, trial.ca)

    def run(self, *arguments):
        return self._engine.run_long("docker-compose", "--project-name", PROJECT, "--file", self._file, *arguments)

    def __enter__(self):
        with contextlib.ExitStack() as failed:
            failed.callback(self.__exit__)
            try:
                self._up()
            except Unexpected as error:
                raise Unexpected(f"{error}\n{self.logs()}") from error
            failed.pop_all()
        return self

    def __exit__(self, *_):
        self.run("down", "--volumes", "--remove-orphans")

    def _up(self):
        self.run("up", "--detach", "--no-build")
        for service in "app", "envoy":
            wait_for(f"{service} is healthy", lambda: self.inspect(service, "{{.State.Health.Status}}") == "healthy", 60)
        wait_for("hookwarden is ready", lambda: get(f"http://127.0.0.1:{ADMIN}/readyz")[0] == 200)

    def inspect(self, service, template):
        container = self._engine.run("ps", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}", "--filter", f"label=com.docker.compose.service={service}")
        return self._engine.run("inspect", "--format", template, *container.split()).strip()

    def pid(self, service):
        return int(self.inspect(service, "{{.State.Pid}}"))

    def metrics(self):
        return get(f"http://127.0.0.1:{ADMIN}/metrics")[1]

    def received(self, path):
        app = self.inspect("app", "{{.Id}}")
        return received(lambda command: self._engine.run("exec", app, *command), path)

    def logs(self):
        return self.run("logs", "--no-color", "--tail", "30")
