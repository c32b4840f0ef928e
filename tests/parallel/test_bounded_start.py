"""A start of NCCL that does not return ends all ranks with a reason; no GPU is needed for that."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from plsc.parallel import group as group_module
from plsc.parallel.environment import Environment
from plsc.parallel.group import Group


def test_the_start_of_nccl_is_bounded(monkeypatch):
    monkeypatch.setattr(group_module, "_LATER_SECONDS", 0.0)
    monkeypatch.setattr(group_module, "NCCL_SECONDS", 0.2)
    group, reasons, ended = Group(Environment()), [], threading.Event()
    report = lambda text: (reasons.append(text), ended.set())  # noqa: E731
    monkeypatch.setattr(group, "_control", SimpleNamespace(report_silent=report))
    monkeypatch.setattr(group, "open_store", lambda env: None)
    monkeypatch.setattr(group_module.rings, "start_nccl", lambda *rest: ended.wait(20))
    group._start_nccl(Environment(device="gpu"))
    assert reasons == [
        "NCCL, which has not connected the ranks within 0.2 s: one of them is stopped, or a firewall closes their ports"
    ]
    monkeypatch.setattr(group_module.rings, "start_nccl", lambda *rest: None)
    group._start_nccl(Environment(device="gpu"))
    threading.Event().wait(0.4)
    assert len(reasons) == 1
