"""A copy of the checkout, as somebody has it who tries it out, and the deliveries that are sent to what runs from it."""

import dataclasses
import json
import pathlib
import shutil
from typing import Optional

from client import Request, send
from harness import samples, unique_body
from stack import ROOT, run, wait_for

IMAGE = "hookwarden:0.1.0"
# The Dockerfile's first stage. By a name of its own it can be removed again, and asked what it was built with.
STAGE = "hookwarden-test-build"
# User and group of each container, in compose.yaml and in the pod.
IDS = {"hookwarden": ("65532", "65532"), "envoy": ("65533", "65532"), "app": ("65534", "65534")}


class Trial:
    """The copy, its throw-away secrets, and the binary out of the image, which runs anywhere."""

    def __init__(self, directory):
        self.root = directory / "checkout"
        self.deploy = self.root / "deploy"
        self.secrets = self.deploy / "compose" / "secrets"
        self.ca = self.deploy / "compose" / "tls" / "ca.crt"
        self.binary = directory / "hookwarden"
        # What a build may read, by the allow-list itself, and the folder that this is about.
        ignore = (ROOT / ".dockerignore").read_text()
        for name in ".dockerignore", "deploy", *(line[1:] for line in ignore.splitlines() if line.startswith("!")):
            copy(ROOT / name, self.root / name)
        run([self.deploy / "compose" / "make-secrets"])

    def extract_binary(self, engine):
        container = engine.run("create", "--network=none", IMAGE).strip()
        try:
            engine.run("cp", f"{container}:/hookwarden", self.binary)
        finally:
            engine.run("rm", container)

    def sign(self, provider, secret=None, challenge=False):
        """A request as the provider would send it, with a body that no other has."""
        body = self.root.parent / "body"
        body.write_bytes(unique_body(provider))
        given = ["--challenge"] if challenge else ["--body-file", body]
        key = ["--secret-file", secret or self.secrets / provider]
        url = f"https://localhost:8443/{provider}"
        return Request.from_json(run([self.binary, "sign", "--provider", provider, *key, "--url", url, "--format", "json", *given]))


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=trial_secrets)
    else:
        shutil.copy2(source, target)


def trial_secrets(folder, names):
    """What `make-secrets` has made for somebody, which is theirs."""
    return {"secrets", "tls"} if pathlib.Path(folder) == ROOT / "deploy" / "compose" else set()


# ── what becomes of a request ────────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the client saw, what hookwarden counted, and what the application was told, if it was told anything."""

    status: int
    decision: str
    reason: str
    told: Optional[dict]
    headers: tuple

    def __str__(self):
        reached = f"the application received it, verified by {self.told['verified-by']}" if self.told else "the application received nothing"
        return f"{self.status} {self.reason}, {reached}"


def outcome(place, request):
    """Sends a request to where hookwarden runs, and finds out what became of it."""
    before = checks(place)
    seen = len(place.received(request.path))
    response = send(place.edge, request)
    [(decision, reason)] = wait_for("a check is counted", lambda: changed(before, checks(place)))
    records = place.received(request.path)[seen:]
    assert len(records) < 2, records
    told = {k.lower().removeprefix("x-hookwarden-"): v for k, v in records[0]["headers"] if k.lower().startswith("x-hookwarden-")} if records else None
    return Outcome(response.status, decision, reason, told, response.headers)


def checks(place):
    """How often hookwarden decided what for which reason."""
    found = {}
    for (name, labels), number in samples(place.metrics()).items():
        if name == "hookwarden_checks_total" and number:
            labels = dict(labels)
            key = labels["decision"], labels["reason"]
            found[key] = found.get(key, 0) + number
    return found


def changed(before, after):
    return {key for key, number in after.items() if number != before.get(key)}


def three_outcomes(trial, place):
    """One delivery that is allowed, one that is denied, and a challenge; each by its name."""
    good = trial.sign("github")
    requests = {"allowed": good, "denied": trial.sign("github").one_byte_changed(), "challenge": trial.sign("smartsheet", challenge=True)}
    return requests, {name: outcome(place, request) for name, request in requests.items()}


def assert_as_expected(requests, outcomes):
    allowed, denied, challenge = outcomes["allowed"], outcomes["denied"], outcomes["challenge"]
    assert (allowed.status, allowed.decision, allowed.reason) == (200, "allow", "verified")
    expected = {"endpoint": "github", "provider": "github", "verified-by": "signature", "secret-id": "main"}
    assert expected.items() <= allowed.told.items()
    assert (denied.status, denied.decision, denied.reason, denied.told) == (401, "deny", "signature_mismatch", None)
    assert (challenge.status, challenge.decision, challenge.reason, challenge.told) == (200, "answer", "challenge", None)
    asked = requests["challenge"].header("smartsheet-hook-challenge")
    assert asked and dict(challenge.headers)["smartsheet-hook-response"] == asked


# ── what holds a process ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Confinement:
    """As the kernel tells it, not as a configuration promises it."""

    user: str
    group: str
    capabilities: int
    no_new_privileges: bool
    seccomp: bool
    root_read_only: bool

    @classmethod
    def of(cls, pid):
        process = pathlib.Path("/proc") / str(pid)
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        ids = {kind: set(status[kind].split()) for kind in ("Uid", "Gid")}
        # The last mount on `/` is the one that is seen.
        roots = [line.split() for line in (process / "mountinfo").read_text().splitlines() if line.split()[4] == "/"]
        return cls(
            user="/".join(sorted(ids["Uid"])),
            group="/".join(sorted(ids["Gid"])),
            # What it has, could get, and could ever get.
            capabilities=int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapBnd"], 16),
            no_new_privileges=status["NoNewPrivs"].strip() == "1",
            seccomp=status["Seccomp"].strip() == "2",
            root_read_only="ro" in roots[-1][5].split(","),
        )

    def __str__(self):
        held = {
            "root read-only": self.root_read_only,
            "no capability": not self.capabilities,
            "no new privileges": self.no_new_privileges,
            "seccomp": self.seccomp,
        }
        return f"user {self.user}:{self.group}, " + ", ".join(what for what, holds in held.items() if holds)


# ── the application ──────────────────────────────────────────────────────────────────────────────────────────────────

# Where compose.yaml and the pod have the application, asked from inside its own container, which nobody else reaches.
RECEIVED = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/_received{path}').read().decode())"


def received(execute, path=""):
    """What the application recorded, asked by `execute`, which runs a command in its container."""
    return json.loads(execute(["python3", "-c", RECEIVED.format(path=path)]))["received"]
