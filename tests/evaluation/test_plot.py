"""The image of a run: what it shows, where it goes, and what is said without matplotlib."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from PIL import Image

from plsc.errors import ConfigError, DataError
from plsc.evaluation import plot
from plsc.evaluation.verification import verify


def _result(noise):
    rng = np.random.default_rng(0)
    same = np.arange(200) % 2 == 0
    first = rng.normal(size=(200, 8))
    second = np.where(same[:, None], first + noise * rng.normal(size=first.shape), rng.normal(size=first.shape))
    return verify(np.stack([first, second], 1).reshape(-1, 8), same)


def _colours(path):
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return {tuple(colour) for colour in np.unique(pixels, axis=0).tolist()}, Image.open(path).size


def test_image(tmp_path):
    path = tmp_path / "report.png"
    losses = [(step, 40.0 / (1 + step)) for step in range(100)] + [(100, float("nan"))]
    plot.plot_run(path, losses, {"easy": _result(0.3), "hard": _result(1.5)})
    colours, size = _colours(path)
    assert size == (1560, 624) and os.listdir(tmp_path) == ["report.png"]
    blue, orange = (31, 119, 180), (255, 127, 14)
    assert blue in colours and orange in colours  # the loss and the first set, the second set
    plot.plot_run(path, losses[:1], {"one": _result(1.0)})  # over the old one
    assert orange not in _colours(path)[0]
    plot.plot_run(path, [], {})
    assert blue not in _colours(path)[0]


def test_it_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        plot.plot_run(tmp_path / "no" / "report.png", [], {})


def test_without_matplotlib(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="`pip install 'matplotlib>=3.5'`"):
        plot.plot_run(tmp_path / "report.png", [], {})
    assert not os.listdir(tmp_path)


def test_smoothing_against_a_loop():
    values = np.random.default_rng(0).normal(size=50)
    for width in (2, 5):
        expected = [np.mean(values[max(i - width // 2, 0) : i + (width + 1) // 2]) for i in range(50)]
        assert np.allclose(plot._smoothed(values, width), expected, rtol=0, atol=1e-12)
