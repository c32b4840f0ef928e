"""A plugin for pytest with which a skipped test is one that failed:  pytest -p tests.no_skips

Complete runs use it (tools/test.sh): a test that is skipped for want of a package would pass with the package's name
misspelt. What one of the Paddles cannot run is not among its files (tests/parts.py)."""

from __future__ import annotations

import pytest


def _failed(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"no test is skipped in a complete run: {report.longrepr[-1]}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _failed((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _failed((yield))
