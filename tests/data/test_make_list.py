"""plsc make-list: every image is in one list or told as left out; labels and names are the source's, numbered anew."""

from __future__ import annotations

import collections
import os

import pytest

from plsc.config import Config
from plsc.data.class_table import read_class_table, write_class_table
from plsc.data.opening import open_source, open_to_read
from plsc.data.sources.label_list import LabelListSource
from plsc.errors import DataError
from plsc.evaluation.identity_sets import load_set
from tests import tool_kit
from tests.data.container_kit import images, plain, write_records
from tests.faces import SHAPE, copy_faces

SIZES = {"bo": 5, "änne": 3, "carl e": 1, "dora": 6, "emil": 4, "fay": 5}  # sorted by bytes: bo, carl e, ..., änne


@pytest.fixture
def folder(tmp_path):
    """Six identities of 1 to 6 images; each image has its own bytes."""
    for name, count in SIZES.items():
        (tmp_path / "faces" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "faces" / name / f"{number} x.png").write_bytes(f"{name} {number}".encode())
    return tmp_path / "faces"


def make(folder, output, *words):
    done = tool_kit.plsc("make-list", "--output", output, "-o", f"data.dataset_dir={folder}", "--quiet", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def read(path) -> dict[str, list[str]]:
    """{name of the class in the table: names of its images}, from a list and its table, read without PLSC."""
    names = [line.split("\t") for line in (path.parent / f"{path.stem}.classes.tsv").read_text().splitlines()]
    assert names[0] == ["label", "name", "images"]
    assert [row[0] for row in names[1:]] == [str(label) for label in range(len(names) - 1)]
    found: dict[str, list[str]] = {row[1]: [] for row in names[1:]}
    for line in path.read_text().splitlines():
        file, label = line.split("\t")
        name, image = (path.parent / file).read_text().rsplit(" ", 1)
        assert names[int(label) + 1][1] == name  # the label is that of its class
        found[name].append(image)
    assert [int(row[2]) for row in names[1:]] == [len(found[row[1]]) for row in names[1:]]
    return found


def test_all_images_of_a_folder(folder):
    lines = make(folder, folder / "label.txt")
    path = folder / "label.txt"
    assert lines == [f"{path}: 24 images of 6 classes, names in {folder / 'label.classes.tsv'}"]
    found = read(path)
    assert {name: len(one) for name, one in found.items()} == SIZES and list(found) == sorted(SIZES, key=str.encode)
    assert path.read_text().splitlines()[0] == "bo/0 x.png\t0"
    config = Config.from_dict({"data": {"dataset_dir": str(folder)}, "classifier": {"num_classes": None}})
    by_list, by_folder = (open_source(_with(config, kind), 0) for kind in ("list", "folder"))
    assert list(by_list.class_names) == by_folder.class_names and by_list.num_classes == 6
    assert [by_list.read(i) for i in range(24)] == [by_folder.read(i) for i in range(24)]
    assert "the names of the classes are those of" in by_list.notes[0]


def _with(config: Config, kind: str) -> Config:
    other = config.copy()
    other.set("data.dataset", kind)
    return other


def test_whole_identities_are_held_out(folder, tmp_path):
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists" / "own.txt"  # elsewhere: the paths lead there
    lines = make(folder, path, "--hold-out-identities", "2", "--min-images", "3")
    train, held = read(path), read(tmp_path / "lists" / "own.held_out.txt")
    assert len(train) == 3 and len(held) == 2 and not set(train) & set(held)
    assert {name: len(one) for name, one in {**train, **held}.items()} == {k: n for k, n in SIZES.items() if n >= 3}
    assert lines[1].startswith(f"{tmp_path / 'lists' / 'own.held_out.txt'}: {sum(map(len, held.values()))} images of 2")
    assert lines[2] == "left out: 1 classes with fewer than 3 images, 1 images"
    make(folder, tmp_path / "lists" / "part.txt", "--hold-out-identities", "0.4", "--min-images", "3")  # 0.4 of 5
    assert read(tmp_path / "lists" / "part.held_out.txt") == held
    found = load_set(tmp_path / "lists" / "own.held_out.txt", "held out", {"identities"})  # as verification reads it
    assert len(found.images) == sum(map(len, held.values())) and set(found.identities) == {0, 1}


def test_images_of_each_identity_are_held_out(folder):
    lines = make(folder, folder / "label.txt", "--hold-out-images", "3")
    train, held = read(folder / "label.txt"), read(folder / "label.held_out.txt")
    assert {name: len(one) for name, one in train.items()} == {"bo": 2, "änne": 3, "carl e": 1, "dora": 3, "emil": 1,
                                                               "fay": 2}  # fmt: skip
    assert list(held) == list(train)  # the labels are those of the training list
    for name, size in SIZES.items():
        assert sorted(train[name] + held[name]) == [str(number) for number in range(size)]
        assert len(held[name]) == (3 if size > 3 else 0)
    assert lines[2] == "nothing is held out of 2 classes with 3 images or fewer"


def test_what_is_held_out_depends_on_seed_and_names(folder, tmp_path):
    """Not on the order or number of the others: an identity more changes at most one of those held out."""
    chosen = []
    for seed in range(24):
        output = tmp_path / f"{seed}.txt"
        make(folder, output, "--hold-out-identities", "2", "--seed", seed)
        chosen.append(frozenset(read(tmp_path / f"{seed}.held_out.txt")))
    counts = collections.Counter(name for one in chosen for name in one)
    assert set(counts) == set(SIZES) and max(counts.values()) < 20  # 8 expected of each, standard deviation 2.3
    make(folder, tmp_path / "again.txt", "--hold-out-identities", "2")
    for name in ("txt", "classes.tsv", "held_out.txt", "held_out.classes.tsv"):
        assert (tmp_path / f"again.{name}").read_bytes() == (tmp_path / f"0.{name}").read_bytes()
    (folder / "new").mkdir()
    (folder / "new" / "0 x.png").write_text("new 0")
    for seed in range(5):
        make(folder, tmp_path / f"more{seed}.txt", "--hold-out-identities", "2", "--seed", seed)
        assert len(set(read(tmp_path / f"more{seed}.held_out.txt")) & chosen[seed]) >= 1


def test_a_list_is_split_again(folder, tmp_path):
    """The names come along; without a table the old labels are the names."""
    make(folder, folder / "label.txt")
    make(folder, folder / "b.txt", "--min-images", "5")
    assert set(read(folder / "b.txt")) == {"bo", "dora", "fay"}
    (folder / "label.classes.tsv").unlink()
    make(folder, folder / "c.txt", "--min-images", "5")
    assert (folder / "c.classes.tsv").read_text() == "label\tname\timages\n0\t0\t5\n1\t2\t6\n2\t4\t5\n"
    assert (folder / "c.txt").read_text() == (folder / "b.txt").read_text()


@pytest.mark.parametrize("words, status, said", [
    (["--min-images", "6"], 1, "1 classes would be left for training, two are needed; lower --min-images"),
    (["--hold-out-identities", "5"], 1, "1 classes would be left for training"),
    (["--hold-out-identities", "0.01"], 1, "nothing would be held out; raise --hold-out-identities"),
    (["--hold-out-images", "6"], 1, "nothing would be held out; raise --hold-out-identities, or lower"),
    (["--hold-out-identities", "1.5"], 2, "--hold-out-identities 1.5: must be a whole number, or a fraction below 1"),
    (["--hold-out-identities", "nan"], 2, "--hold-out-identities nan: must be"),
    (["--hold-out-images", "-1"], 2, "--hold-out-images -1: must be from 0"),
    (["--min-images", "0"], 2, "--min-images 0: must be from 1"),
    (["--hold-out-images", "1", "--hold-out-identities", "1"], 2, "not allowed with"),
])  # fmt: skip
def test_what_cannot_be_is_refused(folder, tmp_path, words, status, said):
    done = tool_kit.plsc("make-list", "--output", tmp_path / "x.txt", "-o", f"data.dataset_dir={folder}", *words)
    assert done.returncode == status and said in done.stderr.splitlines()[-1]
    assert status == 2 or done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["faces"]


@pytest.mark.parametrize("name", ["label.txt", "label.classes.tsv", "label.held_out.txt", "label.held_out.classes.tsv"])
def test_nothing_that_is_there_is_replaced(folder, tmp_path, name):
    (tmp_path / name).write_text("mine")
    done = tool_kit.plsc("make-list", "--output", tmp_path / "label.txt", "-o", f"data.dataset_dir={folder}",
                         "--hold-out-images", "1")  # fmt: skip
    assert done.returncode == 1 and f"{name}': is there already" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["faces", name] and (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["a\tb.png", "a\nb.png"])
def test_names_that_no_list_can_hold(folder, tmp_path, name):
    (folder / "bo" / name).write_text("x")
    done = tool_kit.plsc("make-list", "--output", tmp_path / "x.txt", "-o", f"data.dataset_dir={folder}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "cannot be in a list; rename it" in done.stderr
    assert not (tmp_path / "x.txt").exists()


def test_a_container_is_written_as_files_first(tmp_path):
    pictures, labels = images(6), [0, 1, 2, 0, 1, 2]
    write_records(tmp_path / "records", plain(pictures, labels))
    words = ["-o", f"data.dataset_dir={tmp_path / 'records'}", "-o", "model.image_shape=[3,8,8]"]
    done = tool_kit.plsc("make-list", "--output", tmp_path / "x.txt", *words)
    assert done.returncode == 1 and "its images are no files" in done.stderr and "plsc pack --to list" in done.stderr
    assert tool_kit.plsc("pack", "--to", "list", "--output", tmp_path / "files", *words).returncode == 0
    make(tmp_path / "files", tmp_path / "files" / "train.txt", "--hold-out-images", "1")
    parts = [LabelListSource(tmp_path / "files", name, None) for name in ("train.txt", "train.held_out.txt")]
    found = sorted(part.read(index) for part in parts for index in range(len(part)))
    assert found == sorted(zip(pictures, labels)) and [len(part) for part in parts] == [3, 3]


def test_several_folders_as_one(folder, tmp_path):
    (tmp_path / "more" / "zoe").mkdir(parents=True)
    (tmp_path / "more" / "yan").mkdir()
    for name in ("yan", "zoe"):
        (tmp_path / "more" / name / "0 x.png").write_text(f"{name} 0")
    done = tool_kit.plsc("make-list", "--output", tmp_path / "x.txt", "-o",
                         f"data.sources=[{{dataset_dir: {folder}}}, {{dataset_dir: {tmp_path / 'more'}}}]")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {name: len(one) for name, one in read(tmp_path / "x.txt").items()} == {**SIZES, "yan": 1, "zoe": 1}


def test_tables_of_names(tmp_path):
    path = str(tmp_path / "x.classes.tsv")
    write_class_table(path, ["a b", "ü"], [1, 2])
    assert read_class_table(path, 2).names == read_class_table(path, 9).names == ["a b", "ü"]
    assert read_class_table(path, 2).images.tolist() == [1, 2]
    for name in ("", "a\tb", "a\nb", "a\u2028b", "a\ud800"):
        with pytest.raises(DataError, match="rename its folder"):
            write_class_table(path, [name], [1])
    for text, said in (
        ("0\ta\t1\n2\tb\t1\n", r":2: '2\\tb\\t1\\n' is not 1<TAB>name<TAB>images"),
        ("0\ta\n", ":1: .* is not 0<TAB>name"), ("label\tname\timages\n", "has 0 names for 2 classes"),
        ("0\ta\t1\n1\tb\t1\n2\tc\t1\n", "has 3 names for 2 classes; set classifier.num_classes: 3, correct it"),
        (b"0\t\xff\t1\n", "is not UTF-8 text"), ("0\ta\tmany\n", ":1: .* is not 0<TAB>name"),
        ("0\ta\t1" + "0" * 18, ":1: .* is not 0<TAB>name"),
    ):  # fmt: skip
        (tmp_path / "x.classes.tsv").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(DataError, match=said) as caught:
            read_class_table(path, 2)
        assert "\n" not in str(caught.value)


def test_real_faces_from_the_folder_to_a_verification_set(tmp_path):
    """ORL: 8 people to train on, 2 held out, of whom pairs are made: no image is in both."""
    faces = copy_faces(tmp_path / "faces", 10, range(1, 6))
    make(faces, faces / "label.txt", "--hold-out-identities", "0.2")
    done = tool_kit.plsc("make-bin", faces / "label.held_out.txt", "--output", faces / "unseen.bin")
    assert done.returncode == 0 and "40 pairs, " in done.stdout and "of 2 identities" in done.stdout, done.stderr
    config = Config.from_dict({"data": {"dataset_dir": str(faces)}, "model": {"image_shape": SHAPE}})
    lines: list[str] = []
    source = open_to_read(config, lines.append)
    assert "list" in lines[0] and source.num_classes == 8 and len(source) == 40
    pairs = load_set(faces / "unseen.bin", "unseen", {"pairs"})
    trained = {source.read(index)[0] for index in range(len(source))}
    assert not trained & set(pairs.images) and pairs.issame.tolist() == [True, True, False, False] * 10
