"""Sets of every kind through their metrics, with a model that is a formula: who is given what, and what is left out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.evaluation.data import check_verification
from plsc.engine.evaluation.evaluate import verify_all
from plsc.errors import DataError, PlscError
from plsc.evaluation.bin_file import save_bin
from plsc.evaluation.embeddings import combine_flip
from plsc.evaluation.retrieval import retrieve
from plsc.evaluation.verification import verify

ALL = ["verification", "identification", "retrieval"]
SHAPE = [3, 8, 8]
WEIGHT = np.random.default_rng(5).standard_normal((3 * 8 * 8, 6))


class Formula:
    """An Embedder whose model is a matrix."""

    def __init__(self):
        self.read: list[int] = []

    def embed(self, read, count, flip):
        images = np.stack([read(index) for index in range(count)])
        self.read.append(count)
        return tuple(model(side) for side in (images, images[:, :, :, ::-1]))

    def in_order(self, of_ranks, count):
        return np.array(of_ranks[0])


def model(images: np.ndarray) -> np.ndarray:
    return (images.reshape(len(images), -1) @ WEIGHT).astype(np.float32)


class Samples:
    """``test_dataset`` of these labels; image i is the same each time."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def image(self, index):
        rng = np.random.default_rng(abs(self.labels[index]))
        return (rng.standard_normal(SHAPE) + np.random.default_rng(1000 + index).standard_normal(SHAPE)).astype("f")

    def __getitem__(self, index):
        return self.image(index), self.labels[index]


def settings(**keys) -> Config:
    return Config.from_dict({"model": {"image_shape": SHAPE}, **keys})


def test_labels_of_a_users_set_are_identities():
    labels = np.random.default_rng(0).integers(0, 9, 60)
    labels[50:53] = -1
    data = Samples(labels.tolist())
    one = verify_all(settings(metrics=ALL), UserObjects(test_dataset=data), Formula())["test_dataset"]
    images = np.stack([data.image(index) for index in range(60)])
    embeddings, xnorm = combine_flip(model(images), model(images[:, :, :, ::-1]))
    searched = retrieve(embeddings, labels)
    assert (one.values["map@r"], one.values["recall@5"]) == (searched.map_at_r, searched.recall[5])
    assert one.values["num_queries"] == 57 and list(one.computed) == ALL and 0 < one.values["rank@1"] < 1
    pairs = verify(embeddings, labels[::2] == labels[1::2], xnorm=xnorm)
    assert one.verification.accuracy == pairs.accuracy
    assert (one.values["auc"], one.values["xnorm"]) == (pairs.auc, xnorm)


def test_without_pairs_nothing_is_asked_of_them():
    data = Samples([0, 0, 0, 1, 1])  # odd, few, and all its pairs the same
    config = settings(metrics=["retrieval"])
    assert check_verification(config, UserObjects(test_dataset=data))["test_dataset"]["images"] == 5
    one = verify_all(config, UserObjects(test_dataset=data), Formula())["test_dataset"]
    assert one.verification is None and one.values["num_queries"] == 5
    with pytest.raises(DataError, match="an even number of at least 20"):
        check_verification(settings(metrics=ALL), UserObjects(test_dataset=data))
    for labels in ([0, 1, 2], [-1, -1]):
        with pytest.raises(DataError, match=r"test_dataset: no metric can be computed \(retrieval: its identities sup"):
            verify_all(config, UserObjects(test_dataset=Samples(labels)), Formula())


def write_sets(root) -> None:
    """A folder of 6 identities with 4 images each, the same as a list with one image of nobody, and a set of pairs."""
    rng, lines, images = np.random.default_rng(3), [], []
    for identity in range(6):
        for number in range(4):
            path = root / "faces" / str(identity) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
            lines.append(f"faces/{identity}/{number}.png\tperson {identity}")
            images.append(path.read_bytes())
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
    (root / "nobody.png").write_bytes(file.getvalue())
    (root / "items.txt").write_text("\n".join([*lines, "nobody.png\t-1"]))
    save_bin(root / "own.bin", [*images, *images], [True, False] * 12)


def test_folders_and_lists(tmp_path):
    write_sets(tmp_path)
    data = {"dataset_dir": str(tmp_path), "val_targets": ["faces/", "items.txt", "own"]}
    config, embedder = settings(metrics=ALL, data=data), Formula()
    assert [record["kind"] for record in check_verification(config, UserObjects()).values()] == [
        "identities", "identities", "pairs"]  # fmt: skip
    found = verify_all(config, UserObjects(), embedder)
    assert list(found) == data["val_targets"] and embedder.read == [24, 25, 48]
    assert found["items.txt"].values["num_gallery"] == 25 and found["faces/"].values["num_gallery"] == 24
    assert found["items.txt"].values["num_queries"] == found["faces/"].values["num_queries"] == 24
    assert list(found["own"].computed) == ["verification"]
    assert (
        found["own"]
        .skipped["retrieval"]
        .startswith("it has pairs, no identities; use a folder of identities or a list")
    )
    # verification alone embeds the pairs' images only, some several times, and says the same
    alone = verify_all(settings(data=data), UserObjects(), embedder)
    assert embedder.read[3:] == [120, 120, 48]
    for name in data["val_targets"]:
        assert alone[name].verification.auc == found[name].verification.auc
        # the mean of the same lengths, of which float32 rounds the sums of other batches otherwise
        assert alone[name].values["xnorm"] == pytest.approx(found[name].values["xnorm"], rel=1e-5)


def test_a_set_that_gives_none_of_the_metrics_is_refused(tmp_path):
    write_sets(tmp_path)
    config = settings(metrics=["retrieval"], data={"dataset_dir": str(tmp_path), "val_targets": ["own", "faces/"]})
    with pytest.raises(PlscError, match=r"own: no metric can be computed \(retrieval: it has pairs, no identities"):
        verify_all(config, UserObjects(), Formula())
    failures: dict[str, str] = {}
    assert list(verify_all(config, UserObjects(), Formula(), failures=failures)) == ["faces/"]
    assert list(failures) == ["own"]
