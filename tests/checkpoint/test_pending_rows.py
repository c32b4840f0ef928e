"""Rows that wait in a checkpoint: readers get what the dense optimizer would have made of them, to float32 rounding."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from plsc.checkpoint import (
    TOUCHED,
    WINDOW,
    ArrayShard,
    Expected,
    OneRank,
    RankTensors,
    ReadOptions,
    check_fits,
    merge,
    open_checkpoint,
    read_manifest,
    read_replicated,
    read_rows,
    read_window,
    reshard,
    save,
)
from plsc.checkpoint.pending_rows import PendingRows, describe_optimizer
from plsc.errors import CheckpointError
from plsc.parallel.shards import class_range
from plsc.registry import OPTIMIZERS
from plsc.rows import RowOptimizer, Slot, register_optimizer
from plsc.rows.optimizer import Step, build_optimizer
from plsc.rows.optimizers.adamw import AdamW
from tests.checkpoint.checkpoint_kit import EMBEDDING_SIZE, meta_for, on_ranks
from tests.reference import optimizers as reference
from tests.registries import forget_afterwards

CLASSES, STEPS, MOMENTUM, DECAY = 11, 9, 0.9, 0.05
ADAMW = "weight", "first_moment", "second_moment"
PAGE = (Path(__file__).parents[2] / "docs" / "checkpoint_format.md").read_text(encoding="utf-8")


def made():
    """({tensor: as stored}, window, {tensor: up to date}); the dense optimizer, a plain loop in float64."""
    rng = np.random.default_rng(3)
    rates = rng.uniform(0.05, 0.2, STEPS)
    touched = rng.integers(0, STEPS + 1, CLASSES)
    touched[:2] = 0, STEPS
    shape = CLASSES, EMBEDDING_SIZE
    stored = {name: rng.standard_normal(shape).astype(np.float32) for name in ("weight", "velocity")}
    weight, velocity = (stored[name].astype(np.float64) for name in ("weight", "velocity"))
    window = np.tile(np.array([1.0, 0.0, 0.0, 1.0]), (STEPS + 1, 1))
    for step, rate in enumerate(rates):
        late = touched <= step
        velocity[late] = MOMENTUM * velocity[late] + DECAY * weight[late]
        weight[late] -= rate * velocity[late]
        for start in range(step + 1):  # the same on the pairs (1, 0) and (0, 1) of weight and velocity
            (ww, wv), (vw, vv) = window[start].reshape(2, 2)
            vw, vv = MOMENTUM * vw + DECAY * ww, MOMENTUM * vv + DECAY * wv
            window[start] = [ww - rate * vw, wv - rate * vv, vw, vv]
    return {TOUCHED: touched, **stored}, window, {"weight": weight, "velocity": velocity}


def save_waiting(run_dir, world_size, change=None):
    stored, window, _ = made()
    arrays = {"conv.w": np.ones(3, np.float32), "count": np.array([7]), WINDOW: window}
    if change is not None:
        change(stored, arrays)

    def work(group):
        first, last = class_range(CLASSES, group.rank, world_size)
        shard = ArrayShard({name: array[first:last] for name, array in stored.items()}, block_rows=2)
        given = (arrays, meta_for(CLASSES)) if group.rank == 0 else (None, {})
        return save(str(run_dir), 40, RankTensors(given[0], shard), given[1], group)

    results = [work(OneRank())] if world_size == 1 else on_ranks(world_size, work)
    errors = [result for result in results if isinstance(result, Exception)]
    if errors:
        raise errors[0]
    return results[0]


@pytest.mark.parametrize("world_size", [1, 3])
def test_readers_get_rows_that_are_up_to_date(tmp_path, world_size):
    path, manifest = open_checkpoint(save_waiting(tmp_path, world_size), OneRank())
    assert manifest.row_history == {"steps": STEPS}
    assert [spec.name for spec in manifest.shard_tensors] == ["weight", "velocity"]
    assert set(read_replicated(path, manifest)) == {"conv.w", "count"}
    for name, expected in made()[2].items():
        for first, last in ((0, CLASSES), (3, 9)):
            rows = np.concatenate(
                [rows for _, _, rows in read_rows(path, manifest, first, last, ReadOptions([name], block_rows=2))]
            )
            assert rows.dtype == np.float32
            np.testing.assert_allclose(rows, expected[first:last], rtol=2e-7, atol=1e-7)  # rounded to float32 once
    check_fits(path, manifest, Expected(shard=manifest.stored_specs(4)))  # a run that lets rows wait
    check_fits(path, manifest, Expected(shard=list(manifest.shard_tensors)))  # and one that does not


def test_stored_as_they_are_through_another_number_of_shards_and_back(tmp_path):
    path = save_waiting(tmp_path / "run", 3)
    other = reshard(path, str(tmp_path / "other"), 2)
    manifest, (stored, window, _) = read_manifest(other), made()
    np.testing.assert_array_equal(read_window(other, manifest), window)
    for name, expected in stored.items():
        blocks = read_rows(other, manifest, 0, CLASSES, ReadOptions([name], ReadOptions(stored=True)))
        np.testing.assert_array_equal(np.concatenate([rows for _, _, rows in blocks]), expected)
    assert read_manifest(reshard(other, str(tmp_path / "back"), 3)) == read_manifest(path)


def test_one_file_of_everything_is_up_to_date(tmp_path):
    merge(save_waiting(tmp_path, 2), str(tmp_path / "all.safetensors"))
    raw = (tmp_path / "all.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    assert set(header) == {"__metadata__", "conv.w", "count", "weight", "velocity"}
    first, last = header["weight"]["data_offsets"]
    found = np.frombuffer(raw[8 + size + first : 8 + size + last], "<f4").reshape(CLASSES, EMBEDDING_SIZE)
    np.testing.assert_allclose(found, made()[2]["weight"], rtol=2e-7, atol=1e-7)


def test_the_reader_on_the_page_brings_rows_up_to_date(tmp_path):
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    path = save_waiting(tmp_path, 3)
    subprocess.run([sys.executable, "-c", script, path, str(tmp_path / "out.npz")], check=True, timeout=60)
    with np.load(tmp_path / "out.npz") as found:
        assert set(found) == {"weight", "velocity"}
        for name, expected in made()[2].items():
            np.testing.assert_allclose(found[name], expected, rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("change, message", [
    (lambda rows, arrays: rows.pop(TOUCHED), "belong together"),
    (lambda rows, arrays: arrays.pop(WINDOW), "belong together"),
    (lambda rows, arrays: rows.pop("velocity"), "row_history must be left out without rows of weight and velocity"),
    (lambda rows, arrays: arrays.update({WINDOW: np.zeros((0, 4))}), "row_history must be"),
])  # fmt: skip
def test_what_cannot_be_is_not_saved(tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        save_waiting(tmp_path, 1, change)


def late(rows, arrays):
    rows[TOUCHED][5] = STEPS + 1


def early(rows, arrays):
    rows[TOUCHED][5] = -1


@pytest.mark.parametrize("change", [late, early])
@pytest.mark.parametrize("stored", [False, True])
def test_what_is_damaged_is_named(tmp_path, change, stored):
    path = save_waiting(tmp_path, 2, change)
    with pytest.raises(CheckpointError, match="shard_0000._of_00002.safetensors: touched names steps outside"):
        list(read_rows(path, read_manifest(path), 0, CLASSES, ReadOptions(stored=stored)))


class Adam(RowOptimizer):
    """Adam, made up for step by step."""

    slots = (Slot("first"), Slot("second"))

    def __init__(self, beta: float):
        self.beta = beta

    def numbers(self, count):
        return (1.0 / (1.0 - self.beta**count),)

    def step(self, weight, slots, gradient, step):
        first = self.beta * slots[0] + (1.0 - self.beta) * gradient
        second = self.beta * slots[1] + (1.0 - self.beta) * gradient * gradient
        change = first * step.numbers[0] / (step.xp.sqrt(second * step.numbers[0]) + 0.01)
        return weight - step.learning_rate * (change + step.weight_decay * weight), (first, second)


@pytest.fixture
def with_adam(tmp_path, monkeypatch):
    """A checkpoint whose rows wait for it, and what the dense optimizer makes of them, in a plain loop."""
    OPTIMIZERS.names()
    forget_afterwards(monkeypatch, OPTIMIZERS)
    register_optimizer("adam")(Adam)
    rng, beta = np.random.default_rng(4), 0.7
    touched = rng.integers(0, STEPS + 1, CLASSES)
    touched[:2] = 0, STEPS
    shape = CLASSES, EMBEDDING_SIZE
    stored = {name: rng.standard_normal(shape).astype(np.float32) for name in ("weight", "first", "second")}
    stored["second"] = stored["second"] ** 2
    dense = {name: rows.astype(np.float64) for name, rows in stored.items()}
    window = np.zeros((STEPS + 1, 3))
    for step, rate in enumerate(rng.uniform(0.05, 0.2, STEPS)):
        window[step] = 1.0, rate, 1.0 / (1.0 - beta ** (step + 1))
        if step == 3:
            window[step] = 0.0  # a step that was skipped
            continue
        for row in np.flatnonzero(touched <= step):
            dense["first"][row] *= beta
            dense["second"][row] *= beta
            unbias = 1.0 - beta ** (step + 1)
            change = dense["first"][row] / unbias / (np.sqrt(dense["second"][row] / unbias) + 0.01)
            dense["weight"][row] -= rate * (change + DECAY * dense["weight"][row])
    meta = {**meta_for(CLASSES), "row_history": describe_optimizer(build_optimizer("adam", {"beta": beta}), DECAY)}
    shard = ArrayShard({TOUCHED: touched, **stored}, block_rows=2)
    tensors = RankTensors({"conv.w": np.ones(3, np.float32), WINDOW: window}, shard)
    path = save(str(tmp_path / "adam"), 40, tensors, meta, OneRank())
    return path, dense, monkeypatch


def test_rows_that_wait_for_another_optimizer_are_brought_up_to_date_by_its_rule(with_adam, tmp_path):
    path, dense, _ = with_adam
    data = json.loads((Path(path) / "manifest.json").read_text())
    assert data["version"] == 3 and data["row_history"] == {
        "steps": STEPS, "optimizer": "adam", "arguments": {"beta": 0.7}, "weight_decay": DECAY, "numbers": 3,
        "tensors": ["weight", "first", "second"],
    }  # fmt: skip
    other = reshard(path, str(tmp_path / "other"), 3)
    back = reshard(other, str(tmp_path / "back"), 1)
    assert read_manifest(back) == read_manifest(path)
    for directory in (path, other):
        for name, expected in dense.items():
            blocks = read_rows(directory, read_manifest(directory), 0, CLASSES, ReadOptions([name], block_rows=4))
            rows = np.concatenate([rows for _, _, rows in blocks])
            np.testing.assert_allclose(rows, expected, rtol=2e-7, atol=1e-7, err_msg=name)


def test_an_optimizer_that_is_not_there_or_another_one_is_one_line(with_adam):
    path, _, monkeypatch = with_adam
    monkeypatch.setattr(Adam, "slots", (Slot("first"),))
    with pytest.raises(CheckpointError, match=r"kept \['weight', 'first', 'second'\] and 3 numbers a step, and keeps"):
        list(read_rows(path, read_manifest(path), 0, CLASSES))
    del OPTIMIZERS._entries["adam"]
    with pytest.raises(CheckpointError, match="pending for the optimizer 'adam', which is not registered; name its"):
        list(read_rows(path, read_manifest(path), 0, CLASSES))
    assert list(read_rows(path, read_manifest(path), 0, CLASSES, ReadOptions(stored=True)))


@pytest.mark.parametrize("numbers", [5 + 12, 4])  # 12 points; no points, but repeated steps
def test_rows_that_wait_for_adamw_with_other_points_are_read(tmp_path, numbers):
    """As versions before wrote them: a checkpoint in the middle of a run is not lost with the number of points."""
    rng, writer, options = np.random.default_rng(4), AdamW(), {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    before, count = writer.of_window(numbers), 30
    touched = rng.integers(0, STEPS + 1, CLASSES)
    touched[:2] = 0, STEPS
    stored = {name: rng.standard_normal((CLASSES, EMBEDDING_SIZE)).astype(np.float32) for name in ADAMW}
    stored["second_moment"] = stored["second_moment"] ** 2
    exact = {name: rows.astype(np.float64) for name, rows in stored.items()}
    window = np.zeros((STEPS + 1, numbers))
    window[0] = before.nothing_missed()
    for step, rate in enumerate(rng.uniform(0.05, 0.2, STEPS)):
        late, own = touched <= step, count + step + 1
        moments = [exact[name][late] for name in ADAMW[1:]]
        dense = reference.AdamW(**options).step(exact["weight"][late], moments, 0.0, rate, DECAY, own)
        for name, rows in zip(ADAMW, (dense, *moments)):
            exact[name][late] = rows
        window[: step + 1] = before.missed(window[: step + 1], Step(rate, DECAY, tuple(writer.numbers(own))))
        window[step + 1] = before.nothing_missed()
    described = describe_optimizer(build_optimizer("adamw", options), DECAY)
    assert described["numbers"] != numbers
    meta = {**meta_for(CLASSES), "row_history": {**described, "numbers": numbers}}
    tensors = RankTensors({WINDOW: window}, ArrayShard({TOUCHED: touched, **stored}, block_rows=2))
    path = save(str(tmp_path / "adamw"), 40, tensors, meta, OneRank())
    for name in ADAMW:
        blocks = read_rows(path, read_manifest(path), 0, CLASSES, ReadOptions([name]))
        rows = np.concatenate([rows for *_, rows in blocks])
        # float32 of the result, and 1e-6 of what AdamW changed (plsc.rows.optimizers.missed_adam), at most 1.5
        np.testing.assert_allclose(rows, exact[name], rtol=2e-7, atol=2e-6, err_msg=name)


def test_a_window_that_is_not_finite_is_refused():
    with pytest.raises(CheckpointError, match="file: classifier.row_window holds numbers that are not finite"):
        PendingRows("file", np.full((2, 4), np.inf), {"steps": 1})


def test_an_old_reader_refuses_it_and_old_ones_are_read(tmp_path):
    path = save_waiting(tmp_path, 1)
    data = json.loads((Path(path) / "manifest.json").read_text())
    assert data["version"] == 2 and data["row_history"] == {"steps": STEPS}

    def without(rows, arrays):
        del rows[TOUCHED], arrays[WINDOW]

    old = save_waiting(tmp_path / "old", 1, without)
    data = json.loads((Path(old) / "manifest.json").read_text())
    assert data["version"] == 1 and "row_history" not in data and read_manifest(old).row_history is None
