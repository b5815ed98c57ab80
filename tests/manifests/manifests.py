"""What every set of manifests must hold, whoever rendered it: official schemas, and that each name leads somewhere.

A schema sees one document. What holds a set together are names: of ports, ConfigMaps, labels. `loose_ends` follows them.
"""

import kubernetes_validate
import yaml

# Custom resources, judged by judge.mjs or by fields.py instead.
FOREIGN = "monitoring.coreos.com", "istio.io", "gateway.networking.k8s.io", "gateway.envoyproxy.io", "projectcontour.io", "gateway.kgateway.dev"


def load(text):
    return [document for document in yaml.safe_load_all(text) if document]


def is_foreign(document):
    return document["apiVersion"].partition("/")[0].endswith(FOREIGN)


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def templates(documents):
    return [(document["metadata"]["name"], document["spec"]["template"]) for document in of_kind(documents, "Deployment")]


def against_schemas(documents, version):
    """What the official schemas of that Kubernetes version say; unknown fields are errors."""
    problems = []
    for document in documents:
        if is_foreign(document):
            continue
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{document['kind']} {document['metadata']['name']}: {'.'.join(map(str, error.path))}: {error.message}")
    return problems


def loose_ends(documents, given=()):
    """Names that lead nowhere. `given` are ConfigMaps, Secrets and claims that somebody else makes."""
    return [end for name, template in templates(documents) for end in _of_pod(name, template, documents, set(given))] + [
        end for document in documents for end in _of_selection(document, documents)
    ]


def _of_pod(name, template, documents, given):
    spec = template["spec"]
    known = given | {f"{document['kind']}/{document['metadata']['name']}" for document in documents}
    volumes = {volume["name"] for volume in spec["volumes"]}
    for volume in spec["volumes"]:
        for kind, field, key in (
            ("ConfigMap", "configMap", "name"),
            ("Secret", "secret", "secretName"),
            ("Claim", "persistentVolumeClaim", "claimName"),
        ):
            if field in volume and f"{kind}/{volume[field][key]}" not in known:
                yield f"{name}: no {kind} {volume[field][key]}"
    account = spec.get("serviceAccountName")
    if account and f"ServiceAccount/{account}" not in known:
        yield f"{name}: no ServiceAccount {account}"
    mounted = set()
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        ports = {port["name"] for port in container.get("ports", ())}
        for probe in "startupProbe", "readinessProbe", "livenessProbe":
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            if isinstance(port, str) and port not in ports:
                yield f"{name}: {container['name']} is probed on port {port}, which it has not"
        mounts = {mount["name"] for mount in container.get("volumeMounts", ())}
        mounted |= mounts
        for volume in mounts - volumes:
            yield f"{name}: {container['name']} mounts {volume}, which is no volume"
    for volume in volumes - mounted:
        yield f"{name}: nobody mounts {volume}"


def _of_selection(document, documents):
    kind, spec = document["kind"], document.get("spec", {})
    name = f"{kind} {document['metadata']['name']}"
    selector = {
        "Service": lambda: spec["selector"],
        "Deployment": lambda: spec["selector"]["matchLabels"],
        "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
        "PodMonitor": lambda: spec["selector"]["matchLabels"],
        "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
    }.get(kind)
    if not selector:
        return
    selected = [template for _, template in templates(documents) if selector().items() <= template["metadata"]["labels"].items()]
    if not selected and not document["metadata"]["name"].endswith("-upstream"):
        yield f"{name}: selects no pod"
    for template in selected:
        spec_of_pod = template["spec"]
        ordinary = [port for container in spec_of_pod["containers"] for port in container.get("ports", ())]
        every = ordinary + [port for container in spec_of_pod.get("initContainers", ()) for port in container.get("ports", ())]
        if kind == "Service":
            for port in spec["ports"]:
                target = port.get("targetPort", port["port"])
                # Kubernetes before 1.32 looks for names in ordinary containers only (kubernetes/kubernetes#127958).
                found = (
                    target in {port["name"] for port in ordinary} if isinstance(target, str) else target in {port["containerPort"] for port in every}
                )
                if not found:
                    yield f"{name}: no port {target} that every version finds"
        if kind == "NetworkPolicy":
            for rule in spec.get("ingress", ()):
                for port in rule.get("ports", ()):
                    # Nor does every plugin know the names of native sidecars (projectcalico/calico#8881).
                    if port["port"] not in {port["containerPort"] for port in every}:
                        yield f"{name}: no port {port['port']} that every plugin finds"
        if kind == "PodMonitor":
            for endpoint in spec["podMetricsEndpoints"]:
                if endpoint["port"] not in {port["name"] for port in every}:
                    yield f"{name}: no port {endpoint['port']}"
