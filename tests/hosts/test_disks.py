"""Hosts that share no disk and are behind firewalls: together they have the files of one host, to the bit."""

from __future__ import annotations

import pytest

from tests.hosts.hosts import Hosts
from tests.hosts.trainings import PORT, Job, results, train_on_one_host


@pytest.mark.once
def test_two_hosts_with_disks_of_their_own_behind_firewalls(tmp_path):
    """Each has its shard, the other's as a copy, and the replicated tensors; all came through the open ports."""
    with Hosts(2, tmp_path) as hosts:
        for host in (1, 2):
            hosts.firewall(host, f"{PORT}-{PORT + 99}")
            hosts.run(host, "sysctl", "-w", f"net.ipv4.ip_local_port_range={PORT + 10} {PORT + 99}")
        options = ["--port-range", f"{PORT}-{PORT + 99}", "-o", f"model_save_dir={hosts.home}/output",
                   "-o", "checkpoint_replicas=1"]  # fmt: skip
        job = Job(hosts, tmp_path / "many", 1, f"{hosts.address(1)}:{PORT}", options)
        assert job.codes() == [0, 0], job.all_said()
        assert [hosts.dropped(host) for host in (1, 2)] == [0, 0]
        one = tmp_path / "one"
        train_on_one_host(one, 2)
        losses, files = results(one, 3)
        tensors = {name: data for name, data in files.items() if name.endswith(".safetensors")}
        assert len(tensors) == 3
        for host in (1, 2):
            (step,) = (hosts.disk(host) / "output" / "checkpoints").iterdir()
            assert {path.name: path.read_bytes() for path in step.glob("*.safetensors")} == tensors
            log = next((hosts.disk(host) / "output" / "logs").iterdir()).read_text()
            assert "model_save_dir is not shared" in log and "n1:" in log and "n2:" in log
        assert results(hosts.disk(1), 3)[0] == losses
