"""Hard negatives: a share of the sample is the rows that were nearest to the features of the batch's classes before.

The table holds, for each class of the shard, the classes nearest to its feature when it was last in a batch, among all
classes that were sampled then, on any rank. It is read for the labels of a batch before rows are drawn, and written
after the forward pass. As an array with one row per class it is saved and distributed like the class centres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import paddle

from plsc.backend import collectives, static
from plsc.classifiers.nearest_rows import NearestRows, choose
from plsc.classifiers.sampling import ShardLabels, first_of_same, labels_in
from plsc.classifiers.spec import ClassifierSpec, Shard
from plsc.parallel.environment import Environment
from plsc.rows.storage import ClassTable

COUNT = 8  # classes that are kept for each class
NO_ROW = -1e30  # above what stands for no row, below every cosine and dot product
NEAREST = "nearest"  # of the table in a checkpoint


@dataclass(frozen=True)
class HardNegatives:
    """``table`` int32 [L, COUNT]: class + 1, the nearest first, 0 for none. ``num_hard``: the most rows that this rank
    samples for it; 0 in a shard that is too small, which takes part nevertheless."""

    table: ClassTable
    shard: Shard
    num_hard: int

    @classmethod
    def create(cls, spec: ClassifierSpec, shard: Shard, env: Environment) -> HardNegatives | None:
        """Create the table in the current program; None where no rank has hard negatives. That is the same on every
        rank, as they exchange what they find: rank 0 has the most classes."""
        if not number_of_hard(spec, Shard.of(spec, replace(env, rank=0))):
            return None
        prefix = f"dist@nearest@rank@{env.rank:05d}" if spec.model_parallel else "full@nearest"
        # the last row belongs to no class: what is not to be kept is written there
        table = ClassTable(static.create_state(prefix, [shard.num_local + 1, COUNT], "int32"))
        return cls(table, shard, number_of_hard(spec, shard))

    def rows(self, labels) -> ShardLabels:
        """The rows for a batch with these ``labels`` [G] int64, [G * COUNT]: the nearest of each feature first."""
        own = self._in_shard(labels)
        found = paddle.cast(self.table.read(paddle.where(own.owned, own.row, paddle.zeros_like(own.row))), "int64")
        found = found * paddle.unsqueeze(paddle.cast(own.owned, "int64"), 1)
        found = collectives.all_reduce(found, self.shard.world_size)  # one rank owns each label
        return self._in_shard(paddle.reshape(paddle.transpose(found, [1, 0]), [-1]) - 1)

    def next_rows(self, labels, nearest: list, index, env: Environment) -> tuple:
        """(index [G], rows [G, COUNT] int32) to write into the table after the step, from what the head found:
        ``nearest`` of plsc.classifiers.nearest_rows [COUNT, n] for the n features that it saw, as positions in
        ``index`` [S]. ``labels`` [G]: of the global batch."""
        cosines, positions = nearest
        rows = paddle.reshape(paddle.gather(index, paddle.reshape(positions, [-1])), [COUNT, -1])
        classes = rows + (self.shard.first + 1)
        classes = paddle.where(cosines > NO_ROW, classes, paddle.zeros_like(classes))
        if self.shard.world_size > 1:  # other ranks have other rows of the same features
            _, classes = choose(COUNT, *(collectives.all_gather(value, env.world_size) for value in (cosines, classes)))
        classes = paddle.transpose(classes, [1, 0])
        if self.shard.world_size == 1:  # other ranks have other features
            classes = collectives.all_gather(classes, env.world_size)
        is_own = classes == paddle.unsqueeze(labels + 1, 1)  # masked, and found where there are hardly any other rows
        classes = paddle.where(is_own, paddle.zeros_like(classes), classes)
        first = first_of_same(labels)  # writes of one row must not differ
        own = self._in_shard(labels)
        row = paddle.where(own.owned, own.row, paddle.full_like(own.row, self.shard.num_local))
        return row, paddle.cast(paddle.gather(classes, first), "int32")

    def _in_shard(self, labels) -> ShardLabels:
        return labels_in(labels, self.shard.first, self.shard.num_local)


def number_of_hard(spec: ClassifierSpec, shard: Shard) -> int:
    """The most hard negatives of a rank's sample."""
    return int(spec.hard_negative_share * shard.num_sample) if shard.samples else 0


def searcher(hard: HardNegatives | None) -> NearestRows | None:
    """What finds the nearest rows in the head."""
    return None if hard is None else NearestRows(COUNT)
