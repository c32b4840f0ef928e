"""A loss by its name: margins and options from the settings, and what wrong ones say. Without Paddle."""

from __future__ import annotations

import pytest

from plsc.config import Config
from plsc.errors import ConfigError
from plsc.losses import Loss, register_loss
from plsc.losses.arcface import ArcFace
from plsc.registry import LOSSES
from tests.registries import forget_afterwards


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers is forgotten after it."""
    LOSSES.names()
    forget_afterwards(monkeypatch, LOSSES)


@pytest.fixture
def mine():
    @register_loss("mine", source="a paper")
    class Mine(Loss):
        """A loss of the user's."""

        def __init__(self, slope: float, margin2: float = 0.1, kind: str = "a"):
            if slope < 0:
                raise ValueError("slope must be\nat least 0")
            self.made_with = slope, margin2, kind

        def target(self, batch):
            return batch.cosine, batch.cosine

    return Mine


def config(**classifier) -> Config:
    return Config.from_dict({"classifier": classifier})


def refusal(**classifier) -> str:
    with pytest.raises(ConfigError) as caught:
        config(**classifier)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_names_of_plsc_come_first(mine):
    names = LOSSES.names()
    assert names[-1] == "mine" and {"adaface", "arcface", "combined", "softmax"} < set(names)
    own = [entry.module for entry in LOSSES.entries()[:-1]]
    assert own == sorted(own) and all(module.startswith("plsc.losses.") for module in own)
    assert LOSSES.entries()[-1].source == "a paper"


@pytest.mark.parametrize("settings, kind, margins", [
    ({}, "ArcFace", (1.0, 0.5, 0.0)),
    ({"loss_type": "arcface", "margin2": 0.3}, "ArcFace", (1.0, 0.3, 0.0)),
    ({"loss_type": "cosface"}, "CosFace", (1.0, 0.0, 0.35)),
    ({"loss_type": "sphereface", "margin3": 0.1}, "SphereFace", (1.35, 0.0, 0.1)),
    ({"loss_type": "combined", "margin1": 1.0, "margin2": 0.3, "margin3": 0.2}, "Combined", (1.0, 0.3, 0.2)),
    ({"loss_type": "a name", "margin1": 0.9, "margin2": 0.4, "margin3": 0.1}, "Combined", (0.9, 0.4, 0.1)),
    ({"loss_type": "softmax"}, "Softmax", None),
])  # fmt: skip
def test_the_losses_of_plsc(settings, kind, margins):
    found = config(**settings)
    assert (type(found.loss()).__name__, found.margins(), found.loss().kernel_margins) == (kind, margins, margins)
    assert found.loss().normalised == (kind != "Softmax")


def test_a_users_loss_gets_margins_and_options(mine):
    assert config(loss_type="mine", loss_options={"slope": 2}).loss().made_with == (2, 0.1, "a")
    options = {"slope": 0.5, "kind": "b"}
    assert config(loss_type="mine", margin2=0.3, loss_options=options).loss().made_with == (0.5, 0.3, "b")
    found = config(loss_type="mine", loss_options={"slope": 2})
    assert Config.from_dict(found.to_dict()).loss().made_with == (2, 0.1, "a")
    assert found.margins() is None


@pytest.mark.parametrize("settings, message", [
    ({}, "loss 'mine': the option slope is missing; its options: slope (float), kind (str, default 'a')"),
    ({"loss_options": {"slop": 1.0}}, "there is no option slop; its options: slope"),
    ({"loss_options": {"slope": "x"}}, "slope='x' must be float"),
    ({"loss_options": {"slope": 1, "margin2": 1}}, "margin2 is a setting of its own: classifier.margin2"),
    ({"loss_options": {"slope": -1}}, "its constructor raised ValueError: slope must be at least 0"),
    ({"loss_options": {"slope": 1}, "margin1": 1.0}, "has no margin1, margin3, but margin1, margin2, "),
    ({"loss_options": 3}, "must be a mapping of names to values"),
])  # fmt: skip
def test_options_that_do_not_fit_are_one_line(mine, settings, message):
    assert message in refusal(loss_type="mine", **settings)


@pytest.mark.parametrize("settings, message", [
    ({"loss_type": "mine"}, "classifier.loss_type='mine': is none of adaface, arcface, "),
    ({"loss_type": "arcfase"}, "did you mean arcface?"),
    ({"loss_type": "softmax", "margin1": 1.0}, "has no margins, but margin1, margin2, margin3 are (1.0, "),
    ({"loss_type": "combined", "margin2": 1.0}, "needs margin1, margin3; margin1, margin2, margin3 are (None, "),
    ({"loss_options": {"scale": 2}}, "loss 'arcface': there is no option scale; it takes none"),
])  # fmt: skip
def test_names_and_margins_that_do_not_fit_are_one_line(settings, message):
    assert message in refusal(**settings)


def test_scale_is_idle_without_cosines():
    @register_loss("products")
    class Products(Loss):
        normalised = False

        def target(self, batch):
            return batch.cosine, batch.cosine

    assert config(loss_type="products", scale=2.0).without_effect() == [
        "classifier.scale=2.0: has no effect with classifier.loss_type: products"
    ]


class Right(Loss):
    def target(self, batch):
        return batch.cosine, batch.cosine


@pytest.mark.parametrize("body, message", [
    ({}, "Wrong has no method target(self, batch)"),
    ({"target": lambda self: None}, "Wrong.target takes (self); it must take (self, batch)"),
    ({"target": lambda self, cosine, norm: None}, "takes (self, cosine, norm); it must take (self, batch)"),
    ({"target": Right.target, "others": lambda self, cosine: None}, "it must take (self, cosine, batch)"),
    ({"target": Right.target, "penalty": lambda self: None}, "Wrong.penalty takes (self)"),
    ({"target": Right.target, "states": lambda self: {}}, "Wrong has only one of the methods states(self) and update"),
    ({"target": Right.target, "update": lambda self, batch: {}}, "Wrong has only one of the methods states(self) and"),
    ({"target": Right.target, "normalised": False, "penalty": lambda self, batch: 0}, "it may have the method target"),
    ({"target": Right.target, "__init__": lambda self, margin, /: None}, "it must take its options by name"),
])  # fmt: skip
def test_a_wrong_class_is_refused(body, message):
    with pytest.raises(ConfigError) as caught:
        register_loss("wrong")(type("Wrong", (Loss,), body))
    assert str(caught.value).startswith("loss 'wrong': ") and message in str(caught.value)
    assert "wrong" not in LOSSES


@pytest.mark.parametrize("value", [lambda batch: batch, int, 3])
def test_what_is_no_loss_is_refused(value):
    with pytest.raises(ConfigError, match="loss 'wrong': .* must be a class derived from plsc.losses.Loss"):
        register_loss("wrong")(value)


def test_a_name_is_taken_once():
    with pytest.raises(ConfigError, match="loss 'arcface': the name is taken by plsc.losses.arcface.ArcFace"):
        register_loss("arcface")(Right)
    assert LOSSES.find("arcface") is ArcFace
