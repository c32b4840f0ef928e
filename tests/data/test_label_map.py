"""Label maps: what is read, and the line that is named where something is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.data.label_map import Classes, match_classes, read_label_map
from plsc.errors import DataError


def test_sorted_by_the_old_label(tmp_path):
    path = tmp_path / "map.txt"
    path.write_text("9\t0\r\n\n2\t5\n007\t1\n")
    old, new = read_label_map(str(path), 10, 6)
    assert old.tolist() == [2, 7, 9] and new.tolist() == [5, 1, 0]


@pytest.mark.parametrize("text, message", [
    ("1 2\n", ":1: '1 2' is not"),
    ("1\t2\t3\n", ":1:"), ("\n1\t-2\n", ":2:"), ("a\t1\n", ":1:"), ("1.0\t1\n", ":1:"),
    ("1\t2\n1\t3\n", ":2: old label 1 is there twice"), ("1\t2\n3\t2\n", ":2: new label 2 is there twice"),
    ("10\t2\n", "old label 10: must be in [0, 10)"), ("1\t6\n", "new label 6: must be in [0, 6)"),
    ("\n", "has no classes"),
    ("1\t\u00b2\n", ":1:"),
])  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, text, message):
    path = tmp_path / "map.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_label_map(str(path), 10, 6)
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("missing", "binary"):
        with pytest.raises(DataError, match="label_map="):
            read_label_map(str(tmp_path / name), 10, 6)


def match(old_names, new_names, old_number=4, new_number=4):
    return match_classes(Classes(old_number, old_names, "the checkpoint"), Classes(new_number, new_names, "the data"))


def test_classes_of_the_same_name_are_the_same_whatever_their_labels():
    old, new, how = match(["d", "a", "c", "b"], ["b", "x", "d", "a", "y"], 6, 9)
    assert [*zip(old.tolist(), new.tolist())] == [(0, 2), (1, 3), (3, 0)] and how == "by name"
    assert old.dtype == new.dtype == np.int64


@pytest.mark.parametrize("names, without", [
    (((), ()), "the checkpoint and the data"), ((["a"], ()), "the data"), (((), ["a"]), "the checkpoint"),
])  # fmt: skip
def test_without_names_on_both_sides_labels_stay(names, without):
    old, new, how = match(*names)
    assert old.tolist() == new.tolist() == [0, 1, 2, 3]
    assert how == f"by number, as {without} has no names of classes"


@pytest.mark.parametrize("case, message", [
    (((), (), 4, 5), "the checkpoint has 4 classes, the data 5, and without names on both sides they cannot be "
                     "matched; say which class is which by label_map"),
    ((["a", "b"], ["c"]), "no class of the data has a name that the checkpoint has, such as 'a'"),
    ((["a", "b", "a"], ["a"]), "the checkpoint has two classes named 'a'; say which"),
    ((["a", "b"], ["b", "c", "b"]), "the data has two classes named 'b'; say which"),
])  # fmt: skip
def test_what_cannot_be_matched_names_the_map(case, message):
    with pytest.raises(DataError) as caught:
        match(*case)
    assert message in str(caught.value) and "label_map" in str(caught.value) and "\n" not in str(caught.value)
