"""A plugin for pytest with which a test that hangs is one that failed:  pytest -p tests.time_limit

After the limit all stacks of Python go to stderr and the process ends, also where C code waits and holds Python's lock.
pytest-xdist says which test crashed its worker, and runs it once more in another one (--max-worker-restart in
tools/test.sh): what hangs always costs twice the limit, what hangs once has failed all the same.
"""

from __future__ import annotations

import faulthandler
import os

import pytest

# For a test and the fixtures that it is the first to use: the longest take 3 minutes beside two others on two cores.
SECONDS = float(os.environ.get("PLSC_TEST_LIMIT", 600))
STDERR = pytest.StashKey[int]()


def pytest_configure(config):
    config.stash[STDERR] = os.dup(2)  # pytest does not capture yet


def _watch(config) -> None:
    faulthandler.enable(config.stash[STDERR])  # plsc enables it for what pytest captures
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=config.stash[STDERR])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    _watch(item.config)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_unconfigure(config):
    _watch(config)  # what is called at the end of the process may wait too
