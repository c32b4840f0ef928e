"""Writing, reading and hashing a shard take the memory of a few blocks, not of the shard."""

from __future__ import annotations

import tracemalloc

import numpy as np

from plsc.checkpoint import (
    OneRank,
    RankTensors,
    ReadOptions,
    TensorSpec,
    open_checkpoint,
    read_manifest,
    read_rows,
    save,
)
from tests.checkpoint.checkpoint_kit import EMBEDDING_SIZE, meta_for


class Generated:
    """A shard that exists only block by block."""

    def __init__(self, rows, block_rows):
        self.rows, self.block_rows = rows, block_rows

    def tensors(self):
        return [TensorSpec("w", "F32", (self.rows, EMBEDDING_SIZE))]

    def blocks(self):
        for first in range(0, self.rows, self.block_rows):
            yield "w", first, np.full((min(self.block_rows, self.rows - first), EMBEDDING_SIZE), first, np.float32)


def test_memory_stays_at_a_few_blocks(tmp_path):
    rows, block_rows = 1_000_000, 20_000
    block_bytes, total = block_rows * EMBEDDING_SIZE * 4, rows * EMBEDDING_SIZE * 4
    tracemalloc.start()
    path = save(str(tmp_path), 1, RankTensors({}, Generated(rows, block_rows)), meta_for(rows), OneRank())
    writing = tracemalloc.get_traced_memory()[1]
    manifest = read_manifest(path)
    tracemalloc.reset_peak()
    for _, row, block in read_rows(path, manifest, 10, rows, ReadOptions(block_rows=block_rows)):
        assert block[0, 0] == (row + 10) // block_rows * block_rows
    reading = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    open_checkpoint(path, OneRank())
    hashing = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Two blocks (the next one is made while the last is still held), the file's buffer and small change.
    assert writing < 2 * block_bytes + 300_000 < total / 10
    assert reading < 2 * block_bytes + 300_000
    assert hashing < (1 << 22) + 300_000 < total
