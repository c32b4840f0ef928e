"""Ranks on several hosts that share a file system: the losses and files of one host with as many ranks, to the bit."""

from __future__ import annotations

from plsc.engine.run.stopping import EXIT_STOPPED
from tests.hosts.hosts import Hosts
from tests.hosts.trainings import PORT, Job, results, train_on_one_host

DEBIAN = "127.0.1.1"  # what the name of a machine is in its own /etc/hosts


def require_equal(job: Job, world_size: int) -> None:
    assert job.codes() == [0] * len(job.launchers), job.all_said()
    one = job.folder.with_name("one")
    train_on_one_host(one, world_size)
    losses, files = results(job.folder, 3)
    assert (losses, files) == results(one, 3)
    assert len(losses) == 3 and sum(name.startswith("shard_") for name in files) == world_size


def test_two_hosts_with_two_ranks_each(tmp_path):
    with Hosts(2, tmp_path) as hosts:
        require_equal(Job(hosts, tmp_path / "many", 2, f"{hosts.address(1)}:{PORT}"), 4)


def test_three_hosts_whose_own_names_are_loopback_addresses_are_stopped(tmp_path):
    """The rendezvous is given by name, and no host finds its address by its own name. SIGTERM to one launcher: all save
    what one host has after as many steps, and all end with 75. What listens is on their network, in one range."""
    own = {host: {f"n{host}": DEBIAN} for host in (1, 2, 3)}
    with Hosts(3, tmp_path, own_names=own) as hosts:
        options = ["-o", "train_steps=100000", "--port-range", "20000-20099"]
        job = Job(hosts, tmp_path / "many", 1, "n1:20000", options)
        job.await_step(3)
        # Of the launcher and the ranks, and, with Paddle 3, its store, which cannot be bound to an address.
        servers, store = hosts.listening(1), {("0.0.0.0", port) for port in range(20000, 20100)}
        assert len(servers) in (2, 3) and len(servers & store) == len(servers) - 2 and ("10.77.0.1", 20000) in servers
        assert all(address == "10.77.0.1" and 20000 <= port < 20100 for address, port in servers - store), servers
        assert hosts.listening(2) == hosts.listening(3) == set()
        job.launchers[2].terminate()
        assert job.codes() == [EXIT_STOPPED] * 3, job.all_said()
    steps = len((job.folder / "output" / "scalars.jsonl").read_text().splitlines())
    assert "listen on any port of 32768-60999 (net.ipv4.ip_local_port_range)" in job.said(2)
    losses, files = results(job.folder, steps)
    train_on_one_host(tmp_path / "one", 3, "-o", f"train_steps={steps + 1}", "-o", f"save_period={steps}")
    expected, their_files = results(tmp_path / "one", steps)
    assert losses == expected and len(losses) == steps >= 3
    shards = {name for name in files if name.endswith(".safetensors")}  # the manifest has the train_steps asked for
    assert len(shards) == 4 and {name: files[name] for name in shards} == {name: their_files[name] for name in shards}


def test_two_interfaces_of_which_one_is_cut_off_behind_firewalls(tmp_path):
    """All that listens is on eth1 and in one range of ports; what else came would have been dropped."""
    names = {f"n{host}": f"10.78.0.{host}" for host in (1, 2)}
    own = {host: {f"n{host}": DEBIAN} for host in (1, 2)}
    options = ["--interface", "eth1", "--port-range", "20000-20099"]
    with Hosts(2, tmp_path, networks=2, names=names, own_names=own) as hosts:
        for host in (1, 2):
            hosts.cut(host, network=0)
            hosts.firewall(host, "20000-20099")
            hosts.run(host, "sysctl", "-w", "net.ipv4.ip_local_port_range=20010 20099")
        job = Job(hosts, tmp_path / "many", 1, "n1:20000", options)
        require_equal(job, 2)
        assert "ip_local_port_range" not in job.said(1) + job.said(2)
        assert [hosts.dropped(host) for host in (1, 2)] == [0, 0]
