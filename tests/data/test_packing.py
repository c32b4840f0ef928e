"""plsc pack: what is written is what the source gives, also after an interruption; nothing is taken away."""

from __future__ import annotations

import io
import json
import os

import lmdb
import numpy as np
import pytest
from PIL import Image

from plsc.cli.main import main
from plsc.config import Config
from plsc.data.opening import open_source
from plsc.data.packing import pack as packing
from plsc.data.packing import tar as tar_packing
from plsc.data.packing.pack import pack
from plsc.data.packing.recordio import encode
from plsc.data.several import Part, SeveralSources
from plsc.data.sources import Source
from plsc.data.sources.folder import FolderSource
from plsc.data.sources.label_list import LabelListSource
from plsc.data.sources.tar import TarSource
from plsc.errors import DataError
from plsc.files.working_directory import working_directory
from tests.data import container_kit
from tests.data.container_kit import MAGIC, images

LABELS = [number * 7 % 5 for number in range(23)]
PICTURES = images(len(LABELS))
FORMATS = ("recordio", "tar", "lmdb", "list")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Several states and shards in a few images."""
    monkeypatch.setattr(packing, "FLUSH_IMAGES", 4)
    monkeypatch.setattr(tar_packing, "SHARD_IMAGES", 6)


def listed(directory, labels=LABELS, pictures=PICTURES) -> LabelListSource:
    directory.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        (directory / f"{number}.png").write_bytes(picture)
    (directory / "label.txt").write_text("".join(f"{n}.png\t{label}\n" for n, label in enumerate(labels)))
    return LabelListSource(directory, "label.txt", None)


def opened(directory, kind: str) -> Source:
    config = Config.from_dict({"data": {"dataset": kind, "dataset_dir": str(directory)},
                               "model": {"image_shape": [3, 8, 8]}, "classifier": {"num_classes": None}})  # fmt: skip
    config.set("data.dataset", kind)
    source = open_source(config, 0)
    source.check(check_files=True)
    source.open_files()
    return source


def contents(directory, kind: str) -> list:
    source = opened(directory, kind)
    return [source.read(index) for index in range(len(source))]


@pytest.mark.parametrize("to", FORMATS)
def test_packed_images_are_those_of_the_source(tmp_path, to):
    packed = pack(listed(tmp_path / "list"), to, str(tmp_path / "out"))
    assert (packed.path, packed.images, packed.classes) == (str(tmp_path / "out"), 23, 5)
    assert contents(tmp_path / "out", to) == list(zip(PICTURES, LABELS))
    assert not (tmp_path / "out.unfinished").exists() and "pack.json" not in os.listdir(tmp_path / "out")


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("stop", [0, 3, 4, 6, 11, 12, 17, 22])
def test_an_interrupted_packing_goes_on(tmp_path, to, stop):
    """Killed while image ``stop`` is read, then once more at the end: the same bytes as without a break."""
    source = listed(tmp_path / "list")
    pack(source, to, str(tmp_path / "straight"))
    read = LabelListSource.read

    class Killed(BaseException):
        pass

    def once(self, index):
        if index == stop and reads.append(index) is None and len(reads) == (2 if stop == 0 else 1):
            raise Killed
        return read(self, index)

    for _ in range(1 if stop == 0 else 2):
        reads = []
        source.read = once.__get__(source)
        with pytest.raises(Killed):
            pack(source, to, str(tmp_path / "out"))
        assert (tmp_path / "out.unfinished").is_dir() and not (tmp_path / "out").exists()
    del source.read
    lines = []
    pack(source, to, str(tmp_path / "out"), lines.append)
    assert lines == ([f"goes on behind {stop // 4 * 4} of 23 images"] if stop >= 4 else [])
    files, again = (sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*") if path.is_file())
                    for name in ("straight", "out"))  # fmt: skip
    assert again == files
    for name in files:
        if to != "lmdb":  # whose pages lie where there was room
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    assert contents(tmp_path / "out", to) == list(zip(PICTURES, LABELS))


@pytest.mark.parametrize("to", FORMATS)
def test_a_kill_after_all_is_written(tmp_path, to, monkeypatch):
    source = listed(tmp_path / "list")
    with monkeypatch.context() as patch:
        patch.setattr(packing, "put_directory", lambda *_: 1 / 0)
        patch.setattr(packing.os, "unlink", lambda *_: None)
        with pytest.raises(ZeroDivisionError):
            pack(source, to, str(tmp_path / "out"))
    pack(source, to, str(tmp_path / "out"))
    assert contents(tmp_path / "out", to) == list(zip(PICTURES, LABELS))


def test_records_are_those_of_the_description(tmp_path):
    """Byte for byte what the kit writes from the layout, with the magic at every place of an image."""
    for data in (b"", b"abc", MAGIC, MAGIC * 3, b"a" + MAGIC, b"ab" + MAGIC, b"abcd" + MAGIC + b"x",
                 MAGIC[:2] * 2 + MAGIC + MAGIC[1:], b"abc" + MAGIC + b"z" + MAGIC):  # fmt: skip
        assert encode(data) == container_kit.record(data), data
    pack(listed(tmp_path / "list"), "recordio", str(tmp_path / "out"))
    container_kit.write_records(tmp_path / "kit", container_kit.plain(PICTURES, LABELS))
    for name in ("train.rec", "train.idx"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "kit" / name).read_bytes()
    assert (tmp_path / "out" / "property").read_text() == "5,8,8\n"


def test_lmdb_is_what_its_library_reads(tmp_path, monkeypatch):
    """Also where the map was too small at first; all keys and values byte for byte those of msgpack."""
    monkeypatch.setattr("plsc.data.packing.lmdb._FIRST_MAP", 1 << 14)
    pictures = [b"\xff\xd8\xff" + bytes([number]) * size for number, size in enumerate((100, 300, 40_000, 70_000))]
    source = Given((PICTURES[0], 0), *zip(pictures, (1, 127, 128, 70_000)), classes=70_001)
    pack(source, "lmdb", str(tmp_path / "out"))
    images, labels = [sample[0] for sample in source.samples], [sample[1] for sample in source.samples]
    container_kit.write_lmdb(tmp_path / "kit", images, labels)
    found = []
    for name in ("out", "kit"):
        with lmdb.open(str(tmp_path / name / "data.mdb"), subdir=False, lock=False, readonly=True) as database:
            with database.begin() as transaction:
                found.append(dict(transaction.cursor()))
    keys = [found[number].pop(b"__keys__") for number in (0, 1)]
    assert found[0] == found[1] and len(found[0]) == 7
    assert keys[0][:5] == b"\xdd\0\0\0\x05" and keys[0][5:] == keys[1][3:]  # an array of 32 bits, one of 16


def test_a_full_disk_is_one_line_with_lmdb_too(tmp_path, monkeypatch):
    class Full:
        def begin(self, write):
            raise lmdb.Error("mdb_txn_commit: Input/output error")

    monkeypatch.setattr(lmdb, "open", lambda *args, **options: Full())
    with pytest.raises(DataError, match="^--output '.*out': cannot be written: mdb_txn_commit: Input/output error; is"):
        pack(Given((PICTURES[0], 0)), "lmdb", str(tmp_path / "out"))


TABLES = {"recordio": "train.classes.tsv", "tar": "tar.classes.tsv", "lmdb": "data.classes.tsv",
          "list": "label.classes.tsv"}  # fmt: skip


def faces(directory) -> FolderSource:
    """One image of bo, two of "dora e"."""
    for label, name in enumerate(("bo", "dora e")):
        (directory / name).mkdir(parents=True)
        for number in range(label + 1):
            (directory / name / f"{number}.png").write_bytes(PICTURES[2 * label + 2 * number])
    return FolderSource(directory)


@pytest.mark.parametrize("to", FORMATS)
def test_names_of_classes_are_kept(tmp_path, to):
    lines = []
    pack(faces(tmp_path / "faces"), to, str(tmp_path / "out"), lines.append)
    table, source = tmp_path / "out" / TABLES[to], opened(tmp_path / "out", to)
    assert lines == [] and table.read_text() == "label\tname\timages\n0\tbo\t1\n1\tdora e\t2\n"
    assert list(source.class_names) == ["bo", "dora e"]
    assert [note for note in source.notes if "names of the classes are those of" in note and str(table) in note]
    pack(source, "tar", str(tmp_path / "again"))
    assert opened(tmp_path / "again", "tar").class_names == source.class_names, "names go from container to container"


@pytest.mark.parametrize("to", FORMATS)
def test_names_that_cannot_be_kept(tmp_path, to, monkeypatch):
    source = faces(tmp_path / "faces")
    for names, said in ((["b\to", "dora"], "rename its folder"), (["a", "b", "c"], "3 names for 2 classes"),
                        (["bo", "\ud800"], "half a character")):  # fmt: skip
        source.class_names = names
        with pytest.raises(DataError, match=said):
            pack(source, to, str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path)) == ["faces"]
    source.class_names = ["bo", "dora e"]
    write = packing.write_class_table
    monkeypatch.setattr(packing, "write_class_table", lambda path, names, counts: write(path, ["ho", "dora e"], counts))
    with pytest.raises(DataError, match=f"{TABLES[to]}.*holds other names than were written"):
        pack(source, to, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_shards_have_a_wids_index(tmp_path):
    pack(listed(tmp_path / "list"), "tar", str(tmp_path / "out"))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["wids_version"] == 1
    expected = [(f"train-{number:06d}.tar", images) for number, images in enumerate((6, 6, 6, 5))]
    assert [(one["url"], one["nsamples"]) for one in index["shardlist"]] == expected
    assert len(TarSource(tmp_path / "out", None, shards="index.json")) == 23


class Given(Source):
    def __init__(self, *samples, classes=3, ready=False):
        self.samples, self.num_classes, self.ready = samples, classes, ready

    def __len__(self):
        return len(self.samples)

    def read(self, index):
        return self.samples[index]

    def record(self, count=None):
        return {"digest": "d"}


@pytest.mark.parametrize("to", FORMATS)
def test_pixels_become_png(tmp_path, to):
    colour, grey = np.arange(48, dtype=np.uint8).reshape(4, 4, 3), np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    pack(Given((colour, 0), (grey, 2)), to, str(tmp_path / "out"))
    assert to != "recordio" or (tmp_path / "out" / "property").read_text() == "3,4,4\n"
    found = Config.from_dict({"data": {"dataset": to, "dataset_dir": str(tmp_path / "out")},
                              "model": {"image_shape": [3, 4, 4]}})  # fmt: skip
    source = open_source(found, 0)
    source.open_files()
    for index, pixels in enumerate((colour, grey[:, :, 0])):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(source.read(index)[0]))), pixels)


@pytest.mark.parametrize("source, to, said", [
    (Given((b"no image", 0)), "recordio", "image 0: not an image in one of"),
    (Given((PICTURES[0], 0), (b"??", 1)), "tar", "image 1: is in no image format that can be read again"),
    (Given((PICTURES[0], 2**24), classes=2**25), "recordio", "the label 16777216 is not in 0..16777215"),
    (Given((np.zeros((3, 4, 4), "f4"), 0), ready=True), "tar", "gives input of the model, not images"),
    (Given((PICTURES[0], 0), classes=None), "tar", "does not tell how many classes it has; set classifier.num_classes"),
    (Given(), "tar", "has no images"),
])  # fmt: skip
def test_what_cannot_be_packed(tmp_path, source, to, said):
    with pytest.raises(DataError, match=said) as caught:
        pack(source, to, str(tmp_path / "out"))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_one_process_at_a_time(tmp_path):
    """Two at once would append to one file, and both would refuse it."""
    source = Given((PICTURES[0], 0))
    with working_directory(str(tmp_path / "out.unfinished"), "another"):
        with pytest.raises(DataError, match="^--output '.*out': another process is writing '.*out.unfinished' now"):
            pack(source, "recordio", str(tmp_path / "out"))
        assert not list((tmp_path / "out.unfinished").iterdir())
    assert pack(source, "recordio", str(tmp_path / "out")).images == 1


@pytest.mark.parametrize("to", FORMATS)
def test_nothing_is_packed_into_the_folder_of_the_images(tmp_path, to):
    """It would be a class of it from then on, also while it is written."""
    source = faces(tmp_path / "faces")
    os.symlink(tmp_path / "faces", tmp_path / "link")
    for output in ("faces/packed", "faces/bo/packed", "link/packed", "faces/bo/../packed"):
        with pytest.raises(DataError, match=f"^--output '.*{output}': is in the folder of the images, '.*faces'"):
            pack(source, to, str(tmp_path / output))
    both = SeveralSources([Part("one", listed(tmp_path / "list")), Part("two", source)], None)
    with pytest.raises(DataError, match="is in the folder of the images"):
        pack(both, to, str(tmp_path / "faces" / "packed"))
    assert sorted(os.listdir(tmp_path / "faces")) == ["bo", "dora e"]
    pack(source, to, str(tmp_path / "faces.packed"))
    pack(listed(tmp_path / "list"), to, str(tmp_path / "list" / "packed"))  # a list names what it reads


def test_nothing_that_is_there_is_replaced(tmp_path):
    source = listed(tmp_path / "list")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="is there already; give another place"):
        pack(source, "tar", str(tmp_path / "out"))
    (tmp_path / "mine.unfinished").mkdir()
    (tmp_path / "mine.unfinished" / "precious").write_text("x")
    with pytest.raises(DataError, match="no packing that could be continued; remove it"):
        pack(source, "tar", str(tmp_path / "mine"))
    assert (tmp_path / "mine.unfinished" / "precious").read_text() == "x"


@pytest.mark.parametrize("change", ["other labels", "other format", "no JSON", "other keys"])
def test_what_is_half_packed_of_other_data_is_not_continued(tmp_path, change, monkeypatch):
    source = listed(tmp_path / "list")
    with monkeypatch.context() as patch:
        patch.setattr(packing, "_compare", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pack(source, "tar", str(tmp_path / "out"))
    state = tmp_path / "out.unfinished" / "pack.json"
    if change == "other labels":
        source = listed(tmp_path / "list", LABELS[::-1])
    if change == "no JSON":
        state.write_text("{")
    if change == "other keys":
        state.write_text('{"job": 1}')
    with pytest.raises(DataError, match=r"out.unfinished.*remove"):
        pack(source, "recordio" if change == "other format" else "tar", str(tmp_path / "out"))


@pytest.mark.parametrize("to, name", [("recordio", "train.rec"), ("tar", "train-000001.tar"), ("lmdb", "data.mdb")])
def test_what_is_read_back_is_compared(tmp_path, to, name, monkeypatch):
    """A bit that the disk lost, in the image or in the label."""
    real = packing._compare

    def with_a_lost_bit(source, written, *rest):
        path = tmp_path / "out.unfinished" / name
        lost = bytearray(PICTURES[7])
        lost[30] ^= 1
        path.write_bytes(path.read_bytes().replace(PICTURES[7], bytes(lost)))  # LMDB may hold an old copy of it
        real(source, written, *rest)

    monkeypatch.setattr(packing, "_compare", with_a_lost_bit)
    with pytest.raises(DataError, match="is not what was written of label.txt:8"):
        pack(listed(tmp_path / "list"), to, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path, capsys):
    listed(tmp_path / "list")
    data = ["-o", f"data.dataset_dir={tmp_path / 'list'}"]
    assert main(["pack", "--to", "recordio", "--output", str(tmp_path / "out"), *data]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("data.dataset: auto takes list: ")
    assert lines[-1] == f"{tmp_path / 'out'}: 23 images of 5 classes, read back and equal"
    assert contents(tmp_path / "out", "recordio") == list(zip(PICTURES, LABELS))
    assert main(["pack", "--to", "tar", "--output", str(tmp_path / "again"), "--quiet", *data]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
