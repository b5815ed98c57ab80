"""The judge of pods is judged: a good pod breaks nothing, and each fault, made alone, is named and nothing else is."""

import copy

import pytest
import restricted

GOOD = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "a",
                "image": "registry.example.com:5000/a:1",
                "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "1Mi"}},
                "securityContext": {
                    "runAsUser": 1,
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "s", "mountPath": "/s", "readOnly": True}],
            }
        ],
        "volumes": [{"name": "s", "secret": {"secretName": "s", "defaultMode": 0o440}}],
    },
}
SECURITY = "spec.containers.0.securityContext"
DELETE = object()


def changed(path, value):
    template = copy.deepcopy(GOOD)
    # An annotation's name has dots of its own.
    steps = path.split("|") if "|" in path else path.split(".")
    *way, last = (int(step) if step.isdigit() else step for step in steps)
    place = template
    for step in way:
        place = place[step] if isinstance(place, list) else place.setdefault(step, {})
    if value is DELETE:
        del place[last]
    else:
        place[last] = value
    return template


def test_a_good_pod_breaks_nothing():
    assert restricted.violations(GOOD) == [] and restricted.beyond(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("spec.hostNetwork", True, "hostNetwork"),
        ("spec.hostPID", True, "hostPID"),
        ("spec.hostIPC", True, "hostIPC"),
        ("spec.os", {"name": "windows"}, "windows"),
        ("spec.securityContext.windowsOptions", {"hostProcess": True}, "windows"),
        (f"{SECURITY}.windowsOptions", {"hostProcess": True}, "windows"),
        ("spec.volumes.0", {"name": "s", "hostPath": {"path": "/"}}, "volume hostPath"),
        ("spec.volumes.0", {"name": "s", "nfs": {"path": "/", "server": "a"}}, "volume nfs"),
        ("spec.securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}], "sysctl kernel.msgmax"),
        ("spec.securityContext.seLinuxOptions", {"type": "spc_t"}, "seLinuxOptions"),
        (f"{SECURITY}.seLinuxOptions", {"role": "sysadm_r"}, "seLinuxOptions"),
        (f"{SECURITY}.appArmorProfile", {"type": "Unconfined"}, "appArmorProfile"),
        ("metadata|annotations|container.apparmor.security.beta.kubernetes.io/a", "unconfined", "appArmorProfile"),
        (f"{SECURITY}.seccompProfile", {"type": "Unconfined"}, "seccompProfile"),
        ("spec.securityContext.seccompProfile", DELETE, "seccompProfile"),
        ("spec.securityContext.runAsNonRoot", DELETE, "runAsNonRoot"),
        (f"{SECURITY}.runAsNonRoot", False, "runAsNonRoot"),
        (f"{SECURITY}.runAsUser", 0, "runAsUser"),
        ("spec.securityContext.runAsUser", 0, "runAsUser"),
        (f"{SECURITY}.privileged", True, "privileged"),
        (f"{SECURITY}.procMount", "Unmasked", "procMount"),
        (f"{SECURITY}.allowPrivilegeEscalation", True, "allowPrivilegeEscalation"),
        (f"{SECURITY}.allowPrivilegeEscalation", DELETE, "allowPrivilegeEscalation"),
        (f"{SECURITY}.capabilities", {"drop": ["NET_RAW"]}, "capabilities drop"),
        (f"{SECURITY}.capabilities", DELETE, "capabilities drop"),
        (f"{SECURITY}.capabilities.add", ["SYS_ADMIN"], "capabilities add"),
        ("spec.containers.0.ports", [{"containerPort": 1, "hostPort": 1}], "hostPort"),
        ("spec.containers.0.readinessProbe.httpGet.host", "10.0.0.1", "probe host"),
        ("spec.containers.0.lifecycle", {"preStop": {"httpGet": {"host": "10.0.0.1", "port": 1}}}, "probe host"),
        (
            "spec.initContainers",
            [{"name": "b", "image": "b:1", "securityContext": {**GOOD["spec"]["containers"][0]["securityContext"], "privileged": True}}],
            "privileged",
        ),
        (
            "spec.ephemeralContainers",
            [{"name": "b", "image": "b:1", "securityContext": {**GOOD["spec"]["containers"][0]["securityContext"], "privileged": True}}],
            "privileged",
        ),
    ],
)
def test_each_fault_is_named(path, value, rule):
    assert [found for found, _ in restricted.violations(changed(path, value))] == [rule]


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("spec.automountServiceAccountToken", DELETE, "automountServiceAccountToken"),
        ("spec.enableServiceLinks", True, "enableServiceLinks"),
        (f"{SECURITY}.readOnlyRootFilesystem", False, "readOnlyRootFilesystem"),
        (f"{SECURITY}.runAsUser", DELETE, "runAsUser"),
        ("spec.containers.0.resources.limits", {"memory": "2Mi"}, "memory"),
        ("spec.containers.0.resources.requests", {"memory": "1Mi"}, "cpu"),
        ("spec.containers.0.image", "a", "image"),
        ("spec.containers.0.image", "registry.example.com:5000/a:latest", "image"),
        ("spec.containers.0.readinessProbe", DELETE, "readinessProbe"),
        ("spec.containers.0.volumeMounts.0.subPath", "s", "secret subPath"),
        ("spec.containers.0.volumeMounts.0.readOnly", False, "secret writable"),
        ("spec.volumes.0.secret.defaultMode", 0o444, "secret mode"),
        ("spec.volumes.0.secret.defaultMode", DELETE, "secret mode"),
        ("spec.volumes", [{"name": "s", "emptyDir": {}}], "emptyDir without sizeLimit"),
        ("spec.containers.0.env", [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "s"}}}], "secret in environment"),
        ("spec.containers.0.envFrom", [{"secretRef": {"name": "s"}}], "secret in environment"),
    ],
)
def test_each_fault_beyond_the_standard_is_named(path, value, rule):
    assert [found for found, _ in restricted.beyond(changed(path, value))] == [rule]
