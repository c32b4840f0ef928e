"""A user's data source before a run: what is asked of it, and what it does wrong in one line."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.data import Source, register_source
from plsc.engine.evaluation.data import check_training_data, make_training_data
from plsc.errors import ConfigError, DataError
from plsc.parallel.environment import Environment
from plsc.registry import SOURCES
from tests.registries import forget_afterwards


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers is forgotten after it."""
    SOURCES.names()
    forget_afterwards(monkeypatch, SOURCES)


def register(**members) -> list:
    """A source of seven images with these members; returns what it is asked for."""
    asked = []

    def init(self, dataset_dir, num_classes, image_shape, seed, most: int = 7):
        asked.append((dataset_dir, num_classes, list(image_shape), seed, most))

    usual = {
        "__init__": init,
        "__len__": lambda self: 7,
        "read": lambda self, index: (np.full((6, 5, 3), 30 * index, np.uint8), index),
        "record": lambda self: {"digest": "d", "labels": 7},
        "check": lambda self, look: asked.append(look),
    }
    register_source("mine")(type("Mine", (Source,), {**usual, **members}))
    return asked


def settings(**changes) -> Config:
    config = Config.from_dict({
        "data": {"dataset": "mine", "dataset_dir": "here", "options": {"most": 3}}, "with_test": False,
        "model": {"image_shape": [3, 6, 5]}, "classifier": {"num_classes": 9}, "train_batch_size": 2, "seed": 4,
    })  # fmt: skip
    for key, value in changes.items():
        config.set(key.replace("__", "."), value)
    return config


def refusal(kind, config: Config, ranks: int = 1) -> str:
    with pytest.raises(kind) as caught:
        check_training_data(config, UserObjects(), Environment(world_size=ranks))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_a_source_is_asked_for():
    asked, config = register(), settings()
    for local_rank in (0, 1):  # which looks at the files: one on each machine
        found = check_training_data(
            config, UserObjects(), Environment(rank=local_rank, local_rank=local_rank, world_size=2)
        )
    assert asked == [("here", 9, [3, 6, 5], 4, 3), True, ("here", 9, [3, 6, 5], 4, 3), False]
    assert found == {
        "training": {"kind": "mine", "images": 7, "num_classes": 9, "digest": "d", "labels": 7}
    }  # fmt: skip
    data = make_training_data(config, UserObjects(), 11)
    assert asked[4:] == [("here", 9, [3, 6, 5], 11, 3), False]
    # a constant image is the same when it is flipped
    np.testing.assert_allclose(data.get(2, 0)[0], np.full((3, 6, 5), (60 - 127.5) / 127.5), rtol=1e-6)


def test_an_open_seed_is_none_of_the_sources_business():
    asked = register()
    check_training_data(settings(seed=None), UserObjects(), Environment())
    assert asked[0][3] == 0


def broken(*arguments):
    return {}["gone"]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"__init__": lambda self, most: broken()}, "data.dataset='mine': raised KeyError: 'gone' (test_own_source.py"),
        ({"check": broken}, "data.dataset='mine': raised KeyError: 'gone' (test_own_source.py:"),
        ({"record": broken}, "data.dataset='mine': raised KeyError: 'gone' (test_own_source.py:"),
        ({"record": lambda self: {"digest": b"x"}}, "data.dataset='mine': its record is not plain JSON: "),
        ({"record": lambda self: None}, "data.dataset='mine': raised TypeError: "),
        ({"__len__": lambda self: 0}, "the training data has no images"),
        ({"__len__": lambda self: 1}, "train_batch_size=2 on 1 rank(s) makes a global batch of 2, more than the 1"),
    ],
)
def test_what_a_source_does_wrong(members, text):
    register(**members)
    assert refusal(DataError, settings()).startswith(text)


def test_another_number_of_images_than_was_said():
    register(place=property(lambda self: "here/x.tar"))
    text = refusal(ConfigError, settings(data__train_image_num=8))
    assert text.startswith("data.train_image_num=8: here/x.tar has 7 images; correct it")


def test_a_shape_that_no_image_has():
    register()
    message = refusal(ConfigError, settings(model__image_shape=[4, 6, 5]))
    assert message.startswith("model.image_shape=[4, 6, 5]: images are read with")


def test_a_batch_larger_than_the_synthetic_data_is_said_before_the_run():
    register()
    config = settings(data__dataset="synthetic", data__options={}, data__train_image_num=6)
    assert refusal(DataError, config, 4).startswith("train_batch_size=2 on 4 rank(s) makes a global batch of 8")
