"""tools/make_glyphs.py: what a set holds, that it repeats to the byte, and that bad input is one clear line."""

from __future__ import annotations

import importlib.metadata
import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tools")) if path not in sys.path]
from glyphs import build, charsets, draw, fonts, pairs  # noqa: E402
from PIL import Image  # noqa: E402

from plsc.errors import DataError  # noqa: E402

TINY = ["--classes", "24", "--held-out-classes", "10", "--size", "32", "--per-class", "6", "--pairs", "40"]
BINS = ("seen_newfont", "unseen", "unseen_newfont")


def run_tool(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / "make_glyphs.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()][1:]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("glyphs") / "made here" / "set"
    result = run_tool("--out", out, "--processes", 1, *TINY)
    assert result.returncode == 0, result.stderr
    return out


def test_lists_name_every_image_and_only_those(made):
    listed = []
    for name, per_class in (("label.txt", 6), ("val.txt", 2)):
        rows = [line.split("\t") for line in (made / name).read_text().splitlines()]
        assert np.bincount([int(label) for _, label in rows]).tolist() == [per_class] * 14
        assert all(f"/{int(label):05d}/" in path for path, label in rows)
        listed += [path for path, _ in rows]
    on_disk = [name for name in contents(made) if name.startswith("images/")]
    assert sorted(listed) == sorted(on_disk)
    for path in listed[::7]:
        with Image.open(made / path) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (32, 32), "L")


def test_no_design_and_no_character_is_on_both_sides(made):
    rows = table(made / "faces.tsv")
    designs = {role: {row[1] for row in rows if row[2] == role} for role in ("trained", "held_out")}
    assert designs == {"trained": {"sans"}, "held_out": {"microhei"}}
    assert all("/sans-" in line for line in (made / "label.txt").read_text().splitlines())
    assert all("/microhei_" in line for line in (made / "val.txt").read_text().splitlines())
    rows = table(made / "classes.tsv")
    assert [row[0] for row in rows] == [*map(str, range(14)), *["-"] * 10]
    points = [int(row[1][2:], 16) for row in rows]
    assert len(set(points)) == 24 and points[:14] == sorted(points[:14])
    assert [row[2] for row in rows] == [chr(point) for point in points]


@pytest.mark.parametrize("name", BINS)
def test_bin_is_insightface_layout(made, name):
    raw = (made / f"{name}.bin").read_bytes()
    assert raw[:2] == b"\x80\x02"  # pickle protocol 2
    encoded, is_same = pickle.loads(raw, encoding="bytes")
    assert type(encoded) is list and {type(item) for item in encoded} == {bytes} and len(encoded) == 80
    assert type(is_same) is list and {type(item) for item in is_same} == {bool}
    assert is_same == ([True] * 2 + [False] * 2) * 10
    assert Image.open(io.BytesIO(encoded[79])).size == (32, 32)
    assert len(set(encoded)) == 80
    training = set(contents(made / "images").values())
    assert not training & set(encoded)


def test_same_bytes_for_any_number_of_processes_and_other_bytes_for_another_seed(made, tmp_path):
    assert run_tool("--out", tmp_path / "two", "--processes", 2, *TINY).returncode == 0
    assert contents(tmp_path / "two") == contents(made)
    assert run_tool("--out", tmp_path / "seed", "--processes", 1, "--seed", 1, *TINY).returncode == 0
    assert (tmp_path / "seed" / "classes.tsv").read_bytes() != (made / "classes.tsv").read_bytes()


def test_second_run_draws_nothing_and_other_settings_are_refused(made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    again = run_tool("--out", made, *TINY)
    assert again.returncode == 0 and "already there" in again.stdout
    other = run_tool("--out", made, *TINY, "--size", 48)
    assert other.returncode == 1
    assert other.stderr.count("\n") == 1 and "size is 32 there, requested 48" in other.stderr
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def test_a_directory_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("keep")
    result = run_tool("--out", tmp_path, *TINY)
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and "glyphs.json" in result.stderr
    assert contents(tmp_path) == {"mine": b"keep"}


def settings(**changes) -> build.Settings:
    values = {
        "classes": 24,
        "held_out_classes": 10,
        "size": 32,
        "per_class": 2,
        "pairs": 20,
        "seed": 0,
        "charset": "gb2312-1",
        "train_designs": ("sans",),
        "held_out_designs": ("microhei",),
    }
    return build.Settings(**{**values, **changes})


def test_a_failure_in_the_middle_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "bin_bytes", full)
    with pytest.raises(OSError, match="No space"):
        build.build(tmp_path / "set", settings(), processes=1)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_font_names_the_pip_command(tmp_path, monkeypatch):
    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", nothing)
    fonts.font_path.cache_clear()
    with pytest.raises(DataError, match="pip install manimgx-fonts-cjk"):
        build.build(tmp_path / "set", settings(), processes=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--classes", "1"], "--classes is 1"),
        (["--classes", "3756"], "only 3755 characters"),
        (["--held-out-classes", "499"], "--held-out-classes is 499, allowed: 2 to 498"),
        (["--pairs", "30"], "multiple of 20"),
        (["--charset", "big5"], "gb2312-1, gb2312, uro, uro+hangul"),
        (["--seed", "-1"], "--seed is -1"),
        (["--train-designs", "kai"], "'kai' is unknown"),
        (["--train-designs", "sans,microhei"], "'microhei' is named twice"),
    ],
)
def test_bad_options_are_one_line(tmp_path, arguments, words):
    result = run_tool("--out", tmp_path / "set", "--processes", 1, *arguments)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("reading the fonts")]
    assert result.returncode == 1 and len(lines) == 1 and words in lines[0], result.stderr
    assert not list(tmp_path.iterdir())


def test_charsets_have_the_published_sizes():
    sizes = {name: len(points()) for name, points in charsets.CHARSETS.items()}
    assert sizes == {"gb2312-1": 3755, "gb2312": 6763, "uro": 20902, "uro+hangul": 20902 + 11172}
    assert all(points() == sorted(set(points())) for points in charsets.CHARSETS.values())


def test_held_out_classes_are_whole_runs_of_neighbours():
    points = list(range(1000, 2000))
    classes = charsets.choose_classes(points, 100, 20, seed=3, twins={})
    assert len(classes.trained) == 80 and len(classes.unseen) == 20
    starts = classes.unseen[:: charsets.RUN_LENGTH]
    assert classes.unseen == tuple(start + step for start in starts for step in range(charsets.RUN_LENGTH))
    assert not set(classes.trained) & set(classes.unseen)
    everything = charsets.choose_classes(points, 1000, 100, seed=3, twins={})
    assert sorted(everything.trained + everything.unseen) == points


def test_characters_that_share_a_glyph_are_found():
    faces = [fonts.FACES[2], fonts.FACES[5]]
    # U+4E7E and U+4E81 are one glyph in Noto Sans CJK (SC); U+4E00 stands for all others.
    points = [0x4E00, 0x4E7E, 0x4E81]
    twins = charsets.find_twins(points, [fonts.digests(chr(point), faces) for point in points])
    assert twins == {0x4E7E: frozenset({0x4E81}), 0x4E81: frozenset({0x4E7E})}
    assert fonts.digests("\uffff", faces) == [b"", b""]


def test_pairs_are_drawn_as_documented():
    points, trained, held_out = tuple(range(100, 140)), fonts.faces_of(("sans",)), fonts.faces_of(("microhei", "serif"))
    twins = {point: frozenset({point ^ 1}) for point in points}
    pictures, is_same = pairs.PairChooser(0, 2, points, (trained, held_out), twins).choose(2000)
    first, second = pictures[::2], pictures[1::2]
    assert {picture.face.design for picture in first} == {"sans"}
    assert {picture.face.design for picture in second} == {"microhei", "serif"}
    distance = np.array([abs(a.point - b.point) for a, b in zip(first, second)])
    assert ((distance == 0) == np.array(is_same)).all()
    assert not any(b.point in twins[a.point] for a, b in zip(first, second))
    assert len(set(pictures)) == len(pictures)
    # 100 different pairs a fold, every second one hard: at most HARD_REACH places apart.
    assert (distance.reshape(10, 200)[:, 100::2] <= pairs.HARD_REACH).all()
    assert (distance.reshape(10, 200)[:, 101::2] > pairs.HARD_REACH).mean() > 0.5
    assert {picture.point for picture in pictures} == set(points)


def test_pairs_that_cannot_be_are_refused():
    twins = {1: frozenset({2}), 2: frozenset({1})}
    sides = (fonts.faces_of(("sans",)), fonts.faces_of(("sans",)))
    with pytest.raises(DataError, match="U\\+000"):
        pairs.PairChooser(0, 2, (1, 2), sides, twins).choose(20)


def test_every_use_of_a_image_has_its_own_stream():
    purposes = [
        draw.PURPOSE_TRAIN,
        draw.PURPOSE_VAL,
        *build.PURPOSES.values(),
        draw.PURPOSE_CLASSES,
        draw.PURPOSE_PAIRS,
        draw.PURPOSE_FIELDS,
    ]
    assert sorted(build.PURPOSES) == sorted(BINS)
    assert len({float(draw.stream(0, purpose).random()) for purpose in purposes}) == 8


def test_a_image_depends_on_its_key_alone():
    face = fonts.FACES[2]
    key = {"seed": 5, "purpose": 0, "face": face, "point": 0x6C38, "k": 3, "size": 32}
    picture = draw.draw_jpeg(**key)
    for change in ({"seed": 6}, {"purpose": 1}, {"face": fonts.FACES[3]}, {"point": 0x6C39}, {"k": 4}):
        assert draw.draw_jpeg(**{**key, **change}) != picture
    assert draw.draw_jpeg(**key) == picture
