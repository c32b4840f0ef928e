"""Files between ranks: what was asked for arrives whole, and strangers get nothing and delay nobody."""

from __future__ import annotations

import errno
import json
import socket
import threading
import time

import pytest

from plsc.parallel import file_service
from plsc.parallel.file_service import CHUNK_BYTES, FileServer, receive


@pytest.fixture
def served(tmp_path):
    """(server, contents): a large file, an empty one, one that is not there."""
    contents = {"large": bytes(range(256)) * (CHUNK_BYTES // 100), "empty": b""}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    server = FileServer("127.0.0.1", None, {name: str(tmp_path / name) for name in (*contents, "gone")})
    yield server, contents
    server.close()


def received(server, name, token=None) -> bytes:
    parts: list[bytes] = []
    host, port, own = server.address
    size = receive([host, port, token or own], name, lambda piece: parts.append(bytes(piece)))
    assert size == sum(map(len, parts))
    return b"".join(parts)


def test_files_arrive_whole(served):
    server, contents = served
    assert json.loads(json.dumps(server.address)) == server.address
    for name, data in contents.items():
        assert received(server, name) == data


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name, token, reason", [
    ("gone", None, "gone: No such file or directory"),
    ("../large", None, "the other rank closed the connection"),
    ("large", "0" * 32, "the other rank closed the connection"),
    ("large", "é", "the other rank closed the connection"),
])  # fmt: skip
def test_what_is_not_served_is_an_error_that_names_file_and_address(served, name, token, reason):
    server, _ = served
    with pytest.raises(OSError, match=reason) as error:
        received(server, name, token)
    assert str(error.value).startswith(f"{name} from 127.0.0.1:{server.address[1]}: ")


def test_strangers_change_nothing(served):
    server, contents = served
    strangers = []
    for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 10_000, b"[" * 4000 + b"\n", b"[]\n", b'{"token": 1}\n'):
        stranger = socket.create_connection(tuple(server.address[:2]))
        stranger.sendall(data)
        strangers.append(stranger)  # and stays
    assert received(server, "large") == contents["large"]
    for stranger in strangers[2:]:
        stranger.settimeout(10)
        try:
            assert stranger.recv(10) == b""
        except ConnectionResetError:
            pass
    for stranger in strangers:
        stranger.close()


def test_a_server_that_ends_in_the_middle_is_an_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as broken:
        def answer():
            client, _ = broken.accept()
            with client:
                client.recv(1000)
                client.sendall((100).to_bytes(8, "big") + b"x" * 60)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(OSError, match="it ended after 60 of 100 bytes"):
            receive(["127.0.0.1", broken.getsockname()[1], "token"], "f", lambda piece: None)
        thread.join()


def test_a_server_that_is_closed_takes_no_more(served):
    server, _ = served
    server.close()
    server.close()
    with pytest.raises(OSError, match="large from 127.0.0.1"):
        received(server, "large")


def test_the_port_is_one_of_the_range(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = FileServer("localhost", range(port, port + 1), {"f": str(tmp_path / "f")})
    assert server.address[1] == port and received(server, "f") == b"abc"
    server.close()


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(file_service, "SILENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(OSError, match="timed out"):
        receive(["127.0.0.1", silent.getsockname()[1], "token"], "f", lambda piece: None)


def test_a_network_that_is_cut_for_a_moment_is_waited_for(served, monkeypatch):
    server, contents = served
    connect, cuts = socket.create_connection, [errno.ENETUNREACH, errno.EHOSTUNREACH]

    def cut(*args, **kwargs):
        if cuts:
            raise OSError(cuts.pop(), "cut")
        return connect(*args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", cut)
    monkeypatch.setattr(file_service, "RETRY_SECONDS", 0.01)
    assert received(server, "large") == contents["large"] and not cuts
    monkeypatch.setattr(file_service, "SILENCE_SECONDS", 0.05)
    cuts += [errno.ENETUNREACH] * 1000
    with pytest.raises(OSError, match="large from 127.0.0.1:.*: cut"):
        received(server, "large")


def test_a_client_that_is_gone_before_it_is_accepted_ends_no_server(served, monkeypatch):
    server, contents = served
    accept, gone = socket.socket.accept, [errno.ECONNABORTED, errno.EMFILE]

    def failing(listening):
        if gone:
            raise OSError(gone.pop(), "gone")
        return accept(listening)

    monkeypatch.setattr(file_service, "SILENCE_SECONDS", 5)
    monkeypatch.setattr(socket.socket, "accept", failing)
    for _ in range(2):  # the first one wakes the thread that waits already
        assert received(server, "large") == contents["large"]
    assert not gone
    server.close()
    deadline = time.monotonic() + 10
    while any(thread.name == "plsc-files" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
