"""Launchers of which one cannot start: the others learn why, and end."""

from __future__ import annotations

import time

import pytest

from tests.hosts.hosts import Hosts
from tests.hosts.trainings import PORT, TINY, Job

BOUND = 60  # seconds


@pytest.mark.parametrize("broken", [1, 2])  # the first is the one of --master
def test_a_machine_without_the_settings_ends_the_other_launcher(tmp_path, broken):
    whole = 3 - broken
    with Hosts(2, tmp_path) as hosts:
        (hosts.disk(whole) / "tiny.yaml").write_text(TINY)
        begun = time.monotonic()
        job = Job(hosts, tmp_path / "many", 1, f"n1:{PORT}", ["-c", str(hosts.home / "tiny.yaml")])
        assert job.codes(BOUND) == [1, 1], job.all_said()
        assert time.monotonic() - begun < BOUND
    reason = f"{hosts.home / 'tiny.yaml'}: cannot read the configuration"
    assert "telling the other machines for up to 30 s, at 10.77.0.1:6170: " + reason in job.said(broken)
    said = [line for line in job.said(whole).splitlines() if f"n{broken} (10.77.0.{broken}): " in line]
    assert len(said) == 1 and reason in said[0] and "Traceback" not in job.said(1) + job.said(2)
