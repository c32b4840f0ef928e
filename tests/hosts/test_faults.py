"""A cable that is pulled during training: for a moment, and the run goes on; for ever, and all end and say why."""

from __future__ import annotations

import time

import pytest

from plsc.checkpoint import OneRank, latest, open_checkpoint
from tests.hosts.hosts import Hosts
from tests.hosts.trainings import PORT, Job

HEALED = 20  # seconds, after which the cable is put back: keep-alive packets have been lost by then
BOUND = 75  # 45 s without an answer (plsc.parallel.connection), and what launchers take to end on a busy machine


def steps_of(job: Job) -> int:
    return len((job.folder / "output" / "scalars.jsonl").read_text().splitlines())


@pytest.mark.slow
def test_a_cable_that_is_pulled(tmp_path):
    with Hosts(2, tmp_path) as hosts:
        job = Job(hosts, tmp_path / "many", 1, f"n1:{PORT}", ["-o", "train_steps=1000000", "-o", "save_period=20"])
        job.await_step(20)
        hosts.cut(2)
        time.sleep(1)
        before = steps_of(job)
        time.sleep(HEALED - 1)
        assert steps_of(job) - before <= 1, "they do not need the cable"
        hosts.heal(2)
        job.await_step(before + 20)
        hosts.cut(1)
        assert job.codes(BOUND) == [1, 1], job.all_said()
    for host, other in ((1, 1), (2, 0)):
        assert f"stopped because of rank {other}: its machine, or the network between, has not ans" in job.said(host)
    path = latest(str(job.folder / "output"))
    assert path is not None and open_checkpoint(path, OneRank())[1].step >= 20
