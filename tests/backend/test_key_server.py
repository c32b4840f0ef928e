"""The process that serves keys for Gloo of Paddle 2.6."""

from __future__ import annotations

import logging
import os
import sys
from types import ModuleType, SimpleNamespace

from plsc.backend.key_server import serve_keys


def test_it_ends_with_the_rank_that_started_it_also_where_orphans_go_to_another_process_than_1(monkeypatch):
    """As under systemd --user, or with some init processes of containers (PR_SET_CHILD_SUBREAPER)."""
    started: list[tuple] = []
    module = ModuleType("paddle.distributed.fleet.utils.http_server")
    module.KVServer = lambda port, size: SimpleNamespace(start=lambda: started.append((port, size)))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(logging, "FileHandler", logging.FileHandler)
    serve_keys(6170, 2, parent=os.getpid())  # not the parent of this process, as if that had ended
    assert started == [(6170, {"_worker": 2})]
