"""`kubectl apply -k deploy`: rendered by a real kubectl, and judged by official schemas and our own rules."""

import copy
import re

import manifests
import pytest
import restricted
import tools
import yaml

NATIVE = ["1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
PLAIN = ["1.27", "1.28", "1.29", *NATIVE]
KINDS = ["ConfigMap", "ConfigMap", "ConfigMap", "Deployment", "Namespace", "NetworkPolicy", "PodDisruptionBudget", "Secret", "Secret", "Service"]
MEGABYTES = {"MiB": 1, "Mi": 1}


def only(documents, kind):
    (document,) = manifests.of_kind(documents, kind)
    return document


def quantity(text):
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()
    return int(number) * MEGABYTES[unit]


@pytest.mark.parametrize("version", NATIVE)
def test_the_manifests_fit_the_schemas(deployment, version):
    assert sorted(document["kind"] for document in deployment) == KINDS
    assert manifests.against_schemas(deployment, version) == []


@pytest.mark.parametrize("version", PLAIN)
def test_the_manifests_with_plain_sidecars_fit_the_schemas(plain_deployment, version):
    assert manifests.against_schemas(plain_deployment, version) == []


def test_native_sidecars_do_not_fit_a_version_that_has_none(deployment):
    without_sleep = copy.deepcopy(only(deployment, "Deployment"))
    del without_sleep["spec"]["template"]["spec"]["containers"][0]["lifecycle"]
    (problem,) = manifests.against_schemas([without_sleep], "1.27")
    assert "'restartPolicy' was unexpected" in problem


def test_every_name_leads_somewhere(deployment, plain_deployment):
    assert manifests.loose_ends(deployment) == []
    assert manifests.loose_ends(plain_deployment) == []


def test_pods_are_restricted(deployment, plain_deployment):
    for documents in deployment, plain_deployment:
        ((_, template),) = manifests.templates(documents)
        assert restricted.violations(template) == []
        assert restricted.beyond(template) == []
    namespace = only(deployment, "Namespace")["metadata"]["labels"]
    assert {namespace[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}


def test_plain_sidecars_are_the_native_ones_in_another_place(deployment, plain_deployment):
    native, plain = (manifests.templates(documents)[0][1]["spec"] for documents in (deployment, plain_deployment))
    assert [container["name"] for container in native["initContainers"]] == ["hookwarden", "envoy"]
    assert all(container["restartPolicy"] == "Always" for container in native["initContainers"])
    assert "initContainers" not in plain
    moved = copy.deepcopy(native["initContainers"])
    for container in moved:
        del container["restartPolicy"]
    *sidecars, app = plain["containers"]
    assert sidecars == moved
    assert app["lifecycle"] == {"preStop": {"exec": {"command": ["sleep", "5"]}}}
    assert {**app, "lifecycle": None} == {**native["containers"][0], "lifecycle": None}
    # Of the rest nothing changes.
    rest = [document for document in deployment if document["kind"] != "Deployment"]
    assert rest == [document for document in plain_deployment if document["kind"] != "Deployment"]


def test_secrets_are_directories_that_can_be_rotated(deployment):
    spec = manifests.templates(deployment)[0][1]["spec"]
    hookwarden = spec["initContainers"][0]
    mounts = {mount["mountPath"]: mount for mount in hookwarden["volumeMounts"]}
    for path in "/etc/hookwarden", "/run/secrets":
        assert mounts[path].keys() == {"name", "mountPath", "readOnly"}
    # The application sees no secret, no configuration and no socket.
    assert [mount["name"] for mount in spec["containers"][0]["volumeMounts"]] == ["sample-app"]


def test_the_probes_ask_what_they_should(deployment):
    hookwarden, envoy = manifests.templates(deployment)[0][1]["spec"]["initContainers"]
    paths = {
        probe: (hookwarden[probe]["httpGet"]["path"], envoy[probe]["httpGet"]["path"])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert paths == {
        "startupProbe": ("/readyz", "/healthz"),
        "readinessProbe": ("/readyz", "/healthz"),
        # Liveness depends on nothing else: not on the configuration, not on the store.
        "livenessProbe": ("/livez", "/healthz"),
    }


def test_the_network_is_closed(deployment):
    spec = only(deployment, "NetworkPolicy")["spec"]
    assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    assert spec["egress"] == []
    assert {(port["port"], "from" in rule) for rule in spec["ingress"] for port in rule["ports"]} == {(8443, False), (9193, True)}


def test_the_egress_rules_in_comments_are_valid():
    text = (tools.ROOT / "deploy/kubernetes/networkpolicy.yaml").read_text()
    head, comments = text.split("  egress: []\n")
    rules = "".join(re.sub(r"^  # ", "  ", line) for line in comments.splitlines(keepends=True))
    document = yaml.safe_load(head + "  egress:\n" + rules)
    ports = [port["port"] for rule in document["spec"]["egress"] for port in rule["ports"]]
    assert ports == [53, 53, 6379, 443]
    assert manifests.against_schemas([document], "1.37") == []


def test_bodies_fit_into_memory(deployment):
    hookwarden = manifests.templates(deployment)[0][1]["spec"]["initContainers"][0]
    config = yaml.safe_load((tools.ROOT / "deploy/hookwarden.yaml").read_text())
    assert 2 * quantity(config["limits"]["bodies_in_flight"]) <= quantity(hookwarden["resources"]["limits"]["memory"])


def test_the_pod_monitor_fits_its_operator(deployment):
    monitor = yaml.safe_load((tools.ROOT / "deploy/kubernetes/podmonitor.yaml").read_text())
    assert tools.judge([monitor]) == [[]]
    assert manifests.loose_ends([*deployment, monitor]) == []


def test_the_judges_find_what_is_wrong(deployment):
    """Each wrong on purpose, in one place."""
    monitor = yaml.safe_load((tools.ROOT / "deploy/kubernetes/podmonitor.yaml").read_text())
    unknown, wrong = copy.deepcopy(monitor), copy.deepcopy(monitor)
    unknown["spec"]["podMetricsEndpoints"][0]["prot"] = "metrics"
    wrong["spec"]["podMetricsEndpoints"][0]["interval"] = "15 seconds"
    assert all(tools.judge([unknown, wrong]))

    service = copy.deepcopy(only(deployment, "Service"))
    service["spec"]["ports"][0]["tragetPort"] = 1
    assert len(manifests.against_schemas([service], "1.37")) == 1
    service = copy.deepcopy(only(deployment, "Service"))
    service["spec"]["ports"][0]["targetPort"] = "https"
    rest = [document for document in deployment if document["kind"] != "Service"]
    assert manifests.loose_ends([*rest, service]) == ["Service webhooks: no port https that every version finds"]
    without = [document for document in deployment if document["kind"] != "ConfigMap"]
    assert len(manifests.loose_ends(without)) == 3
