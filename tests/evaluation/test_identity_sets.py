"""Folders and lists of identities as sets: their identities, their pairs, and bad lines by their numbers."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.errors import DataError
from plsc.evaluation.bin_file import PairSet, save_bin
from plsc.evaluation.identity_sets import IdentitySet, is_identity_list, load_set
from plsc.evaluation.metric import DISTRACTOR, IDENTITIES, PAIRS
from plsc.evaluation.pair_sets import image_location, load_pairs
from plsc.evaluation.pairs import choose_pairs

SIZES = [3, 5, 2, 4, 6]
BOTH = (PAIRS, IDENTITIES)


def make(tmp_path):
    """A folder, and a list of the same images in another order with two of nobody; {file: its identity}."""
    owner, lines = {}, []
    for identity, size in enumerate(SIZES):
        folder = tmp_path / "faces" / f"p{identity}"
        folder.mkdir(parents=True)
        for number in range(size):
            (folder / f"{number}.png").write_bytes(b"%d/%d" % (identity, number))
            owner[f"faces/p{identity}/{number}.png"] = f"p{identity}"
    for number, path in enumerate(sorted(owner, key=lambda path: path[::-1])):
        lines.append(f"{path}\t{owner[path]}")
        if number in (3, 7):
            (tmp_path / f"nobody{number}.png").write_bytes(b"nobody")
            lines.append(f"nobody{number}.png\t-1\n")
    (tmp_path / "list.txt").write_text("\n" + "\n".join(lines) + "\n")
    return owner


def test_a_folder_has_all_its_images_and_the_pairs_that_verification_has(tmp_path):
    make(tmp_path)
    found = load_set(tmp_path / "faces", "faces/", BOTH)
    assert isinstance(found, IdentitySet) and found.identities.tolist() == np.repeat(np.arange(5), SIZES).tolist()
    assert [bytes(image).split(b"/")[0] for image in found.images] == [b"%d" % i for i in found.identities]
    alone = load_set(tmp_path / "faces", "faces/", (PAIRS,))
    assert isinstance(alone, PairSet) and list(alone.images) == list(load_pairs(tmp_path / "faces", "faces/").images)
    assert [found.images[int(at)] for at in found.pair_images] == list(alone.images)
    assert found.issame.tolist() == alone.issame.tolist()
    assert load_set(tmp_path / "faces", "faces/", (IDENTITIES,)).pair_images is None


def test_a_list_has_its_identities_together_and_nobody_last(tmp_path):
    owner = make(tmp_path)
    found = load_set(tmp_path / "list.txt", "list.txt", BOTH)
    assert is_identity_list(tmp_path / "list.txt") and len(found.images) == sum(SIZES) + 2
    assert found.identities[-2:].tolist() == [DISTRACTOR, DISTRACTOR] and list(found.images)[-2:] == [b"nobody"] * 2
    first = list(dict.fromkeys(owner[path] for path in sorted(owner, key=lambda path: path[::-1])))
    for image, identity in zip(list(found.images)[:-2], found.identities):
        assert first[identity] == f"p{bytes(image).decode()[0]}"
    assert (np.diff(found.identities[:-2]) >= 0).all()
    # 35 pairs of one identity, of which 30 fit into ten folds
    pictures, issame = choose_pairs(np.bincount(found.identities[:-2]).tolist(), 60, 10, 0)
    assert found.pair_images.tolist() == pictures.reshape(-1).tolist() and found.issame.tolist() == issame.tolist()
    for pair, same in enumerate(found.issame):
        one, other = (found.identities[found.pair_images[2 * pair + side]] for side in (0, 1))
        assert (one == other) == same and one != DISTRACTOR != other
    alone = load_set(tmp_path / "list.txt", "list.txt", (PAIRS,))
    assert list(alone.images) == [found.images[int(at)] for at in found.pair_images]
    assert image_location(alone, 0).startswith("list.txt:") and "faces/p" in image_location(alone, 0)


def test_a_set_of_pairs_has_no_identities(tmp_path):
    save_bin(tmp_path / "own.bin", [b"x"] * 20, [True, False] * 5)
    make(tmp_path)
    lines = ["faces/p0/0.png\tfaces/p0/1.png\t1", "faces/p0/0.png\tfaces/p1/1.png\t0"] * 5
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    for name in ("own.bin", "pairs.txt"):
        assert isinstance(load_set(tmp_path / name, name, BOTH), PairSet)


def test_too_few_for_pairs(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(b"x")
    (tmp_path / "few.txt").write_text("0.png\ta\n1.png\ta\n2.png\tb\n3.png\tb\n")
    assert load_set(tmp_path / "few.txt", "few.txt", BOTH).issame is None
    with pytest.raises(DataError, match="few.txt: 4 images of 2 identities; at least 10 pairs"):
        load_set(tmp_path / "few.txt", "few.txt", (PAIRS,))


@pytest.mark.parametrize("line, message", [
    ("a.png", r"1 problem\(s\), the first: x.txt:3: 'a.png'; expected path<TAB>identity"),
    ("a.png\t", "x.txt:3"), ("\tb", "x.txt:3"), ("a.png\tb\t1", "x.txt:3"),
    ("c.png\tb", "x.txt:3: image '.*c.png' does not exist"),
])  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line, message):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "x.txt").write_text(f"a.png\tb\n\n{line}\n")
    with pytest.raises(DataError, match=message):
        load_set(tmp_path / "x.txt", "x.txt", (IDENTITIES,))
