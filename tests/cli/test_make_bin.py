"""plsc make-bin: what it writes is what it was asked for, the same each time, or nothing."""

from __future__ import annotations

import hashlib
import os

import pytest
from PIL import Image

from plsc.evaluation import make_set
from plsc.evaluation.bin_file import load_bin
from plsc.evaluation.pair_sets import load_pairs
from tests import tool_kit
from tests import using_kit as kit


def make(*arguments):
    return tool_kit.plsc("make-bin", *arguments)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """6 identities of 3 images; {bytes: identity}."""
    folder, owner = tmp_path_factory.mktemp("own") / "faces", {}
    for identity in range(6):
        (folder / f"{identity}").mkdir(parents=True)
        for picture in range(3):
            path = folder / f"{identity}" / f"{picture} ä.png"
            Image.fromarray(kit.pixels(10 * identity + picture)).save(path)
            owner[path.read_bytes()] = identity
    return folder, owner


def check(pairs, owner, folds: int, count: int) -> set:
    half = count // folds // 2
    assert pairs.issame.tolist() == ([True] * half + [False] * half) * folds
    seen = set()
    for i, same in enumerate(pairs.issame):
        a, b = pairs.images[2 * i], pairs.images[2 * i + 1]
        assert (owner[a] == owner[b]) == same and a != b
        seen.add(frozenset((a, b)))
    assert len(seen) == count
    return seen


def test_bin_and_list_hold_the_same_pairs(faces, tmp_path):
    folder, owner = faces
    for name in ("a.bin", "b.bin", "sub/list.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        done = make(folder, "--output", tmp_path / name, "--pairs", 36, "--folds", 3)
        assert done.returncode == 0 and f"{name}: 36 pairs, 18 images of 6 identities" in done.stdout, done.stderr
    other = make(folder, "--output", tmp_path / "c.bin", "--pairs", 36, "--folds", 3, "--seed", 1)
    assert other.returncode == 0
    digests = [hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in ("a.bin", "b.bin", "c.bin")]
    assert digests[0] == digests[1] != digests[2]
    seen = check(load_bin(tmp_path / "a.bin"), owner, 3, 36)
    assert check(load_pairs(tmp_path / "sub" / "list.txt", "list"), owner, 3, 36) == seen
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "b.bin", "c.bin", "sub"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--pairs", "40"], "20 of each kind are needed, the 6 identities give 18 distinct pairs of one identity and 135"),
    (["--pairs", "40"], "at most 20 pairs in 10 folds"),
    (["--pairs", "30"], "a multiple of 20"),
    (["--folds", "1"], "folds: 1; at least 2"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(faces, tmp_path, arguments, message):
    done = make(faces[0], "--output", tmp_path / "x.bin", *arguments)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("content", "message"), [(b"no picture", "1/0.png"), (None, "8 x 4 pixels")])
def test_a_image_that_no_net_could_take_is_named(tmp_path, content, message):
    for identity in range(2):
        (tmp_path / "f" / f"{identity}").mkdir(parents=True)
        for picture in range(4):
            Image.fromarray(kit.pixels(picture)).save(tmp_path / "f" / f"{identity}" / f"{picture}.png")
    bad = tmp_path / "f" / "1" / "0.png"
    Image.fromarray(kit.pixels(0, 4, 8)).save(bad)
    if content:
        bad.write_bytes(content)
    done = make(tmp_path / "f", "--output", tmp_path / "x.bin", "--pairs", 12, "--folds", 3)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "x.bin").exists()


def test_a_list_of_identities_gives_the_same_as_its_folder(faces, tmp_path):
    folder, owner = faces
    lines = [f"{os.path.relpath(path, tmp_path)}\t{path.parent.name}\n" for path in sorted(folder.rglob("*.png"))]
    (tmp_path / "list.txt").write_text("".join([*lines, lines[0].split("\t")[0].replace("0/0", "0/1") + "\t-1\n"]))
    assert make(folder, "--output", tmp_path / "a.bin").returncode == 0
    done = make(tmp_path / "list.txt", "--output", tmp_path / "b.bin")
    assert done.returncode == 0 and "b.bin: 20 pairs, " in done.stdout and "of 6 identities" in done.stdout, done.stderr
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    check(load_bin(tmp_path / "b.bin"), owner, 10, 20)


def test_a_list_of_pairs_is_taken_as_it_is(faces, tmp_path):
    folder, _ = faces
    assert make(folder, "--output", tmp_path / "list.txt", "--pairs", 24, "--folds", 3, "--seed", 5).returncode == 0
    assert make(folder, "--output", tmp_path / "a.bin", "--pairs", 24, "--folds", 3, "--seed", 5).returncode == 0
    done = make(tmp_path / "list.txt", "--output", tmp_path / "b.bin")
    assert done.returncode == 0 and "b.bin: 24 pairs, 48 images, " in done.stdout, done.stderr
    one, other = load_bin(tmp_path / "a.bin"), load_bin(tmp_path / "b.bin")
    assert list(one.images) == list(other.images) and one.issame.tolist() == other.issame.tolist()
    for option in ("--pairs", "--folds", "--seed"):
        done = make(tmp_path / "list.txt", "--output", tmp_path / "c.bin", option, 10)
        assert done.returncode == 1 and f"{option}: " in done.stderr and "leave it out" in done.stderr


@pytest.mark.parametrize(("output", "status", "message"), [
    ("x.zip", 2, "must end in .bin or .txt"), ("no/x.bin", 1, "does not exist; create it first"),
])  # fmt: skip
def test_an_output_that_cannot_be(faces, tmp_path, output, status, message):
    done = make(faces[0], "--output", tmp_path / output)
    assert done.returncode == status and message in done.stderr.splitlines()[-1]


def test_a_file_that_is_there_stays(tmp_path):
    (tmp_path / "lfw.bin").write_bytes(b"of somebody")
    done = make(tmp_path, "--output", tmp_path / "lfw.bin")
    assert done.returncode == 1 and "lfw.bin: is there already; give another name, or remove it" in done.stderr
    assert (tmp_path / "lfw.bin").read_bytes() == b"of somebody"


@pytest.mark.parametrize("lost", ["image", "flag"])
def test_what_is_read_back_is_compared(faces, tmp_path, monkeypatch, lost):
    real = make_set.save_bin

    def with_a_lost_bit(path, images, issame):
        last = images[-1][:-1] + b"?" if lost == "image" else images[-1]
        real(path, [*images[:-1], last], [*issame[:-1], issame[-1] ^ (lost == "flag")])

    monkeypatch.setattr(make_set, "save_bin", with_a_lost_bit)
    done = make(faces[0], "--output", tmp_path / "x.bin")
    assert done.returncode == 1 and "x.bin: is not what was written" in done.stderr
