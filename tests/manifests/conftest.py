"""Where the renderings come from: kustomize over `deploy/`, and Helm over the chart."""

import functools
import shutil

import manifests
import pytest
import tools
import yaml

KUSTOMIZATION = tools.ROOT / "deploy" / "kustomization.yaml"


def copied_deployment(directory):
    """`deploy/` as kustomize reads it, with something in place of the secrets that nobody commits."""
    for name in "kustomization.yaml", "envoy.yaml", "hookwarden.yaml":
        shutil.copy(tools.ROOT / "deploy" / name, directory / name)
    for name in "kubernetes", "app":
        shutil.copytree(tools.ROOT / "deploy" / name, directory / name)
    for generator in yaml.safe_load(KUSTOMIZATION.read_text())["secretGenerator"]:
        for name in generator["files"]:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text("not a secret")
    return directory


@pytest.fixture(scope="session")
def deployment(tmp_path_factory):
    """The manifests of `kubectl apply -k deploy`."""
    return manifests.load(tools.run("kubectl", "kustomize", copied_deployment(tmp_path_factory.mktemp("native"))))


@pytest.fixture(scope="session")
def plain_deployment(tmp_path_factory):
    """The same for clusters without native sidecars: the two lines that are comments in kustomization.yaml are not."""
    directory = copied_deployment(tmp_path_factory.mktemp("plain"))
    text = (directory / "kustomization.yaml").read_text()
    changed = text.replace("# patches:", "patches:").replace("# - { path: kubernetes/plain-sidecar.yaml", "- { path: kubernetes/plain-sidecar.yaml")
    assert changed != text
    (directory / "kustomization.yaml").write_text(changed)
    return manifests.load(tools.run("kubectl", "kustomize", directory))


@functools.cache
def rendered(helm, *arguments):
    """What `helm template hooks CHART …` prints, as documents."""
    return manifests.load(tools.run(helm, "template", "hooks", tools.CHART, "--namespace", "webhooks", *arguments))
