"""What the ranks tell each other outside the program: barriers, small objects, and the news of a failure."""

from __future__ import annotations

import atexit
import functools
import json
import os
import socket
import sys
import threading
import time
from typing import Any

from plsc import compat
from plsc.errors import LaunchError, TrainingError
from plsc.parallel.environment import Environment

LEAVE_SECONDS = 60
WAIT_SECONDS = 3600  # a barrier may wait for a slow disk, not for ever
POLL_SECONDS = 0.5


@functools.lru_cache(maxsize=None)
def join(env: Environment) -> Group:
    """The group of all ranks, connected once in a process: a script may train, test and export one after the other."""
    group = Group(env)
    atexit.register(group.close)
    return group


class Group:
    """All ranks of a run. With one rank every method returns at once and opens nothing.

    A rank that calls ``fail(message)`` ends the others: each prints the message and leaves with status 1,
    also when it is blocked in a collective, because a thread of its own watches for it.
    """

    def __init__(self, env: Environment):
        self.rank = env.rank
        self.world_size = env.world_size
        self._calls = 0
        self._store = None
        self._closed = threading.Event()
        if env.world_size > 1:
            self._open(env)

    def _open(self, env: Environment) -> None:
        host, port = env.endpoints[0].rsplit(":", 1)
        try:
            self._store = compat.open_store(host, int(port), env.rank == 0, env.world_size, WAIT_SECONDS)
            watch_store = compat.open_store(host, int(port), False, env.world_size, WAIT_SECONDS)
        except Exception as error:
            raise LaunchError(
                f"rank {env.rank}: cannot reach rank 0 at {env.endpoints[0]}: {first_line(error)}; "
                "check that all ranks run and that the port is free and open"
            ) from None
        self._watcher = threading.Thread(target=self._watch, args=(watch_store,), daemon=True, name="plsc-watch")
        self._watcher.start()
        if env.on_gpu:
            self._start_nccl(env)
        else:
            gloo_endpoint = self.broadcast(f"{host}:{free_port()}" if env.rank == 0 else None)
            self._ring = compat.start_gloo(self._store, env.rank, env.world_size, gloo_endpoint)

    def _start_nccl(self, env: Environment) -> None:
        try:
            compat.start_nccl(self._store, env.rank, env.world_size, env.device_id)
        except Exception as error:
            message = (
                f"rank {env.rank}: cannot join the GPUs of the other ranks with card {env.device_id}: "
                f"{first_line(error)}; check that every rank has a card of its own and that NCCL is installed"
            )
            self.fail(message)  # the others wait for this rank
            raise LaunchError(message) from None

    def all_gather(self, value: Any) -> list[Any]:
        """[the value of each rank, in order]; values are JSON. Every rank must call it in the same order."""
        if self.world_size == 1:
            return [json.loads(json.dumps(value))]
        self._calls += 1
        prefix = f"gather/{self._calls}/"
        self._store.set(prefix + str(self.rank), json.dumps(value).encode())
        self._store.add(prefix, 1)
        self._await(prefix)
        return [json.loads(self._get(prefix + str(rank))) for rank in range(self.world_size)]

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on every rank."""
        return self.all_gather(value)[0]

    def barrier(self, name: str = "barrier") -> None:
        """Return when every rank has arrived. Raises TrainingError where they wait at different places."""
        places = self.all_gather(name)
        if len(set(places)) > 1:
            raise TrainingError(f"the ranks are out of step: they wait at {places}")

    def fail(self, message: str) -> None:
        """Tell the other ranks why this one ends."""
        if self._store is not None and not self._closed.is_set():
            self._closed.set()
            try:
                self._store.set("failed", f"rank {self.rank}: {message}".encode())
                self._store.add("failures", 1)
                time.sleep(2 * POLL_SECONDS)  # rank 0 holds the store: let the others read it
            except Exception as error:  # the store is gone with rank 0; the launcher ends the rest
                print(f"plsc: could not tell the other ranks: {first_line(error)}", file=sys.stderr)

    def close(self) -> None:
        """Leave: rank 0, which holds the store, waits for the others to go first, for a while."""
        if self._store is None or self._closed.is_set():
            return
        self._closed.set()
        self._watcher.join()
        if self.rank != 0:
            self._store.add("left", 1)
            return
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._store.add("left", 0) < self.world_size - 1 and time.monotonic() < deadline:
            time.sleep(0.01)

    def _await(self, counter: str) -> None:
        """Until every rank has added to the counter; the store's own wait polls ten times slower."""
        pause, deadline = 0.001, time.monotonic() + WAIT_SECONDS
        try:
            while self._store.add(counter, 0) < self.world_size:
                if time.monotonic() > deadline:
                    raise TrainingError(f"rank {self.rank}: waited {WAIT_SECONDS} seconds for another rank")
                time.sleep(pause)
                pause = min(2 * pause, 0.02)
        except (RuntimeError, OSError) as error:
            raise TrainingError(f"rank {self.rank}: another rank has gone: {first_line(error)}") from None

    def _get(self, key: str) -> bytes:
        try:
            return bytes(self._store.get(key))
        except Exception as error:
            raise TrainingError(f"rank {self.rank}: another rank has gone: {first_line(error)}") from None

    def _watch(self, store) -> None:
        while not self._closed.wait(POLL_SECONDS):
            try:
                failed = store.add("failures", 0) > 0
                message = bytes(store.get("failed")).decode() if failed else ""
            except Exception:
                failed, message = True, "rank 0 has gone"
            if failed and not self._closed.is_set():
                print(f"plsc: error: [rank {self.rank}] stopped, because of {message}", file=sys.stderr, flush=True)
                sys.stdout.flush()
                os._exit(1)


def first_line(error: BaseException) -> str:
    """The first telling line of an error; Paddle's begin with banners and C++ traces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        if "Error:" in line or "Error Message" not in line and not line.startswith(("-", "C++", "0 ", "1 ")):
            return line[:300]
    return type(error).__name__


def free_port() -> int:
    """A TCP port that is free on this machine now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
