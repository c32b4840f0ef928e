"""The names of the classes in a checkpoint: written with it, hashed with it, read without trust."""

from __future__ import annotations

import json
import os

import pytest

from plsc.checkpoint import (
    OneRank,
    RankTensors,
    link,
    open_checkpoint,
    read_class_names,
    read_manifest,
    reshard,
    save,
    verify_files,
)
from plsc.data.record import moved_classes
from plsc.errors import CheckpointError
from plsc.files import class_names, safe_open
from plsc.files.class_names import CLASS_NAMES
from plsc.files.hashes import FileEntry, hash_bytes
from tests.checkpoint.checkpoint_kit import ArrayShard, class_arrays, class_range, meta_for, on_ranks, replicated_arrays

NAMES = ["a b", "é", 'quo"te', "new\nline", "\\xff", "<script>", "名"]
CLASSES = 9  # two of them without a name


def saved(run_dir, ranks: int = 1, names=NAMES, step: int = 3):
    """The checkpoint's directory, or the error of each rank."""

    def work(group):
        first, last = class_range(CLASSES, group.rank, ranks)
        shard = ArrayShard({name: array[first:last] for name, array in class_arrays(CLASSES).items()})
        meta = meta_for(CLASSES, class_names=names) if group.rank == 0 else {}
        return save(
            str(run_dir), step, RankTensors(replicated_arrays() if group.rank == 0 else None, shard), meta, group
        )

    return work(OneRank()) if ranks == 1 else on_ranks(ranks, work)[0]


@pytest.mark.parametrize("ranks", [1, 3])
def test_names_are_saved_hashed_linked_and_resharded(tmp_path, ranks):
    path = saved(tmp_path / "run", ranks)
    manifest = read_manifest(path)
    assert read_class_names(path, manifest) == NAMES
    stored = (tmp_path / "run" / "checkpoints" / "step_00000003" / CLASS_NAMES).read_bytes()
    assert json.loads(stored) == NAMES and stored.count(b"\n") == len(NAMES) + 2 and stored.isascii()
    assert manifest.files[CLASS_NAMES] == FileEntry(len(stored), hash_bytes(stored))
    copy = link(path, str(tmp_path / "best"), {}, OneRank())
    other = reshard(path, str(tmp_path / "other"), 2)
    for place in (copy, other):
        assert read_class_names(place, read_manifest(place)) == NAMES
        verify_files(place, read_manifest(place))


@pytest.mark.parametrize("names", [None, [], ()])
def test_without_names_there_is_no_file(tmp_path, names):
    path = saved(tmp_path, 1, names)
    assert not os.path.exists(os.path.join(path, CLASS_NAMES)) and CLASS_NAMES not in read_manifest(path).files
    assert read_class_names(path, read_manifest(path)) == []


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (NAMES + ["x", "y", "z"], "class_names: 10 names for 9 classes"),
        (["x", 3], "class_names: must be a list of strings"),
        ("text", "class_names: must be a list of strings"),
        (["x" * 4097], "class_names: a name of 4097 characters; at most 4096"),
        (["x\udcff"], r"class_names: 'x\udcff' holds half a character"),
    ],
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_what_are_no_names_is_refused_before_anything_is_written(tmp_path, names, text, ranks):
    error = None
    try:
        error = saved(tmp_path, ranks, names)
    except CheckpointError as caught:
        error = caught
    assert isinstance(error, CheckpointError) and text in str(error) and "\n" not in str(error)
    assert os.listdir(tmp_path / "checkpoints") == [] if (tmp_path / "checkpoints").exists() else True


@pytest.mark.parametrize("fate", ["changed", "shorter", "gone"])
def test_a_damaged_file_stops_every_rank(tmp_path, fate):
    path = saved(tmp_path, 2)
    file = os.path.join(path, CLASS_NAMES)
    with open(file, "rb") as opened:
        data = opened.read()
    os.unlink(file)
    if fate != "gone":
        with open(file, "wb") as opened:
            opened.write(data[:-1] if fate == "shorter" else data.replace(b"a b", b"a c"))
    for error in on_ranks(3, lambda group: open_checkpoint(path, group)):
        assert isinstance(error, CheckpointError) and CLASS_NAMES in str(error)
    with pytest.raises(CheckpointError, match=rf"^{file}: (is not the file that was written|No such file)"):
        read_class_names(path, read_manifest(path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "must be a list of strings"), ("[]", "0 names for 9 classes"), ('["a", 1]', "must be a list of strings"),
        ("[" * 100 + "]" * 100, "nested too deeply"), ('["a"', "not JSON"), (json.dumps(["a"] * 10), "10 names for 9"),
        ('["\\ud800"]', "half a character"), (json.dumps(["a" * 5000]), "a name of 5000 characters"),
    ],
)  # fmt: skip
def test_a_strangers_file_with_the_right_hash(tmp_path, text, reason):
    file = tmp_path / CLASS_NAMES
    file.write_text(text)
    entry = FileEntry(len(text), hash_bytes(text.encode()))
    with pytest.raises(ValueError, match=reason):
        class_names.read(str(file), entry, 9)


def test_a_file_that_is_none_or_too_large(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a pipe"):
        class_names.read(str(tmp_path / "pipe"), FileEntry(1, ""), 9)
    monkeypatch.setattr(safe_open, "CLASS_NAMES", 10)
    (tmp_path / "x").write_bytes(b" " * 11)
    with pytest.raises(OSError, match="has 11 bytes"):
        class_names.read(str(tmp_path / "x"), FileEntry(11, ""), 9)


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (["a", "b", "c"], None), (["a", "b", "c", "d"], None), (["a", "b"], None), (["x", "y"], None), ([], None),
        (["a", "aa", "b", "c"], "2 of 3 classes that are in both have other labels, such as 'b': 2 instead of 1"),
        (["b", "c"], "2 of 2 classes that are in both have other labels, such as 'b': 0 instead of 1"),
    ],
)  # fmt: skip
def test_classes_that_have_other_labels_are_known_by_their_names(new, text):
    found = moved_classes(["a", "b", "c"], new)
    assert (found and found.text) == text and (found is None or found.relabelled)
