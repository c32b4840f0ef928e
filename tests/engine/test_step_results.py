"""A step keeps its results in one variable, which is read where they are used; it fetches nothing."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.backend import static
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import build_train
from plsc.engine.program.results import VARIABLE, one_tensor
from plsc.engine.program.scopes import make_executor
from plsc.engine.program.session import Session
from plsc.parallel.environment import Environment
from plsc.parallel.group import connected_group

ALONE = Environment(0, 1, "cpu")


@pytest.fixture(autouse=True)
def static_mode():
    paddle.enable_static()
    yield
    paddle.disable_static()


def test_numbers_of_all_types_are_exact():
    """0.1 as float32, and a count of clipped numbers that float32 does not hold."""
    values = {"loss": 0.1, "found": True, "count": 2**24 + 1, "none": float("nan")}
    types = {"loss": "float32", "found": "bool", "count": "int64", "none": "float32"}
    main = paddle.static.Program()
    with static.building(main, paddle.static.Program()):
        shapes = {"count": [1, 1], "none": []}
        found = one_tensor({n: paddle.full(shapes.get(n, [1]), v, types[n]) for n, v in values.items()})
    (found,) = make_executor(ALONE).run(main, fetch_list=[found])
    assert found.dtype == np.float64 and found.shape == (4,)
    assert found[:3].tolist() == [float(np.float32(0.1)), 1.0, 16777217.0] and np.isnan(found[3])


def test_a_step_fetches_nothing_and_reads_one_variable():
    config = Config.from_dict({
        "model": {"name": "ResNet10", "base_width": 2, "image_shape": [3, 16, 16], "embedding_size": 4, "dropout": 0.0},
        "classifier": {"num_classes": 7, "loss_type": "softmax"}, "train_batch_size": 4, "calc_acc": True,
    })  # fmt: skip
    session, fetched, read = Session(build_train(config, UserObjects(), ALONE, seed=3), ALONE, seed=3), [], []
    session.start(connected_group(ALONE))
    run = session.executor.run
    session.executor.run = lambda *args, **given: fetched.append(len(given["fetch_list"])) or run(*args, **given)
    images = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype("float32")
    inputs = {"image": images, "label": np.arange(4)}
    tensor = session._tensor
    session._tensor = lambda name: read.append(name) or tensor(name)
    session.step(0, inputs, 0.1)
    read.clear()
    found = session.step(1, inputs, 0.1, stop=True)
    session.close()
    assert fetched == [0, 0] and read == [VARIABLE]
    assert list(found) == ["loss", "stop", "acc1", "acc5"] and found["stop"] == 1.0
    assert {found["acc1"], found["acc5"]} <= {0.0, 0.25, 0.5, 0.75, 1.0} and found["acc1"] <= found["acc5"]
    assert found["loss"] > 0 and all(type(value) is float for value in found.values())
