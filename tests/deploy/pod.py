"""The pod of `deploy/kubernetes/deployment.yaml`, played by Debian's podman.

ConfigMaps, Secrets and the Deployment come from kubectl's own `kustomize`, out of `deploy/kustomization.yaml`. Debian 12
has podman 4.3.1, which knows less than a kubelet. What it cannot take is changed by `CHANGES`, each of which says why
and fails when what it changes is not there; what it ignores is left in. The order of native sidecars is kept by hand.
"""

import base64
import contextlib
import os
import pathlib
import shutil
import subprocess
import time

import yaml
from client import Edge, Request, send
from harness import sample
from stack import Unexpected, get, run, wait_for
from trial import IMAGE, received

NAME = "webhooks-pod-0"
NETWORK = "hookwarden-test"
# podman publishes every `containerPort` at its own number.
HTTPS, ADMIN = 8443, 9193


# ── what this podman cannot take ─────────────────────────────────────────────────────────────────────────────────────


def sidecars_become_containers(deployment, pod):
    """It runs init containers one after the other to their end, and refuses those that have probes. It starts containers
    in no order that can be relied on, so `Pod` starts them, each when the one before is ready."""
    sidecars = pod.pop("initContainers")
    assert [sidecar["name"] for sidecar in sidecars] == ["hookwarden", "envoy"]
    for sidecar in sidecars:
        assert sidecar.pop("restartPolicy") == "Always"
    pod["containers"] = [*sidecars, *pod["containers"]]


def probes_are_asked_from_outside(deployment, pod):
    """It would run `curl` inside the container for an HTTP probe, where the image has one program and no other, and needs
    systemd to do it at intervals. `Pod` asks the startup probes' own paths. The other probes it does not know."""
    for container in pod["containers"]:
        assert container["name"] == "app" or container.pop("livenessProbe")["httpGet"]


def one_replica(deployment, pod):
    """It publishes ports on the machine, and a volume's name is the machine's: a second pod would want the same."""
    assert deployment["spec"].pop("replicas") == 2
    deployment["spec"]["replicas"] = 1


def envoy_finds_its_file_in_a_folder(deployment, pod):
    """It ignores `subPath` and mounts the whole ConfigMap, as a folder, where the file should be."""
    [container] = [container for container in pod["containers"] if container["name"] == "envoy"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "envoy-config"]
    assert mount.pop("subPath") == "envoy.yaml" and mount["mountPath"] == "/etc/envoy/envoy.yaml"
    mount["mountPath"] = "/etc/envoy/config"
    at = container["args"].index("/etc/envoy/envoy.yaml")
    container["args"][at] = "/etc/envoy/config/envoy.yaml"


def secrets_say_that_they_are_not_optional(deployment, pod):
    """Which is the default; but it follows the pointer without looking, and crashes."""
    secrets = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert len(secrets) == 2
    for secret in secrets:
        assert "optional" not in secret
        secret["optional"] = False


CHANGES = (
    sidecars_become_containers,
    probes_are_asked_from_outside,
    one_replica,
    envoy_finds_its_file_in_a_folder,
    secrets_say_that_they_are_not_optional,
)


def rendered(deploy):
    """What `kubectl apply -k` would send, by kind."""
    found = {}
    for document in yaml.safe_load_all(run(["kubectl", "kustomize", deploy])):
        found.setdefault(document["kind"], []).append(document)
    return found


def playable(documents):
    """The ConfigMaps and the changed Deployment."""
    [deployment] = documents["Deployment"]
    for change in CHANGES:
        change(deployment, deployment["spec"]["template"]["spec"])
    return yaml.safe_dump_all([*documents["ConfigMap"], deployment])


# ── podman ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Pod:
    """Played for as long as the block lasts, by a podman whose images, volumes and networks are all in one directory."""

    def __init__(self, directory, engine, trial):
        self._directory = directory
        self._engine = engine
        self._trial = trial
        self._environment = {**os.environ, "CONTAINERS_CONF": str(directory / "containers.conf")}
        self.edge = Edge(HTTPS, trial.ca)

    def command(self, *arguments):
        places = f"--root={self._directory}/root", f"--runroot={self._directory}/run", f"--network-config-dir={self._directory}/networks"
        # Docker's runtime: Debian's other one refuses a machine that has both versions of control groups.
        return ["podman", *places, "--runtime=runc", "--cgroup-manager=cgroupfs", *map(str, arguments)]

    def run(self, *arguments, text=None):
        done = subprocess.run(self.command(*arguments), env=self._environment, input=text, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise Unexpected(f"podman {arguments[0]} ended with {done.returncode}: {done.stderr[-4000:]}{done.stdout[-4000:]}")
        return done.stdout

    def __enter__(self):
        self._directory.mkdir()
        (self._directory / "networks").mkdir()
        self._configure()
        with contextlib.ExitStack() as failed:
            failed.callback(self.__exit__)
            try:
                self._load_images()
                self._play()
                self._start_in_order()
            except Unexpected as error:
                raise Unexpected(f"{error}\n{self.logs()}") from error
            failed.pop_all()
        return self

    def __exit__(self, *_):
        for words in ("pod", "rm", "--all", "--force"), ("volume", "rm", "--all", "--force"), ("network", "rm", "--force", NETWORK):
            subprocess.run(self.command(*words), env=self._environment, capture_output=True, check=False)
        # Which addresses are taken is written down outside the directory, and stays there when the network goes.
        shutil.rmtree(f"/var/lib/cni/networks/{NETWORK}", ignore_errors=True)

    def _configure(self):
        # Its own defaults are more than root may have on some machines, and then nothing starts. As many as any process
        # here needs.
        limits = '["nofile=4096:4096", "nproc=4096:4096"]'
        (self._directory / "containers.conf").write_text(f"[containers]\ndefault_ulimits = {limits}\n")

    def _load_images(self):
        archive = self._directory / "images.tar"
        with open(archive, "wb") as file:
            subprocess.run(self._engine.command("save", *self._images()), stdout=file, check=True)
        self.run("load", "--quiet", "--input", archive)
        archive.unlink()

    def _images(self):
        self._documents = rendered(self._trial.deploy)
        pod = self._documents["Deployment"][0]["spec"]["template"]["spec"]
        images = {container["image"] for container in [*pod["initContainers"], *pod["containers"]]}
        assert IMAGE in images
        return sorted(images)

    def _play(self):
        for secret in self._documents["Secret"]:
            # From a stream it would mount the values as they stand there, in base64. Made by hand, they are not decoded
            # either; so these are written plainly.
            plain = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
            self.run("secret", "create", secret["metadata"]["name"], "-", text=yaml.safe_dump({**secret, "data": plain}))
        self.run("network", "create", NETWORK)
        self.run("kube", "play", "--start=false", f"--network={NETWORK}", "-", text=playable(self._documents))

    def _start_in_order(self):
        """As a kubelet does, by the startup probes. A volume that nobody has used yet gets the owner of the first that
        mounts it, which is what `fsGroup`, unknown to this podman, is there for."""
        self.run("start", f"{NAME}-hookwarden")
        wait_for("hookwarden's startup probe", lambda: get(f"http://127.0.0.1:{ADMIN}/readyz")[0] == 200, 60)
        self.run("start", f"{NAME}-envoy", f"{NAME}-app")
        healthz = Request("GET", f"https://localhost:{HTTPS}/healthz")
        wait_for("Envoy's startup probe", lambda: send(self.edge, healthz).status == 200, 60)
        ready = self._documents["Deployment"][0]["spec"]["template"]["spec"]["containers"][-1]["readinessProbe"]["exec"]["command"]
        wait_for("the application's readiness probe", lambda: self.succeeds("exec", f"{NAME}-app", *ready), 30)

    def succeeds(self, *arguments):
        return subprocess.run(self.command(*arguments), env=self._environment, capture_output=True, check=False).returncode == 0

    def inspect(self, container, template):
        return self.run("inspect", "--format", template, f"{NAME}-{container}").strip()

    def pid(self, container):
        return int(self.inspect(container, "{{.State.Pid}}"))

    def rewrite(self, mount, name, content):
        """Puts a new file in the place of one that hookwarden has mounted."""
        template = '{{range .Mounts}}{{if eq .Destination "' + mount + '"}}{{.Source}}{{end}}{{end}}'
        file = pathlib.Path(self.inspect("hookwarden", template)) / name
        new = file.with_name(f".{name}.new")
        new.write_text(content)
        new.chmod(file.stat().st_mode)
        new.rename(file)

    def wait_for_reload(self, before):
        """Until hookwarden has applied one more configuration than `before`; returns how long that took."""
        start = time.monotonic()
        wait_for("the new secret is in force", lambda: self.reloads() > before, 30)
        return time.monotonic() - start

    def reloads(self):
        return sample(self.metrics(), "hookwarden_config_reloads_total", outcome="applied")

    def metrics(self):
        return get(f"http://127.0.0.1:{ADMIN}/metrics")[1]

    def received(self, path=""):
        return received(lambda command: self.run("exec", f"{NAME}-app", *command), path)

    def logs(self):
        texts = []
        for container in "hookwarden", "envoy", "app":
            done = subprocess.run(self.command("logs", "--tail", "20", f"{NAME}-{container}"), env=self._environment, capture_output=True, text=True, check=False)
            texts += [f"  {container}: {line[:300]}" for line in (done.stdout + done.stderr).splitlines()]
        return "\n".join(texts)
