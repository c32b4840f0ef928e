"""The buckets in which the backbone's gradients are summed over the ranks: what is in each, and where it stands in the
program. That the sums are right is held on real ranks, in tests/dist/test_gradient_buckets.py."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from plsc.backend import collectives, program_view, static
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import BuildOptions, build_train
from plsc.optim.gradients import BUCKET_BYTES, all_reduce_in_buckets, group_into_buckets
from plsc.parallel.environment import Environment

ROOT = Path(__file__).resolve().parents[2]
# what may stand between the last gradient and the sum; an operation that makes two gradients has two sums behind it
FLATTENING = {"reshape", "reshape2", "concat", "full", "full_int_array", "all_reduce", "c_allreduce_sum"}


@pytest.mark.parametrize("least", [1, 7, 40, 1000])
def test_each_gradient_is_in_one_bucket(least):
    rng = np.random.default_rng(3)
    sizes, places = [int(size) for size in rng.integers(1, 30, 40)], [int(place) for place in rng.permutation(100)[:40]]
    buckets = group_into_buckets(sizes, places, least)
    in_turn = [number for bucket in buckets for number in bucket]
    assert in_turn == [int(number) for number in np.argsort(places)]  # each once, as they are made
    for bucket in buckets[:-1]:
        assert sum(sizes[number] for number in bucket) >= least  # full with its last gradient, not before
        assert sum(sizes[number] for number in bucket[:-1]) < least
    assert buckets[-1] and sum(sizes[number] for number in buckets[-1][:-1]) < least


def test_a_large_gradient_fills_its_bucket():
    assert group_into_buckets([1, 100, 1, 1], [0, 1, 2, 3], 10) == [[0, 1], [2, 3]]
    assert group_into_buckets([], [], 10) == [[]]


@functools.cache
def built(ranks, bucket_bytes, name="ResNet18", width=4, side=32):
    paddle.enable_static()
    config = Config.from_dict({
        "model": {"name": name, "base_width": width, "image_shape": [3, side, side], "embedding_size": 24},
        "train_batch_size": 2, "classifier": {"num_classes": 101},
    })  # fmt: skip
    program = build_train(
        config, UserObjects(), Environment(0, ranks), seed=0, options=BuildOptions(bucket_bytes=bucket_bytes)
    )
    return program, program_view.operations(program.main)


def buckets_of(ops):
    """[(place of the all-reduce, what it sums, the tensors laid end to end in it)], found through what reads what."""
    writers = {tensor.key: op for op in ops for tensor in op.writes if op.kind not in ("parameter", "data")}
    found = []
    for place, op in enumerate(ops):
        flat = writers.get(op.reads[0].key) if op.kind in ("all_reduce", "c_allreduce_sum") else None
        if flat is not None and flat.kind == "concat":
            shaped = [writers[tensor.key] for tensor in flat.reads if len(tensor.shape) == 1 and tensor.key in writers]
            members = [op.reads[0] for op in shaped if op.kind in ("reshape", "reshape2")]
            found.append((place, op, members))
    return found


@pytest.mark.parametrize("bucket_bytes", [1, 20_000, 10**9])
def test_the_buckets_hold_each_gradient_once(bucket_bytes):
    program, ops = built(2, bucket_bytes)
    members = [tensor for _, _, tensors in buckets_of(ops) for tensor in tensors]
    assert len({tensor.key for tensor in members}) == len(members)
    norms = sum(op.kind in ("batch_norm", "batch_norm_") for op in ops)
    number = len(program.parameters)
    assert len(members) == number + 2 * norms + 1  # running mean and variance, whether a rank was asked to stop
    made = [tensor for tensor in members if not tensor.name][:number]
    assert sorted(tensor.shape for tensor in made) == sorted(tuple(p.shape) for p in program.parameters)
    assert {tensor.name for tensor in members[number:-1]} <= set(program.backbone)  # all of it in the last bucket
    last = {tensor.key for tensor in buckets_of(ops)[-1][2]}
    assert {tensor.key for tensor in members[number:]} <= last


@pytest.mark.parametrize("bucket_bytes, least", [(1, 62), (20_000, 6), (10**9, 1)])
def test_a_bucket_is_summed_before_the_layers_below_go_back(bucket_bytes, least):
    program, ops = built(2, bucket_bytes)
    place_of = {tensor.key: place for place, op in reversed(list(enumerate(ops))) for tensor in op.writes}
    buckets, left = buckets_of(ops), len(program.parameters)
    assert len(buckets) >= least
    made = []
    for place, _, members in buckets:
        gradients = members[:left]
        left -= len(gradients)
        made.append(max(place_of[tensor.key] for tensor in gradients))
        assert {op.kind for op in ops[made[-1] + 1 : place]} <= FLATTENING
    for (place, _, _), own, following in zip(buckets, made, made[1:]):
        if following != own:  # made by one operation
            assert place < following
            assert any(op.kind.endswith("_grad") for op in ops[place : following + 1])
    for _, op, _ in buckets:  # on a GPU, what waits for a sum would hold up all that stands behind it
        readers = [place for place, other in enumerate(ops) if op.writes[0] in other.reads]
        assert min(readers) > made[-1]


def test_a_resnet50_has_a_handful():
    sizes = [size for _, size in program_view.collective_bytes(built(2, BUCKET_BYTES, "ResNet50", 64, 112)[1])]
    long = [size for size in sizes if size > 1_000_000]
    assert len(long) in (5, 6) and all(size >= BUCKET_BYTES for size in long[:-1])
    # of what is left at a time in the plan: not a second copy of all of them (119 MB of gradients)
    assert sum(long) > 100_000_000


def test_bytes_do_not_depend_on_the_buckets():
    sent = {sum(n for _, n in program_view.collective_bytes(built(2, size)[1])) for size in (1, 20_000, 10**9)}
    assert len(sent) == 1


def test_one_rank_has_none():
    kinds = [[op.kind for op in built(1, size)[1]] for size in (1, 10**9)]
    assert kinds[0] == kinds[1] and not set(kinds[0]) & set(program_view.COLLECTIVES)


def test_a_backbone_without_parameters():
    main, startup = paddle.static.Program(), paddle.static.Program()
    with static.building(main, startup):
        stop = paddle.static.data("stop", [1], "float32")
        alone, same = all_reduce_in_buckets([], [stop], 1, False)
        assert (alone.apart(), same) == ([], [stop])
        gradients, (mean,) = all_reduce_in_buckets([], [stop], 2, False)
    assert gradients.apart() == [] and list(mean.shape) == [1]
    assert program_view.collective_bytes(program_view.operations(main)) == [("all_reduce", 4)]


SMALL = """
import numpy as np, paddle
from plsc.backend import collectives, static
paddle.enable_static()
main, startup = paddle.static.Program(), paddle.static.Program()
with static.building(main, startup):
    whole = paddle.exp(paddle.static.data("x", [4], "float32"))
    later = paddle.sin(whole)
    with static.insert_after(static.operation_indices([whole])[0]):
        total = collectives.all_reduce_overlapped(paddle.tanh(whole), 2, True)
try:
    paddle.static.Executor(paddle.CPUPlace()).run(main, feed={"x": np.ones(4, "float32")}, fetch_list=[total, later])
except RuntimeError:
    print("no ring to sum over")
"""


def test_the_executor_hears_of_stream_and_turn():
    """It writes into its log what it makes of each operation, also where there is no GPU to have a stream."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_minloglevel": "0"}
    environment.update(GLOG_v="6", GLOG_logtostderr="1")
    done = subprocess.run([sys.executable, "-c", SMALL], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert "no ring to sum over" in done.stdout, done.stderr[-2000:]
    told = [line for line in done.stderr.splitlines() if "[execution_stream, stream_priority, scheduling_prio" in line]
    assert any("allreduce" in line or "all_reduce" in line for line in told)
    for line in told:
        mine = "allreduce" in line or "all_reduce" in line
        assert f"[{collectives.STREAM if mine else 'DefaultStream'}, 0, 0]" in line, line
