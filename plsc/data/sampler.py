"""The samples of each step: one stream for all ranks, split into global batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plsc.data.balanced import BalancedOrder
from plsc.data.philox import SHUFFLE, philox
from plsc.data.shared_index import share_order
from plsc.errors import DataError

WINDOW_RUNS = 32  # runs of consecutive samples in a window


@dataclass(frozen=True)
class SampleOrder:
    """The order of the samples. shuffle: a new permutation in each epoch; False: 0, 1, 2, ... in every epoch.

    window: with shuffle, the permutation is made of windows of so many samples, each of WINDOW_RUNS runs of consecutive
    ones from all over the data: a window is read while little else is. None: of all samples at once.
    skip: number of samples at the start of the stream that belong to no step, for a run that began with another global
    batch.
    balanced: groups of P identities x K images in place of permutations.
    """

    shuffle: bool = True
    skip: int = 0
    window: int | None = None
    balanced: BalancedOrder | None = None

    def epoch_length(self, num_images: int) -> int:
        """The samples of an epoch of so many images."""
        return num_images if self.balanced is None else self.balanced.length


SHUFFLED = SampleOrder()


class GlobalBatchSampler:
    """The order of the training samples, a pure function of (seed, step, rank, world_size).

    The stream is a concatenation of one permutation of all samples per epoch. Step s takes positions [s*G, (s+1)*G)
    with G = batch_size * world_size, and rank r the r-th B = batch_size of them. So each sample is used exactly once
    per epoch without padding or dropping, ranks never overlap, a batch may cross epochs, a run can resume at any step,
    and N ranks see the same samples as one rank with a batch of G. With order.balanced an epoch is what BalancedOrder
    says, in place of a permutation.

    num_samples: samples of one epoch, the length of order.balanced where there is one. batch_size: samples of one step
    of one rank. order: see SampleOrder.
    Raises DataError for an empty data set and for a global batch larger than the data set.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        order: SampleOrder = SHUFFLED,
    ) -> None:
        if batch_size < 1 or world_size < 1 or not 0 <= rank < world_size or order.skip < 0:
            raise ValueError(
                f"invalid: batch_size={batch_size}, rank={rank}, world_size={world_size}, skip={order.skip}"
            )
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.order = order
        self.global_batch = batch_size * world_size
        self._permutations: dict[int, np.ndarray] = {}
        if order.balanced is not None and num_samples != order.balanced.length:
            raise ValueError(f"invalid: num_samples={num_samples}, an epoch has {order.balanced.length}")
        _check_size(num_samples, batch_size, world_size)

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(epoch [B] int64, index [B] int64) of the samples that this rank reads in this step (0, 1, ...).

        In a balanced order, where an image may come several times in an epoch, the position in the stream takes the
        place of the epoch: augmentations depend on it, and differ each time.
        """
        start = self.order.skip + step * self.global_batch + self.rank * self.batch_size
        position = np.arange(start, start + self.batch_size, dtype=np.int64)
        epoch, offset = np.divmod(position, self.num_samples)
        if not self.order.shuffle:
            return epoch, offset
        index = np.empty_like(offset)
        for current in range(int(epoch[0]), int(epoch[-1]) + 1):
            here = epoch == current
            index[here] = self._permutation(current)[offset[here]]
        return (epoch if self.order.balanced is None else position), index

    def steps(self, num_epochs: int) -> int:
        """Number of steps until every sample has been used num_epochs times; the next epoch fills the last batch."""
        return -(-num_epochs * self.num_samples // self.global_batch)

    def epoch_of(self, step: int) -> int:
        """The epoch (0, 1, ...) of the first sample of the global batch of this step."""
        return step * self.global_batch // self.num_samples

    def _permutation(self, epoch: int) -> np.ndarray:
        """The permutation of one epoch. A batch is at most an epoch, so two permutations suffice."""
        if epoch not in self._permutations:
            while len(self._permutations) >= 2:
                del self._permutations[max(self._permutations, key=lambda kept: abs(kept - epoch))]
            self._permutations[epoch] = self._draw(epoch)
        return self._permutations[epoch]

    def _draw(self, epoch: int) -> np.ndarray:
        if self.order.balanced is not None:
            return self.order.balanced(self.seed, epoch)
        seed, count, window = self.seed, self.num_samples, self.order.window
        return share_order([seed, epoch, window], count, lambda: _permutation(seed, epoch, count, window))


def _permutation(seed: int, epoch: int, count: int, window: int | None) -> np.ndarray:
    """The samples in the order of an epoch.

    Without a window what ``Generator.permutation(count)`` draws, in 4 bytes a sample instead of 8 where they suffice.
    With one the runs are permuted so, and then the samples of each WINDOW_RUNS of them, by a stream of its own.
    """
    kind = np.uint32 if count <= 2**32 else np.int64
    run = 1 if window is None else max(1, window // WINDOW_RUNS)
    runs = np.arange(-(-count // run), dtype=kind)
    philox(seed, SHUFFLE, epoch).shuffle(runs)
    if window is None:
        return runs
    order = np.empty(count, kind)
    filled = 0
    for number, first in enumerate(range(0, len(runs), WINDOW_RUNS), 1):
        starts = runs[first : first + WINDOW_RUNS].astype(np.int64) * run
        samples = (starts[:, None] + np.arange(run)).reshape(-1)
        samples = samples[samples < count]  # the last run may be shorter
        philox(seed, SHUFFLE, epoch, number).shuffle(samples)
        order[filled : filled + len(samples)] = samples
        filled += len(samples)
    return order


def _check_size(num_samples: int, batch_size: int, world_size: int) -> None:
    if num_samples < 1:
        raise DataError("the training data set is empty: it needs at least one image per rank")
    if num_samples < world_size:
        raise DataError(f"{num_samples:,} training images are fewer than the {world_size:,} ranks: use fewer ranks")
    if batch_size * world_size > num_samples:
        raise DataError(
            f"train_batch_size={batch_size} on {world_size} rank(s) makes a global batch of "
            f"{batch_size * world_size:,}, more than the {num_samples:,} training images: lower it to at most "
            f"{num_samples // world_size}"
        )
