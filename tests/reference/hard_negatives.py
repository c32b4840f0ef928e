"""Hard negatives in NumPy: the table of the classes nearest to each class, and the samples that follow from it. One
process that knows all classes; sets and loops."""

from __future__ import annotations

import numpy as np

from plsc.classifiers import sampling
from tests.reference.margin_softmax import unit

COUNT = 8


def order_of_draws(num_local, seed, rank, step):
    """The rows of a shard in the order in which a step draws them."""
    bits = max(sampling.MIN_BITS, (num_local - 1).bit_length())
    of_step = np.int64(sampling.mix(np.int64(step ^ sampling.stream_key(seed, rank))))
    keys = [sampling.mix(of_step, keys=(turn,)) & ((1 << bits) - 1) for turn in range(1, sampling.ROUNDS + 1)]
    mixed = sampling.mix(np.arange(1 << bits), bits, keys)
    return mixed[mixed < num_local]


class Model:
    """``shards``: [(first, end)] of the classes. ``nearest``: {class: [classes, the nearest first]}."""

    def __init__(self, shards, ratio, share, seed):
        self.shards, self.ratio, self.share, self.seed = shards, ratio, share, seed
        self.nearest: dict[int, list[int]] = {}
        self.num_hard = 0  # in the last samples
        self.gap = np.inf  # between the last cosine that is kept and the next: below rounding it would say nothing

    def samples(self, labels, step):
        """The sorted classes that each rank samples."""
        named = [self.nearest.get(int(label), []) for label in labels]
        in_order = [near[place] for place in range(COUNT) for near in named if place < len(near)]
        self.num_hard, found = 0, []
        for rank, (first, end) in enumerate(self.shards):
            size = sampling.num_sample(end - first, self.ratio)
            positives = sorted({int(label) for label in labels if first <= label < end})
            hard = [c for c in dict.fromkeys(in_order) if first <= c < end and c not in positives]
            hard = hard[: int(self.share * size)][: max(0, size - len(positives))]
            taken = positives + hard
            rest = [first + row for row in order_of_draws(end - first, self.seed, rank, step)]
            rest = [c for c in rest if c not in taken][: max(0, size - len(taken))]
            self.num_hard += len(hard)
            found.append(np.array(sorted(taken + rest)))
        return found

    def remember(self, feature, rows, sample, labels):
        """``rows`` [C, E] of all classes, ``sample``: classes of all ranks."""
        cosine = unit(feature)[0] @ unit(rows[sample])[0].T
        found = {}
        for row, label in zip(cosine, labels):
            order = [place for place in np.argsort(-row) if sample[place] != label]
            best = [row[place] for place in order[: COUNT + 1]]
            self.gap = min([self.gap, *-np.diff(best)])
            found.setdefault(int(label), [int(sample[place]) for place in order[:COUNT]])  # of the first such image
        self.nearest.update(found)

    def table(self, num_classes):
        """[num_classes, COUNT]: class + 1, 0 for none."""
        table = np.zeros((num_classes, COUNT), np.int32)
        for label, near in self.nearest.items():
            table[label, : len(near)] = np.array(near) + 1
        return table
