"""Waiting for the launchers of the other machines: bounded, and with a line that says for what.

Paddle's launchers meet at a small HTTP server of one of them, to which each writes an entry until all are there. Its
own client waits for ever, in silence.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import re
import socket
import socketserver
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

from plsc.errors import LaunchError, PlscError
from plsc.files import plain_json
from plsc.parallel.addresses import Rendezvous, find_rendezvous
from plsc.parallel.interfaces import is_loopback
from plsc.parallel.last_words import serve_failure
from plsc.terminal import print_stderr

WAIT_SECONDS = 600  # as the ranks wait for each other
LINE_SECONDS = 15
_REQUEST_SECONDS = 5
_POLL_SECONDS = 0.3
REPORT_SECONDS = 30  # in which a launcher that was started at the same time begins to listen
_MOST_BYTES = 64 * 2**20  # of an answer: all entries, of a thousand machines some 100 kB
_ADDRESS = re.compile(r'"candidate": *"([0-9.]+):')  # in the entry of Paddle's launcher
_FAILURES = "/plsc/failed/"


class RendezvousError(LaunchError):
    """The launchers of the other machines cannot be met."""


class RendezvousClient:
    """Replaces the KVClient of Paddle's launcher; ``endpoint`` is host:port, ``size`` the number of machines.

    Raises RendezvousError where the server does not answer, or not all machines have come, for WAIT_SECONDS; where more
    have come; and where one has reported by ``report_failure`` why it does not come.
    """

    def __init__(self, endpoint: str, size: int, say: Callable[[str], None] = print_stderr):
        host, port = endpoint.rsplit(":", 1)
        self._endpoint, self._host, self._port, self._size, self._say = endpoint, host, int(port), size, say
        self._begun = self._said = time.monotonic()

    def wait_server_ready(self, timeout: float = 0.0) -> bool:
        """Wait until the server answers; ``timeout``, which Paddle gives, is not used."""
        while True:
            reason = self.request("GET", "/healthy")[1]
            if not reason:
                return True
            self._wait(f"no launcher answers there ({reason})")

    def put(self, key: str, value: str) -> bool:
        """Write an entry."""
        while True:
            reason = self.request("PUT", key, value)[1]
            if not reason:
                return True
            self._wait(f"the launcher there does not answer any more ({reason})")

    def get_prefix(self, key: str) -> dict[str, str]:
        """The entries that begin with ``key``: one of each machine that has come. Called until all have."""
        failures = self._read(_FAILURES)
        if failures:
            reasons = [f"{urllib.parse.unquote(name[len(_FAILURES):])}: {text}" for name, text in failures.items()]
            raise RendezvousError("; ".join(sorted(reasons)))
        found = self._read(key)
        if len(found) > self._size:
            raise RendezvousError(
                f"{len(found)} machines have come to {self._endpoint} ({_names(found)}), but --nnodes is {self._size}: "
                "end what is left of an earlier run there, or start them with one --nnodes"
            )
        if len(found) < self._size:
            self._wait(f"{len(found)} of {self._size} machines have come ({_names(found)})", pause=0.0)
        return found

    def _read(self, key: str) -> dict[str, str]:
        body, reason = self.request("GET", key)
        try:
            found = {} if reason else plain_json.loads(body)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise RendezvousError(f"--master {self._endpoint}: what answers there is no launcher; choose another port")
        return found

    def _wait(self, what: str, pause: float = _POLL_SECONDS) -> None:
        """A line now and then; RendezvousError when it has taken too long."""
        now = time.monotonic()
        here = " (an address that no other machine can reach)" if is_loopback(self._host) else ""
        if now - self._begun > WAIT_SECONDS:
            raise RendezvousError(
                f"waited {WAIT_SECONDS} s for the other machines at --master {self._endpoint}{here}: {what}; start the "
                "same command on all of them, and check that a firewall lets them reach that port"
            )
        if now - self._said >= LINE_SECONDS:
            self._said = now
            self._say(f"plsc.launch: waiting at --master {self._endpoint}{here}: {what}")
        time.sleep(pause)

    def request(self, method: str, key: str, body: str | None = None) -> tuple[bytes, str]:
        """(what the server answered, "") or (b"", why it did not)."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_REQUEST_SECONDS)
        try:
            connection.request(method, key, None if body is None else body.encode())
            answer = connection.getresponse()
            content = answer.read(_MOST_BYTES)
            return (content, "") if answer.status == 200 else (b"", f"HTTP status {answer.status}")
        except (OSError, http.client.HTTPException) as error:
            return b"", str(getattr(error, "strerror", None) or error or type(error).__name__)
        finally:
            connection.close()


def meet_by(master_module: Any, size: int, own: str) -> None:
    """Make Paddle's launcher, of which this is the module with the server and the client, use ``RendezvousClient``, and
    serve on this machine's address ``own`` only."""

    class Server(socketserver.ThreadingMixIn, master_module.KVServer):
        daemon_threads = True  # a connection that sends nothing must not delay the others
        server_address: Any

        def server_bind(self) -> None:
            self.server_address = (own, self.server_address[1])
            super().server_bind()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A request that breaks off is no news: a launcher asks again."""

    master_module.KVServer = Server
    master_module.KVClient = functools.partial(RendezvousClient, size=size)


@contextlib.contextmanager
def reported_to_launchers(master: str | None, machines: int, interface: str | None) -> Iterator[None]:
    """Tell the launchers of the other machines, which wait for this one at ``master``, of an error in this context."""
    try:
        yield
    except RendezvousError:
        raise  # they know
    except PlscError as error:
        if master is not None and machines > 1:
            _report(master, machines, interface, str(error))
        raise


def _report(master: str, machines: int, interface: str | None, reason: str) -> None:
    try:
        meets = find_rendezvous(master, interface, patience=0.0)
    except LaunchError:
        return  # which may be the reason itself
    print_stderr(f"plsc.launch: telling the other machines for up to {REPORT_SECONDS} s, at {meets.endpoint}: {reason}")
    if not report_failure(meets, f"{socket.gethostname()} ({meets.own})", reason, machines - 1):
        print_stderr(f"plsc.launch: no launcher was there; those that wait at {meets.endpoint} end by themselves")


def report_failure(meets: Rendezvous, name: str, reason: str, others: int, seconds: float = REPORT_SECONDS) -> bool:
    """Tell the launchers of the ``others`` machines, which meet there, why the machine ``name`` does not come; False if
    none could be told within ``seconds``. On the machine of the rendezvous this process answers in its place."""
    key = _FAILURES + urllib.parse.quote(name, safe="")
    if meets.own == meets.host:
        with contextlib.suppress(OSError):
            return serve_failure(meets.host, meets.port, {key: reason}, others, seconds) > 0
        return False
    client, deadline = RendezvousClient(meets.endpoint, 0), time.monotonic() + seconds
    while client.request("PUT", key, reason)[1]:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _names(entries: dict[str, str]) -> str:
    """The addresses of the machines that have come."""
    names = [match[1] if (match := _ADDRESS.search(text)) else "?" for text in entries.values()]
    return ", ".join(sorted(names)) or "none"
