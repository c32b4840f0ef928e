"""Balanced batches: held against plain lists, and their distribution against the definition."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from plsc.config import Config
from plsc.data import GlobalBatchSampler, Loader, SampleOrder, SourceDataset, SyntheticDataset
from plsc.data.balanced import BalancedOrder, GroupSize
from plsc.data.opening import sample_order
from plsc.data.philox import BALANCED_IDENTITIES, BALANCED_IMAGES, philox
from plsc.errors import ConfigError, DataError

SIZES = [5, 1, 9, 2, 4, 7, 3, 12]  # images of each label; label 8 has none, label 9 has 6


def labels_of(sizes: list[int], seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).permutation(np.append(labels, [len(sizes) + 1] * 6))


def plain_epoch(labels: np.ndarray, size: GroupSize, seed: int, epoch: int) -> list[int]:
    """The same by plain lists."""
    images = {label: [i for i, one in enumerate(labels) if one == label] for label in sorted(set(labels.tolist()))}
    names, groups = list(images), -(-len(labels) // size.total)
    waiting: list[int] = []
    who: list[int] = []
    number = 0
    for _ in range(groups):
        group: list[int] = []
        while len(group) < size.identities:
            if not waiting:
                waiting = [names[i] for i in philox(seed, BALANCED_IDENTITIES, epoch, number).permutation(len(names))]
                number += 1
            group.append(waiting.pop(next(i for i, one in enumerate(waiting) if one not in group)))
        who += group
    generator, left = philox(seed, BALANCED_IMAGES, epoch, 0), [list(images[one]) for one in who]
    drawn: list[list[int]] = [[] for _ in who]
    for _ in range(size.images):
        for place, one in enumerate(who):
            left[place] = left[place] or list(images[one])
        for place, draw in enumerate(generator.integers(0, np.array([len(one) for one in left]))):
            drawn[place].append(left[place].pop(draw))
    return [image for one in drawn for image in one]


@pytest.mark.parametrize("identities, images", [(1, 1), (4, 2), (3, 5), (9, 3), (7, 4)])
def test_an_epoch_against_plain_lists(identities, images):
    labels, size = labels_of(SIZES), GroupSize(identities, images)
    order = BalancedOrder(labels, size)
    for epoch in range(4):
        found = order(5, epoch).tolist()
        assert found == plain_epoch(labels, size, 5, epoch)
        assert len(found) == order.length and len(labels) <= order.length < len(labels) + size.total


@pytest.mark.parametrize("identities, images", [(4, 2), (9, 3), (5, 6)])
def test_every_group_is_p_different_identities_with_k_images_each(identities, images):
    labels, size = labels_of([10 * one for one in SIZES]), GroupSize(identities, images)
    counts = Counter(labels.tolist())
    uses: Counter = Counter()
    for group in BalancedOrder(labels, size)(1, 0).reshape(-1, identities, images):
        who = labels[group]
        assert (who == who[:, :1]).all() and len(set(who[:, 0].tolist())) == identities
        uses.update(who[:, 0].tolist())
        for one, drawn in zip(who[:, 0].tolist(), group):
            often = Counter(drawn.tolist())
            least, rest = divmod(images, counts[one])
            assert set(often.values()) <= {least, least + 1} and len(often) == min(images, counts[one])
            assert sum(number == least + 1 for number in often.values()) == rest or not least
    assert set(uses) == set(counts) and max(uses.values()) - min(uses.values()) <= 1


def chi_square(counts: np.ndarray) -> float:
    return float(((counts - counts.mean()) ** 2 / counts.mean()).sum())


def test_identities_and_images_are_drawn_uniformly():
    """Over 6,000 epochs of 2 groups. Chi-square has 59 (ordered triples of 5 images) and 89 (ordered pairs of
    identities in neighbouring places, across passes too) degrees of freedom: 120 and 160 are beyond 5 sigma."""
    labels = np.repeat(np.arange(10), 5)
    order = BalancedOrder(labels, GroupSize(6, 3))
    assert order.length == 54
    triples: Counter = Counter()
    pairs: Counter = Counter()
    for epoch in range(6000):
        drawn = order(3, epoch).reshape(-1, 3)
        triples.update(map(tuple, (drawn % 5).tolist()))
        who = drawn[:6, 0] // 5  # of the first group
        pairs.update(zip(who[::2].tolist(), who[1::2].tolist()))
    assert len(triples) == 60 and chi_square(np.array(list(triples.values()))) < 120
    assert len(pairs) == 90 and chi_square(np.array(list(pairs.values()))) < 160


def sampler(labels, batch_size, rank, world_size, skip=0):
    order = BalancedOrder(labels, GroupSize(4, 3))
    return GlobalBatchSampler(
        order.length, batch_size, rank, world_size, 5, SampleOrder(skip=skip, balanced=order)
    )  # fmt: skip


@pytest.mark.parametrize("world_size", [2, 3, 4, 6])
def test_ranks_share_the_stream_of_one_rank(world_size):
    """A group may lie on several ranks; steps may begin anywhere, as a resumed run does; batches cross epochs."""
    labels = labels_of(SIZES)
    whole = sampler(labels, 24, 0, 1)
    for step in (7, 0, 2, 3, 11):
        parts = [sampler(labels, 24 // world_size, rank, world_size).indices(step) for rank in range(world_size)]
        for which in (0, 1):
            np.testing.assert_array_equal(np.concatenate([part[which] for part in parts]), whole.indices(step)[which])


def test_a_run_that_continues_with_another_global_batch_uses_the_same_stream():
    labels = labels_of(SIZES)
    straight = np.concatenate([sampler(labels, 12, 0, 1).indices(step)[1] for step in range(20)])
    later = [sampler(labels, 24, 0, 1, skip=36 % 24).indices(step)[1] for step in range(1, 6)]  # after 3 steps of 12
    np.testing.assert_array_equal(np.concatenate(later), straight[36:156])


def test_an_image_that_repeats_is_augmented_anew():
    draw, index = sampler(labels_of([1, 1, 1]), 12, 0, 1).indices(0)
    assert len(set(index.tolist())) < 12 and len(set(draw.tolist())) == 12


def test_batches_do_not_depend_on_the_number_of_workers():
    data = SyntheticDataset(40, 6, [3, 8, 8], seed=2)
    order = sample_order(Config.from_dict(BALANCED), data)
    batches = []
    for workers in (0, 3):
        one = GlobalBatchSampler(order.epoch_length(40), 6, 1, 2, 5, order)
        with Loader(data, one, workers, 2, 9) as loader:
            batches.append([(step, labels.tolist(), images.tobytes()) for step, images, labels in loader])
    assert batches[0] == batches[1] and len(batches[0]) == 7


BALANCED = {"data": {"sampler": "balanced", "identities": 3, "images_per_identity": 2}}


def test_groups_must_divide_the_global_batch():
    config = Config.from_dict({**BALANCED, "train_batch_size": 9})
    config.check(world_size=2)
    with pytest.raises(
        ConfigError, match=r"^data.identities=3: groups of 3 .* x 2 .* = 6 do not divide .* 9 \(tr"
    ):
        config.check(world_size=1)
    with pytest.raises(ConfigError, match="the global batch of 27"):
        config.check(world_size=3)
    Config.from_dict({"train_batch_size": 9}).check(world_size=1)


def test_what_has_no_effect_is_said():
    assert any("images_per_identity=2: has no effect with data.sampler: shuffle" in line
               for line in Config.from_dict({"data": {"images_per_identity": 2}}).without_effect())  # fmt: skip
    config = Config.from_dict({"data": {**BALANCED["data"], "shuffle_window": 64}})
    assert any(
        "shuffle_window=64: has no effect with data.sampler: balanced" in line for line in config.without_effect()
    )


def test_the_note_says_what_an_epoch_is_and_counts_small_identities():
    note = BalancedOrder(labels_of(SIZES), GroupSize(4, 3)).note()
    assert note == (
        "data.sampler: balanced: groups of 4 identities x 3 images; an epoch is 60 samples, in which each of 9 "
        "identities comes 2.2 times on average; 2 have fewer than 3 images, which repeat within a group"
    )
    assert "fewer" not in BalancedOrder(np.repeat(np.arange(5), 3), GroupSize(4, 3)).note()


def test_too_few_identities_and_unknown_or_wrong_labels():
    with pytest.raises(DataError, match=r"^data.identities=7: the training data has images of 6 .* at most 6$"):
        BalancedOrder(np.arange(6), GroupSize(7, 1))
    data = SyntheticDataset(40, 6, [3, 8, 8], seed=2)
    for labels, text in [(None, "needs the labels of all images"), (np.zeros(39, int), "40 integers in 0..5"),
                         (np.full(40, 6), "40 integers"), (np.zeros(40), "40 integers")]:  # fmt: skip
        data.source.known_labels = lambda labels=labels: labels
        with pytest.raises(DataError, match=text):
            sample_order(Config.from_dict(BALANCED), data)


def test_labels_of_several_sources():
    from plsc.data.augmentations import Augmentations
    from plsc.data.datasets import Preparation
    from plsc.data.several import Part, SeveralSources
    from plsc.data.sources.synthetic import SyntheticSource

    parts = [SyntheticSource(3, [3, 8, 8], 0, 7), SyntheticSource(4, [3, 8, 8], 0, 9)]
    for part, classes in zip(parts, (3, 4)):
        part.num_classes = classes
    several = SeveralSources([Part("a", parts[0]), Part("b", parts[1])], None)
    data = SourceDataset(several, 7, Preparation((3, 8, 8), Augmentations([], 0)))
    assert several.known_labels().tolist() == [data.read(index)[1] for index in range(16)]
    parts[1].known_labels = lambda: None
    assert several.known_labels() is None
