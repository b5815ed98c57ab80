"""Every command of the guides, typed in the order in which they stand, and what the guides say will come of it.

Where a guide goes on from another one, that one is followed first, in the same terminal. Ports and `/tmp/hookwarden` are
replaced by what is free on this machine.
"""

import contextlib
import dataclasses
import pathlib
import random
import re
import shutil
import socket
import tempfile

import configurations
import pages
import pytest
import stand_ins
from client import Request
from session import Session
from stack import Stack, wait_for

# Ports that the guides name.
PORTS = "8080", "8443", "9191", "9192", "9193", "9901"


@dataclasses.dataclass(frozen=True)
class Given:
    """What a page takes for given."""

    after: str = ""  # the guide that it goes on from
    adapted: tuple = ()  # files of the repository that have this machine's ports and paths
    played: bool = False  # it talks to what Docker or a cluster started
    files: dict = dataclasses.field(default_factory=dict)  # what the reader has


NGINX_FILES = "deploy/nginx/nginx.conf", "deploy/nginx/hookwarden.yaml"
GITHUB_SECRET = {"github-secret": "0123456789abcdef0123456789abcdef"}
CERTIFICATE = "tls.crt", "tls.key"
README_OF_CHART = "deploy/helm/hookwarden/README.md"
GIVEN = {
    "docs/getting-started-envoy.md": Given(adapted=("deploy/envoy.yaml",)),
    "docs/getting-started-compose.md": Given(played=True),
    "docs/getting-started-kubernetes.md": Given(played=True),
    "docs/secrets.md": Given(after="docs/getting-started-envoy.md"),
    "docs/observe.md": Given(after="docs/getting-started-envoy.md"),
    "docs/http-listener.md": Given(after="docs/getting-started-nginx.md"),
    "docs/runbook.md": Given(played=True),
    "README.md": Given(played=True),
    "deploy/nginx/README.md": Given(adapted=NGINX_FILES),
    README_OF_CHART: Given(played=True, files=GITHUB_SECRET),
    "deploy/recipes/README.md": Given(files=GITHUB_SECRET),
}


def with_commands():
    return [page for page in pages.guides() if any(block.language in pages.COMMANDS for block in pages.blocks(page))]


def free_ports():
    """One for each, below those from which the system takes a connection's own end: it would take one of these, too."""
    with contextlib.ExitStack() as probes:
        found = {}
        for candidate in random.sample(range(10_000, 32_000), 500):
            probe = probes.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", candidate))
                found[PORTS[len(found)]] = str(candidate)
            if len(found) == len(PORTS):
                return found
    raise AssertionError("no free ports")


def played(directory):
    """Envoy, hookwarden and the application, with the files of `deploy/`."""
    directory.mkdir()
    return Stack(directory, log_level="info")


def prepare(session, given, stack):
    for name, content in given.files.items():
        (session.root / name).write_text(content)
    if stack:
        # What the guides have in deploy/compose is what was started.
        for kind in "secrets", "tls":
            shutil.copytree(stack.directory / kind, session.root / "deploy" / "compose" / kind, dirs_exist_ok=True)
        (session.place / "played").symlink_to(stack.directory)
        for name in CERTIFICATE:
            shutil.copy(stack.tls / name, session.root / name)
    for name in given.adapted:
        session.adapt(name)


def chain(page):
    """The guides that a page goes on from, and itself."""
    before = GIVEN.get(page, Given()).after
    return [*(chain(before) if before else ()), page]


def changes(page, given, stack, elsewhere):
    if stack:
        authority = stack.tls / "ca.crt"
        edge = f"--connect-to 127.0.0.1:{stack.edge.port} --ca-file {authority} --url https://hooks.example.com"
        return [
            ("8443", str(stack.edge.port)),
            ("9193", stack.admin_url("").rpartition(":")[2]),
            # Nobody's name service knows it. Only what is sent goes there.
            *([("--url https://hooks.example.com", edge)] if page == "docs/runbook.md" else []),
        ]
    machine = [
        ("/etc/nginx/tls", f"{elsewhere}/tls"),
        ("/run/secrets", f"{elsewhere}/secrets"),
        ("/run/hookwarden", str(elsewhere)),
        ("/run/nginx.pid", f"{elsewhere}/nginx.pid"),
    ]
    return [*free_ports().items(), *(machine if given.adapted == NGINX_FILES else [])]


@contextlib.contextmanager
def following(page):
    given = GIVEN.get(page, Given())
    with contextlib.ExitStack() as held:
        elsewhere = pathlib.Path(held.enter_context(tempfile.TemporaryDirectory(prefix="docs-")))
        stack = held.enter_context(played(elsewhere / "played")) if given.played else None
        machine = changes(page, given, stack, elsewhere)
        if given.adapted == NGINX_FILES:
            configurations.make_material(elsewhere)
        session = held.enter_context(Session(machine, configurations.VARIABLES))
        for guide in chain(page):
            prepare(session, GIVEN.get(guide, Given()), stack)
        if page == "README.md":
            (session.root / "hookwarden.yaml").write_text(configurations.whole_of_the_readme(elsewhere))
            (session.root / "values.yaml").write_text(next(b.text for b in pages.blocks(README_OF_CHART) if b.file == "values.yaml"))
        if page == "docs/runbook.md":
            shutil.copy(stack.config, session.root / "hookwarden.yaml")
        for guide in chain(page):
            session.follow(guide)
        yield session, stack
        assert session.told("unlisted") == "", "commands that are neither run nor listed in stand_ins.py"


@pytest.mark.parametrize("page", with_commands())
def test_the_commands_of(page):
    with following(page) as (session, _):
        if page == "docs/getting-started-kubernetes.md":
            assert "image: registry.example.com/hookwarden:0.1.0\n" in session.told("kustomized.yaml")


def test_what_the_runbook_looks_with():
    """Its functions, and every line within its text that begins with one, against logs that hold what they look for."""
    with following("docs/runbook.md") as (session, stack):
        refused = stack.send(Request("POST", "https://hooks.example.com/github", (("x-hub-signature-256", "sha256=" + "0" * 64),), b"{}"))
        assert refused.status == 401
        status, found = session.run("why signature_mismatch")
        assert status == 0 and refused.request_id in found and '"reason":"signature_mismatch"' in found
        who = lambda: session.run(f"who {refused.request_id}")[1]
        wait_for("Envoy's line about it", lambda: '"peer":"127.0.0.1"' in who())

        typed = set(re.findall(r"`((?:logs|why|who) [^`]+)`", re.sub(r"\s*\n\s*", " ", pages.text_of("docs/runbook.md"))))
        assert len(typed) > 50
        for line in sorted(typed):
            line = line.replace("PATH", "/github").replace("REQUEST_ID", refused.request_id).replace("REASON", "replayed")
            status, output = session.run(line)
            assert status in (0, 1) and not re.search(r"error|not found|usage", output.replace('"level":"ERROR"', ""), re.IGNORECASE), (line, output)


# ---- The table ---------------------------------------------------------------------------------------------------------


def typed():
    """Every program that is typed with its arguments, in one line."""
    for page in with_commands():
        for block in pages.blocks(page):
            for command in pages.commands(block) if block.language in pages.COMMANDS else ():
                yield re.sub(r"\s+", " ", re.sub(r"\\\n", " ", command.code))


def test_every_row_of_the_table_is_needed_and_says_why():
    everything = "\n".join(typed()).replace('"$1"', "hookwarden").replace("'", "")
    for row in stand_ins.TABLE:
        assert re.search(rf"\b{row.program} ({row.arguments})", everything), row
        assert row.why and row.instead, row
        if row.instead.startswith("tests/"):
            assert (pages.ROOT / row.instead).is_file(), row.instead


def test_expectations_are_compared():
    """That the tests above can fail."""
    session = Session([], {})
    for expected, output, same in [
        ("200 OK\nreceived", "200 OK\nreceived\n", True),
        ("200 OK", "200 OK\nreceived\n", False),
        ("a … c", "a b c\n", True),
        ("a … c", "a b\nc\n", False),
        ("401 Unauthorized", "200 OK\n", False),
    ]:
        assert (session._difference(pages.Command("", "", expected), 0, output) is None) is same, (expected, output)
    told = pages.Command("", "send   # 401, from hookwarden", None)
    assert session._difference(told, 1, "401 Unauthorized") is None
    assert session._difference(told, 0, "401 Unauthorized") and session._difference(told, 1, "200 OK")
    assert session._difference(pages.Command("", "false", None), 1, "")
