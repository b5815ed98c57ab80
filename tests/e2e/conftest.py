"""Fixtures, and what a failing test shows: the tails of every program's log."""

import pathlib
import shutil
import tempfile

import pytest

import stack as machinery
from harness import make_stack

RUNNING = []
FIGURES = []


def pytest_configure(config):
    if not machinery.BINARY.exists():
        pytest.exit(f"{machinery.BINARY} is missing: build it with `cargo build --release --locked`", returncode=2)


class Running:
    """A stack in a directory that goes with it, known to the failure report while it runs."""

    def __init__(self, make):
        # Not pytest's own directory: its path can be too long for a Unix socket.
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix="hookwarden-e2e-"))
        self.stack = make(self._directory)

    def __enter__(self):
        RUNNING.append(self.stack)
        return self.stack.__enter__()

    def __exit__(self, *details):
        self.stack.__exit__(*details)
        shutil.rmtree(self._directory, ignore_errors=True)


@pytest.fixture(scope="session")
def stack():
    """One stack for all tests that only send deliveries."""
    with Running(make_stack) as stack:
        yield stack
    RUNNING.remove(stack)


@pytest.fixture
def own_stack():
    """A stack of its own, for tests that kill, signal or reconfigure it."""
    with Running(make_stack) as stack:
        yield stack
    RUNNING.remove(stack)


@pytest.fixture
def figure():
    """Records a measured figure, printed when the tests are over."""
    return lambda text: FIGURES.append(text)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for stack in RUNNING:
            for program in stack.programs():
                report.sections.append((f"log of {program.name}", program.log_tail()))


def pytest_terminal_summary(terminalreporter):
    for text in FIGURES:
        terminalreporter.write_line(f"measured: {text}")
