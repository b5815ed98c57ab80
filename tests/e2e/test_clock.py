"""The calendar jumps under a running hookwarden: nothing panics, and what was delivered stays that.

libfaketime stands between the program and its calendar; time that only goes on is left alone, as on a machine whose clock
is set.
"""

import pathlib
import time

import pytest

import conftest
from harness import make_stack
from redis_server import reason, stripe
from stack import Unexpected, get, substitute, wait_for

LIBRARIES = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
]
HOUR, TEN_YEARS = 3600, 315_360_000


class Calendar:
    """What hookwarden believes to be now, by so many seconds."""

    def __init__(self, directory):
        self._file = directory / "calendar"
        self.jump(0)

    def environment(self):
        library = next((path for path in LIBRARIES if pathlib.Path(path).exists()), None)
        if not library:
            raise Unexpected("libfaketime is missing: `make faketime` installs it")
        return {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, by):
        new = self._file.with_suffix(".new")
        new.write_text(f"{by:+d}\n")
        new.replace(self._file)
        self.by = by

    def now(self):
        return time.time() + self.by


@pytest.fixture(params=["memory", "file"])
def clocked(request):
    calendars = []

    def make(directory):
        stack = make_stack(directory)
        calendars.append(Calendar(directory))
        stack.hookwarden.environment = calendars[0].environment()
        if request.param == "memory":
            text = stack.config.read_text()
            stack.config.write_text(substitute(text, (f"store: file://{directory}/state.redb", "store: memory")))
        return stack

    with conftest.Running(make) as stack:
        yield stack, calendars[0]
    conftest.RUNNING.remove(stack)


def told(stack, request):
    response = stack.send(request)
    return response.status, reason(stack, response)


def settled(stack, request):
    wait_for("it is settled", lambda: told(stack, request) == (409, "replayed"))


def test_the_calendar_jumps(clocked, figure):
    stack, calendar = clocked
    sent, accepted = [], 0
    for by in (HOUR, -HOUR, TEN_YEARS, -TEN_YEARS):
        before = stripe(stack)
        assert told(stack, before) == (200, "verified")
        settled(stack, before)
        sent.append(before)

        calendar.jump(by)
        stale = "timestamp_too_old" if by > 0 else "timestamp_too_new"
        wait_for("the calendar jumped", lambda: told(stack, stripe(stack)) == (401, stale))
        assert told(stack, before) == (401, stale)
        there = stripe(stack, at=calendar.now())
        assert told(stack, there) == (200, "verified"), "who has the same calendar is heard"
        settled(stack, there)

        calendar.jump(0)
        back = stripe(stack)
        wait_for("the calendar is right again", lambda: told(stack, back)[1] in ("verified", "replayed"))
        for request in sent:
            outcome = told(stack, request)
            accepted += outcome[0] == 200
            assert outcome == (409, "replayed"), by
        assert told(stack, there)[0] == 401
        assert get(stack.admin_url("/readyz"))[0] == 200

    # A start under a calendar that is wrong is a start all the same.
    for by in (TEN_YEARS, -TEN_YEARS):
        calendar.jump(by)
        stack.hookwarden.kill()
        stack.start_hookwarden()
        there = stripe(stack, at=calendar.now())
        assert told(stack, there) == (200, "verified")
        settled(stack, there)
        assert all(told(stack, request)[0] == 401 for request in sent)
    assert "a defect in hookwarden" not in stack.hookwarden.log_text()
    assert "hookwarden_panics_total 0\n" in stack.metrics()
    figure(f"calendar jumps of 1 h and 10 years, both ways: {len(sent)} replays after each, {accepted} accepted")
