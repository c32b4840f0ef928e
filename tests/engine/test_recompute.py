"""model.recompute: the same numbers to the bit, fewer of them kept."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.backend import onednn, program_view
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program import recomputing
from plsc.engine.program.build import build_train
from plsc.engine.program.session import Session
from plsc.errors import ConfigError
from plsc.models import BaseModel
from plsc.parallel.environment import Environment
from plsc.parallel.group import connected_group

BATCH, CLASSES, SIDE = 8, 11, 24
ALONE = Environment(0, 1, "cpu")
NETS = {
    "ResNet10": {"base_width": 4, "dropout": 0.3},
    "ViT-T": {"base_width": 4, "options": {"depth": 4, "patch_size": 4, "drop_path": 0.5, "mask_ratio": 0.25}},
}


@pytest.fixture(autouse=True)
def static_mode():
    paddle.enable_static()
    yield
    paddle.disable_static()


HALF = {"enabled": True, "dtype": "bfloat16"}


def build(name: str, recompute: bool, precision=None, **changes):
    model = {"name": name, "image_shape": [3, SIDE, SIDE], "embedding_size": 6, "recompute": recompute}
    model.update({**NETS.get(name, {}), **changes})
    settings = {"classifier": {"num_classes": CLASSES}, "train_batch_size": BATCH, "model": model, "device": "cpu"}
    if precision is not None:
        settings["mixed_precision"] = precision
    return build_train(Config.from_dict(settings), UserObjects(), ALONE, seed=3)


def steps(program, count: int = 3):
    """(losses, all replicated variables after them)."""
    session = Session(program, ALONE, seed=3)
    session.start(connected_group(ALONE))
    draw, losses = np.random.default_rng(5), []
    for number in range(count):
        images = draw.standard_normal((BATCH, 3, SIDE, SIDE)).astype("float32")
        losses.append(session.step(number, {"image": images, "label": draw.integers(0, CLASSES, BATCH)}, 0.1)["loss"])
    states = session.replicated()
    session.close()
    return losses, states


def kept(program) -> int:
    """Bytes of a step at its peak."""
    return sum(program_view.peak_memory(program_view.operations(program.main)).values())


@pytest.mark.parametrize("name", NETS)
def test_not_a_bit_changes(name, monkeypatch):
    told = []
    monkeypatch.setattr(recomputing.log, "warning", told.append)
    recomputing._warn_of_onednn.cache_clear()  # it is said once in a process, which may have run other tests
    plain, again = build(name, False), build(name, True)
    assert any("set use_onednn: false" in text for text in told) == (name == "ResNet10" and onednn.is_available())
    losses, states = steps(plain)
    found, others = steps(again)
    assert found == losses and len(set(losses)) == len(losses)
    assert states.keys() == others.keys()
    for key, value in states.items():
        np.testing.assert_array_equal(others[key], value, err_msg=key)
    assert kept(again) < 0.8 * kept(plain)


@pytest.mark.parametrize("name, level", [("ResNet10", "O2"), ("ViT-T", "O1")])
def test_not_a_bit_changes_in_half_precision(name, level):
    plain, again = (build(name, on, {**HALF, "level": level}) for on in (False, True))
    losses, states = steps(plain)
    found, others = steps(again)
    assert found == losses and len(set(losses)) == len(losses)
    for key, value in states.items():
        np.testing.assert_array_equal(others[key], value, err_msg=key)
    assert kept(again) < 0.85 * kept(plain)


@pytest.mark.once
@pytest.mark.parametrize("name", ["SEResNet10", "MobileFaceNet", "WideMobileFaceNet"])
def test_all_built_in_nets_keep_less(name):
    plain, again = (build(name, on, base_width=4) for on in (False, True))
    assert kept(again) < 0.8 * kept(plain)


def test_frozen_stages_are_not_computed_again():
    plain, again = (build("ResNet10", on, freeze=["stem", "stage1", "stage2"]) for on in (False, True))
    count = [sum(op.kind == "conv2d" for op in program_view.operations(one.main)) for one in (plain, again)]
    assert count[1] - count[0] == 2 * 3  # two stages of one unit: its two convolutions and that of the shortcut


class NoBoundaries(BaseModel):
    def build_network(self, input, label, is_train=True):
        return paddle.nn.Linear(3 * SIDE * SIDE, 6)(paddle.flatten(input, 1))


def test_a_model_without_boundaries_is_refused():
    config = Config.from_dict({"classifier": {"num_classes": CLASSES}, "train_batch_size": BATCH,
                               "model": {"image_shape": [3, SIDE, SIDE], "recompute": True}})  # fmt: skip
    with pytest.raises(ConfigError, match="model.recompute=True: .* says no parts that can be computed again"):
        build_train(config, UserObjects(model=NoBoundaries()), ALONE, seed=3)
