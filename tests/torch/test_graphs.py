"""ONNX graphs that torch exported, by both of its exporters: plsc import embeds as torch does, or says what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from plsc import checkpoint
from plsc.cli.main import main
from plsc.engine.weights.equality import OurModel, model_input
from plsc.errors import CheckpointError
from tests.torch.cases import DYNAMIC, DYNAMIC_GRAPHS, EXPORTS, GRAPH_SIDE, GRAPHS, pictures


@pytest.fixture(scope="module")
def made(torch_side, tmp_path_factory) -> Path:
    """DIR/NAME/WAY.onnx, by torch."""
    where = tmp_path_factory.mktemp("graphs")
    torch_side("graphs", where)
    return where


WAYS = [(name, way) for name in GRAPHS for way in EXPORTS] + [(name, DYNAMIC) for name in DYNAMIC_GRAPHS]


@pytest.mark.parametrize("name, way", WAYS)
def test_embeddings_are_torchs(made, tmp_path, capsys, name, way):
    main(["import", str(made / name / f"{way}.onnx"), "--to", str(tmp_path / "run")])
    assert f"{GRAPHS[name].ours}, base_width" in capsys.readouterr().out
    path = checkpoint.resolve(str(tmp_path / "run"))
    manifest = checkpoint.read_manifest(path)
    images = model_input(pictures(side=GRAPH_SIDE), 127.5)
    found = OurModel(path, manifest.config["model"], checkpoint.read_replicated(path, manifest), images).features()
    expected = np.load(made / name / "torch.npz")["float64"]
    lengths = np.linalg.norm(expected, axis=1)
    assert (np.linalg.norm(found - expected, axis=1) <= 1e-5 * lengths).all()  # as in test_weights


@pytest.mark.parametrize("way, message", [
    ("dynamo unoptimised", "with dynamo=True and optimize=False .* export it with optimize=True"),
    ("dynamo external", r"its weights lie in another file; save it with them in one \(.*external_data=False\)"),
])  # fmt: skip
def test_what_cannot_be_read_says_what_to_change(made, tmp_path, way, message):
    with pytest.raises(CheckpointError, match=message):
        main(["import", str(made / "mbf" / f"{way}.onnx"), "--to", str(tmp_path / "run")])
