"""The pod of `deploy/kubernetes/`, from the manifests as kubectl renders them, with no cluster: played by podman."""

import pytest
from pod import CHANGES
from trial import IDS, Confinement, assert_as_expected, outcome, three_outcomes


def test_one_delivery_is_allowed_one_denied_and_a_challenge_answered(pod, trial, figure):
    figure(f"pod: podman {pod.run('version', '--format', '{{.Client.Version}}').strip()}, {len(CHANGES)} changes to the rendered Deployment")
    requests, outcomes = three_outcomes(trial, pod)
    for name, seen in outcomes.items():
        figure(f"pod, {name}: {seen}")
    assert_as_expected(requests, outcomes)


@pytest.mark.parametrize("container", IDS)
def test_each_container_is_confined(pod, figure, container):
    confinement = Confinement.of(pod.pid(container))
    assert (confinement.user, confinement.group) == IDS[container]
    assert confinement.root_read_only and confinement.no_new_privileges and confinement.seccomp
    assert confinement.capabilities == 0
    figure(f"pod, {container}: {confinement}")


def test_a_secret_is_rotated_without_a_restart(pod, trial, directory, figure):
    processes = [pod.pid(container) for container in IDS]
    before = pod.reloads()
    new = directory / "rotated"
    new.write_text("a-new-secret-as-the-provider-hands-it-out")
    assert outcome(pod, trial.sign("github", new)).reason == "signature_mismatch"

    pod.rewrite("/run/secrets", "github", new.read_text())
    took = pod.wait_for_reload(before)

    rotated = outcome(pod, trial.sign("github", new))
    assert (rotated.status, rotated.reason, rotated.told["secret-id"]) == (200, "verified", "main")
    assert outcome(pod, trial.sign("github")).reason == "signature_mismatch"
    assert processes == [pod.pid(container) for container in IDS]
    figure(f"pod: a rewritten secret is in force after {took:.1f} s, without a restart; the old one is refused")
