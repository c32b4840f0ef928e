"""Predict, test and export on two ranks give what one rank gives."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests import using_kit as kit
from tests.dist import ranks
from tests.engine.test_predict import write_bin


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """(expected features, paths, what each rank returned by number of ranks); 7 pictures, the last batch not full."""
    root = tmp_path_factory.mktemp("using")
    paths = kit.make_folder(root / "p", 7)
    write_bin(root / "own.bin")
    payload = {"run": kit.train(root / "run"), "images": str(root / "p"), "sets": str(root)}
    expected = kit.evaluation_program(
        payload["run"], np.concatenate([kit.net_input(kit.pixels(seed)) for seed in range(7)])
    )
    found = {}
    for world_size in (1, 2):
        cwd = root / f"ranks{world_size}"
        cwd.mkdir()
        found[world_size] = ranks.run("tests.dist.using_cases:run_all", world_size, cwd, {**payload, "out": str(cwd)})
    return expected, paths, found, root


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("model", ["checkpoint", "exported"])
def test_features_in_order_on_every_rank(outcome, world_size, model):
    expected, paths, found, _ = outcome
    assert len(found[world_size]) == world_size
    for part in found[world_size]:
        kit.assert_close(part[model][0], expected)
        assert part[model][1] == paths


@pytest.mark.parametrize("model", ["checkpoint", "exported"])
def test_the_page_does_not_depend_on_ranks(outcome, model):
    pages = [(outcome[3] / f"ranks{world_size}" / f"{model}.html").read_text() for world_size in (1, 2)]
    pictures = [re.findall(r'alt="image (\d+)" src="([^"]+)"', page) for page in pages]
    assert pictures[0] and pictures[0] == pictures[1]


def test_errors_in_the_data_do_not_depend_on_ranks(outcome):
    """The embeddings of the training images and what is found in them, on the first rank."""
    (one,), two = ([part["clean"] for part in outcome[2][world_size]] for world_size in (1, 2))
    assert two[1] is None
    kit.assert_close(two[0][0], one[0])
    assert len(one[0]) == one[1]["images"] == 64
    for kind in ("mislabelled", "outliers", "merge", "split", "copies", "leaks", "known"):
        assert len(one[1][kind]) == len(two[0][1][kind])
    assert one[1]["limits"] == pytest.approx(two[0][1]["limits"], abs=1e-4)


def test_the_figures_do_not_depend_on_ranks_or_model(outcome):
    figures = [part[model][2] for parts in outcome[2].values() for part in parts
               for model in ("checkpoint", "exported")]  # fmt: skip
    assert len(figures) == 6
    for accuracy, auc, eer, xnorm in figures:
        assert (accuracy, auc, eer) == figures[0][:3]
        assert abs(xnorm - figures[0][3]) < 1e-4 * xnorm  # float32 sums in another order
