"""Ranks on several hosts that share a file system: the losses and files of one host with as many ranks, to the bit."""

from __future__ import annotations

import pytest

from tests.hosts.hosts import Hosts
from tests.hosts.trainings import PORT, Job, results, train_on_one_host


@pytest.mark.parametrize(("count", "local"), [(2, 2), (3, 1)])
def test_hosts_train_as_one_host_does(tmp_path, count, local):
    train_on_one_host(tmp_path / "one", count * local)
    with Hosts(count, tmp_path) as hosts:
        job = Job(hosts, tmp_path / "many", local, f"{hosts.address(1)}:{PORT}")
        assert job.codes() == [0] * count, job.all_said()
    losses, files = results(tmp_path / "many")
    assert (losses, files) == results(tmp_path / "one")
    assert len(losses) == 3 and sum(name.startswith("shard_") for name in files) == count * local
