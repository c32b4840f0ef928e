"""Launchers of which one cannot start: the others learn why, and end."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from tests.hosts.hosts import Hosts
from tests.hosts.trainings import PORT, SECONDS, TINY, Job, environment

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


SCRIPT = """
import socket, sys, time
if socket.gethostname() == sys.argv[1]:
    sys.exit(3)  # as where a package is missing
from plsc import Entry
Entry()
time.sleep(600)
"""


@pytest.mark.parametrize("broken", [1, 2])
def test_the_launcher_tells_the_others_of_a_rank_that_ended_before_it_could(tmp_path, broken):
    """By plsc.launch alone. Without it the rank of the other machine would wait 600 s."""
    (tmp_path / "script.py").write_text(SCRIPT)
    with Hosts(2, tmp_path) as hosts:
        launchers = []
        for host in (1, 2):
            command = [sys.executable, "-m", "plsc.launch", "--nproc_per_node", "1", "--nnodes", "2", "--master",
                       f"n1:{PORT}", "--log_level", "WARNING", "--log_dir", str(tmp_path / f"log{host}"),
                       str(tmp_path / "script.py"), f"n{broken}"]  # fmt: skip
            launchers.append(hosts.start(host, command, env=environment(), stdout=subprocess.DEVNULL, stderr=2))
        codes = sorted(launcher.wait(SECONDS) for launcher in launchers)
    assert codes == [1, 3], codes
    logs = [path.read_text() for host in (1, 2) for path in sorted((tmp_path / f"log{host}").glob("workerlog.*"))]
    reason = r"stopped because of rank [01]: its process has ended with status 3, before .*; see .*workerlog.0 on n"
    assert sum(bool(re.search(f"{reason}{broken}", text)) for text in logs) == 1, logs
