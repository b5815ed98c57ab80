"""What the pages' YAML is, by its shape, and what completes it.

Most of it is a part: of `hookwarden.yaml`, of an endpoint, of Envoy's configuration. A part is put where it belongs in
something whole, and the whole is judged. Files that it names are made, in the form in which their provider hands them out.
"""

import pathlib
import re
import subprocess
import functools
import json

import pages
import throwaway
import yaml
from stack import BINARY

SECRET = "0123456789abcdef0123456789abcdef"
# Variables that the pages read secrets from.
VARIABLES = {"GITHUB_SECRET_OLD": SECRET, "STRIPE_TEST_SECRET": "whsec_" + SECRET}


@functools.cache
def schema():
    return json.loads(subprocess.run([BINARY, "schema"], capture_output=True, check=True).stdout)


def of_config():
    return set(schema()["properties"])


def of_endpoint():
    return set(schema()["$defs"]["Endpoint"]["properties"])


def make_material(directory):
    """A certificate, and secrets under `secrets`, as a machine would have them."""
    throwaway.make_certificate(directory / "tls", "localhost")
    throwaway.make_secrets(directory / "secrets")


def shape(block):
    """What a block is; nothing if it is nothing that is known here. Kubernetes', Compose's and Traefik's are only parsed."""
    documents = [document for document in yaml.safe_load_all(block.text) if document is not None]
    data = documents[0]
    if all(isinstance(document, dict) and {"apiVersion", "kind"} <= set(document) for document in documents):
        return "kubernetes"
    if isinstance(data, list):
        return "envoy filter" if all(item.get("name", "").startswith("envoy.filters.http.") for item in data) else None
    keys = set(data)
    if keys == {"typed_per_filter_config"}:
        return "envoy route"
    if "static_resources" in keys:
        return "envoy"
    if "services" in keys or keys == {"http"}:
        return "compose" if "services" in keys else "traefik"
    if keys & {"image", "routes", "upstream", "config", "networkPolicy"}:
        return "values of the chart"
    if "endpoints" in keys and keys <= of_config():
        return "configuration"
    if keys <= of_config():
        return "part of a configuration"
    if keys <= of_endpoint():
        return "part of an endpoint"
    if all(isinstance(value, dict) and {"provider", "scheme"} & set(value) for value in data.values()):
        return "endpoints"
    return None


def completed(block):
    """The block as a whole `hookwarden.yaml`."""
    kind, text = shape(block), block.text
    if kind == "part of a configuration":
        return text + f"endpoints: {{ completed: {{ provider: github, secrets: [{{ id: main, inline: {SECRET} }}] }} }}\n"
    if kind == "part of an endpoint":
        keys = set(yaml.safe_load(text))
        lines = [*(f"    {line}" for line in text.splitlines())]
        if not keys & {"provider", "scheme"}:
            lines.append("    provider: github")
        if not keys & {"secrets", "public_keys"}:
            lines.append(f"    secrets: [{{ id: main, inline: {SECRET} }}]")
        return "\n".join(["endpoints:", "  completed:", *lines, ""])
    if kind == "endpoints":
        return "endpoints:\n" + text
    assert kind == "configuration", (block.where, kind)
    return text


def with_files(text, directory):
    """The configuration, with every file that it names made in `directory`."""
    directory.mkdir(exist_ok=True)
    if not (directory / "tls").exists():
        throwaway.make_certificate(directory / "tls", "localhost")
    for number, (path, content) in enumerate(sorted(named_files(yaml.safe_load(text)).items())):
        file = directory / f"{number}-{pathlib.Path(path).name}"
        if content == "certificate":
            file = directory / "tls" / "ca.crt"
        elif content == "pem":
            throwaway.make_key_pair(directory / "unused.key", file)
        else:
            file.write_text(content)
        text = re.sub(rf"(?<=[ \"]){re.escape(path)}(?=[ \",}}\n])", str(file), text)
    return text


def named_files(config):
    """Each file that a configuration names, and what is in it."""
    found = {}
    for endpoint in (config.get("endpoints") or {}).values():
        for secret in endpoint.get("secrets", ()):
            if "file" in secret:
                found[secret["file"]] = "user:a password of this test" if secret.get("use") == "basic" else SECRET
        for key in endpoint.get("public_keys", ()):
            if "file" in key:
                found[key["file"]] = key["format"]
    redis = config.get("redis") or {}
    for password in "password", "sentinel_password":
        if "file" in redis.get(password, {}):
            found[redis[password]["file"]] = SECRET
    if "ca_file" in redis:
        found[redis["ca_file"]] = "certificate"
    return found


def whole_of_the_readme(directory):
    """The configuration that the README explains, with files of this machine."""
    (block,) = (b for b in pages.blocks("README.md") if b.language == "yaml" and shape(b) == "configuration")
    return with_files(block.text, directory / "material")
