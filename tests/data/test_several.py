"""Several sources as one: what a list of all their images gives, with the classes moved."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.data import record
from plsc.data.opening import open_source
from plsc.data.record import difference
from plsc.data.several import Part, SeveralSources
from plsc.data.sources import Source
from plsc.data.sources.label_list import LabelListSource
from plsc.data.sources.synthetic import SyntheticSource
from plsc.engine.evaluation import left_open
from plsc.errors import ConfigError, DataError
from tests.data.container_kit import images, insightface, write_records, write_shards

LABELS = [3, 0, 0, 2, 4, 3, 1]
OTHERS = [1, 1, 0, 2]
PICTURES, MORE = images(len(LABELS)), images(len(OTHERS), seed=1)


@pytest.fixture
def places(tmp_path):
    """records/, shards/ and a folder/ of two identities."""
    write_records(tmp_path / "records", insightface(PICTURES, LABELS))
    write_shards(tmp_path / "shards", MORE, OTHERS)
    for name, picture in (("ann", PICTURES[0]), ("bob", PICTURES[1])):
        (tmp_path / "folder" / name).mkdir(parents=True)
        (tmp_path / "folder" / name / "1.png").write_bytes(picture)
    return tmp_path


def settings(places, *entries, num_classes=None) -> Config:
    sources = [{"dataset_dir": str(places / entry), **more} for entry, more in entries]
    return Config.from_dict({
        "data": {"sources": sources}, "model": {"image_shape": [3, 8, 8]}, "classifier": {"num_classes": num_classes},
    })  # fmt: skip


def opened(config: Config) -> Source:
    source = open_source(config, 0)
    source.check(check_files=True)
    source.open_files()
    return source


def contents(source) -> list:
    return [source.read(index) for index in range(len(source))]


def test_one_part_after_the_other_with_classes_of_its_own(places):
    source = opened(settings(places, ("records", {}), ("shards", {}), ("folder", {})))
    expected = [*zip(PICTURES, LABELS), *zip(MORE, (label + 5 for label in OTHERS)), (PICTURES[0], 8), (PICTURES[1], 9)]
    assert contents(source) == expected and source.num_classes == 10
    assert source.known_labels().tolist() == [label for _, label in expected] and source.class_names is None
    assert "train.rec" in source.name(6) and "train-0000.tar" in source.name(7) and "bob" in source.name(12)
    assert source.record()["images"] == 13 and source.record()["labels"] == 10


@pytest.mark.parametrize("offset, classes, labels", [(0, 5, OTHERS), (20, 23, [label + 20 for label in OTHERS])])
def test_offsets_that_are_given(places, offset, classes, labels):
    source = opened(settings(places, ("records", {}), ("shards", {"class_offset": offset})))
    assert [label for _, label in contents(source)] == [*LABELS, *labels] and source.num_classes == classes


def test_the_classes_of_a_part_may_be_more_than_have_images(places):
    source = opened(settings(places, ("records", {"num_classes": 50}), ("shards", {})))
    assert [label for _, label in contents(source)][7:] == [label + 50 for label in OTHERS]


def test_names_of_classes_follow_each_other(places):
    source = opened(settings(places, ("folder", {}), ("folder", {})))
    assert source.class_names == ["ann", "bob", "ann", "bob"]
    assert opened(settings(places, ("folder", {}), ("folder", {"class_offset": 0}))).class_names is None


def test_the_record_is_that_of_one_list(places, tmp_path):
    """Names in blocks that begin and end in other parts: the record of a list cut in two is that of the list."""
    lines = [f"{number}.png\t{number % 3}\n" for number in range(10)]
    parts = []
    for number, some in enumerate((lines[:4], lines[4:5], lines[5:])):
        (tmp_path / f"list{number}").write_text("".join(some))
        parts.append(Part(f"part {number}", LabelListSource(tmp_path, f"list{number}", 3), 0))
    (tmp_path / "all").write_text("".join(lines))
    whole = LabelListSource(tmp_path, "all", 3).record()
    for count in (None, 3, 4, 7):
        record = SeveralSources(parts, 3).record(count)
        expected = LabelListSource(tmp_path, "all", 3).record(count)
        assert record == {**expected, "kind": "several sources"}
    assert whole["images"] == 10


def test_what_the_record_tells(places):
    def of(*entries):
        return opened(settings(places, *entries)).record()

    old = of(("records", {}), ("shards", {}))
    assert difference(old, of(("records", {}), ("shards", {}))) is None
    assert difference(old, of(("records", {}), ("shards", {"class_offset": 6}))).relabelled
    assert difference(old, of(("records", {"num_classes": 6}), ("shards", {}))).relabelled


def test_a_record_takes_no_copy_of_all_labels(places, monkeypatch):
    """Blocks of three images, which begin and end anywhere in the parts; the same record as of all labels at once."""
    source = opened(settings(places, ("records", {}), ("shards", {"class_offset": 4}), ("folder", {})))
    expected = source.record(), source.record(11)
    monkeypatch.setattr(record, "_BLOCK", 3)
    asked = []
    real = SeveralSources.pieces
    monkeypatch.setattr(SeveralSources, "pieces", lambda *given: asked.append(given[1]) or real(*given))
    assert (source.record(), source.record(11)) == expected and expected[0]["labels"] == len(set(source.known_labels()))
    assert max(which.stop - which.start for which in asked) == 3


def test_what_is_found_out_is_set_in_the_settings(places):
    config, notes = settings(places, ("records", {}), ("folder", {})), []
    left_open.settle_source(config, notes)
    assert [entry["dataset"] for entry in config.data.sources] == ["recordio", "folder"]
    assert notes[0] == f"data.sources[0]: data.dataset: auto takes recordio: {places}/records has train.rec"
    assert len(notes) == 2 and contents(opened(config))[8][1] == 6


class Unknown(Source):
    def __init__(self, digest="d", ready=False):
        self.digest, self.ready = digest, ready

    def __len__(self):
        return 3

    def read(self, index):
        return b"x", index

    def record(self, count=None):
        return {"digest": self.digest}


def test_parts_that_do_not_know_their_labels():
    known = SyntheticSource(3, (3, 8, 8), 0, 6)
    with pytest.raises(ConfigError, match=r"^b: the classes of a are not known .*; set num_classes there, or cl"):
        SeveralSources([Part("a", Unknown()), Part("b", Unknown())], None)
    both = SeveralSources([Part("a", Unknown()), Part("b", Unknown(), 3)], 6)
    assert both.num_classes == 6 and both.read(4) == (b"x", 4) and both.label_index is None
    assert SeveralSources([Part("a", Unknown())], None).num_classes is None
    other = SeveralSources([Part("a", Unknown()), Part("b", Unknown("e"), 3)], 6)
    moved = SeveralSources([Part("a", Unknown()), Part("b", Unknown(), 4)], 7)
    assert len({source.record()["digest"] for source in (both, other, moved)}) == 3
    with pytest.raises(ConfigError, match="^b: gives input of the model, a images"):
        SeveralSources([Part("a", Unknown()), Part("b", known)], 6)


def test_more_classes_than_the_classifier_has(places):
    config = settings(places, ("records", {}), ("shards", {}), num_classes=6)
    with pytest.raises(DataError, match=r"^data.sources\[1\]: the classes of .*shards.* go to 7, .*=6: set it to 8,"):
        opened(config)
    config = settings(places, ("records", {"num_classes": 4}))
    with pytest.raises(DataError, match="1 of 7 images have a label outside 0..3"):
        opened(config)


@pytest.mark.parametrize("value, said", [
    ("here", "must be a list of {dataset_dir, "), ([{"dataset": "tar"}], "one has no dataset_dir"),
    (["x"], "no dataset_dir"),
    ([{"dataset_dir": "x", "class_ofset": 1}], "it has class_ofset; a source has the keys dataset, dataset_dir"),
    ([{"dataset_dir": "x", "class_offset": -1}], "class_offset must be from 0 to 2147483647"),
    ([{"dataset_dir": "x", "num_classes": 0}], "num_classes must be from 1"),
    ([{"dataset_dir": "x", "num_classes": "a"}], "data.sources="),
])  # fmt: skip
def test_settings_that_are_wrong(value, said):
    with pytest.raises(ConfigError, match="^data.sources=") as caught:
        Config().set("data.sources", value)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("entry, said", [
    ({"dataset": "nothing"}, r"^data.sources\[0\]: data.dataset='nothing': is not a data source"),
    ({"options": {"fil": "x"}}, "^data.options={'fil': 'x'}: data source 'recordio': there is no option fil"),
    ({"dataset_dir": 5}, r"^data.sources\[0\]: data.dataset_dir=5"),
])  # fmt: skip
def test_entries_that_are_wrong(places, entry, said):
    with pytest.raises(ConfigError, match=said):
        opened(settings(places, ("records", entry)))


def test_keys_that_are_not_read(places):
    config = settings(places, ("records", {}))
    config.update({"data": {"dataset": "list", "label_file": "x", "options": {"no": 1}}})
    UserObjects().check(config)  # options of a source that is not read
    idle = [line.partition("=")[0] for line in config.without_effect() if "data.sources" in line]
    assert idle == ["data.dataset", "data.label_file", "data.options"]
    assert Config.from_dict(config.to_dict()) == config
    np.testing.assert_equal(Config().get("data.sources"), None)
