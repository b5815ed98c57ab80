"""One Docker engine, one build and one set of throw-away secrets for all of it; and an end without remains."""

import os
import signal
import time

import pytest

import compose as composition
from bases import MAKERS, Workshop
from engine import Engine, Names
from pod import Pod
from remains import Directory, Forwarding
from trial import IMAGE, STAGE, Trial

FIGURES = []
RUNNING = []


def pytest_configure(config):
    if os.geteuid() != 0:
        pytest.exit("containers are started here, which needs root", returncode=2)
    if taken := composition.taken_ports():
        ports = " and ".join(map(str, taken))
        pytest.exit(f"taken by another program: port {ports}, which deploy/compose.yaml publishes; is a trial running?", returncode=2)
    # As Ctrl-C: whatever was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def figure():
    """Records a measured figure, printed when the tests are over."""
    return FIGURES.append


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        report.sections += [(f"logs of {type(running).__name__}", running.logs()) for running in RUNNING]


def pytest_terminal_summary(terminalreporter):
    for text in FIGURES:
        terminalreporter.write_line(f"measured: {text}")


@pytest.fixture(scope="session")
def directory():
    with Directory() as path, Forwarding():
        yield path


@pytest.fixture(scope="session")
def engine(directory, figure):
    with Engine(directory) as engine:
        version = engine.run("version", "--format", "{{.Server.Version}}").strip()
        figure(f"Docker engine {version}: {engine.way}")
        yield engine


@pytest.fixture(scope="session")
def bases(engine, directory, figure):
    """The base images, real or not."""
    with Names(engine, *MAKERS):
        workshop = Workshop(directory / "bases", engine.command())
        missing = [name for name in MAKERS if not engine.image(name)]
        start = time.monotonic()
        for name in missing:
            workshop.make(name)
        if missing:
            figure(f"stand-ins made here in {time.monotonic() - start:.0f} s: {', '.join(missing)}")
        yield


@pytest.fixture(scope="session")
def trial(directory):
    return Trial(directory)


@pytest.fixture(scope="session")
def image(engine, bases, trial, figure):
    """The production image, built as the README says, and named by Compose as well."""
    with Names(engine, IMAGE, STAGE):
        build = "docker", "build", "--network=host", "--cpu-shares=128", "--file", "deploy/Dockerfile"
        start = time.monotonic()
        engine.run_long(*build, "--target=build", "--tag", STAGE, ".", directory=trial.root)
        engine.run_long(*build, "--tag", IMAGE, ".", directory=trial.root)
        figure(f"deploy/Dockerfile built in {time.monotonic() - start:.0f} s")
        trial.extract_binary(engine)
        yield engine.image(IMAGE)


@pytest.fixture(scope="module")
def compose(engine, image, trial):
    with composition.Compose(engine, trial) as compose:
        RUNNING.append(compose)
        yield compose
        RUNNING.remove(compose)


@pytest.fixture(scope="module")
def pod(directory, engine, image, trial):
    with Pod(directory / "podman", engine, trial) as pod:
        RUNNING.append(pod)
        yield pod
        RUNNING.remove(pod)
