"""The page add_a_metric.md: its metric is in log, scalars, table, JSON, page and best_metric, on one rank as on two."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from plsc.checkpoint import open_checkpoint
from plsc.evaluation.bin_file import save_bin
from plsc.parallel.ranks import OneRank
from tests.dist.ranks import run
from tests.project.docs_kit import ROOT, blocks

PAGE = ROOT / "docs" / "add_a_metric.md"
SIZES = (3, 4, 2, 5, 3, 4, 1)  # images of each identity: 22, so that batches of 7 have tails

WRONG = '''
from plsc.evaluation import Metric, register_metric

CALLS = []


class Base(Metric):
    better = {"value": "larger"}


@register_metric("raises")
class Raises(Base):
    """Raises at once."""
    def compute(self, data):
        return {"value": 1 / 0}


@register_metric("later")
class Later(Base):
    """Good with random embeddings, raises afterwards."""
    def compute(self, data):
        CALLS.append(data.name)
        if len(CALLS) > 1:
            raise RuntimeError("no more")
        return {"value": 1.0}
'''


def write(directory: Path) -> dict:
    """The files of the page and its sets; returns the page's settings."""
    for block in blocks(PAGE):
        name = re.match(r"# (\S+\.(?:py|yaml))\n", block.text)
        if name:
            (directory / name[1]).write_text(block.text, encoding="utf-8")
    rng = np.random.default_rng(2)
    for identity, size in enumerate(SIZES):
        person = rng.integers(0, 150, (16, 16, 3))
        for number in range(size):
            pixels = (person + rng.integers(0, 106, (16, 16, 3))).astype(np.uint8)
            for folder, turned in (("faces", pixels), ("mirrored", pixels[:, ::-1])):
                path = directory / folder / str(identity) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.ascontiguousarray(turned)).save(path)
    save_bin(directory / "lfw.bin", [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(40)], [1, 0] * 10)
    return yaml.safe_load((directory / "class_means.yaml").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[int, tuple[Path, list[dict]]]:
    """{number of ranks: (directory, what each rank tells)}."""
    found = {}
    for ranks in (1, 2):
        directory = tmp_path_factory.mktemp(f"ranks{ranks}")
        payload = {"cwd": str(directory), "page": write(directory)}
        found[ranks] = directory, run("tests.dist.own_metric_cases:train", ranks, directory, payload)
    return found


def loop(features: list[np.ndarray]) -> dict[str, float]:
    """The page's metric, identity by identity."""
    rows = [a + b for a, b in zip(*(one.astype(np.float64) for one in features))]
    rows = [row / np.sqrt(np.sum(row**2)) for row in rows]
    ids = [identity for identity, size in enumerate(SIZES) for _ in range(size)]
    means = [np.mean([row for row, other in zip(rows, ids) if other == i], axis=0) for i in range(len(SIZES))]
    far = [[float(np.sqrt(np.sum((row - mean) ** 2))) for mean in means] for row in rows]
    right = sum(distances[i] == min(distances) for distances, i in zip(far, ids))
    return {"nearest_mean": right / len(rows), "spread": sum(d[i] for d, i in zip(far, ids)) / len(rows)}


def test_numbers_are_those_of_a_loop_over_the_features(trained):
    _, (told,) = trained[1]
    expected = loop(told["features"])
    numbers = told["tested"]["faces/"]
    # features are float32, of another program; 1e-5 is a hundred times what they differ by
    assert numbers["spread"] == pytest.approx(expected["spread"], rel=1e-5)
    assert numbers["nearest_mean"] == expected["nearest_mean"] and numbers["num_identities"] == len(SIZES)
    assert (numbers["num_queries"], numbers["num_gallery"]) == (sum(SIZES) - 1, sum(SIZES))


def test_two_ranks_are_one(trained):
    (_, (one,)), (_, two) = trained[1], trained[2]
    for what in ("trained", "tested", "auc"):
        assert two[0][what] == two[1][what]
    assert one["trained"].keys() == two[0]["trained"].keys() == {"faces/", "lfw"}
    assert "spread" not in one["trained"]["lfw"] and "auc" in one["trained"]["lfw"]
    assert "recall@1" in one["trained"]["faces/"] and "auc" in one["trained"]["faces/"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_log_scalars_table_json_and_page_say_the_same(trained, ranks):
    directory, told = trained[ranks]
    numbers = told[0]["trained"]["faces/"]
    lines = [json.loads(line) for line in (directory / "run" / "scalars.jsonl").read_text().splitlines()]
    found = [line for line in lines if line.get("test") == "faces/"]
    assert [line["step"] for line in found] == [2, 4] and found[-1]["spread"] == numbers["spread"]
    assert found[-1]["accuracy"] == numbers["accuracy"] and found[-1]["roc"]["tpr"][-1] == 1.0
    for rank in range(ranks):
        log = (directory / "run" / "logs" / f"rank_{rank:05d}.log").read_text()
        assert f"test: step 4, [faces/] class_means: nearest_mean: {numbers['nearest_mean']:.5f}, " in log
        assert "[faces/] Accuracy-Flip: " in log and "[faces/] retrieval: recall@1: " in log
        assert log.count("[lfw] class_means is not computed: it has pairs, no identities; use a folder of") == 1
    assert f"{numbers['spread']:.5f}" in told[0]["text"] and "class_means  nearest_mean  spread" in told[0]["text"]
    judged = json.loads((directory / "judged.json").read_text())["sets"]
    assert judged["faces/"]["spread"] == told[0]["tested"]["faces/"]["spread"] and "spread" not in judged["lfw"]
    page = (directory / "judged.html").read_text()
    assert "<h3>class_means</h3>" in page and f"<dd>{judged['faces/']['spread']:.5f}</dd>" in page
    assert page.count("<h2>") == 2 and "<h3>Worst misclassified pairs</h3>" in page


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_smallest_is_the_best(trained, ranks):
    directory, _ = trained[ranks]
    lines = [json.loads(line) for line in (directory / "run" / "scalars.jsonl").read_text().splitlines()]
    spread = {line["step"]: line["spread"] for line in lines if line.get("test") == "faces/"}
    best = min(spread, key=lambda step: (spread[step], step))
    _, manifest = open_checkpoint(str(directory / "run" / "best"), OneRank())
    assert manifest.extra["best"] == {"metric": "faces/.spread", "value": spread[best], "step": best}


def test_a_wrong_metric_is_one_line_on_every_rank(tmp_path):
    write(tmp_path)
    (tmp_path / "wrong.py").write_text(WRONG)
    payload = {"cwd": str(tmp_path), "plugin": "wrong.py", "names": ["later", "raises"]}
    later, raises = zip(*run("tests.dist.own_metric_cases:wrong", 2, tmp_path, payload))
    for said in raises:
        assert said.startswith("DataError: ") and "random embeddings" in said and "\n" not in said
        assert "faces/: metric raises: compute raised ZeroDivisionError: division by zero (wrong.py:" in said
    for said in later:  # trained to the end; the other metric was computed
        assert said.startswith("VerificationError: trained and saved") and "failed at 2 step(s): 2, 4" in said
        assert "faces/: metric later: compute raised RuntimeError: no more (wrong.py:" in said
    assert not (tmp_path / "wrong_raises" / "checkpoints").exists()
    text = (tmp_path / "wrong_later" / "scalars.jsonl").read_text()
    assert '"test": "faces/", "accuracy"' in text
