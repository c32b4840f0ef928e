"""The template protocol of IJB against a plain loop in Python floats that reads the meta files by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plsc.errors import DataError
from plsc.evaluation.ijb import build_templates, evaluate_templates, read_faces, read_pairs, read_scores


@pytest.fixture
def meta(tmp_path):
    """40 templates of 10 people, 1 to 4 media of 1 to 3 images each, in a mixed order; all pairs of templates."""
    rng = np.random.default_rng(5)
    rows = []
    for template in range(40):
        for medium in range(rng.integers(1, 5)):
            rows += [(100 + 7 * template, 1000 * (medium % 2) + medium)] * rng.integers(1, 4)
    rows = [rows[i] for i in rng.permutation(len(rows))]
    names = [f"{i + 1}.jpg" for i in range(len(rows))]
    write(tmp_path / "faces.txt", [f"{name} {t} {m}" for name, (t, m) in zip(names, rows)])
    pairs = [(a, b) for a in range(40) for b in range(a)]
    write(tmp_path / "pairs.txt", [f"{100 + 7 * a} {100 + 7 * b} {int(a % 10 == b % 10)}" for a, b in pairs])
    scores = rng.uniform(0.2, 1, len(rows))
    write(tmp_path / "scores.txt", [f"{n} " + "1.5 " * 10 + repr(float(s)) for n, s in zip(names, scores)])
    people = rng.normal(size=(10, 6))
    person = [(template - 100) // 7 % 10 for template, _ in rows]
    features = (people[person] + 1.6 * rng.normal(size=(len(rows), 6))) * rng.uniform(0.3, 3, (len(rows), 1))
    return tmp_path, features.astype(np.float32)


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")


def loop_similarities(folder, features, weighted):
    """[(similarity, same)] by dictionaries and sums of Python floats."""
    media: dict = {}
    weights = [float(line.split()[-1]) for line in (folder / "scores.txt").read_text().splitlines()]
    for i, line in enumerate((folder / "faces.txt").read_text().splitlines()):
        _, template, medium = line.split()
        row = [float(x) * (weights[i] if weighted else 1.0) for x in features[i]]
        media.setdefault(template, {}).setdefault(medium, []).append(row)
    units = {}
    for template, groups in media.items():
        total = [0.0] * features.shape[1]
        for group in groups.values():
            for k in range(len(total)):
                total[k] += sum(row[k] for row in group) / len(group)
        length = math.sqrt(sum(x * x for x in total))
        units[template] = [x / length for x in total]
    found = []
    for line in (folder / "pairs.txt").read_text().splitlines():
        a, b, label = line.split()
        found.append((sum(x * y for x, y in zip(units[a], units[b])), label == "1"))
    return found


@pytest.mark.parametrize("weighted", [False, True])
def test_against_a_loop(meta, weighted, monkeypatch):
    monkeypatch.setattr("plsc.evaluation.ijb.BLOCK", 100)  # 780 pairs: the last block is not full
    folder, features = meta
    faces, pairs = read_faces(folder / "faces.txt"), read_pairs(folder / "pairs.txt")
    result = evaluate_templates(features, faces, pairs, read_scores(folder / "scores.txt", faces) if weighted else None)
    found = loop_similarities(folder, features, weighted)
    same, other = ([s for s, flag in found if flag is kind] for kind in (True, False))
    assert (result.num_templates, result.num_same, result.num_different) == (40, len(same), len(other)) == (40, 60, 720)
    for far, tar in result.tar_at_far.items():
        if len(other) * far < 1:
            assert tar is None and far < 1e-2
            continue
        rates = [sum(s >= t for s in same) / 60 for t in same if sum(o >= t for o in other) <= far * len(other)]
        assert tar == max(rates, default=0.0), far  # equal counts over equal numbers
        assert 0.1 < tar < 0.99
    wins = sum((s > o) + (s == o) / 2 for s in same for o in other) / 60 / 720
    assert abs(result.auc - wins) < 1e-12  # one division of counts
    weights = read_scores(folder / "scores.txt", faces)
    assert np.abs(build_templates(features, faces)[1] - build_templates(features, faces, weights)[1]).max() > 0.01


@pytest.mark.parametrize(("file", "line", "message"), [
    ("faces", "9.jpg 100", "faces.txt:3: '9.jpg 100'; expected name, template number and medium"),
    ("faces", "9.jpg 100 x", "faces.txt:3"),
    ("faces", "", "faces.txt:3: ''"),
    ("pairs", "100 107", "pairs.txt:3: '100 107'; expected two template numbers and 0 or 1"),
    ("pairs", "100 107 2", "pairs.txt:3"),
    ("pairs", "100 107.0 1", "pairs.txt:3"),
    ("pairs", "100 1x7 1", "pairs.txt:3"),
    ("pairs", "100 99999999999999999999 1", "pairs.txt:3"),
    ("scores", "3.jpg 1 2 3 0.5", "scores.txt:3: '3.jpg 1 2 3 0.5'; expected '3.jpg', ten coordinates and a score"),
    ("scores", "4.jpg " + "1 " * 11, "scores.txt:3: .*; expected '3.jpg', ten"),
    ("scores", "3.jpg " + "1 " * 10 + "nan", "scores.txt:3"),
])  # fmt: skip
def test_a_bad_line_is_named(meta, file, line, message):
    folder, _ = meta
    faces = read_faces(folder / "faces.txt")
    path = folder / f"{file}.txt"
    lines = path.read_text().splitlines()
    lines[2] = line
    write(path, lines)
    read = {"faces": read_faces, "pairs": read_pairs, "scores": lambda path: read_scores(path, faces)}[file]
    with pytest.raises(DataError, match=message):
        read(path)


def test_what_does_not_fit_is_refused(meta):
    folder, features = meta
    faces, pairs = read_faces(folder / "faces.txt"), read_pairs(folder / "pairs.txt")
    with pytest.raises(DataError, match="features for .* images"):
        evaluate_templates(features[1:], faces, pairs)
    write(folder / "pairs.txt", ["107 100 0", "100 101 1"])
    with pytest.raises(DataError, match=r"pair 2 names template 101, .* \(1 such pairs\)"):
        evaluate_templates(features, faces, read_pairs(folder / "pairs.txt"))
    for name in ("faces", "pairs"):
        (folder / f"{name}.txt").write_text("\n")
    for read in (read_faces, read_pairs):
        with pytest.raises(DataError, match="is empty"):
            read(folder / "faces.txt")
        with pytest.raises(DataError, match="cannot be read: No such file"):
            read(folder / "none.txt")
