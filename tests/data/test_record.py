"""What is remembered of a training list, and what two records tell of how their lists differ."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from plsc.data import difference, list_record, record
from plsc.data.label_list import LabelList
from plsc.files.texts import HeldText

WORD = 2**64 - 1


def labels_of(lines: list[tuple[str, int]], num_classes: int = 1000) -> LabelList:
    text = "".join(f"{path}\t{label}\n" for path, label in lines)
    return LabelList("label.txt", HeldText(text.encode()), num_classes)


def remembered(lines, num_classes: int = 1000, count: int | None = None) -> dict:
    found = list_record(labels_of(lines, num_classes), count)
    return json.loads(json.dumps(found))  # as a manifest gives it back


def compare(old, new):
    """The difference of two lists of (path, label)."""
    begin = lambda count: list_record(labels_of(new), count)  # noqa: E731
    return difference(remembered(old), remembered(new), begin)


def mixed(value: int) -> int:
    """splitmix64 with Python's integers."""
    value = (value + 0x9E3779B97F4A7C15) & WORD
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & WORD
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & WORD
    return value ^ value >> 31


def hashed(path: bytes) -> int:
    value = mixed(len(path))
    for first in range(0, len(path), 8):
        value = mixed(value ^ int.from_bytes(path[first : first + 8], "little"))
    return value


def faces(identities: int, each: int = 7, first: int = 0) -> list[tuple[str, int]]:
    return [(f"faces/{first + i:05d}/{k}.jpg", i) for i in range(identities) for k in range(each)]


@pytest.mark.parametrize("block", [1, 3, 1 << 16])
def test_a_record_against_a_plain_loop(monkeypatch, block):
    """Paths of every length around whole words; the blocks end anywhere, the last path at the end of the file."""
    monkeypatch.setattr(record, "_BLOCK", block)
    lines = [("x" * length + "é" * (length % 2), length % 5) for length in range(1, 40)]
    found = remembered(lines, num_classes=6)
    paths = [hashed(path.encode()) for path, _ in lines]
    whole = [mixed(value ^ mixed(label + 1)) for value, (_, label) in zip(paths, lines)]

    def digest(values):
        return hashlib.sha256(b"".join(value.to_bytes(8, "little") for value in values)).hexdigest()[:32]

    assert found == {
        "kind": "list", "images": 39, "num_classes": 6, "labels": 5, "lines": digest(whole), "paths": digest(paths),
        "unordered": f"{sum(whole) & WORD:016x}",
        "sample": sorted([f"{value:016x}", label] for value, (_, label) in zip(paths, lines)),
    }  # fmt: skip


@pytest.mark.parametrize("block", [5, 1 << 16])
def test_the_sample_are_the_smallest_hashes_whatever_the_order(monkeypatch, block):
    monkeypatch.setattr(record, "_BLOCK", block)
    lines = faces(200)
    lines += lines[:300]  # twice in the list, once in the sample
    expected = sorted({(f"{hashed(path.encode()):016x}", label) for path, label in lines})[: record.SAMPLE]
    for order in (lines, lines[::-1]):
        assert remembered(order)["sample"] == [list(pair) for pair in expected]


def test_a_record_of_the_beginning_is_that_of_the_shorter_list():
    lines = faces(50)
    assert remembered(lines, count=91) == remembered(lines[:91])
    assert remembered(lines, count=9999) == remembered(lines)


def test_how_a_line_is_written_does_not_matter():
    lines = faces(3)
    text = "\r\n\n".join(f"{path}  {label}" for path, label in lines)
    assert list_record(LabelList("l", HeldText(b"\xef\xbb\xbf" + text.encode()), 1000)) == list_record(labels_of(lines))


def test_the_same_list_is_no_difference():
    assert compare(faces(99), faces(99)) is None


@pytest.mark.parametrize("each", [1, 7])
def test_one_label_of_many_is_noticed(each):
    old = faces(3000, each)
    new = list(old)
    new[1234] = (new[1234][0], 17)
    found = compare(old, new)
    assert found.relabelled and found.text == f"the same {len(old):,} images have other labels"


def test_another_order_is_told_from_other_labels():
    old = faces(120)
    found = compare(old, [old[i] for i in np.random.default_rng(0).permutation(len(old))])
    assert not found.relabelled and found.text == "the same 840 lines are in another order"
    swapped = [(path, 1 - label) if label < 2 else (path, label) for path, label in old]
    assert compare(old, swapped[::-1]).relabelled


def test_a_list_that_grew_at_its_end():
    old = faces(40)
    found = compare(old, old + faces(2, first=40))
    assert not found.relabelled
    assert found.text == "a list of 294 lines instead of 280, whose beginning is the same"
    moved = [(path, label + 2) for path, label in old] + faces(2, first=40)
    found = compare(old, moved)
    assert found.relabelled and found.text == "a list of 294 lines instead of 280, the first 280 with other labels"


def test_an_identity_in_the_middle_renumbers_those_behind_it():
    """What a list made anew from sorted folders looks like: not one line is at its place, half of the labels moved."""
    old = faces(400)
    half = len(old) // 2
    new = old[:half] + [("faces/00199b/0.jpg", 200)] + [(path, label + 1) for path, label in old[half:]]
    found = compare(old, new)
    assert found.relabelled and "have other labels" in found.text
    kept = old[:half] + [("faces/00199b/0.jpg", 400)] + old[half:]
    found = compare(old, kept)
    assert not found.relabelled and found.text == "another list, of 2,801 lines instead of 2,800"


def test_images_that_are_gone_are_estimated():
    old = faces(400)
    found = compare(old, old[len(old) // 4 :])
    looked, gone = (int(word) for word in found.text.replace(",", "").split() if word.isdigit() and int(word) < 1000)
    assert not found.relabelled and looked > 180
    assert 0.15 < gone / looked < 0.35  # a quarter; one standard deviation of 180 looked at is 0.032
    assert "another list" in compare(old, faces(400, first=7000)).text


@pytest.mark.parametrize("new, text", [
    ({"kind": "train_dataset", "type": "a.B", "images": 5}, None),
    ({"kind": "train_dataset", "type": "a.B", "images": 6}, "train_dataset a.B of 6 images instead of"),
    ({"kind": "train_dataset", "type": "a.C", "images": 5}, "train_dataset a.C of 5 images instead of"),
    ({"kind": "synthetic", "images": 5}, "synthetic data of 5 images instead of train_dataset a.B of 5 images"),
    ({}, "instead of train_dataset a.B of 5 images"),
])  # fmt: skip
def test_data_that_are_no_list(new, text):
    found = difference({"kind": "train_dataset", "type": "a.B", "images": 5}, new)
    assert (found is None) if text is None else (text in found.text and not found.relabelled)
    assert difference(remembered(faces(2)), new).text.endswith("instead of a list of 14 images")
