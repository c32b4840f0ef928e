"""The connections of a port send small messages at once; nothing else of the process is touched."""

from __future__ import annotations

import fcntl
import os
import socket

import pytest

from plsc.parallel.nodelay import disable_nagle


def waits(connection: socket.socket) -> bool:
    return not connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def pair(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(server.getsockname())
    return client, server.accept()[0]


@pytest.fixture
def servers():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        yield one, other


def test_both_ends_of_the_port_and_those_that_come_later(servers):
    ends = pair(servers[0])
    assert all(map(waits, ends))
    disable_nagle(servers[0].getsockname()[1])
    assert not any(map(waits, ends))
    _, later = pair(servers[0])
    assert not waits(later)  # the side that listens handed it on


def test_other_ports_and_other_kinds_of_sockets_stay_as_they_are(servers):
    ends = pair(servers[1])
    local = socket.socketpair()
    disable_nagle(servers[0].getsockname()[1])
    assert all(map(waits, ends))
    local[0].sendall(b"x")
    assert local[1].recv(1) == b"x"


def test_files_are_left_alone(servers, tmp_path):
    """No descriptor stays open; POSIX drops the locks of a process on a file when any descriptor of it is closed."""
    with open(tmp_path / "locked", "wb") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        before = sorted(os.listdir("/proc/self/fd"))
        disable_nagle(servers[0].getsockname()[1])
        assert sorted(os.listdir("/proc/self/fd")) == before
        child = os.fork()
        if child == 0:
            try:
                with open(tmp_path / "locked", "wb") as again:
                    fcntl.lockf(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
