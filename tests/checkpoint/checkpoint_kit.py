"""What the checkpoint tests share: ranks as threads, and a checkpoint whose every value is known."""

from __future__ import annotations

import json
import threading

import numpy as np

from plsc.checkpoint import ArrayShard, OneRank, RankTensors, save
from plsc.parallel.shards import class_range

EMBEDDING_SIZE = 3


class Killed(BaseException):
    """A rank is gone, as by kill -9: it cleans nothing up, and the others hear that it has ended."""


class ThreadGroup:
    """One rank of several that are threads of this process; values travel as JSON, as they do between processes."""

    def __init__(self, rank, world_size, barrier, board):
        self.rank, self.world_size = rank, world_size
        self._barrier, self._board = barrier, board

    def all_gather(self, value):
        self._board[self.rank] = json.dumps(value)
        self._barrier.wait()
        values = [json.loads(text) for text in self._board]
        self._barrier.wait()
        return values

    def barrier(self, name):
        assert set(self.all_gather(name)) == {name}


def on_ranks(world_size, work):
    """[work(group) of each rank]; an error is a result, so that a test can look at all of them. Where a rank is killed,
    what the others wait for fails."""
    barrier, board, results = threading.Barrier(world_size, timeout=30), [None] * world_size, [None] * world_size

    def run(rank):
        try:
            results[rank] = work(ThreadGroup(rank, world_size, barrier, board))
        except Exception as error:
            results[rank] = error
        except Killed as error:
            results[rank] = error
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def meta_for(num_classes, **changes):
    meta = {
        "paddle_version": "3.3.1", "num_classes": num_classes, "embedding_size": EMBEDDING_SIZE, "epoch": 2,
        "position": {"sample": 640}, "config": {"lr": 0.1, "image_shape": [3, 112, 112]},
        "random_states": {"philox": [2**64 - 1, 7]}, "lr_state": {"last_lr": 0.1 + 0.2}, "extra": {"note": "é"},
    }  # fmt: skip
    return {**meta, **changes}


def class_arrays(num_classes, salt=0):
    """The whole classifier: weight, its momentum and a bias, every value different."""
    weight = np.arange(num_classes * EMBEDDING_SIZE, dtype=np.float32).reshape(num_classes, EMBEDDING_SIZE) + salt
    return {"fc.w": weight, "fc.w_velocity": -weight - 1000, "fc.b": np.arange(num_classes, dtype=np.float64) + salt}


def replicated_arrays(salt=0):
    return {
        "conv.w": np.arange(24, dtype=np.float32).reshape(2, 3, 4) + salt,
        "loss_scale": np.array(1024 + salt, np.float32),
        "half": np.arange(5, dtype=np.float16),
        "count": np.array([2**40 + salt]),
        "flag": np.array([True, False, True]),
        "empty": np.zeros((0, 4), np.float32),
    }


def save_as(run_dir, step, num_classes, world_size, salt=0, **changes):
    """Save the known checkpoint with `world_size` ranks and return its directory."""
    whole = class_arrays(num_classes, salt)

    def work(group):
        first, last = class_range(num_classes, group.rank, world_size)
        shard = ArrayShard({name: array[first:last] for name, array in whole.items()}, block_rows=2)
        main = group.rank == 0
        arrays, meta = (replicated_arrays(salt), meta_for(num_classes, **changes)) if main else (None, {})
        return save(str(run_dir), step, RankTensors(arrays, shard), meta, group)

    results = [work(OneRank())] if world_size == 1 else on_ranks(world_size, work)
    for result in results:
        if isinstance(result, Exception):
            raise result
    assert len(set(results)) == 1
    return results[0]


def gather_rows(blocks, specs, rows):
    """Put blocks into arrays, checking that each row comes once."""
    arrays = {spec.name: np.zeros((rows, *spec.shape[1:]), spec.numpy_dtype) for spec in specs}
    seen = {spec.name: np.zeros(rows, int) for spec in specs}
    for name, row, block in blocks:
        arrays[name][row : row + len(block)] = block
        seen[name][row : row + len(block)] += 1
    assert all((count == 1).all() for count in seen.values())
    return arrays


def same_arrays(found, expected):
    assert list(sorted(found)) == list(sorted(expected))
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)
