"""Fine-tuning on other identities: which class centres come over, where new ones begin, what is said about it."""

from __future__ import annotations

import numpy as np
import pytest

from plsc import checkpoint
from tests.dist import ranks
from tests.dist.finetune_cases import NEW, OLD, STILL, write_folders


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with the folders ``old`` and ``new``, and a run on the first of them."""
    root = tmp_path_factory.mktemp("finetuning")
    write_folders(root / "data" / "old", OLD)
    write_folders(root / "data" / "new", NEW)
    train(root, "before", "old", 1, {"train_steps": 4, "with_test": False})
    return root


def train(root, name, data, world_size, changes):
    payload = {"run_dir": str(root / name), "data": str(root / "data" / data), "changes": changes}
    ranks.run("tests.dist.finetune_cases:trained_on", world_size, root, payload)


def centres(run_dir):
    """(names, class weights [C, E]) of the newest checkpoint."""
    path = checkpoint.resolve(str(run_dir))
    manifest = checkpoint.read_manifest(path)
    blocks = checkpoint.read_rows(path, manifest, 0, manifest.num_classes, checkpoint.ReadOptions(["weight"]))
    return checkpoint.read_class_names(path, manifest), np.concatenate([block for _, _, block in blocks])


def log_of(run_dir):
    return (run_dir / "logs" / "rank_00000.log").read_text()


def tuned(root, **changes):
    return {**STILL, "init_from": "classes", "init_checkpoint": str(root / "before"), **changes}


def test_classes_of_the_same_name_come_over(place):
    train(place, "named", "new", 2, tuned(place))
    (old_names, old), (names, new) = centres(place / "before"), centres(place / "named")
    assert old_names == sorted(OLD) and names == sorted(NEW)
    for label, name in enumerate(names):
        assert (name in OLD) == any((new[label] == row).all() for row in old)
        if name in OLD:
            np.testing.assert_array_equal(new[label], old[old_names.index(name)])
    start = place / "before" / "checkpoints" / "step_00000004"
    assert (
        f"start with the backbone and 3 classes of {start}, step 4, matched by name; 4 classes of this run are new, 2 "
        "of the checkpoint were left behind"
    ) in log_of(place / "named")
