"""`plsc export --to safetensors`: weights as the safetensors package reads them, and what the model card says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import load_file

from plsc.checkpoint import ArrayShard, OneRank, RankTensors, save
from plsc.cli.main import main
from plsc.config import Config
from plsc.engine.weights import safetensors
from plsc.errors import CheckpointError, ConfigError, ExportError
from plsc.serving import Predictor

STEP, CLASSES, SIZE = 30, 6, 4
SETTINGS = {
    "model": {"name": "ResNet50", "embedding_size": SIZE, "options": {"bn_epsilon": 1e-5}},
    "data": {"dataset": "list", "dataset_dir": "/secret/place/ms1m", "resize": "pad"},
    "classifier": {"num_classes": CLASSES, "loss_type": "cosface", "margin3": 0.4},
    "train_batch_size": 96, "train_steps": 40,
}  # fmt: skip


def arrays() -> dict[str, np.ndarray]:
    """Of a backbone, not all of one type, and what is no weight: momentum, a step."""
    draw = np.random.default_rng(0)
    found = {f"backbone.stem.conv{i}.weight": draw.standard_normal((i, 3, 2)).astype(np.float32) for i in range(4)}
    found["backbone.bn.running_mean"] = np.array([np.float32(1e-45), -0.0, 3e38], np.float32)
    found["backbone.half"] = draw.standard_normal(5).astype(np.float16)
    found["backbone.count"] = np.array(7, np.int64)
    return {"classifier.step": np.array([STEP]), "velocity.backbone.half": np.ones(5, np.float32), **found}


@pytest.fixture
def run(tmp_path) -> Path:
    """The directory of a run with one checkpoint."""
    return saved(tmp_path / "run", arrays())


def saved(directory: Path, tensors: dict[str, np.ndarray]) -> Path:
    meta = {
        "paddle_version": "3.3.1", "num_classes": CLASSES, "embedding_size": SIZE, "epoch": 2, "position": {},
        "config": Config.from_dict(SETTINGS).to_dict(), "random_states": {}, "lr_state": {}, "extra": {},
        "data": {"kind": "list", "images": 5822653, "labels": 6, "sample": [["a/b.jpg", 1]]},
    }  # fmt: skip
    weight = np.zeros((CLASSES, SIZE), np.float32)
    save(str(directory), STEP, RankTensors(tensors, ArrayShard({"weight": weight})), meta, OneRank())
    return directory


def export(run: Path, *words: str) -> Path:
    main(["export", "--checkpoint", str(run), "--output", str(run.parent / "out"), "--to", "safetensors", *words])
    return run.parent / "out" / "safetensors"


def test_the_weights_are_those_of_the_checkpoint_to_the_bit(run, capsys):
    directory = export(run)
    assert capsys.readouterr().out.splitlines()[0] == str(directory)
    expected = {name: array for name, array in arrays().items() if name.startswith("backbone.")}
    found = load_file(directory / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    with safe_open(directory / "model.safetensors", "numpy") as file:
        assert set(file.metadata()) == {"plsc_version"}


@pytest.mark.parametrize("words, averaged", [((), True), (("--weights", "last"), False)])
def test_averages_are_exported_where_there_are_any(tmp_path, words, averaged):
    """With the results of the run, which are those of the averages."""
    average = arrays()["backbone.half"] + 1
    run = saved(tmp_path / "run", {**arrays(), "ema.backbone.half": average})
    (run / "scalars.jsonl").write_text(json.dumps({"step": STEP, "test": "lfw", "accuracy": 0.75}) + "\n")
    directory = export(run, *words)
    found, text = load_file(directory / "model.safetensors"), (directory / "README.md").read_text()
    assert found.keys() == {name for name in arrays() if name.startswith("backbone.")}
    assert np.array_equal(found["backbone.half"], average if averaged else arrays()["backbone.half"])
    assert ("| lfw | accuracy | 0.75 |" in text) == averaged == ("They are the averages over the steps" in text)


def test_the_description_binds_all_files(run):
    directory = export(run)
    about = json.loads((directory / "plsc.json").read_text())
    assert {path.name for path in directory.iterdir()} == {"plsc.json", *about["files"]} == {
        "plsc.json", "README.md", "model.safetensors"}  # fmt: skip
    for name, facts in about["files"].items():
        content = (directory / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert about["model"]["options"] == {"bn_epsilon": 1e-5} and about["step"] == STEP
    with pytest.raises(ExportError, match="plsc.json: describes weights without a program, which cannot be run"):
        Predictor(directory)


def test_the_card_names_data_recipe_results_and_license(run, capsys):
    lines = [
        {"step": 20, "test": "lfw", "accuracy": 0.5}, {"step": STEP, "mean_loss": 1.0},
        {"step": STEP, "test": "lfw", "accuracy": 0.99733, "tar_at_far": {"0.001": 0.875}, "roc": [[0, 1]],
         "auc": None},
        {"step": STEP, "test": "cfp|fp", "recall@1": 1},
    ]  # fmt: skip
    (run / "scalars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = (export(run, "--license", "cc-by-nc-4.0") / "README.md").read_text()
    assert "note:" not in capsys.readouterr().out
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "cc-by-nc-4.0" and "cc-by-nc-4.0." in body
    for line in (
        "| lfw | accuracy | 0.99733 |", "| lfw | tar@0.001 | 0.875 |", "| cfp\\|fp | recall@1 | 1 |",
        "| images | 5822653 |", "| directory | ms1m |", "| classifier.loss_type | cosface |",
        "| classifier.margin3 | 0.4 |", "| train_batch_size | 96 |", "| name | ResNet50 |",
        "| shape | batch x 3 x 112 x 112 |",
        "| a pixel x of 0..255 | (x - 127.5) / 127.5 |", "| images of another size | pad |",
        "| options | {'bn_epsilon': 1e-05} |",
    ):  # fmt: skip
        assert line in body.splitlines(), line
    assert "secret" not in text and "a/b.jpg" not in text and "0.5 |" not in body.split("## Results")[1]


def test_the_program_in_the_card_runs(run, monkeypatch):
    directory = export(run)
    monkeypatch.chdir(directory)
    scope: dict = {}
    exec((directory / "README.md").read_text().split("```python\n")[1].split("```")[0], scope)
    assert len(scope["weights"]) == 7


def test_without_results_and_license_the_card_says_so(run, capsys):
    text = (export(run) / "README.md").read_text()
    assert "No metrics were recorded at this step." in text and "None was stated." in text
    assert "license: unknown\n" in text and "note: the model card states no license" in capsys.readouterr().out


def test_the_best_checkpoint_has_the_results_of_its_run(run):
    (run / "scalars.jsonl").write_text(json.dumps({"step": STEP, "test": "lfw", "accuracy": 0.75}) + "\n")
    best = run / "best" / "checkpoints" / f"step_{STEP:08d}"
    assert safetensors.read_results(str(best), STEP) == {"lfw": {"accuracy": 0.75}}


@pytest.mark.parametrize("words, message", [
    (["--license", "a b"], "--license is a name such as apache-2.0"), (["--license", "a\nb"], "--license is a name"),
    (["--license", "x" * 65], "--license is a name"),
])  # fmt: skip
def test_what_is_no_license_is_refused(run, capsys, words, message):
    with pytest.raises(SystemExit):
        export(run, *words)
    assert message in capsys.readouterr().err and not (run.parent / "out").exists()


def test_bad_input_is_one_line_and_an_earlier_export_stays(run):
    directory = export(run)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    (run / "scalars.jsonl").write_text("{]\n")
    with pytest.raises(ExportError, match="scalars.jsonl: damaged, not JSON; move it away"):
        export(run)
    (run / "scalars.jsonl").unlink()
    (file,) = run.glob("checkpoints/*/replicated.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="replicated.safetensors: .*SHA-256"):
        export(run)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    (run.parent / "other" / "safetensors").mkdir(parents=True)
    (run.parent / "other" / "safetensors" / "mine").touch()
    with pytest.raises(ConfigError, match="holds no plsc.json"):
        safetensors.export_safetensors(str(run), str(run.parent / "other"), "unknown")
