"""The recipes for gateways: their fields, what they must not leave open, and hookwarden's side by hookwarden itself."""

import copy

import fields
import manifests
import pytest
import restricted
import tools
import yaml
from test_chart import checked, data_of, pods

RECIPES = tools.ROOT / "deploy" / "recipes"
NAMES = sorted(path.name for path in RECIPES.iterdir() if path.is_dir())
PUBLISHED = "istio.io", "gateway.networking.k8s.io"
every_recipe = pytest.mark.parametrize("name", NAMES)


def resources(name):
    return manifests.load((RECIPES / name / "manifests.yaml").read_text())


def chart(name):
    """What the recipe's values make of the chart, in the release and namespace that its README says."""
    values = RECIPES / name / "values.yaml"
    return manifests.load(tools.run("helm4", "template", "hookwarden", tools.CHART, "--namespace", "hookwarden", "--values", values))


def misfits(document):
    return fields.misfits(document["spec"], fields.RESOURCES[f"{document['apiVersion']} {document['kind']}"])


def test_there_is_one_for_each_gateway():
    assert NAMES == ["contour", "envoy-gateway", "istio", "kgateway"]
    for name in NAMES:
        assert {path.name for path in (RECIPES / name).iterdir()} >= {"README.md", "manifests.yaml", "values.yaml"}
        assert f"{name}/README.md" in (RECIPES / "README.md").read_text()


def test_published_schemas_accept_the_manifests():
    documents = [document for name in NAMES for document in resources(name) if document["apiVersion"].partition("/")[0].endswith(PUBLISHED)]
    assert {document["kind"] for document in documents} == {"AuthorizationPolicy", "PeerAuthentication", "Gateway", "HTTPRoute", "ReferenceGrant"}
    assert tools.judge(documents) == [[] for _ in documents]


@every_recipe
def test_the_other_fields_exist(name):
    for document in resources(name):
        if not document["apiVersion"].partition("/")[0].endswith(PUBLISHED):
            assert misfits(document) == []


def test_the_mesh_configuration_fits():
    assert fields.misfits(yaml.safe_load((RECIPES / "istio/mesh.yaml").read_text())["meshConfig"], fields.MESH) == []


def test_a_misspelt_field_is_found():
    for name in NAMES:
        for document in resources(name):
            if document["apiVersion"].partition("/")[0].endswith(PUBLISHED):
                continue
            for key in document["spec"]:
                wrong = copy.deepcopy(document)
                wrong["spec"][key + "s"] = wrong["spec"].pop(key)
                assert f"spec.{key}s: no such field" in misfits(wrong)
    policy = copy.deepcopy(resources("envoy-gateway")[2])
    policy["spec"]["extAuth"]["bodyToExtAuth"]["packAsBytes"] = True
    assert misfits(policy) == ["spec.extAuth.bodyToExtAuth.packAsBytes: no such field"]
    rule = copy.deepcopy(resources("istio")[0])
    rule["spec"]["actoin"] = rule["spec"].pop("action")
    assert tools.judge([rule]) != [[]]


@every_recipe
def test_hookwarden_is_installed_hardened_and_answers_only_the_gateway(name, tmp_path):
    documents = chart(name)
    assert manifests.against_schemas(documents, "1.37") == []
    assert manifests.loose_ends(documents, {"Secret/github-webhook"}) == []
    (pod,) = pods(documents)
    assert restricted.violations(pod) == [] and restricted.beyond(pod) == []
    (policy,) = manifests.of_kind(documents, "NetworkPolicy")
    asking, scraping = policy["spec"]["ingress"]
    assert asking["ports"][0]["port"] == 9191 and scraping["ports"][0]["port"] == 9193
    for peer in asking["from"]:
        assert peer["namespaceSelector"]["matchLabels"] and peer["podSelector"]["matchLabels"]
    config = checked(data_of(documents, "hookwarden.yaml"), tmp_path)
    assert config["listen"] == {"admin": "0.0.0.0:9193", "allow_plaintext": True, "ext_authz": "0.0.0.0:9191"}
    assert config["outcomes"] == "none"


@every_recipe
def test_the_gateway_is_pointed_at_what_the_chart_made(name):
    (service,) = manifests.of_kind(chart(name), "Service")
    assert (service["metadata"]["name"], service["spec"]["ports"][0]["port"]) == ("hookwarden", 9191)
    pointers = {
        "contour": [document["spec"]["services"][0] for document in resources(name) if document["kind"] == "ExtensionService"],
        "envoy-gateway": [
            document["spec"]["extAuth"]["grpc"]["backendRefs"][0] for document in resources(name) if document["kind"] == "SecurityPolicy"
        ],
        "istio": [{"name": "hookwarden", "port": _provider()["port"]}],
        "kgateway": [
            document["spec"]["extAuth"]["grpcService"]["backendRef"] for document in resources(name) if document["kind"] == "GatewayExtension"
        ],
    }[name]
    assert {(pointer["name"], pointer["port"]) for pointer in pointers} == {("hookwarden", 9191)}
    assert _provider()["service"] == "hookwarden.hookwarden.svc.cluster.local"


def _provider():
    (provider,) = yaml.safe_load((RECIPES / "istio/mesh.yaml").read_text())["meshConfig"]["extensionProviders"]
    return provider["envoyExtAuthzGrpc"]


def leaves(value, key):
    """Everything that is called `key`, however deep."""
    if isinstance(value, dict):
        yield from ([value[key]] if key in value else [])
        for item in value.values():
            yield from leaves(item, key)
    if isinstance(value, list):
        for item in value:
            yield from leaves(item, key)


@every_recipe
def test_nothing_fails_open(name):
    everything = [*resources(name), yaml.safe_load((RECIPES / "istio/mesh.yaml").read_text())]
    assert set(leaves(everything, "failOpen")) == {False}
    assert set(leaves(everything, "allowPartialMessage")) <= {False}
    assert set(leaves(everything, "packAsBytes")) <= {True}
    for danger in "clearRouteCache", "recomputeRoute", "percentageEnabled", "permitInsecure", "disabled", "disable":
        assert not list(leaves(everything, danger))


@every_recipe
def test_endpoints_are_found(name):
    """By the route, for an endpoint that exists; or by `match`."""
    endpoints = yaml.safe_load((RECIPES / name / "values.yaml").read_text())["config"]["endpoints"]
    named = {context["endpoint"] for key in ("context", "contextExtensions") for context in leaves(resources(name), key) if isinstance(context, dict)}
    named |= {
        item["value"]
        for items in leaves(resources(name), "contextExtensions")
        if isinstance(items, list)
        for item in items
        if item["name"] == "endpoint"
    }
    assert named <= endpoints.keys()
    assert all("match" in endpoint for key, endpoint in endpoints.items() if key not in named)


def test_what_each_gateway_cannot_do_is_provided_for():
    # Envoy Gateway sends text.
    endpoints = yaml.safe_load((RECIPES / "envoy-gateway/values.yaml").read_text())["config"]["endpoints"]
    assert all(endpoint["text_body"] is True for endpoint in endpoints.values())
    # Istio asks only about what a rule matches: everything.
    policy = resources("istio")[0]["spec"]
    assert policy["action"] == "CUSTOM" and policy["rules"] == [{}]
    # Contour asks on TLS virtual hosts only.
    (proxy,) = (document for document in resources("contour") if document["kind"] == "HTTPProxy")
    assert proxy["spec"]["virtualhost"]["tls"]
    # kgateway's own filter must pack bytes; on the route Envoy ignores it.
    (extension,) = (document for document in resources("kgateway") if document["kind"] == "GatewayExtension")
    assert extension["spec"]["extAuth"]["withRequestBody"]["packAsBytes"] is True
    # Where only routes with a policy are asked about, the whole Gateway has one.
    for name in "envoy-gateway", "kgateway":
        assert "Gateway" in {target["kind"] for targets in leaves(resources(name), "targetRefs") for target in targets}
