"""The Docker engine: the one that answers here, or one of our own for as long as it is needed."""

import os
import pathlib
import subprocess

from bases import run_long
from stack import Program, Unexpected, run, wait_for

DOCKER = "docker"

# Made by an engine that starts for the first time, and the one thing that it puts where no option says.
KEY = pathlib.Path("/etc/docker/key.json")

# What to start it with, the most usual first. Each later way gives up one thing that some machines do not have.
WAYS = (
    ("as it comes", ()),
    ("without overlay file systems", ("--storage-driver=vfs",)),
    # Published ports work all the same, by Docker's own proxy, and builds use the host's network.
    ("without overlay file systems and packet filter", ("--storage-driver=vfs", "--iptables=false", "--ip6tables=false")),
)

# The same builder for `docker` and for Compose 1.29, which knows no other; so each finds what the other has built.
BUILDER = {"DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}


class Engine:
    """Leaves an engine that was there as it was, and of its own nothing."""

    def __init__(self, directory):
        self._directory = directory / "docker"
        self._program = None
        self.environment = {**os.environ, **BUILDER}
        self.way = "the one that was running"

    def __enter__(self):
        if not self._answers():
            self._key_was_there = KEY.exists()
            try:
                self._start()
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_):
        if self._program:
            self._program.stop(60)
            if not self._key_was_there:
                KEY.unlink(missing_ok=True)

    def _answers(self):
        return subprocess.run([DOCKER, "info"], env=self.environment, capture_output=True, check=False).returncode == 0

    def _start(self):
        refusals = []
        # Short, for the paths of its sockets have a limit of some hundred characters.
        self.environment["DOCKER_HOST"] = f"unix://{self._directory}/docker.sock"
        for number, (way, options) in enumerate(WAYS):
            home = self._directory / str(number)
            home.mkdir(parents=True)
            places = f"--data-root={home}/data", f"--exec-root={home}/exec", f"--pidfile={home}/pid", f"--host={self.environment['DOCKER_HOST']}"
            self._program = Program("dockerd", ["dockerd", *places, "--bridge=none", *options], home)
            self._program.start()
            try:
                wait_for("dockerd answers", self._answers, 60, self._program)
                self._try()
            except Unexpected as refusal:
                refusals.append(f"{way}: {refusal}")
                self._program.stop(60)
                continue
            self.way = f"started here, {way}"
            return
        raise Unexpected("dockerd runs in no way that is known here:\n" + "\n".join(refusals))

    def _try(self):
        """That it can do what it only tries to when it is asked to: a network and a layer."""
        self.run("network", "create", "hookwarden-probe")
        self.run("network", "rm", "hookwarden-probe")
        empty = "FROM scratch\nLABEL a=b\nLABEL c=d\n"
        done = subprocess.run([DOCKER, "build", "--quiet", "-"], input=empty, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unexpected(done.stderr)

    def command(self, *arguments):
        """A command that reaches this engine from any environment."""
        host = self.environment.get("DOCKER_HOST")
        return [DOCKER, *(["--host", host] if host else []), *map(str, arguments)]

    def run(self, *arguments):
        return run(self.command(*arguments))

    def run_long(self, *command, directory=None):
        return run_long(command, env=self.environment, cwd=directory)

    def image(self, name):
        """The id of the image of that name, or nothing."""
        return self.run("image", "ls", "--quiet", "--no-trunc", name).strip()


class Names:
    """Image names that mean at the end what they meant before."""

    def __init__(self, engine, *names):
        self._engine = engine
        self._names = names

    def __enter__(self):
        self._before = {name: self._engine.image(name) for name in self._names}
        return self

    def __exit__(self, *_):
        for name, image in self._before.items():
            if image:
                self._engine.run("tag", image, name)
            elif self._engine.image(name):
                self._engine.run("image", "rm", "--force", name)
