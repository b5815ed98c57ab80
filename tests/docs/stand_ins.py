#!/usr/bin/env python3
"""What the guides ask of Docker, of a cluster, of a registry and of a compiler, which these tests have not.

`TABLE` has every such command: why it is not run as it is, what runs it instead, and what is done in its place here. The
programs of these names on a session's PATH come here (`stand_ins.py NAME ARGUMENTS…`); what the table does not have fails,
and is written down, so that a test fails even where a pipe hides it.

Where a guide talks to what Docker or Kubernetes started, the same programs run on this machine with the same configuration
files (`Stack` of `deploy/demo`): what is sent is really sent, and answered by a real Envoy and hookwarden.
"""

import dataclasses
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from typing import Callable, Optional

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = HERE.parent / "manifests" / "node_modules" / "unpacked"


@dataclasses.dataclass(frozen=True)
class Row:
    program: str
    arguments: str  # a pattern of all of them
    why: str
    instead: str  # a file that runs it, or what there is in its place
    play: Optional[Callable] = None


def place():
    return pathlib.Path(os.environ["STAND_INS"])


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=False, **options).returncode


# ---- What is done instead ----------------------------------------------------------------------------------------------


def demo(arguments):
    """`make demo` for real, but for what it would build and install; and Ctrl-C once it says that everything stays up."""
    make = shutil.which("make", path=os.environ["PATH"].partition(":")[2])
    shown = ""
    with subprocess.Popen(
        [make, "-o", "tools", "-o", "build", "-o", ".venv/demo.stamp", *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as made:
        for line in made.stdout:
            print(line, end="", flush=True)
            shown += line
            if "Press Ctrl-C" in line:
                os.killpg(made.pid, signal.SIGINT)
    # How make ends when it is interrupted says nothing; whether every outcome was as expected, the demo says before.
    return 0 if "Press Ctrl-C" in shown and "not as expected" not in shown else 1


def send_from_the_image(arguments):
    """`docker run … IMAGE send …`: the same hookwarden, which sees the mounted directory under its own name."""
    host, inside, _ = arguments[arguments.index("-v") + 1].split(":")
    of_image = arguments[arguments.index("hookwarden:0.1.0") + 1 :]
    return run("hookwarden", *(re.sub(rf"^{inside}(?=/)", host, argument) for argument in of_image))


def logs(arguments):
    """The log of hookwarden or Envoy, whichever is named."""
    program = next(name for name in ("hookwarden", "envoy") if name in arguments)
    lines = [line for log in (place() / "played").glob(f"{program}.*") if log.suffix in (".out", ".err") for line in log.read_text().splitlines()]
    tail = re.search(r"--tail[ =](-?\d+)", " ".join(arguments))
    wanted = int(tail[1]) if tail else -1
    print("\n".join(lines[-wanted:] if wanted > 0 else lines))
    return 0


def dry_run(arguments):
    return run(TOOLS / "kubectl", *arguments, "--dry-run=client", "--output=name")


def kustomize(arguments):
    with open(place() / "kustomized.yaml", "w") as rendered:
        return run(TOOLS / "kubectl", "kustomize", arguments[-1], stdout=rendered)


def read_files(arguments):
    """That the files it names are there and hold something."""
    named = [value for option, value in zip(arguments, arguments[1:]) if option in ("-f", "--patch-file")]
    return 0 if named and all(pathlib.Path(name).read_text().strip() for name in named) else 1


def template(arguments):
    return run(TOOLS / "helm4", "template", *arguments[1:], stdout=subprocess.DEVNULL)


def helm(arguments):
    return run(TOOLS / "helm4", *arguments)


# ---- The table ---------------------------------------------------------------------------------------------------------

COMPOSE = r"compose -f deploy/compose.yaml "
DAEMON, CLUSTER = "needs a Docker daemon", "needs a cluster"
BY_COMPOSE, BY_ENGINE, BY_IMAGE = "tests/deploy/test_compose.py", "tests/deploy/compose.py", "tests/deploy/test_image.py"
BY_KUBECTL, BY_CHART, BY_RECIPES = "tests/manifests/test_kubernetes.py", "tests/manifests/test_chart.py", "tests/manifests/test_recipes.py"
NOBODY, POD_ONLY = "nothing", "nothing; the pod itself is run by tests/deploy/test_pod.py"

TABLE = [
    Row("make", r"build", "takes minutes", "Makefile: `docs` depends on it"),
    Row("make", r"test", "these tests are a part of it", "Makefile"),
    Row("make", r"demo", "builds and installs, which `docs` depends on, and runs until Ctrl-C", "Makefile: the rest of it is run here", demo),
    Row("docker", r"build -f deploy/Dockerfile -t \S+ \.", DAEMON, BY_IMAGE),
    Row("docker", r"push registry\.example\.com/\S+", "needs a registry", NOBODY),
    Row("docker", r"run --rm --network host .*hookwarden:0\.1\.0 send .*", DAEMON, BY_COMPOSE, send_from_the_image),
    Row("docker", COMPOSE + r"(up --build( --detach)?|down --volumes)", DAEMON, BY_ENGINE),
    Row("docker", COMPOSE + r"(ps|restart hookwarden)", DAEMON, NOBODY),
    Row("docker", COMPOSE + r"logs .*(hookwarden|envoy)", DAEMON, BY_ENGINE, logs),
    Row("kubectl", r"create namespace \S+|-n \S+ create secret (generic|tls) .*", CLUSTER, "the same with --dry-run=client", dry_run),
    Row("kubectl", r"(apply|delete) -k deploy", CLUSTER, BY_KUBECTL, kustomize),
    Row("kubectl", r"apply -f deploy/kubernetes/podmonitor\.yaml", CLUSTER, BY_KUBECTL, read_files),
    Row("kubectl", r"apply -f deploy/recipes/istio/manifests\.yaml", CLUSTER, BY_RECIPES, read_files),
    Row("kubectl", r"-n webhooks rollout status deployment/\S+", CLUSTER, POD_ONLY),
    Row("kubectl", r"-n webhooks port-forward deployment/\S+ \d+( \d+)?", CLUSTER, POD_ONLY),
    Row("kubectl", r"-n webhooks logs .*", CLUSTER, POD_ONLY, logs),
    Row("kubectl", r"label namespace \S+ istio-injection=enabled", CLUSTER, NOBODY),
    Row("kubectl", r"-n webhooks get configmap hooks-hookwarden-sidecar -o jsonpath=.*", CLUSTER, BY_CHART),
    Row("kubectl", r"-n webhooks patch deployment app --patch-file patch\.yaml", CLUSTER, BY_CHART),
    Row("helm", r"install \S+ deploy/helm/hookwarden .*", CLUSTER, "`helm template` with the same arguments", template),
    Row("helm", r"upgrade istiod istio/istiod .* -f deploy/recipes/istio/mesh\.yaml", "needs a cluster and Istio's chart", BY_RECIPES, read_files),
    Row("helm", r"template .*", "is run as it is", BY_CHART, helm),
]


def row_for(program, arguments):
    program = "docker" if program == "docker-compose" else program
    line = " ".join(arguments)
    return next((row for row in TABLE if row.program == program and re.fullmatch(row.arguments, line)), None)


def main(program, *arguments):
    row = row_for(program, arguments)
    if row is None:
        with open(place() / "unlisted", "a") as unlisted:
            unlisted.write(shlex.join([program, *arguments]) + "\n")
        print(f"{program}: neither run nor listed in tests/docs/stand_ins.py", file=sys.stderr)
        return 97
    return row.play(list(arguments)) if row.play else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
