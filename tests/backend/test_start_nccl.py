"""What can be known of the start of NCCL without a GPU: which card, which ring, and what a failure says."""

from __future__ import annotations

import contextlib
import types

import paddle
import pytest

from plsc.backend import collectives, rings, static
from plsc.errors import LaunchError
from plsc.parallel.environment import Environment
from plsc.parallel.group import Group

LAUNCHED = {
    "PADDLE_TRAINER_ID": "5",
    "PADDLE_TRAINERS_NUM": "6",
    "PADDLE_TRAINER_ENDPOINTS": ",".join(f"10.0.0.{host}:{port}" for host in (1, 2) for port in (70, 71, 72)),
    "PADDLE_CURRENT_ENDPOINT": "10.0.0.2:72",
}


@pytest.mark.parametrize(
    "extra, card",
    [({"FLAGS_selected_gpus": "4"}, 4), ({"FLAGS_selected_gpus": "3,1"}, 3), ({}, 2), ({"FLAGS_selected_gpus": ""}, 2)],
)
def test_card_of_a_rank(extra, card):
    """The launcher's, or where another launcher names none the place among the ranks of the machine."""
    assert Environment.from_launch("gpu", {**LAUNCHED, **extra}).device_id == card


def test_card_of_a_single_rank():
    assert Environment.from_launch("gpu", {}).device_id == 0
    assert Environment.from_launch("gpu", {"FLAGS_selected_gpus": "2,3"}).device_id == 2


@pytest.mark.parametrize("text", ["-1", "gpu0", "all", ",1"])
def test_card_that_is_none(text):
    with pytest.raises(LaunchError, match="FLAGS_selected_gpus"):
        Environment.from_launch("gpu", {**LAUNCHED, "FLAGS_selected_gpus": text})


class Recorder:
    """Stands for Paddle's CommContextManager, whose NCCL part only GPU wheels have."""

    def __init__(self, error=None):
        self.calls, self.error = [], error

    def set_device_id(self, device_id):
        self.calls.append(("card", device_id))

    def create_nccl_comm_context(self, store, key, rank, size):
        if self.error:
            raise self.error
        self.calls.append(("ring", store, key, rank, size))


def use(monkeypatch, recorder):
    monkeypatch.setattr(paddle.base.core, "CommContextManager", recorder)
    monkeypatch.setattr(paddle, "set_flags", lambda flags: recorder.calls.append(("flags", flags)))


def test_the_card_is_chosen_before_the_ring_of_all_ranks_is_joined(monkeypatch):
    recorder = Recorder()
    use(monkeypatch, recorder)
    rings.start_nccl("store", 5, 6, 2)
    flag = ("flags", {"FLAGS_dynamic_static_unified_comm": True})
    joined = [("card", 2), ("ring", "store", str(collectives.RING), 5, 6)]
    assert recorder.calls == ([] if static.is_pir() else [flag]) + joined


def test_a_failure_is_one_line_and_reaches_the_other_ranks(monkeypatch):
    use(monkeypatch, Recorder(RuntimeError("\n---\nUnavailable: libnccl.so not found\n  trace\n")))
    told = []
    group = types.SimpleNamespace(open_store=lambda env: None, fail=told.append, rank=5, failure_reason=lambda: "")
    group._cannot_start = types.MethodType(Group._cannot_start, group)
    group._bounded_start = lambda library, seconds: contextlib.nullcontext()
    with pytest.raises(LaunchError, match="GPU 2 with .*: Unavailable: libnccl.so not found;") as caught:
        Group._start_nccl(group, Environment(5, 6, 2, 3, (), "gpu", 2))
    assert "\n" not in str(caught.value) and told == [str(caught.value)]
