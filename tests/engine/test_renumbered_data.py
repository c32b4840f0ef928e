"""A run that continues with data whose labels are renumbered is refused unless told, whichever container holds them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from plsc.config import Config
from plsc.data.opening import open_dataset
from plsc.engine.training.checkpointing import compare_data
from plsc.errors import DataError
from tests.data.container_kit import images, write_all

PICTURES = images(9)
LABELS, RENUMBERED = [0, 0, 1, 2, 2, 2, 3, 4, 4], [0, 1, 1, 2, 2, 3, 3, 4, 4]
CONTAINERS = ("insightface", "without_idx", "im2rec", "shards", "lmdb", "parquet", "base64", "kv")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Both kinds of labels, with equal images: {container: settings of section data}."""
    root = tmp_path_factory.mktemp("containers")
    for name in ("before", "after", "more"):
        (root / name).mkdir()
    more = write_all(root / "more", [*PICTURES, *images(2, seed=1)], [*RENUMBERED, 5, 5])
    return write_all(root / "before", PICTURES, LABELS), write_all(root / "after", PICTURES, RENUMBERED), more


def continued(before: dict, after: dict, accept: bool = False) -> list[str]:
    """Continue from a checkpoint of the one with the other data: the lines of the log."""
    stored, now = opened(before), opened(after)
    manifest = SimpleNamespace(data=json.loads(json.dumps(stored.record())))  # as in meta.json
    log: list[str] = []
    config = SimpleNamespace(accept_new_labels=accept)
    run = SimpleNamespace(data={"training": now.record()}, config=config, log=SimpleNamespace(info=log.append))
    compare_data(run, now, "run/checkpoints/step_00000007", manifest)
    return log


def opened(settings: dict):
    config = Config()
    config.update({"model": {"image_shape": [3, 8, 8]}, "data": settings})
    return open_dataset(config, lambda line: None)


@pytest.mark.parametrize("name", CONTAINERS)
def test_renumbered_labels_are_refused_unless_told(places, name):
    before, after, more = (place[name] for place in places)
    assert continued(before, before) == []
    with pytest.raises(DataError) as refused:
        continued(before, after)
    text = str(refused.value)
    assert "\n" not in text and text.startswith("run/checkpoints/step_00000007 was trained with other labels: ")
    assert "the same 9 images have other labels" in text and "set accept_new_labels: true" in text
    (line,) = continued(before, after, accept=True)
    assert line.startswith("continuing with other data than run/checkpoints/step_00000007 was trained with: the same 9")
    if name not in ("insightface", "parquet"):  # names that more images do not change: keys, places, files
        with pytest.raises(DataError, match="other labels"):
            continued(before, more)


def test_the_same_records_without_an_index_are_the_same_data(places):
    """insightface's layout with and without `.idx`: the keys are equal, so the labels can be compared."""
    assert continued(places[0]["insightface"], places[0]["without_idx"]) == []
    with pytest.raises(DataError, match="other labels"):
        continued(places[0]["insightface"], places[1]["without_idx"])
