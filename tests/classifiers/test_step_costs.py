"""What a step costs, counted and not timed: operations, bytes, rows, collectives. Nothing in it grows with the classes
that it does not touch.

The net is one small layer, so that what is counted is the classifier. The numbers of classes are primes: a size that is
one of them is that of all rows of the shard, and no other.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from plsc.backend import program_view
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import BuildOptions, build_train
from plsc.engine.program.session import Session
from plsc.models import BaseModel
from plsc.optim.gradients import BUCKET_BYTES
from plsc.parallel.environment import Environment
from plsc.parallel.group import connected_group
from plsc.rows.blocks import FEW_BLOCKS

ROOT = Path(__file__).resolve().parents[2]
BATCH, EMBEDDING, PIXELS = 8, 4, 48
PARAMETERS = PIXELS * EMBEDDING + EMBEDDING
LOOP, FEW = 256, 512  # 3,000 rows in a loop over blocks of 256; in one block of pieces of 512, without a loop
PIECES = 6
# of about 3,000 sampled rows each: (classes, sample ratio)
SAMPLED = [(30_011, 0.1), (300_007, 0.01), (3_000_017, 0.001)]
FULL = [(30_011, 1.0), (300_007, 1.0)]
# A tenth more than there were when this was written, on the Paddle that had more. The executor's memory grows with the
# square of their number (docs/history.md). In a loop they count once, without one those of a piece 6 times. The
# operations of plsc.rows.row_kernels, and those of Paddle in their place.
MOST_OPERATIONS = {
    ("full", True): 448, ("sampled", True): 672, ("few", True): 722, ("sampled", False): 765, ("few", False): 1076
}  # fmt: skip


class Linear(BaseModel):
    def build_network(self, input, label, is_train=True):
        return paddle.nn.Linear(PIXELS, EMBEDDING)(paddle.flatten(input, 1))


@functools.cache
def built(classes, ratio, ranks=1, model_parallel=True, calc_acc=False, bucket_bytes=BUCKET_BYTES, block_rows=LOOP,
          compiled=True, optimizer="momentum"):  # fmt: skip
    paddle.enable_static()
    config = Config.from_dict({
        "model": {"image_shape": [3, 4, 4], "embedding_size": EMBEDDING}, "train_batch_size": BATCH,
        "classifier": {"num_classes": classes, "sample_ratio": ratio, "model_parallel": model_parallel,
                       "compiled": compiled},
        "calc_acc": calc_acc, "optimizer": {"name": optimizer},
    })  # fmt: skip
    options = BuildOptions(block_rows, bucket_bytes)
    program = build_train(config, UserObjects(model=Linear()), Environment(0, ranks), 0, options)
    return program, program_view.operations(program.main)


def number_of_operations(case, block_rows=LOOP, compiled=True):
    return sum(1 for _ in program_view.walk(built(*case, block_rows=block_rows, compiled=compiled)[1]))


def step_bytes(case, block_rows=LOOP, compiled=True):
    program, ops = built(*case, block_rows=block_rows, compiled=compiled)
    return sum(program_view.peak_memory(ops, program.shard.num_sample, block_rows).values())


def loops(case, block_rows):
    return [op.kind for op in program_view.walk(built(*case, block_rows=block_rows)[1]) if op.kind == "while"]


def test_the_samples_are_in_loops_or_in_a_few_blocks():
    for case in SAMPLED:
        assert built(*case)[0].shard.num_sample in range(3000, 3003)
        assert len(loops(case, LOOP)) == 2 and loops(case, FEW) == []
    assert LOOP * FEW_BLOCKS < 3000 <= FEW * FEW_BLOCKS and -(-3000 // FEW) == PIECES


@pytest.mark.parametrize("kind, compiled", MOST_OPERATIONS)
def test_operations_do_not_grow_with_the_classes(kind, compiled):
    block_rows, cases = {"sampled": (LOOP, SAMPLED), "full": (LOOP, FULL), "few": (FEW, SAMPLED)}[kind]
    numbers = {number_of_operations(case, block_rows, compiled) for case in cases}
    assert len(numbers) == 1 and numbers.pop() <= MOST_OPERATIONS[kind, compiled]


BOTH = pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "by Paddle"])


@BOTH
def test_bytes_of_a_few_pieces_do_not_grow_with_the_classes(compiled):
    small, middle, large = (step_bytes(case, FEW, compiled) for case in SAMPLED)
    assert small == pytest.approx(middle, rel=0.01) and middle == pytest.approx(large, rel=0.01)
    program, _ = built(*SAMPLED[0], block_rows=FEW, compiled=compiled)
    rows, cosines = 4 * EMBEDDING * program.shard.num_sample, 4 * BATCH * program.shard.num_sample
    # rows brought up to date of all pieces are kept, the cosines and their exponentials; what else a step takes
    # (drawing the sample) is that of the loop
    assert rows + 2 * cosines < large < 600_000


@BOTH
def test_bytes_of_a_sampled_step_do_not_grow_with_the_classes(compiled):
    small, middle, large = (step_bytes(case, compiled=compiled) for case in SAMPLED)
    assert small == pytest.approx(middle, rel=0.01) and middle == pytest.approx(large, rel=0.01)
    # the cosines of the sample, and a block of rows several times over; not one number for each of 3,000,017 classes
    assert large < 600_000


def test_a_full_step_holds_the_cosines_once():
    (small, _), (large, _) = FULL
    per_class = (step_bytes(FULL[1]) - step_bytes(FULL[0])) / (large - small)
    # of each class BATCH cosines and one scale, float32; neither a gradient nor a second copy of anything
    assert per_class == pytest.approx(4 * (BATCH + 1), rel=0.02)


@BOTH
@pytest.mark.parametrize("block_rows, case, optimizer", [
    *((LOOP, case, "momentum") for case in SAMPLED + FULL), (FEW, SAMPLED[0], "momentum"), (LOOP, SAMPLED[1], "adamw"),
    (FEW, SAMPLED[1], "adamw"),
])  # fmt: skip
def test_only_what_is_kept_has_the_rows_of_the_shard(block_rows, case, optimizer, compiled):
    program, ops = built(*case, block_rows=block_rows, compiled=compiled, optimizer=optimizer)
    kept = {*program.rows.tensors.values(), program.rows.touched}
    whole = [
        (op.kind, tensor)
        for op in program_view.walk(ops)
        for tensor in (*op.reads, *op.writes)
        if {times * program.shard.num_local for times in (1, 2, 3)} & set(tensor.shape)
    ]
    assert whole and {tensor.name for _, tensor in whole} <= kept
    # only one block or the sample is taken from them, and written back in place
    kinds = {kind for kind, _ in whole} - {"parameter", "while"}
    assert kinds <= {"gather", *READS, *WRITES}, kinds


READS = "embedding", "lookup_table_v2", "plsc_bring_rows", "plsc_bring_adam_rows"
WRITES = "scatter", "plsc_move_rows", "plsc_move_adam_rows"


def passes(case, block_rows, compiled=True, optimizer="momentum"):
    """{variable: [how often rows of it are read, written] in the text of the program}."""
    program, ops = built(*case, block_rows=block_rows, compiled=compiled, optimizer=optimizer)
    found = {}
    for variable in set(program.rows.tensors.values()):
        kinds = [op.kind for op in program_view.walk(ops) if variable in {t.name for t in (*op.reads, *op.writes)}]
        found[variable.rsplit(".", 1)[1]] = [sum(map(kinds.count, passing)) for passing in (READS, WRITES)]
    return found


def test_a_step_reads_each_row_twice_and_writes_it_once():
    """And the centres of the batch's own classes once more, BATCH rows."""
    # where all rows take part nothing has to be brought up to date, and the velocity is read when it is moved
    assert passes(FULL[0], LOOP) == {"w": [2 + 1, 1], "velocity": [1, 1]}
    # sampled, in a loop: read in the forward pass and in the backward pass, in which it is moved
    assert passes(SAMPLED[0], LOOP) == {"w": [2 + 1, 1]}
    assert passes(SAMPLED[0], FEW) == {"w": [PIECES + 1, PIECES]}
    # of AdamW weight and moments together; without a loop what was brought up to date is still there
    assert passes(SAMPLED[0], LOOP, optimizer="adamw") == {"w": [2 + 1, 1]}
    assert passes(SAMPLED[0], FEW, optimizer="adamw") == {"w": [PIECES + 1, PIECES]}
    for block_rows, pieces in ((LOOP, 1), (FEW, PIECES)):
        once_each = [2 * pieces + 1, pieces]
        assert passes(SAMPLED[0], block_rows, compiled=False) == {"w": once_each, "velocity": once_each}


def test_the_rows_that_a_step_writes_are_the_sample():
    program, _ = built(*SAMPLED[0])
    session = Session(program, Environment(), seed=0)
    session.start(connected_group(Environment()))
    before = weights_of(session)
    labels = np.arange(BATCH) * 1000
    session.step(0, {"image": np.ones((BATCH, 3, 4, 4), np.float32), "label": labels}, 0.1)
    touched = np.flatnonzero(rows_of(session, program.rows.touched))
    changed = np.flatnonzero((weights_of(session) != before).any(axis=1))
    assert len(touched) == program.shard.num_sample == 3001
    np.testing.assert_array_equal(changed, touched)
    assert set(labels) <= set(touched)


def rows_of(session, name):
    return np.array(session.scope.find_var(name).get_tensor())


def weights_of(session):
    """The stored rows, as they are."""
    return np.concatenate([rows for name, _, rows in session.blocks() if name == "weight"])


# --- collectives: the formula of docs/design.md -----------------------------------------------------------


def formula(ranks, rows, model_parallel, calc_acc, buckets=(PARAMETERS,)):
    """[(collective, bytes)] of a step of one rank on CPUs, sorted."""
    own, everybody = BATCH, BATCH * ranks
    if model_parallel:
        sent = [("all_gather", 8 * own), ("all_gather", 4 * own * EMBEDDING)]
        # the largest logit; four numbers of the softmax
        sent += [("all_reduce", 4 * everybody), ("all_reduce", 16 * everybody)]
        sent += [("all_reduce", 4 * everybody * EMBEDDING)]  # gradients of the features
        sent += [("all_reduce", 4 * everybody)] * (1 if calc_acc else 0)
    else:
        sent = [("all_gather", 8 * own)] if rows else []  # the labels, which the sample must hold
        sent += [("all_reduce", 4), ("all_reduce", 4 * EMBEDDING * (rows or 30_011))]  # loss, gradient of the rows
        sent += [("all_reduce", 4)] * (2 if calc_acc else 0)
    sent += [("all_reduce", 4 * numbers) for numbers in buckets[:-1]]  # the backbone
    return sorted([*sent, ("all_reduce", 4 * (buckets[-1] + 1))])  # the last of it, and whether a rank is to stop


@pytest.mark.parametrize("calc_acc", [False, True])
@pytest.mark.parametrize("model_parallel", [True, False])
@pytest.mark.parametrize("ratio", [1.0, 0.1])
@pytest.mark.parametrize("ranks", [2, 4])
def test_collectives_are_those_of_the_formula(ranks, ratio, model_parallel, calc_acc):
    program, ops = built(30_011, ratio, ranks, model_parallel, calc_acc)
    sample = program.shard.num_sample
    rows = sample if ratio < 1 else None
    assert sorted(program_view.collective_bytes(ops, sample)) == formula(ranks, rows, model_parallel, calc_acc)


@pytest.mark.parametrize("device, classes, keys", [
    ("cpu", 10, {"hard_negative_share": 0.5}),  # shards of 4, 4 and 2: samples of 2, 2 and 1, half of which is none
    ("gpu", 7, {"kernels": "paddle"}),  # shards of 3, 3 and 1, all of which is in the sample
])  # fmt: skip
def test_a_smaller_last_shard_sends_what_the_others_send(device, classes, keys):
    """Ranks that take part in different collectives wait for each other for ever, or add up what does not belong
    together."""
    paddle.enable_static()
    config = Config.from_dict({
        "model": {"image_shape": [3, 4, 4], "embedding_size": EMBEDDING}, "train_batch_size": BATCH,
        "classifier": {"num_classes": classes, "sample_ratio": 0.5, **keys},
    })  # fmt: skip
    found = []
    for rank in (0, 2):
        place = Environment(rank, 3, device=device)
        program = build_train(config, UserObjects(model=Linear()), place, 0, BuildOptions(dry_run=True))
        found.append([kind for kind, _ in program_view.collective_bytes(program_view.operations(program.main))])
        assert program.shard.samples and program.rows.touched is not None  # and what is saved has the same names
    assert found[0] == found[1] and len(found[0]) >= 5


def test_each_bucket_is_one_collective():
    """The gradient of the bias is made first, in the backward pass."""
    program, ops = built(30_011, 1.0, 2, bucket_bytes=1)
    buckets = EMBEDDING, PIXELS * EMBEDDING
    sent = program_view.collective_bytes(ops, program.shard.num_sample)
    assert sorted(sent) == formula(2, None, True, False, buckets)


def test_one_rank_sends_nothing():
    assert program_view.collective_bytes(built(*SAMPLED[0])[1]) == []


# --- what Paddle counts itself ----------------------------------------------------------------------------

MEASURE = """
import json, sys, zlib
import numpy as np
from tests.classifiers import test_step_costs as costs
from plsc.backend.cpu import run_in_order
from paddle.base import core
classes, ratio = json.loads(sys.argv[1])
run_in_order()
program, _ = costs.built(classes, ratio)
session = costs.Session(program, costs.Environment(), seed=0)
session.start(costs.connected_group(costs.Environment()))
before = core.host_memory_stat_current_value("Allocated", 0), core.host_memory_stat_peak_value("Allocated", 0)
inputs = {"image": np.ones((costs.BATCH, 3, 4, 4), np.float32), "label": np.arange(costs.BATCH)}
for step in range(3):
    session.step(step, inputs, 0.1)
print(json.dumps([*before, core.host_memory_stat_peak_value("Allocated", 0)]))
"""


def test_paddle_counts_no_more_bytes_than_the_sample_needs():
    case = SAMPLED[-1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURE, json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=True)
    at_rest, at_start, peak = json.loads(done.stdout.splitlines()[-1])
    assert at_rest > 4 * EMBEDDING * case[0] * 2  # weight and momentum are among what is counted
    # Of the sample 0.4 MB are needed, and the executor, which gives memory back in a thread of its own, may hold a few
    # times as much. An array with a number of 4 bytes for each class would be 12 MB.
    assert at_start < at_rest + 8_000_000 and peak < at_rest + 8_000_000
