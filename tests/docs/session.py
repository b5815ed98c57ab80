"""A person's terminal: one bash in a copy of the repository, with nobody's settings, and its programs ended afterwards."""

import contextlib
import dataclasses
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pages
import tools
from stack import BINARY

HERE = pathlib.Path(__file__).resolve().parent
# What a guide may touch.
COPIED = "README.md", "Makefile", "docs/", "deploy/"
# Programs that are stood in for; see stand_ins.py.
STOOD_IN_FOR = "docker", "docker-compose", "helm", "kubectl", "make"
LOOKS = re.compile(r"curl -s (?:--cacert \S+ )?http")
LOOKS_FOR, RUNS_FOR = 15, 60  # seconds


class Untrue(AssertionError):
    """A page says what is not so."""


@dataclasses.dataclass
class Session:
    """`changes` are pairs: what a page says, and what stands for it here."""

    changes: list
    environment: dict

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        # A short name: a socket's path may have 108 bytes.
        self.place = pathlib.Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="docs-")))
        self.root = self.place / "checkout"
        for name in pages.tracked():
            if name.startswith(COPIED):
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(pages.ROOT / name, self.root / name)
        # What `make build` and make_venv.py leave behind, which were there before these tests.
        (self.root / "target" / "release").mkdir(parents=True)
        (self.root / "target" / "release" / "hookwarden").symlink_to(BINARY)
        (self.root / ".venv").symlink_to(sys.prefix)
        self._programs()
        self.changes = [("/tmp/hookwarden", f"{self.place}/trial"), *self.changes]
        self._told, telling = os.pipe()
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[telling],
            env={
                "PATH": f"{self.place}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                "HOME": str(self.place),
                "LANG": "C.UTF-8",
                "KUBECONFIG": os.devnull,
                "HOOKWARDEN_BIN": str(BINARY),
                "STAND_INS": str(self.place),
                **self.environment,
            },
        )
        os.close(telling)
        self._say(f"exec {telling}>&{telling}; TOLD={telling}")
        return self

    def __exit__(self, *_):
        self._bash.stdin.close()
        # Whatever it started is in its session, and nothing else is.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait(10)
        os.close(self._told)
        self._stack.close()

    def _programs(self):
        bin = self.place / "bin"
        bin.mkdir()
        (bin / "hookwarden").symlink_to(BINARY)
        for name in STOOD_IN_FOR:
            (bin / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -B "{HERE / "stand_ins.py"}" {name} "$@"\n')
            (bin / name).chmod(0o755)

    def _say(self, text):
        self._bash.stdin.write(text.encode() + b"\n")
        self._bash.stdin.flush()

    def here(self, text):
        """What a page says, in this machine's words."""
        for said, meant in self.changes:
            text = re.sub(rf"(?<![\w]){re.escape(said)}(?![\w])", lambda _: meant, text)
        return text

    def adapt(self, name):
        """A file of the copy, likewise."""
        file = self.root / name
        file.write_text(self.here(file.read_text()))

    def save(self, block):
        file = self.root / self.here(block.file)
        file.write_text(self.here(block.text))

    def run(self, command, deadline=RUNS_FOR):
        """Status and output of a statement, typed as it is."""
        with tempfile.NamedTemporaryFile(dir=self.place) as output:
            self._say(f"{{ {self.here(command)}\n}} >{output.name} 2>&1 </dev/null\nprintf '%s\\n' $? >&$TOLD")
            status = self._status(deadline)
            text = pathlib.Path(output.name).read_text(errors="replace")
        if status is None:
            raise Untrue(f"not over after {deadline} s: {command}\n{text}")
        return status, text

    def _status(self, deadline):
        end, told = time.monotonic() + deadline, b""
        while not told.endswith(b"\n"):
            ready, _, _ = select.select([self._told], [], [], max(0, end - time.monotonic()))
            if not ready or not (read := os.read(self._told, 100)):
                return None
            told += read
        return int(told)

    def follow(self, page):
        """Does what a page says, block by block, and compares what it says will come of it."""
        for block in pages.blocks(page):
            if block.file:
                self.save(block)
            if block.language in pages.COMMANDS:
                for command in pages.commands(block):
                    self.expect(command)

    def expect(self, command):
        """Runs a command. What only looks, at a page of metrics or a probe, is looked at again as a person would."""
        end = time.monotonic() + LOOKS_FOR
        while True:
            status, output = self.run(command.text)
            difference = self._difference(command, status, output)
            if not difference:
                return
            if not LOOKS.match(command.text) or time.monotonic() > end:
                raise Untrue(f"{command.where}: {command.text}\n{difference}\nexit status {status}, and this output:\n{output}{self._logs()}")
            select.select([], [], [], 0.02)

    def _difference(self, command, status, output):
        if command.status:
            if not re.search(rf"\b{command.status}\b", output):
                return f"the page says {command.status}"
            return None if (status == 0) == (command.status < 300) else "another exit status than that means"
        if command.expected is None:
            return None if status == 0 else "the page does not say that it fails"
        expected = "\n".join(line.rstrip() for line in self.here(command.expected).splitlines())
        pattern = ".*".join(re.escape(part) for part in expected.split("…"))
        seen = "\n".join(line.rstrip() for line in output.splitlines())
        return None if re.fullmatch(pattern, seen) else f"the page says:\n{expected}"

    def _logs(self):
        return "".join(f"\n{log.name}:\n{log.read_text()[-2000:]}" for log in sorted(self.place.glob("trial/*.log")))

    def told(self, name):
        """What the stand-ins left behind."""
        file = self.place / name
        return file.read_text() if file.exists() else ""


assert tools.UNPACKED.is_dir(), "make manifests unpacks Helm and kubectl"
