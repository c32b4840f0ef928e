"""Data sources: what the data set does with what they read, workers, and every mistake as one clear line."""

from __future__ import annotations

import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.data import Augmentations, GlobalBatchSampler, Loader, Preparation, Source, SourceDataset, register_source
from plsc.data.record import difference, index_record
from plsc.data.sources.label_list import LabelListSource
from plsc.data.sources.synthetic import SyntheticSource
from plsc.data.transforms import normalise
from plsc.errors import ConfigError, DataError
from plsc.registry import SOURCES
from tests.registries import forget_afterwards

SHAPE = (3, 6, 5)


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers is forgotten after it."""
    SOURCES.names()
    forget_afterwards(monkeypatch, SOURCES)


def pixels(number: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (6, 5, channels), dtype=np.uint8)


def encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


class Given(Source):
    """Whatever it is made with."""

    def __init__(self, *samples, ready: bool = False) -> None:
        self.samples, self.ready = samples, ready

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index):
        sample = self.samples[index]
        return sample() if callable(sample) else sample

    def record(self):
        return {"digest": "d"}


def dataset(source: Source, shape=SHAPE) -> SourceDataset:
    return SourceDataset(source, 9, Preparation(shape, Augmentations([], 0)), "given")


def test_bytes_and_pixels_are_the_same_image():
    image = pixels(1)
    data = dataset(Given((encoded(image), 3), (image, 4), (np.frombuffer(encoded(image), np.uint8), np.int32(5))))
    for index, label in enumerate((3, 4, 5)):
        found = data.get(index, 0)
        np.testing.assert_array_equal(found[0], normalise(image, 127.5))
        assert (found[0].dtype, type(found[1]), found[1]) == (np.float32, np.int64, label)


def test_a_ready_source_is_not_touched():
    image = np.linspace(-2, 2, 4 * 6 * 5, dtype=np.float32).reshape(4, 6, 5)  # four channels are no image
    assert dataset(Given((image, 0), ready=True), (4, 6, 5)).get(0, 0)[0] is image
    for wrong, text in ((image.astype(np.float64), r"float64 \[4, 6, 5\]"), (image[:3], "float32"), (b"x", "bytes")):
        with pytest.raises(DataError, match=rf"^image 0: is {text}.*must be an array float32 \[4, 6, 5\]"):
            dataset(Given((wrong, 0), ready=True), (4, 6, 5)).get(0, 0)


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        ((b"no image", 1), "image 0: not an image in one of JPEG"),
        ((pixels(1)[:5], 1), "image 0: is 5 x 5 pixels"),
        ((pixels(1).astype(np.float32), 1), "image 0: pixels must be uint8 or uint16"),
        (("a/path.jpg", 1), "image 0: an image must be bytes or an array uint8, not str"),
        ((pixels(1), 9), r"image 0: label 9 is not in 0..8 \(classifier.num_classes\)"),
        ((pixels(1), -1), "image 0: label -1 is not in 0..8"),
        ((pixels(1), 1.0), "image 0: label 1.0 is not in 0..8"),
        ((pixels(1), True), "image 0: label True is not in 0..8"),
        ((pixels(1),), "image 0: reading it raised ValueError: not enough values to unpack"),
        (lambda: {}["gone"], r"image 0: reading it raised KeyError: 'gone' \(test_sources.py:\d+\)"),
    ],
)
def test_samples_that_cannot_be_used(sample, text):
    with pytest.raises(DataError, match=f"^{text}") as caught:
        dataset(Given(sample)).get(0, 0)
    assert "\n" not in str(caught.value)


def test_an_image_shape_that_no_image_has():
    with pytest.raises(ConfigError, match=r"^model.image_shape=\[2, 6, 5\]: images are read with 3 channels"):
        dataset(Given((pixels(1), 0)), (2, 6, 5))


def test_a_source_without_images_or_length():
    with pytest.raises(DataError, match="^the training data has no images$"):
        dataset(Given())
    broken = type("Broken", (Given,), {"__len__": lambda self: 1 / 0})
    with pytest.raises(DataError, match="^Broken has no usable __len__: ZeroDivisionError"):
        dataset(broken())


class Tar(Source):
    """As docs/add_a_data_source.md: an index, and a file that each process opens."""

    def __init__(self, path) -> None:
        self.path, self.opened = path, []
        with tarfile.open(path) as tar:
            self.index = [(member.name, member.offset_data, member.size) for member in tar]
        self.labels = np.array([int(os.path.dirname(name)) for name, _, _ in self.index])
        self.num_classes = 9

    def __len__(self) -> int:
        return len(self.index)

    def open_files(self) -> None:
        self.opened.append(os.getpid())
        self.file = os.open(self.path, os.O_RDONLY)

    def read(self, index):
        name, start, size = self.index[index]
        assert self.opened[-1] == os.getpid()
        return os.pread(self.file, size, start), self.labels[index]

    def block(self, which):
        names = [name.encode() for name, _, _ in self.index[which]]
        lengths = np.array([len(name) for name in names])
        return b"".join(names), np.cumsum(lengths) - lengths, lengths

    def record(self, count=None):
        return index_record(self, count)


def write_tar(path, labels) -> None:
    with tarfile.open(path, "w") as tar:
        for number, label in enumerate(labels):
            member = tarfile.TarInfo(f"{label}/{number:03d}.png")
            content = encoded(pixels(number))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_a_container_gives_the_batches_of_the_list(tmp_path):
    """The same order, once an epoch, from any place on, for any number of workers and ranks, whatever holds them."""
    labels = [number % 9 for number in range(13)]
    write_tar(tmp_path / "x.tar", labels)
    for number in range(13):
        (tmp_path / f"{number:03d}.png").write_bytes(encoded(pixels(number)))
    text = "".join(f"{number:03d}.png\t{label}\n" for number, label in enumerate(labels))
    (tmp_path / "label.txt").write_text(text)
    listed = LabelListSource(tmp_path, "label.txt", 9)
    runs = []
    for make, workers, world, first in ((0, 0, 1, 0), (1, 0, 1, 0), (1, 3, 1, 0), (1, 2, 2, 0), (1, 1, 1, 2)):
        data = dataset(Tar(tmp_path / "x.tar") if make else listed)
        samplers = [GlobalBatchSampler(13, 4 // world, rank, world, seed=5) for rank in range(world)]
        steps = list(zip(*[list(Loader(data, sampler, workers, first, 8)) for sampler in samplers]))
        runs.append([tuple(np.concatenate([part[which] for part in parts]) for which in (1, 2)) for parts in steps])
    for run in runs[1:]:
        for step, other in zip(run, runs[0][-len(run) :]):
            np.testing.assert_array_equal(step[0], other[0])
            np.testing.assert_array_equal(step[1], other[1])
    used = np.concatenate([labels for _, labels in runs[0]])
    assert sorted(used[:13]) == sorted(labels) and len(used) == 32


def test_files_are_opened_once_in_each_process(tmp_path):
    write_tar(tmp_path / "x.tar", [0] * 8)
    data = dataset(Tar(tmp_path / "x.tar"))
    for index in range(3):
        data.get(index, 0)
    assert data._source.opened == [os.getpid()]
    with Loader(data, GlobalBatchSampler(8, 2, 0, 1, seed=5), 2, 0, 8) as loader:
        assert len(list(loader)) == 8  # Tar.read asserts that its own process has opened it
    assert data._source.opened == [os.getpid()]


def test_records_of_containers_tell_other_labels_and_what_was_added(tmp_path):
    def record(labels, count=None):
        write_tar(tmp_path / "x.tar", labels)
        return dataset(Tar(tmp_path / "x.tar")).record(count)

    old = record([0, 1, 2, 3])
    assert old["kind"] == "given" and (old["images"], old["num_classes"], old["labels"]) == (4, 9, 4)
    assert difference(old, record([0, 1, 2, 3])) is None
    longer = difference(old, record([0, 1, 2, 3, 4]), lambda count: record([0, 1, 2, 3, 4], count))
    assert not longer.relabelled and "whose beginning is the same" in longer.text
    assert difference(old, {**old, "kind": "list"}).text.startswith("a list of 4 images instead of")
    given = dataset(Given((b"", 0))).record()
    assert given == {"kind": "given", "images": 1, "num_classes": 9, "digest": "d"}
    assert difference(given, {**given, "digest": "e"}).text.endswith("with other contents")


def test_synthetic_images_by_their_definition():
    """Every number that a run with made-up images rests on; Philox with the key (seed, 3 or 4)."""

    def drawn(purpose, number, shape):
        return np.random.Generator(np.random.Philox(key=[7, purpose], counter=[0, 0, number, 0])).random(shape, "f4")

    source = SyntheticSource(3, (3, 9, 16), 7, 10)
    for index in range(10):
        tiles = drawn(3, index % 3, (3, 2, 2)) * 1.5 - 0.75
        expected = drawn(4, index, (3, 9, 16)) * 0.5 - 0.25
        for row in range(9):
            for column in range(16):
                expected[:, row, column] += tiles[:, row // 8, column // 8]
        found, label = source.read(index)
        assert label == index % 3
        np.testing.assert_array_equal(found, expected)


def test_what_the_built_in_ones_take():
    config = Config()
    assert config.without_effect() == []
    config.update({"data": {"dataset": "synthetic", "label_file": "x", "augmentations": ["flip"]}})
    assert [line.partition("=")[0] for line in config.without_effect()] == ["data.label_file", "data.augmentations"]
    assert len(SyntheticSource(3, (3, 4, 4), 0)) == 10240
    assert SOURCES.find("list") is LabelListSource and {"auto", "folder", "list", "recordio"} <= set(SOURCES.names())


def test_options_of_a_source():
    @register_source("mine")
    class Mine(Given):
        def __init__(self, dataset_dir, file: str, deep: bool = False):
            pass

    config = Config.from_dict({"data": {"dataset": "mine", "label_file": "x"}})
    assert config.without_effect() == ["data.label_file='x': has no effect with data.dataset: mine"]
    with pytest.raises(ConfigError, match=r"^data.options=\{\}: data source 'mine': the option file is missing; its"):
        UserObjects().check(config)
    UserObjects(train_dataset=[1]).check(config)  # which is read in its place
    config.set("data.options", {"file": "x", "depe": 1})
    with pytest.raises(ConfigError, match="there is no option depe; its options: file .str., deep .bool, default Fal"):
        UserObjects().check(config)
    config.set("data.options", {"file": "x", "dataset_dir": "y"})
    with pytest.raises(ConfigError, match="dataset_dir is a setting of its own: data.dataset_dir"):
        UserObjects().check(config)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (lambda dataset_dir: None, "data source 'x': .*<lambda> is no subclass of plsc.data.Source"),
        (list, "data source 'x': list is no subclass of plsc.data.Source"),
        (type("Half", (Source,), {"__len__": len}), "data source 'x': Half lacks read, record"),
        (type("Old", (Given,), {"read": lambda self: None}), r"'x': read: takes \(self\); it must take self, index"),
    ],
)
def test_what_is_no_source_is_refused_where_it_is_registered(value, text):
    with pytest.raises(ConfigError, match=text):
        register_source("x")(value)
    with pytest.raises(ConfigError, match="data.dataset='x': is not a data source; .*list, .*synthetic, .*or one of"):
        Config().set("data.dataset", "x")


def test_a_name_that_is_taken():
    with pytest.raises(ConfigError, match="data source 'list': the name is taken by plsc.data.sources.label_list"):
        register_source("list")(Given)
