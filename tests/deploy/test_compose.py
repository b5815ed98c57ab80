"""`deploy/compose.yaml`, unchanged: Envoy, hookwarden and the sample application under Docker."""

import subprocess

import pytest
import yaml
from bases import MAKERS
from compose import ADMIN, HTTPS
from harness import sample
from stack import ROOT, get
from trial import IDS, IMAGE, Confinement, assert_as_expected, three_outcomes


def test_the_stand_ins_stand_for_what_the_files_name():
    composed = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    built_from = {line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM ")} - {"scratch"}
    assert built_from | {service["image"] for service in composed.values()} - {IMAGE} == set(MAKERS)


def test_compose_builds_the_same_image(compose, engine, image):
    compose.run("build", "hookwarden")
    assert engine.image(IMAGE) == image


def test_one_delivery_is_allowed_one_denied_and_a_challenge_answered(compose, trial, figure):
    requests, outcomes = three_outcomes(trial, compose)
    for name, outcome in outcomes.items():
        figure(f"compose, {name}: {outcome}")
    assert_as_expected(requests, outcomes)
    metrics = compose.metrics()
    assert sample(metrics, "hookwarden_panics_total") == 0
    assert sample(metrics, "hookwarden_store_up") == 1


def test_the_readme_says_how_to_send(engine, compose, trial):
    """Its own command, in a container of the image."""

    def send(secret):
        mount = f"{trial.deploy}/compose:/trial:ro"
        command = ["run", "--rm", "--network", "host", "--user", "0", "--volume", mount, IMAGE, "send", "--provider", "github"]
        options = ["--ca-file", "/trial/tls/ca.crt", "--url", f"https://localhost:{HTTPS}/github", "--body", '{"zen":"hi"}']
        done = subprocess.run(engine.command(*command, *options, "--secret-file", f"/trial/secrets/{secret}"), capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert "200" in send("github")
    assert "401" in send("slack")


@pytest.mark.parametrize("service", IDS)
def test_each_service_is_confined(compose, figure, service):
    confinement = Confinement.of(compose.pid(service))
    assert (confinement.user, confinement.group) == IDS[service]
    assert confinement.root_read_only and confinement.no_new_privileges
    assert confinement.capabilities == 0
    figure(f"compose, {service}: {confinement}")


def test_metrics_are_for_this_machine_only(compose):
    """Published on the host's loopback; deliveries are taken on every address."""
    assert compose.inspect("hookwarden", '{{(index (index .HostConfig.PortBindings "9193/tcp") 0).HostIp}}') == "127.0.0.1"
    assert get(f"http://127.0.0.1:{ADMIN}/livez")[0] == 200
