"""Pair lists and folders of identities, held against plain loops; what is wrong with them is said."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from plsc.errors import ConfigError, DataError
from plsc.evaluation.bin_file import find_targets, save_bin
from plsc.evaluation.folders import find_identities
from plsc.evaluation.pair_sets import image_location, load_pairs
from plsc.evaluation.pairs import choose_pairs, max_pairs


def make_identities(folder, sizes):
    """Files of bytes that say what they are; returns them in order."""
    made = []
    for i, size in enumerate(sizes):
        (folder / f"p{i:03d}").mkdir(parents=True)
        for k in range(size):
            made.append(f"{i}/{k}".encode())
            (folder / f"p{i:03d}" / f"{k:03d}.jpg").write_bytes(made[-1])
    return made


SIZES = [3, 1, 5, 2, 4]
OWNER = np.repeat(np.arange(len(SIZES)), SIZES)


def all_pairs():
    """{kind: every pair (a < b)}, by a loop."""
    kinds = {True: set(), False: set()}
    for a, b in itertools.combinations(range(len(OWNER)), 2):
        kinds[bool(OWNER[a] == OWNER[b])].add((a, b))
    return kinds


def test_pairs_are_distinct_of_their_kind_and_in_folds():
    pictures, issame = choose_pairs(SIZES, 20, 5, seed=3)
    assert issame.tolist() == [True, True, False, False] * 5
    assert ((OWNER[pictures[:, 0]] == OWNER[pictures[:, 1]]) == issame).all()
    assert len({tuple(pair) for pair in pictures}) == 20 and (pictures[:, 0] < pictures[:, 1]).all()


def test_every_pair_can_be_drawn_and_no_more():
    kinds = all_pairs()
    assert len(kinds[True]) == 20 and len(kinds[False]) == 85
    pictures, issame = choose_pairs(SIZES, 40, 2, seed=0)
    assert {tuple(pair) for pair in pictures[issame]} == kinds[True]  # all 20 there are
    seen = {tuple(pair) for seed in range(40) for pair in choose_pairs(SIZES, 40, 2, seed)[0][~issame]}
    assert seen == kinds[False]  # 40 draws of 20 of 85: one is missed with probability 85 * (65/85)^40 = 2e-3
    assert max_pairs(SIZES, 2) == 40 and max_pairs(SIZES, 3) == 36 and max_pairs([1, 1], 2) == 0
    with pytest.raises(DataError, match="5 identities give 20 distinct pairs of one .* 85 of two; at most 40 pairs"):
        choose_pairs(SIZES, 44, 2, seed=0)


def test_the_draw_is_uniform_and_stays_what_it_is():
    counts = np.zeros((15, 15))
    for seed in range(400):
        np.add.at(counts, tuple(choose_pairs(SIZES, 4, 2, seed)[0].T), 1)
    same = [counts[pair] for pair in all_pairs()[True]]
    # 800 draws over 20 pairs: 40 each; chi-square with 19 degrees is below 43.8 with probability 0.999
    assert np.sum((np.array(same) - 40) ** 2 / 40) < 43.8
    assert choose_pairs(SIZES, 8, 2, seed=1)[0].tolist() == FROZEN
    assert choose_pairs(SIZES, 8, 2, seed=2)[0].tolist() != FROZEN


FROZEN = [[1, 2], [11, 13], [1, 8], [1, 10], [5, 6], [0, 1], [3, 6], [3, 8]]


@pytest.mark.parametrize(("pairs", "folds", "seed", "message"), [
    (30, 10, 0, "pairs: 30; a multiple of 20"), (0, 10, 0, "pairs: 0"), (20, 1, 0, "folds: 1"),
    (20, 10, -1, "seed: -1"),
])  # fmt: skip
def test_settings_that_cannot_work(pairs, folds, seed, message):
    with pytest.raises(ConfigError, match=message):
        choose_pairs(SIZES, pairs, folds, seed)


def test_a_folder(tmp_path):
    made = make_identities(tmp_path / "faces", SIZES)
    (tmp_path / "faces" / "readme.md").write_text("no picture")
    (tmp_path / "faces" / "p000" / "notes.txt").write_text("no picture")
    (tmp_path / "faces" / ".hidden").mkdir()
    (tmp_path / "faces" / "empty").mkdir()
    found = find_identities(tmp_path / "faces")
    assert (found.names, found.sizes) == ([f"p{i:03d}" for i in range(5)], SIZES)
    (path,) = find_targets(tmp_path, ["faces/"])
    pairs = load_pairs(path, "faces/")
    pictures, issame = choose_pairs(SIZES, 40, 10, 0)
    assert (pairs.name, pairs.issame.tolist()) == ("faces/", issame.tolist())
    assert list(pairs.images) == [made[index] for index in pictures.reshape(-1)]


def test_a_pair_list(tmp_path):
    make_identities(tmp_path / "sets" / "faces", [2] * 10)
    lines = [f"faces/p{i:03d}/000.jpg\tfaces/p{(i + i % 2) % 10:03d}/001.jpg\t{1 - i % 2}" for i in range(10)]
    text = "\ufeff" + "\r\n".join(lines[:5]) + "\n\n" + "\n".join(lines[5:])  # BOM, both line ends, a blank line
    (tmp_path / "sets" / "own pairs.txt").write_bytes(text.encode())
    (path,) = find_targets(tmp_path, ["sets/own pairs.txt"])
    pairs = load_pairs(path, "sets/own pairs.txt")
    assert pairs.issame.tolist() == [True, False] * 5
    assert list(pairs.images)[:4] == [b"0/0", b"0/1", b"1/0", b"2/1"]
    (tmp_path / "sets" / "faces" / "p005" / "000.jpg").unlink()
    with pytest.raises(DataError, match=r"own pairs.txt:7: image '.*p005/000.jpg': cannot be read: No such file"):
        pairs.images[10]
    assert image_location(pairs, 10).startswith("own pairs.txt:7: image ")  # the sixth pair, after the blank line


@pytest.mark.parametrize(("line", "message"), [
    ("a.jpg b.jpg 1", r"1 problem\(s\), the first: p.txt:11: 'a.jpg b.jpg 1'; expected path_a<TAB>path_b<TAB>0 or 1"),
    ("a.jpg\tb.jpg\t2", "p.txt:11"),
    ("a.jpg\t\t1", "p.txt:11"),
    ("a.jpg\tb.jpg\t1\t", "p.txt:11"),
    ("a.jpg\tc.jpg\t1", "p.txt:11: image '.*c.jpg' does not exist"),
    ("c\0.jpg\ta.jpg\t1", "p.txt:11: image .* does not exist"),
])  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line, message):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    good = ["a.jpg\tb.jpg\t1", "a.jpg\ta.jpg\t0"] * 5
    (tmp_path / "p.txt").write_text("\n".join(good))
    assert len(load_pairs(tmp_path / "p.txt", "p.txt").issame) == 10
    (tmp_path / "p.txt").write_text("\n".join([*good, line]))
    with pytest.raises(DataError, match=message):
        load_pairs(tmp_path / "p.txt", "p.txt")


def test_what_cannot_be_judged_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    for lines in (["a.jpg\ta.jpg\t1"] * 10, ["a.jpg\ta.jpg\t1", "a.jpg\ta.jpg\t0"], []):
        (tmp_path / "p.txt").write_text("\n".join(lines))
        with pytest.raises(DataError, match="at least 10 pairs and one of each kind"):
            load_pairs(tmp_path / "p.txt", "p.txt")
    make_identities(tmp_path / "few", [2, 2])
    with pytest.raises(DataError, match="4 images of 2 identities; at least 10 pairs"):
        load_pairs(tmp_path / "few", "few/")
    (tmp_path / "few" / "p000" / "deeper").mkdir()
    with pytest.raises(DataError, match="folder inside an identity's"):
        load_pairs(tmp_path / "few", "few/")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no sub-folder with images"):
        load_pairs(tmp_path / "none", "none/")
    with pytest.raises(DataError, match=r"no faces/, x\.txt, few\.bin; .*: p\.txt, few/, none/"):
        find_targets(tmp_path, ["faces/", "x.txt", "few"])


def test_a_bin_is_called_as_it_was_asked_for(tmp_path):
    (tmp_path / "sub").mkdir()
    save_bin(tmp_path / "sub" / "lfw.bin", [b"a", b"b"], [True])
    (path,) = find_targets(tmp_path, ["sub/lfw"])
    pairs = load_pairs(path, "sub/lfw")
    assert pairs.name == "sub/lfw" and image_location(pairs, 1) == "sub/lfw, image 1"


def test_a_bad_list_is_said_before_training(tmp_path):
    from plsc.config import Config
    from plsc.config.user_objects import UserObjects
    from plsc.engine.evaluation.data import check_training_data
    from plsc.parallel.environment import Environment

    make_identities(tmp_path / "faces", [5] * 4)
    for path in (tmp_path / "faces").rglob("*.jpg"):
        Image.new("RGB", (112, 112)).save(path)
    (tmp_path / "p.txt").write_text("faces/p000/000.jpg\tfaces/p000/9.jpg\t1\n")
    for names, message in ((["faces/"], None), (["faces/", "p.txt"], "p.txt:1: image '.*9.jpg' does not exist")):
        data = {"dataset": "synthetic", "dataset_dir": str(tmp_path), "val_targets": names}
        config = Config.from_dict({"data": data, "with_test": True})
        if message is None:
            check_training_data(config, UserObjects(), Environment())
            continue
        with pytest.raises(DataError, match=message):
            check_training_data(config, UserObjects(), Environment())
