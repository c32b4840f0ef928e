"""Weights that torch saved: plsc import embeds as torch does, and torch loads what plsc export --to torch writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from plsc import Entry, Predictor, checkpoint
from plsc.cli.main import main
from plsc.engine.weights.equality import OurModel, model_input
from plsc.errors import CheckpointError
from plsc.weights.kinds import KINDS
from plsc.weights.source import read_source
from tests.torch.cases import CASES, FORMS, PREDICTED, RETURNED, SIDE, TRAINED, pictures

# Of an embedding's length. Torch's own float32 is 2e-6 to 7e-6 away from its float64 in these nets, whose small
# variances amplify rounding; plsc's is at the same distance.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def made(torch_side, tmp_path_factory) -> Path:
    """DIR/NAME/FILE of all cases, by torch."""
    where = tmp_path_factory.mktemp("nets")
    torch_side("nets", where)
    return where


@pytest.fixture(scope="module")
def there_and_back(made):
    """name -> embeddings by what was imported; the run is in DIR/NAME/run, the file for torch in DIR/NAME/back."""
    known: dict[str, np.ndarray] = {}

    def run(name: str) -> np.ndarray:
        if name not in known:
            at = made / name
            main(["import", str(at / CASES[name].file), "--to", str(at / "run")])
            if name in RETURNED:
                write_for_torch(at)
            known[name] = (predicted if name in PREDICTED else evaluated)(at)
        return known[name]

    return run


def write_for_torch(at: Path) -> None:
    main(["export", "--checkpoint", str(at / "run"), "--output", str(at / "back"), "--to", "torch"])


def evaluated(at: Path) -> np.ndarray:
    """Embeddings of the pictures by the evaluation program, of the checkpoint in at/run."""
    path = checkpoint.resolve(str(at / "run"))
    manifest = checkpoint.read_manifest(path)
    arrays = checkpoint.read_replicated(path, manifest)
    return OurModel(path, manifest.config["model"], arrays, model_input(pictures(), 127.5)).features()


def predicted(at: Path) -> np.ndarray:
    """The same by the exported model."""
    main(["export", "--checkpoint", str(at / "run"), "--output", str(at / "out"), "--quiet"])
    with Predictor(str(at / "out" / "inference"), "paddle") as predictor:
        return predictor.embed(pictures())


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


@pytest.mark.parametrize("name", CASES)
def test_embeddings_are_torchs(made, there_and_back, capsys, name):
    found, torchs = there_and_back(name), np.load(made / name / "torch.npz")
    case = CASES[name]
    said = capsys.readouterr().out
    assert f"{case.ours}, base_width" in said and f"defaults of {case.project}: " in said
    assert distance(found, torchs["float32"].astype(np.float64)) <= TOLERANCE
    assert distance(found, torchs["float64"]) <= TOLERANCE
    assert distance(torchs["float64"][:1], torchs["float64"][1:]) > 0.1  # the images are not all one to the net


# Both in float64, in sums of up to 25,088 numbers: they were 6e-15 of the length apart. A layer norm's epsilon of 1e-6
# in place of 1e-5 makes 4e-6, which only this test sees.
@pytest.mark.parametrize("name", CASES)
def test_formulas_are_torchs(made, name):
    source = read_source(str(made / name / CASES[name].file))
    assert source.kind.name == CASES[name].project
    found = source.kind.forward(source.arrays, source.kind.input.prepare(pictures()[:1]), source.kind.epsilon)
    assert distance(found, np.load(made / name / "torch.npz")["float64"][:1]) < 1e-12


def test_classes_and_momentum_of_all_ranks(made, there_and_back):
    there_and_back("r50")
    known = np.load(made / "r50" / "known.npz")
    path = checkpoint.resolve(str(made / "r50" / "run"))
    manifest = checkpoint.read_manifest(path)
    assert (manifest.num_classes, manifest.num_shards, manifest.step, manifest.epoch) == (10, 2, 70, 2)
    for ours, theirs in (("weight", "classes"), ("velocity", "class_momentum")):
        rows = checkpoint.read_rows(path, manifest, 0, 10, checkpoint.ReadOptions([ours]))
        found = np.concatenate([block for _, _, block in rows])
        assert np.array_equal(found, np.concatenate([known[f"{theirs}0"], known[f"{theirs}1"]]))
    arrays = checkpoint.read_replicated(path, manifest)
    assert np.array_equal(arrays["velocity.backbone.stem.conv.weight"], known["conv1.weight"])
    assert np.array_equal(arrays["velocity.backbone.stage3.unit13.prelu.weight"], known["layer3.13.prelu.weight"])
    assert np.array_equal(arrays["velocity.backbone.head.fc.weight"], known["fc.weight"].T)


def train(name: str, at: Path) -> None:
    """A run of two steps, so that no number is as it was drawn; with an epsilon of 2e-5, theirs is 1e-5."""
    case = TRAINED[name]
    model = {"name": case.ours, "base_width": case.sizes["width"], "embedding_size": case.sizes["embedding"],
             "image_shape": [3, SIDE, SIDE], "options": {"bn_epsilon": 2e-5, **case.options}}  # fmt: skip
    settings = {
        "model": model, "classifier": {"num_classes": 9}, "train_steps": 2, "train_batch_size": 8, "with_test": False,
        "data": {"dataset": "synthetic", "train_image_num": 16, "num_workers": 0}, "model_save_dir": str(at / "run"),
    }  # fmt: skip
    Entry(config=settings).train()


def test_torch_loads_what_is_exported(made, there_and_back, torch_side):
    """load_state_dict(strict=True), the order of the names too, and the same embeddings."""
    found = {name: there_and_back(name) for name in RETURNED}
    for name in TRAINED:
        train(name, made / name)
        write_for_torch(made / name)
        found[name] = evaluated(made / name)
    torch_side("load", made)
    for name, embeddings in found.items():
        back = np.load(made / name / "back.npz")
        assert distance(embeddings, back["float64"]) <= TOLERANCE, name
        assert distance(embeddings, back["float32"].astype(np.float64)) <= TOLERANCE, name


@pytest.fixture(scope="module")
def forms(torch_side, tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("forms")
    torch_side("forms", where)
    return where


@pytest.mark.parametrize("form", FORMS)
def test_all_ways_to_save_are_read(forms, form):
    source = read_source(str(forms / f"{form}.pt"))
    expected = np.load(forms / f"{form}.npz")
    assert source.kind is KINDS["arcface_torch"] and set(source.arrays) == set(expected)
    for name in expected:
        assert np.array_equal(source.arrays[name], expected[name]), name


@pytest.mark.parametrize("form, message", [
    ("legacy", "was written by torch before 1.6, or by torch.save with _use_new_zipfile_serialization=False; load it"),
    ("module", "refused: it tries to load tests.torch.nets.IResNet"),
])  # fmt: skip
def test_other_ways_are_refused(forms, form, message):
    with pytest.raises(CheckpointError, match=f"{form}.pt: {message}"):
        read_source(str(forms / f"{form}.pt"))
