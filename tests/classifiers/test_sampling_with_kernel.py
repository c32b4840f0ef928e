"""The GPU way of sampling, run on the CPU: class_center_sample as each rank uses it, and the labels that follow."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.backend import collectives
from plsc.classifiers import sampling

paddle.enable_static()
NUM_LOCAL = [13, 13, 13, 8]  # the last rank has the remainder
BATCH = 9


def run_rank(rank, labels, num_sample, step, counts):
    """(index, position, label for margin_cross_entropy) of one rank; ``counts`` are the sample sizes of all."""
    main = paddle.static.Program()
    with paddle.static.program_guard(main, paddle.static.Program()):
        value = paddle.static.data("label", [BATCH], "int64")
        now = paddle.static.data("step", [1], "int64")
        gathered = paddle.static.data("counts", [len(NUM_LOCAL)], "int64")
        local = value - sum(NUM_LOCAL[:rank])
        owned = paddle.logical_and(local >= 0, local < NUM_LOCAL[rank])
        labels_of_rank = sampling.ShardLabels(local, owned)
        options = sampling.SampleOptions(NUM_LOCAL[rank], num_sample[rank], now, sampling.stream_key(3, rank))
        index = sampling.sample_with_kernel(labels_of_rank, options)
        position = sampling.positions(index, labels_of_rank)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(collectives, "all_gather", lambda own, world_size: gathered)
            label = sampling.labels_over_ranks(position, index, rank, len(NUM_LOCAL))
    feed = {"label": labels, "step": np.array([step], np.int64), "counts": counts}
    return paddle.static.Executor(paddle.CPUPlace()).run(main, feed=feed, fetch_list=[index, position, label])


@pytest.mark.parametrize("ratio", [0.1, 0.6], ids=["more positives than the sample", "few positives"])
@pytest.mark.parametrize("labels", [[0, 0, 1, 12, 13, 26, 39, 46, 46], [5] * 9, [39, 40, 41, 42, 43, 44, 45, 46, 39]])
def test_each_label_is_seen_by_its_owner_only(labels, ratio):
    """margin_cross_entropy takes column ``label - first`` of the rank whose columns first .. first + S hold it."""
    labels = np.array(labels, np.int64)
    num_sample = [sampling.num_sample(count, ratio) for count in NUM_LOCAL]
    ranks, firsts = range(len(NUM_LOCAL)), np.cumsum([0, *NUM_LOCAL])
    any_counts = np.ones(len(NUM_LOCAL), np.int64)
    paddle.seed(5)
    sizes = [len(run_rank(rank, labels, num_sample, 0, any_counts)[0]) for rank in ranks]
    starts = np.cumsum([0, *sizes])
    for rank in ranks:
        index, position, label = run_rank(rank, labels, num_sample, 0, np.array(sizes, np.int64))
        owned = (labels >= firsts[rank]) & (labels < firsts[rank + 1])
        positives = np.unique(labels[owned])
        assert len(index) == max(num_sample[rank], len(positives)) == sizes[rank]
        assert len(set(index)) == len(index) and index.min() >= 0 and index.max() < NUM_LOCAL[rank]
        seen = (label >= starts[rank]) & (label < starts[rank + 1])
        np.testing.assert_array_equal(seen, owned)
        assert label.min() >= 0 and label.max() < starts[-1]  # the kernel refuses others
        np.testing.assert_array_equal(index[label[owned] - starts[rank]] + firsts[rank], labels[owned])
        np.testing.assert_array_equal(position, np.where(owned, label - starts[rank], -1))


def test_a_rank_without_positives_favours_no_row():
    labels = np.full(BATCH, 46, np.int64)
    drawn = np.zeros(NUM_LOCAL[0])
    paddle.seed(1)
    steps = 400
    main = paddle.static.Program()
    with paddle.static.program_guard(main, paddle.static.Program()):
        local, now = paddle.static.data("local", [BATCH], "int64"), paddle.static.data("step", [1], "int64")
        owned = local < NUM_LOCAL[0]
        options = sampling.SampleOptions(NUM_LOCAL[0], 3, now, sampling.stream_key(0, 0))
        index = sampling.sample_with_kernel(sampling.ShardLabels(local, owned), options)
    executor = paddle.static.Executor(paddle.CPUPlace())
    for step in range(steps):
        (rows,) = executor.run(main, feed={"local": labels, "step": np.array([step], np.int64)}, fetch_list=[index])
        assert len(rows) == 3
        drawn[rows] += 1
    expected = steps * 3 / NUM_LOCAL[0]
    # 13 binomial counts with standard deviation 8.4: five of them are passed by chance once in 10^5
    assert np.abs(drawn - expected).max() < 5 * np.sqrt(expected * (1 - 3 / NUM_LOCAL[0]))
