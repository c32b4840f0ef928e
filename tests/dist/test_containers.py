"""The same images in every container: the same run to the bit, on any number of ranks, also when it is resumed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.container_kit import images, write_all
from tests.dist.container_cases import SAVED, STEPS
from tests.dist.ranks import run

LABELS = [number // 2 for number in range(23)]  # an epoch is no whole number of batches; step SAVED lies in the second
RANKS = (1, 2)
# of each way to read: a file an image, one file, several files, parts; all begin at an index, which is the sampler's
RESUMED = {1: ("folder", "without_idx", "lmdb", "several"), 2: ("shards", "window_list")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[int, dict]:
    """{number of ranks: what rank 0 tells of its runs}."""
    data = write_all(tmp_path_factory.mktemp("data"), images(len(LABELS), side=16), LABELS)
    data.update({f"window_{name}": {**data[name], "shuffle_window": 64} for name in ("list", "parquet")})
    found = {}
    for ranks in RANKS:
        directory = tmp_path_factory.mktemp(f"ranks{ranks}")
        payload = {"cwd": str(directory), "data": data, "resumed": RESUMED[ranks]}
        found[ranks] = run("tests.dist.container_cases:train", ranks, directory, payload)[0]
    return found


@pytest.mark.parametrize("ranks", RANKS)
def test_every_container_gives_the_same_losses_to_the_bit(trained, ranks):
    for order in ("", "window_"):
        expected = trained[ranks][order + "list"]["straight"]
        assert len(expected) == STEPS and len(set(expected.values())) == STEPS
        for name, told in trained[ranks].items():
            if name.startswith("window_") == bool(order):
                assert told["straight"] == expected, name
    assert trained[ranks]["list"]["straight"] != trained[ranks]["window_list"]["straight"]


@pytest.mark.parametrize("ranks", RANKS)
def test_a_resumed_run_is_the_same_to_the_bit(trained, ranks):
    for name in RESUMED[ranks]:
        told = trained[ranks][name]
        steps = {step: loss for step, loss in told["straight"].items() if step in told["resumed"]}
        assert told["resumed"] == steps and len(steps) == STEPS - SAVED, name


def test_two_ranks_are_one(trained):
    """float32 sums over the batch in another order; there are no batch statistics."""
    one, two = (list(trained[ranks]["shards"]["straight"].values()) for ranks in RANKS)
    np.testing.assert_allclose(two, one, rtol=2e-5)


def test_the_checkpoint_says_what_was_read(trained):
    kinds = {"insightface": "recordio", "without_idx": "recordio", "im2rec": "recordio", "shards": "tar",
             "several": "several sources", "window_list": "list", "window_parquet": "parquet"}  # fmt: skip
    for name, told in trained[2].items():
        data = told["manifest"]["data"]
        assert (data["kind"], data["images"], data["labels"]) == (kinds.get(name, name), 23, 12)
        assert told["manifest"]["config"]["classifier"]["num_classes"] == 12
    records = [trained[2][name]["manifest"]["data"] for name in ("insightface", "without_idx")]
    assert records[0] == records[1], "keys and sizes, not how they were found"
