"""The control connections: exchanges, failures, and foreign connections, which change nothing whenever they come."""

from __future__ import annotations

import http.server
import os
import re
import resource
import signal
import socket
import threading
import time

import pytest

from plsc.errors import LaunchError, PeerError, TrainingError
from plsc.parallel import channel as channel_module
from plsc.parallel import hub as hub_module
from plsc.parallel import joining
from plsc.parallel import spoke as spoke_module
from plsc.parallel.channel import Channel
from plsc.parallel.connection import CUT_SECONDS, Connection, set_options
from plsc.parallel.environment import Environment
from plsc.parallel.frames import Decoder, Limits, encode
from plsc.parallel.hello import TOKEN, hello
from plsc.parallel.hub import allow_files, listen_at
from plsc.parallel.on_behalf import report_ended
from tests.parallel.control_kit import control, controls, environments, gather, leave, start, together


def test_values_of_all_ranks_in_order_also_large_ones():
    """Larger than the buffers of the sockets, and different on each rank."""
    with controls(3) as made:
        channels = [Channel(each, "x") for each in made]
        values = [[f"{rank}" * 100] * 20_000 for rank in range(3)]
        assert together(lambda rank: gather(channels[rank], values[rank]), 3) == [values] * 3
        assert together(lambda rank: gather(channels[rank], rank, first_only=True), 3) == [[0]] * 3


def test_threads_beside_each_other_in_any_order():
    """Two channels, of which each rank begins another one first; none waits for the other."""
    with controls(2) as made:
        sides = [[Channel(each, name) for name in ("a", "b")] for each in made]

        def work(number: int) -> list:
            rank, side = number % 2, number // 2
            time.sleep(0.05 * (rank ^ side))
            return [gather(sides[rank][side], [rank, side, turn]) for turn in range(20)]

        for number, found in enumerate(together(work, 4)):
            assert found == [[[rank, number // 2, turn] for rank in (0, 1)] for turn in range(20)]


@pytest.mark.parametrize("world_size", [2, 7])
def test_an_exchange_takes_two_messages_for_each_rank(monkeypatch, world_size):
    with controls(world_size) as made:
        start(made)
        sent, send = [], Connection.send
        def counted(self, pieces):
            pieces = list(pieces)
            sent.extend([1] * (b'{"beat"' not in pieces[0]))
            send(self, pieces)

        monkeypatch.setattr(Connection, "send", counted)
        channels = [Channel(each, "x") for each in made]
        together(lambda rank: gather(channels[rank], rank), world_size)
        assert len(sent) == 2 * (world_size - 1)


def strangers_hellos(env: Environment) -> list[bytes]:
    """What is almost the hello of rank 1 or 2 of three."""
    right = hello(env)
    changes = [
        {"run": "0" * 64}, {"run": None}, {"plsc": 2}, {"plsc": None}, {"rank": 0}, {"rank": 3}, {"rank": -1},
        {"rank": "1"}, {"rank": True}, {"rank": 10**50}, {"rank": None},
    ]  # fmt: skip
    return [b"".join(encode({**right, **change})) for change in changes]


def foreign(env: Environment) -> list[socket.socket]:
    """Connections to rank 0 that say nothing, something else, a part of a message, or what is almost a hello."""
    said = [b""] * 7 + [
        b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03" * 100, b"\xff" * 64, b"PLSC", b"".join(encode(hello(env)))[:-1],
        b"".join(encode({"gather": "start", "call": 1, "first": False}, b"9")),
        b"".join(encode({"failed": "rank 1: x"})),
        *strangers_hellos(env),
    ]  # fmt: skip
    made = []
    for data in said:
        made.append(connect(env))
        made[-1].sendall(data)
    return made


def connect(env: Environment) -> socket.socket:
    deadline = time.monotonic() + 30
    while True:
        try:
            host, port = env.endpoints[0].rsplit(":", 1)
            return socket.create_connection((host, int(port)), timeout=30)
        except OSError:  # rank 0 does not listen yet
            assert time.monotonic() < deadline
            time.sleep(0.01)


def is_closed(stranger: socket.socket) -> bool:
    """Whether rank 0 has closed the connection, perhaps after a word."""
    stranger.settimeout(0.05)
    try:
        while stranger.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


def test_strangers_change_nothing_whenever_they_come(capfd):
    envs = environments(3)
    hub = control(envs[0])
    strangers = foreign(envs[1])
    made = [hub, control(envs[1]), control(envs[2])]
    start(made)
    strangers += foreign(envs[1])
    again = connect(envs[1])  # somebody who has listened cannot take a rank that is taken
    again.sendall(b"".join(encode(hello(envs[2]))))
    found = list(Decoder(Limits(10**6, 0)).feed(again.recv(10**6)))
    assert "rank 2 is there already: process " in found[0][0]["refused"]
    channels = [Channel(each, "later") for each in made]
    assert together(lambda rank: gather(channels[rank], rank), 3) == [[0, 1, 2]] * 3
    assert not any(each.failure_reason(0) for each in made)
    for number, stranger in enumerate(strangers):
        talks = number % (len(strangers) // 2) >= 7 and number % (len(strangers) // 2) not in (10, 11)
        assert is_closed(stranger) == talks  # the others may still become ranks
    said = capfd.readouterr().err
    assert said.count("it has refused process") == 5  # not as many lines as a stranger likes
    for stranger in [*strangers, again]:
        stranger.close()
    assert not any(each.failure_reason(0.02) for each in made)
    leave(made)


def test_a_hello_may_come_in_pieces():
    envs = environments(2)
    hub = control(envs[0])
    ours = connect(envs[1])
    for byte in b"".join(encode(hello(envs[1]))):
        ours.sendall(bytes([byte]))
    assert next(Decoder(Limits(1000, 0)).feed(ours.recv(1000)))[0].keys() == {"welcome"}
    ours.close()
    assert hub.failure_reason(30) == "rank 1: it was killed or crashed"
    leave([hub])


def test_ranks_know_one_another_by_a_token(monkeypatch):
    envs = environments(2)
    monkeypatch.setenv(TOKEN, "one")
    hub = control(envs[0])
    channel = Channel(hub, "x")
    hello(envs[0])
    ours = connect(envs[1])
    monkeypatch.setenv(TOKEN, "other")
    wrong = b"".join(encode(hello(envs[1])))
    assert b"one" not in wrong and b"other" not in wrong
    monkeypatch.setenv(TOKEN, "one")
    ours.sendall(wrong)
    refused = next(Decoder(Limits(1000, 0)).feed(ours.recv(1000)))[0]["refused"]
    assert "another run" in refused and TOKEN in refused
    spoke = control(envs[1])
    assert together(lambda rank: gather([channel, Channel(spoke, "x")][rank], rank), 2) == [[0, 1]] * 2
    leave([hub, spoke])


def test_a_second_process_of_a_rank_is_refused_and_says_so():
    with controls(2) as made:
        start(made)
        again = control(made[1].env)
        with pytest.raises(LaunchError, match=r"has refused rank 1: rank 1 is there already: .*; start each rank once"):
            gather(Channel(again, "start"), 1)
        assert not any(each.failure_reason(0.05) for each in made)


@pytest.mark.parametrize("most", [-1, 3])  # and two ranks; -1: who speaks while the next one comes is forgotten
@pytest.mark.parametrize("said", [b"", b"P"])
def test_many_strangers_do_not_use_up_the_files(monkeypatch, most, said):
    monkeypatch.setattr(hub_module, "_MAX_STRANGERS", most)
    envs = environments(2)
    hub = control(envs[0])
    before, strangers = len(os.listdir("/proc/self/fd")), []
    for _ in range(20):
        strangers.append(connect(envs[1]))
        strangers[-1].sendall(said)
    spoke = control(envs[1])
    start([hub, spoke])
    assert len(os.listdir("/proc/self/fd")) - before < 20 + 12  # our ends of theirs, and a few
    for stranger in strangers:
        stranger.close()
    leave([hub, spoke])


def test_a_rank_comes_in_where_strangers_hold_all_files():
    envs = environments(2)
    hub = control(envs[0])
    strangers = [connect(envs[1]) for _ in range(30)]
    while len(hub._strangers) < 30:
        time.sleep(0.01)
    before, free = resource.getrlimit(resource.RLIMIT_NOFILE), os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 4, before[1]))  # three of its loop, its connection
    try:
        spoke = control(envs[1])
        start([hub, spoke])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for stranger in strangers:
        stranger.close()
    leave([hub, spoke])


def test_who_is_missing_is_said_and_named_at_the_end(monkeypatch, capfd):
    monkeypatch.setattr(channel_module, "_FIRST_LINE", 1.0)
    envs = environments(4)
    made = [control(envs[0]), control(envs[1]), control(envs[3])]
    channels = [Channel(each, "x") for each in made[:2]]
    for channel in channels:
        channel.says_who = True
    found = together(lambda number: gather(channels[number], 0, seconds=3), 2)
    missing = (
        "rank(s) 2 (127.0.0.1), not started yet, or without a way to rank 0; "
        "rank(s) 3 (127.0.0.1), started, but not as far as this rank"
    )
    assert [str(error) for error in found] == [f"waited 3 seconds for {missing}"] * 2
    assert all(type(error) is TrainingError for error in found)
    said = capfd.readouterr().err
    assert [f"plsc: [rank {rank}] it has waited 1 s for {missing}" in said for rank in (0, 1)] == [True, True]
    leave(made)


def test_a_rank_that_cannot_reach_rank_0_says_why():
    spoke = control(environments(2)[1])
    with pytest.raises(TrainingError, match=r"rank 0 \(127.0.0.1:\d+\), which cannot be reached: Connection refused"):
        gather(Channel(spoke, "x"), 0, seconds=0.3)
    leave([spoke])


def test_a_silent_program_at_the_port_of_rank_0_is_not_rank_0():
    envs = environments(2)
    with listen_at(envs[0].endpoints[0], 5):
        spoke = control(envs[1])
        with pytest.raises(TrainingError, match="which does not answer"):
            gather(Channel(spoke, "x"), 0, seconds=0.3)
    hub = control(envs[0])  # it comes when the other program has gone
    channels = [Channel(hub, "y"), Channel(spoke, "y")]
    assert together(lambda rank: gather(channels[rank], rank), 2) == [[0, 1]] * 2
    leave([hub, spoke])


def test_a_program_that_answers_in_the_place_of_rank_0_is_not_waited_for(monkeypatch):
    """A web server, as most programs are that hold a port; it answers to a line."""
    monkeypatch.setattr(spoke_module, "STRANGER_SECONDS", 0.3)
    handler = type("Quiet", (http.server.BaseHTTPRequestHandler,), {"log_message": lambda *rest: None})
    env = environments(2)[1]
    host, port = env.endpoints[0].split(":")
    with http.server.HTTPServer((host, int(port)), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        spoke = control(env)
        with pytest.raises(LaunchError, match=f"another program listens at {env.endpoints[0]}, .* it has ans"):
            gather(Channel(spoke, "x"), 0, seconds=60)
        assert spoke.untold() == ""
        server.shutdown()
    leave([spoke])


def test_a_proxy_of_a_rank_0_that_is_to_come_is_waited_for(monkeypatch):
    """It accepts connections and closes them, as it has nobody to pass them on to."""
    monkeypatch.setattr(spoke_module, "STRANGER_SECONDS", 0.0)
    envs = environments(2)
    with listen_at(envs[0].endpoints[0], 5) as proxy:
        spoke = control(envs[1])
        for _ in range(3):
            proxy.accept()[0].close()
    hub = control(envs[0])
    channels = [Channel(hub, "y"), Channel(spoke, "y")]
    assert together(lambda rank: gather(channels[rank], rank), 2) == [[0, 1]] * 2
    leave([hub, spoke])


def test_an_address_that_is_no_name_is_said():
    spoke = control(Environment(1, 2, 1, 2, ("a..b:6170", "127.0.0.1:6171")))
    with pytest.raises(TrainingError, match=r"rank 0 \(a..b:6170\), which cannot be reached: "):
        gather(Channel(spoke, "x"), 0, seconds=0.3)
    leave([spoke])


def test_a_port_that_is_taken_is_named(monkeypatch):
    monkeypatch.setattr(hub_module, "BIND_SECONDS", 0.1)
    env = environments(2)[0]
    with listen_at(env.endpoints[0], 5):
        hub = control(env)
        with pytest.raises(LaunchError, match=f"cannot listen at {env.endpoints[0]}.*: Address already in use; "):
            gather(Channel(hub, "x"), 0)
    leave([hub])


@pytest.mark.parametrize("who", [0, 1, 2])
def test_the_report_of_a_rank_reaches_all_others_and_what_waits_ends(who):
    with controls(3) as made:
        start(made)
        others = [each for each in made if each.env.rank != who]
        threading.Timer(0.1, lambda: made[who].fail("a reason")).start()
        found = together(lambda number: gather(Channel(others[number], "x"), 0), 2)
        assert [str(error) for error in found] == [f"stopped because of rank {who}: a reason"] * 2
        assert {type(error) for error in found} == {PeerError}
        with pytest.raises(LaunchError, match="has left the other ranks after an error; restart all ranks"):
            gather(Channel(made[who], "x"), 0)


@pytest.mark.parametrize("who", [0, 1])
def test_a_rank_that_leaves_while_others_wait_is_named(who):
    with controls(2) as made:
        threading.Timer(0.1, lambda: made[who].close(0)).start()
        with pytest.raises(PeerError, match=f"stopped because of rank {who}: its program has ended before those of"):
            gather(Channel(made[1 - who], "x"), 0)


def test_ranks_that_leave_in_any_order_have_not_failed():
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        with controls(3) as made:
            start(made)
            done = together(lambda number: made[order[number]].close(30), 3)  # noqa: B023
            assert done == [None] * 3 and not any(each.failure_reason(0) for each in made)


@pytest.mark.parametrize("who", [0, 1])
def test_who_has_failed_waits_until_those_who_start_later_know(who, capfd):
    envs = environments(2)
    failed = control(envs[who])
    failed.fail("no such file: my.yaml")
    waits = threading.Thread(target=failed.linger)
    waits.start()
    time.sleep(0.1)
    assert waits.is_alive()
    later = control(envs[1 - who])
    with pytest.raises(PeerError, match=f"stopped because of rank {who}: no such file: my.yaml"):
        gather(Channel(later, "start"), 0)
    waits.join(30)
    assert not waits.is_alive()
    other = {0: r"rank\(s\) 1 \(127.0.0.1\)", 1: r"rank 0 \(127.0.0.1:\d+\), which .*,"}[who]
    assert re.search(rf"plsc: \[rank {who}\] it tells {other} before it ends", capfd.readouterr().err)
    leave([failed, later])


def test_rank_0_tells_those_who_start_later_of_the_failure_of_another_rank():
    envs = environments(3)
    hub, failed = control(envs[0]), control(envs[1])
    failed.fail("a reason")
    failed.linger()
    assert hub.failure_reason(30) == "rank 1: a reason" and hub.untold() == "rank(s) 2 (127.0.0.1)"
    later = control(envs[2])
    assert later.failure_reason(30) == "rank 1: a reason"
    hub.linger(30)
    assert hub.untold() == ""
    leave([later, failed, hub])


def test_the_end_of_a_rank_that_was_never_connected_is_told_by_its_launcher():
    envs = environments(3)
    made = [control(envs[0]), control(envs[1])]
    assert report_ended(envs[2], "its process has ended with status 3", seconds=30)
    reason = "rank 2: its process has ended with status 3"
    assert [each.failure_reason(30) for each in made] == [reason] * 2
    made[0].linger(30)
    assert made[0].untold() == ""
    leave(made)
    assert not report_ended(environments(2)[1], "nobody hears it", seconds=0.0)


def test_the_end_of_a_rank_that_was_connected_is_known():
    """Its launcher tells it all the same, as it does not know."""
    with controls(2) as made:
        start(made)
        assert report_ended(made[1].env, "x", seconds=30)
        assert not any(each.failure_reason(0.05) for each in made)


def test_nobody_else_ends_a_run_in_the_name_of_a_rank():
    envs = environments(2)
    hub = control(envs[0])
    theirs = connect(envs[1])
    theirs.sendall(b"".join(encode({**hello(envs[1]), "run": "0" * 64, "ended": "x"})))
    assert b"refused" in theirs.recv(1000)
    assert hub.failure_reason(0.05) == ""
    theirs.close()
    leave([hub])


def test_the_end_of_rank_0_is_told_to_those_who_look_for_it():
    envs = environments(2)
    spoke = control(envs[1])
    assert report_ended(envs[0], "its process has ended by SIGKILL", seconds=30)
    assert spoke.failure_reason(30) == "rank 0: its process has ended by SIGKILL"
    leave([spoke])


def test_nobody_lingers_without_a_failure():
    with controls(2) as made:
        start(made)
        assert [each.untold() for each in made] == ["", ""]
    alone = control(environments(2)[0])
    began = time.monotonic()
    alone.close(60)  # a command that needs no other rank
    assert time.monotonic() - began < 5


def test_a_fork_of_a_rank_is_no_rank():
    with controls(2) as made:
        start(made)
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            made[1].fail("the fork")
            made[1].close(60)
            os._exit(0)
        os.waitpid(child, 0)
        assert time.monotonic() - began < 4  # it does not wait for threads that it does not have
        assert not any(each.failure_reason(0.05) for each in made)


@pytest.mark.parametrize("who", [0, 1])
def test_a_fork_does_not_keep_the_connections_of_a_rank_that_has_ended(who):
    """Of a data set of the user's, say. The kernel closes a socket when the last process that has it has closed it."""
    with controls(2) as made:
        start(made)
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        try:
            ends = made[0]._peers if who == 0 else [made[1]._connection]
            for end in list(ends):
                os.close(end.socket.detach())  # as where the process ends: nothing is said
            assert made[1 - who].failure_reason(20) == f"rank {who}: it was killed or crashed"
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_a_fork_that_would_exchange_values_is_told_at_once(capfd):
    """As where a script makes its Entry and trains in a multiprocessing.Process."""
    with controls(2) as made:
        start(made)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                gather(Channel(made[1], "x"), 0)
            except LaunchError as error:
                os.write(writer, str(error).encode())
            made[1].linger()
            if os.fork() == 0:  # which has nothing to close any more
                os._exit(0)
            os.wait()
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as told:
            assert re.match(rb"process \d+ was forked from rank 1 after .* in the same process$", told.read())
        os.waitpid(child, 0)
        assert capfd.readouterr().err == ""
        channels = [Channel(each, "later") for each in made]
        assert together(lambda rank: gather(channels[rank], rank), 2) == [[0, 1]] * 2


def test_a_process_that_is_no_rank_joins_nothing(monkeypatch):
    for name in ("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ENDPOINTS", "PADDLE_CURRENT_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(joining, "control_of", lambda env: pytest.fail("it connects"))
    joining.join()
    joining.report("x")
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "x")
    joining.join()  # what is wrong there is said when the ranks are needed


@pytest.mark.parametrize(("host", "at"), [
    ("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("a-name.invalid", "0.0.0.0"), ("203.0.113.7", "0.0.0.0"),
    ("[::1]", "::1"),
])  # fmt: skip
def test_where_it_listens(host, at):
    with listen_at(f"{host}:0", 1) as server:
        assert server.getsockname()[0] == at


def test_the_limit_of_open_files_grows_with_the_ranks():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        allow_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (712, before[1])
        allow_files(50)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (712, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_cut_of_the_network_is_outlived_for_20_seconds_and_found_within_a_minute():
    """The kernel ends an idle connection after KEEPIDLE + KEEPCNT * KEEPINTVL at most, and one with data under way
    after TCP_USER_TIMEOUT, which also bounds the former (tcp(7))."""
    with socket.socket() as one:
        set_options(one)
        option = lambda name: one.getsockopt(socket.IPPROTO_TCP, name)  # noqa: E731
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        probes = option(socket.TCP_KEEPIDLE) + option(socket.TCP_KEEPCNT) * option(socket.TCP_KEEPINTVL)
        assert 30 <= CUT_SECONDS <= probes <= 55
        assert option(socket.TCP_USER_TIMEOUT) == 1000 * CUT_SECONDS and option(socket.TCP_NODELAY)
