"""How far embeddings may differ: by the rounding of float32 as this model amplifies it, and not by a wrong tensor."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.cli.main import main
from plsc.engine.weights import equality
from plsc.engine.weights.equality import LARGEST, MOVES, ROUNDINGS, TOLERANCE
from plsc.errors import CheckpointError
from plsc.weights import convert
from tests.weights import torch_kit as kit

UNIT = np.eye(2, 8)


class Model:
    """Embeddings at a distance of their length from UNIT; moved weights move them by ``rounding``."""

    path = "x.pt"

    def __init__(self, distance: float, rounding: float):
        self._found, self._rounding, self.moved = UNIT * (1 + distance), rounding, 0

    def features(self) -> np.ndarray:
        return self._found

    def moved_features(self, seed: int) -> np.ndarray:
        self.moved += 1
        return self._found * (1 + (self._rounding if seed == 0 else 0.0))


@pytest.mark.parametrize("distance, rounding, fits, moved", [
    (0.9 * TOLERANCE, 1.0, True, 0),  # the usual case costs nothing
    (1.1 * TOLERANCE, TOLERANCE / ROUNDINGS, False, MOVES),
    (5 * TOLERANCE, 5.2 * TOLERANCE / ROUNDINGS, True, MOVES),
    (5 * TOLERANCE, 4.8 * TOLERANCE / ROUNDINGS, False, MOVES),
    (0.9 * LARGEST, 1.0, True, MOVES), (1.1 * LARGEST, 1.0, False, MOVES), (np.nan, 1.0, False, MOVES),
    (1.1 * TOLERANCE, np.nan, False, MOVES),
])  # fmt: skip
def test_what_is_allowed(distance, rounding, fits, moved):
    model = Model(distance, rounding)
    if fits:
        found = equality.require_equal(model, "the original", UNIT)
        assert found == pytest.approx(distance, rel=1e-6)
        assert ("amplify the rounding" in equality.remark(found)) == (found > TOLERANCE)
    else:
        with pytest.raises(CheckpointError, match="x.pt: the embeddings of PLSC's model differ from the original by"):
            equality.require_equal(model, "the original", UNIT)
    assert model.moved == moved


# An IR-SE net of random numbers, of which one embedding is 100 times smaller than what its last sums are made of:
# float32 is 9e-5 away from float64. An epsilon of 2e-5 in place of 1e-5 makes 0.9 there.
HARSH = kit.random_net(kit.adaface_shapes(18, 16, 6, 2, squeezed=True), seed=1)


def test_weights_that_amplify_rounding_are_imported(tmp_path, capsys):
    path = str(kit.save(tmp_path / "net.pt", HARSH))
    main(["import", path, "--to", str(tmp_path / "run")])
    assert "network; its weights amplify the rounding of float32" in capsys.readouterr().out


@pytest.mark.parametrize("place, part", [("stage3.unit1.conv2", "weight"), ("stage2.unit0.bn3", "running_variance")])
def test_a_wrong_tensor_is_found_in_them(tmp_path, monkeypatch, place, part):
    """Turned by one channel; variances larger by 1e-5, as by another epsilon."""
    right = convert._converted

    def wrong(layer, arrays):
        found = right(layer, arrays)
        if layer.ours == place:
            name = f"backbone.{place}.{part}"
            found[name] = np.roll(found[name], 1, 0) if part == "weight" else found[name] + np.float32(1e-5)
        return found

    monkeypatch.setattr(convert, "_converted", wrong)
    path = str(kit.save(tmp_path / "net.pt", HARSH))
    with pytest.raises(CheckpointError, match=r"\(moving its weights by one unit in the last place changes them by"):
        main(["import", path, "--to", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
