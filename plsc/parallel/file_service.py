"""Files of one rank for the others: a server that sends a few named files to whoever knows its token.

A request is one line of JSON, {"token": ..., "name": ...}. The answer is the length as 8 bytes (big-endian), then the
contents; or the length NO_FILE, then a line that says why. Who sends something else, or nothing, is cut off.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from plsc.files import safe_open
from plsc.parallel.ports import listen

NO_FILE = 2**64 - 1
SILENCE_SECONDS = 60.0  # until a peer that sends nothing, or takes nothing, is given up
CHUNK_BYTES = 1 << 20
RETRY_SECONDS = 1.0  # between two attempts to connect while the network is cut
MOST_CLIENTS = 256  # at once; further ones are cut off and may try again
_REQUEST_BYTES = 4096
_REST_SECONDS = 0.1
_CUT = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)


class FileServer:
    """Serves ``files``, {name: path}, until ``close``; nothing else can be asked for.

    host: the address of this rank for the others; ports: as in plsc.parallel.ports. ``address``, plain JSON, is what a
    client needs. Raises OSError or LaunchError where no port can be opened.
    """

    def __init__(self, host: str, ports: range | None, files: Mapping[str, str]):
        self._files, self._token = dict(files), secrets.token_hex(16)
        self._clients = threading.Semaphore(MOST_CLIENTS)
        self._server = _listen_at(host, ports)
        self.address = [host, self._server.getsockname()[1], self._token]
        threading.Thread(target=self._accept, daemon=True, name="plsc-files").start()

    def close(self) -> None:
        """Accept no more clients."""
        try:
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        except OSError:
            pass
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                if self._server.fileno() < 0:
                    return
                time.sleep(_REST_SECONDS)  # of a client that is gone already, or there are too many open files
                continue
            if self._clients.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(client,), daemon=True, name="plsc-file").start()
            else:
                client.close()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                client.settimeout(SILENCE_SECONDS)
                name = self._requested(client)
                if name is not None:
                    self._send(client, self._files[name])
        except OSError:
            pass  # the client is gone; it says so itself
        finally:
            self._clients.release()

    def _requested(self, client: socket.socket) -> str | None:
        with client.makefile("rb") as lines:
            line = lines.readline(_REQUEST_BYTES)
        try:
            request = json.loads(line)
            token, name = str(request["token"]), request["name"]
            known = secrets.compare_digest(token.encode(), self._token.encode()) and name in self._files
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        return name if known else None

    def _send(self, client: socket.socket, path: str) -> None:
        try:
            file = safe_open.open_bytes(path, safe_open.TENSORS)
        except OSError as error:
            client.sendall(NO_FILE.to_bytes(8, "big") + f"{path}: {error.strerror}".encode(errors="replace"))
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            client.sendall(size.to_bytes(8, "big"))
            if size:
                client.sendfile(file, count=size)


def receive(address: list[Any], name: str, write: Callable[[memoryview], object]) -> int:
    """Pass the contents of a file of another rank to ``write`` in pieces; returns how many bytes there were.

    Raises OSError, whose text names the address, where the other rank cannot be reached, does not have the file, or
    stops in the middle; and what ``write`` raises.
    """
    size = 0
    for piece in _pieces(address, name):
        write(piece)
        size += len(piece)
    return size


def _pieces(address: list[Any], name: str) -> Iterator[memoryview]:
    host, port, token = address
    where = f"{name} from {host}:{port}"
    buffer = memoryview(bytearray(CHUNK_BYTES))
    try:
        with _connected(_reachable(host), port) as server:
            server.sendall(json.dumps({"token": token, "name": name}).encode() + b"\n")
            size = int.from_bytes(_exactly(server, 8), "big")
            if size == NO_FILE:
                raise OSError(str(server.recv(_REQUEST_BYTES), "utf-8", "replace"))
            left = size
            while left:
                count = server.recv_into(buffer, min(left, CHUNK_BYTES))
                if not count:
                    raise OSError(f"it ended after {size - left:,} of {size:,} bytes")
                yield buffer[:count]
                left -= count
    except OSError as error:
        raise OSError(f"{where}: {error.strerror or error}") from None


def _connected(host: str, port: int) -> socket.socket:
    """A connection; a network that is cut is waited for as long as a silent peer, since a run survives such cuts."""
    deadline = time.monotonic() + SILENCE_SECONDS
    while True:
        try:
            return socket.create_connection((host, port), timeout=SILENCE_SECONDS)
        except OSError as error:
            if error.errno not in _CUT or time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_SECONDS)


def _exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            raise OSError("the other rank closed the connection")
        data += more
    return data


def _listen_at(host: str, ports: range | None) -> socket.socket:
    """On the address that the other ranks use; on all where it is a name, or an address of another network."""
    try:
        socket.inet_aton(_reachable(host))
        return listen(_reachable(host), ports, backlog=MOST_CLIENTS)
    except OSError:
        return listen("", ports, backlog=MOST_CLIENTS)


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("", "localhost") else host
