"""LargeScaleClassifier refuses what cannot work when the program is built, in one line that names the argument."""

from __future__ import annotations

import os
import subprocess
import sys

import paddle
import pytest

from plsc import LargeScaleClassifier
from plsc.errors import ConfigError

USUAL = {"rank": 0, "world_size": 2, "num_classes": 10, "embedding_size": 8}


def build(feature=((4, 8), "float32"), label=((4,), "int64"), **changes):
    with paddle.static.program_guard(paddle.static.Program(), paddle.static.Program()):
        values = [paddle.static.data(name, *given) for name, given in (("feature", feature), ("label", label))]
        return LargeScaleClassifier(*values, **{**USUAL, **changes})


def test_what_fits_is_built():
    classifier = build(sample_ratio=0.5, label=((4, 1), "int64"))
    assert (classifier.num_local, classifier.num_sample, list(classifier.output_dict)) == (5, 2, ["loss"])
    assert list(classifier.input_dict) == ["feature", "label"]


@pytest.mark.parametrize("changes, named", [
    ({"rank": 2}, "rank=2"),
    ({"num_classes": 0}, "num_classes=0"),
    ({"num_classes": 9, "world_size": 4}, "num_classes 9"),
    ({"margin1": "1"}, "margin1='1'"),
    ({"margin2": float("nan")}, "margin2=nan"),
    ({"margin3": None}, "margin3=None"),
    ({"scale": 0}, "scale=0"),
    ({"scale": True}, "scale=True"),
    ({"sample_ratio": 0.0}, "sample_ratio=0.0"),
    ({"sample_ratio": 1.1}, "sample_ratio=1.1"),
    ({"embedding_size": 9}, "embedding_size=9"),
    ({"feature": ((4, 8), "float64")}, "must be float32"),
    ({"label": ((5,), "int64")}, "label is"),
    ({"label": ((4, 8), "int64")}, "label is"),
    ({"label": ((4,), "float32")}, "label is"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(changes, named):
    with pytest.raises(ConfigError, match="(?s).*" + named.replace("'", ".")):
        build(**changes)


BESIDE_FLEET = """
import plsc, paddle
from paddle.distributed import fleet
from plsc.errors import ConfigError
paddle.enable_static()
fleet.init(is_collective=True)
feature, label = paddle.static.data("feature", [4, 8]), paddle.static.data("label", [4], "int64")
try:
    plsc.LargeScaleClassifier(feature, label, rank=0, world_size=2, num_classes=10, embedding_size=8)
    print("built")
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize("ranks, said", [(1, "built"), (2, "fleet.init was called with 2 ranks")])
def test_fleet_of_several_ranks_is_refused(ranks, said):
    """Its optimizer would sum the shards of the classes and begin all of them with rank 0's."""
    endpoints = ["127.0.0.1:6170", "127.0.0.1:6171"][:ranks]
    env = {
        "PADDLE_TRAINER_ID": "0", "PADDLE_TRAINERS_NUM": str(ranks), "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "PADDLE_CURRENT_ENDPOINT": endpoints[0],
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", BESIDE_FLEET], check=True, capture_output=True, text=True, env={**os.environ, **env}
    )
    assert done.stdout.splitlines()[-1].startswith(said)
