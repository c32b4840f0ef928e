"""plsc identify and plsc ijb give what the library gives, from features and from pictures."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from plsc.evaluation.identification import identify
from plsc.evaluation.ijb import evaluate_templates, read_faces, read_pairs
from plsc.evaluation.megaface import megaface
from tests import using_kit as kit

ROOT = Path(__file__).parents[2]


def tool(name: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "plsc", name, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def write_predictions(folder: Path, features: np.ndarray, paths: list[str]) -> Path:
    """As plsc predict does."""
    folder.mkdir(parents=True)
    np.save(folder / "features.npy", features)
    with open(folder / "pictures.csv", "w", newline="") as file:
        csv.writer(file).writerows([["row", "path"], *enumerate(paths)])
    return folder


@pytest.fixture
def sides(tmp_path):
    """{side: (directory, features, numbers of the people)}; people 8 to 11 are in no gallery."""
    rng, made = np.random.default_rng(2), {}
    centres = rng.normal(size=(12, 6))
    for side, count, people in (("gallery", 20, 8), ("probes", 60, 12), ("distractors", 30, 0)):
        who = rng.integers(0, people, count) if people else np.full(count, -1)
        features = (centres[who] * bool(people) + rng.normal(size=(count, 6))).astype(np.float32)
        paths = [f"/some/{side}/p {person}/{i}.jpg" for i, person in enumerate(who)]
        made[side] = write_predictions(tmp_path / side, features, paths), features, who
    return made


def test_identify(sides, tmp_path):
    (gallery, known, known_id), (probes, new, new_id), (distractors, others, _) = sides.values()
    done = tool("identify", "--gallery", gallery, "--probes", probes, "--distractors", distractors,
                "--json", tmp_path / "out.json", "--matches", tmp_path / "who.csv")  # fmt: skip
    assert done.returncode == 0, done.stderr
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (new.astype(float), known.astype(float))]
    cosines = unit[0] @ unit[1].T
    with open(tmp_path / "who.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["probe", "identity", "cosine", "image"] and len(rows) == 61
    for row, one in zip(rows[1:], cosines):  # cosines of random features: none are equal
        best = int(one.argmax())
        assert row[1] == f"p {known_id[best]}" and row[3].endswith(f"/{best}.jpg")
        assert abs(float(row[2]) - one[best]) < 1e-4  # four digits
    found = json.loads((tmp_path / "out.json").read_text())
    expected = identify(known, known_id, new, new_id, others)
    assert found["identification"] == {
        "rank_rate": {f"{k}": rate for k, rate in expected.rank_rate.items()},
        "tpir_at_fpir": {f"{f:g}": rate for f, rate in expected.tpir_at_fpir.items()},
        "num_mated": expected.num_mated, "num_unmated": expected.num_unmated,
    }  # fmt: skip
    rates, trials = megaface(new, new_id, others, known, known_id)
    assert found["megaface"] == {"rank_rate": {f"{k}": rate for k, rate in rates.items()}, "num_trials": trials}
    assert found["gallery"] == {"images": 20, "identities": len(set(known_id))} and found["distractors"]["images"] == 30
    assert 0 < expected.rank_rate[1] < expected.rank_rate[10] < 1 and expected.rank_rate != rates
    for line in (f"rank-1         {100 * expected.rank_rate[1]:.2f} %", "TPIR@FPIR=0.01 too few probes",
                 f"MegaFace: {trials} trials"):  # fmt: skip
        assert line in done.stdout, done.stdout
    done = tool("identify", "--probes", probes, "--distractors", distractors, "--json", tmp_path / "own.json")
    assert done.returncode == 0, done.stderr
    rates, trials = megaface(new, new_id, others)
    assert json.loads((tmp_path / "own.json").read_text())["megaface"]["rank_rate"]["1"] == rates[1]


def test_ijb_finds_pictures_by_their_names(tmp_path):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(30, 5)).astype(np.float32)
    names = [f"{i + 1}.jpg" for i in range(30)]
    (tmp_path / "faces.txt").write_text("".join(f"{n} {i // 3} {i % 2}\n" for i, n in enumerate(names)))
    lines = [f"{a} {b} {int((a + b) % 3 == 0)}\n" for a in range(10) for b in range(a)]
    (tmp_path / "pairs.txt").write_text("".join(lines))
    expected = evaluate_templates(features, read_faces(tmp_path / "faces.txt"), read_pairs(tmp_path / "pairs.txt"))
    order = rng.permutation(30)
    predictions = write_predictions(tmp_path / "p", features[order], [f"crops/{names[i]}" for i in order])
    np.save(tmp_path / "plain.npy", features)
    meta = ["--faces", tmp_path / "faces.txt", "--pairs", tmp_path / "pairs.txt"]
    for source in (predictions, tmp_path / "plain.npy"):
        done = tool("ijb", "--features", source, *meta, "--json", tmp_path / "out.json")
        assert done.returncode == 0 and "TAR@FAR=1e-06: too few pairs" in done.stdout, done.stderr
        found = json.loads((tmp_path / "out.json").read_text())
        assert (found["auc"], found["eer"], found["num_templates"]) == (expected.auc, expected.eer, 10)
        assert found["tar_at_far"] == {f"{far:g}": tar for far, tar in expected.tar_at_far.items()}
    few = write_predictions(tmp_path / "few", features[:29], [f"crops/{name}" for name in names[:29]])
    twice = write_predictions(tmp_path / "twice", features[:2], ["a/1.jpg", "b/1.jpg"])
    for source, said in ((few, "1 of 30 images have no features, the first is 30.jpg"),
                         (twice, "b/1.jpg: another image has the same file"), (tmp_path / "no.npy", "No such file"),
                         (tmp_path, "for images give --checkpoint and --output")):  # fmt: skip
        done = tool("ijb", "--features", source, *meta)
        assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_identify_from_pictures(tmp_path):
    """Each probe is a gallery picture again, so its own entry is the most similar one."""
    run = kit.train(tmp_path / "run")
    kit.make_folder(tmp_path / "photos", 6)
    done = tool("identify", "--gallery", tmp_path / "photos", "--probes", tmp_path / "photos", "--checkpoint", run,
                "--output", tmp_path / "out", "--json", tmp_path / "out.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["probes"] == {"images": 6, "identities": 2} and found["identification"]["rank_rate"]["1"] == 1.0
    assert (tmp_path / "out" / "gallery" / "predictions" / "features.npy").is_file()
