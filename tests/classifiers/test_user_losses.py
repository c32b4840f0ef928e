"""A user's loss in the program: what its methods do wrong is one line, its random numbers, its states."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.classifiers import ClassifierSpec, StepOutput, sampling
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program import build
from plsc.engine.program.gradients import Gradients
from plsc.engine.program.optimizers import Optimizers, Updates
from plsc.engine.program.update import StepEnd, append_update
from plsc.errors import ConfigError
from plsc.losses import Loss, register_loss
from plsc.optim.gradients import Buckets
from plsc.parallel.environment import Environment
from plsc.registry import LOSSES
from tests.dist.training_cases import Linear
from tests.registries import forget_afterwards

paddle.enable_static()
BATCH, EMBEDDING = 6, 5


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers is forgotten after it."""
    LOSSES.names()
    forget_afterwards(monkeypatch, LOSSES)


def program_of(env=None, **methods):
    """The training program with a loss of these methods."""
    body = {"target": lambda self, batch: (batch.cosine, paddle.ones_like(batch.cosine)), **methods}
    register_loss("mine")(type("Mine", (Loss,), body))
    config = Config.from_dict({
        "classifier": {"num_classes": 11, "loss_type": "mine"}, "model": {"image_shape": [3, 2, 3]},
        "train_batch_size": BATCH,
    })  # fmt: skip
    return build.build_train(config, UserObjects(model=Linear(EMBEDDING)), env or Environment(), seed=7)


def half(self, batch):
    return batch.cosine


def raises(self, batch):
    return {}["margin"]


STATE = {"states": lambda self: {"mean": 1.0}}


@pytest.mark.parametrize("methods, message", [
    ({"target": half}, "target returned .*; it must return .cosine with margin, slope., or also"),
    ({"target": lambda self, batch: (batch.cosine,)}, "target returned tuple of 1; it must return"),
    ({"target": lambda self, batch: (batch.cosine, 1.0)}, r"target returned float; it must return values of"),
    ({"target": lambda self, batch: (batch.cosine, paddle.mean(batch.cosine, keepdim=True))},
     r"target returned a value of shape \[1\]; it must return values of shape \[6\]"),
    ({"target": raises}, r"target raised KeyError: 'margin' \(test_user_losses.py:\d+\)"),
    ({"target": lambda self, batch: batch.feature}, "target raised AttributeError: a batch has no 'feature', it has"),
    ({"target": lambda self, batch: (paddle.ones([2, 3]) @ paddle.ones([2, 3]), 1)},
     r"target (raised ValueError|returned a value of shape \[2, 3\])"),  # Paddle 2.6 raises when it runs only
    ({"penalty": half}, "penalty returned .*; it must return .value, slope."),
    ({"others": lambda self, cosine, batch: (cosine, batch.cosine)}, r"others returned a value of shape \[6\]; it"),
    ({**STATE, "update": half}, "update returned .*; it must return a dict of the states mean"),
    ({**STATE, "update": lambda self, batch: {"men": batch.cosine}}, "update returned men; it must return a dict of"),
    ({**STATE, "update": lambda self, batch: {"mean": batch.cosine}},
     r"update returned a value of shape \[6\]; it must return values of shape \[1\]"),
    ({"states": lambda self: {"mean": "x"}, "update": half}, "states returned .*; it must return .name: a finite"),
])  # fmt: skip
def test_what_a_method_does_wrong_is_one_line(methods, message):
    with pytest.raises(ConfigError, match=f"loss Mine: {message}") as caught:
        program_of(**methods)
    assert "\n" not in str(caught.value)


def test_a_gpu_computes_what_its_kernel_does_not_know_by_plain_operations():
    env, margins = Environment(device="gpu"), (1.0, 0.0, 0.0)
    by_kernel = ClassifierSpec(11, loss=type("Kernel", (Loss,), {"kernel_margins": margins})())
    assert by_kernel.uses_kernel(env) and by_kernel.without_kernel(env) is None
    penalty = {"penalty": lambda self, batch: (batch.norm, paddle.ones_like(batch.norm))}
    spec = program_of(env, kernel_margins=margins, **penalty).spec
    assert not spec.uses_kernel(env) and "Mine is more than three margins" in spec.without_kernel(env)
    assert spec.without_kernel(Environment()) is None


def test_random_numbers_are_uniform_and_others_for_each_step_and_stream():
    main, count = paddle.static.Program(), 20_000
    with paddle.static.program_guard(main, paddle.static.Program()):
        step = paddle.static.data("step", [1], "int64")
        place, keys = paddle.arange(count, dtype="int64"), (sampling.stream_key(3, stream) for stream in (1, 2))
        drawn = [sampling.uniform(place, step, key) for key in keys]
    executor = paddle.static.Executor(paddle.CPUPlace())
    got = [value for step in (5, 6) for value in executor.run(main, feed={"step": [step]}, fetch_list=drawn)]
    for values in got:
        assert values.min() > 0.0 and values.max() < 1.0
        # five standard deviations of a mean, a variance and a correlation of neighbours of so many
        assert abs(values.mean() - 0.5) < 5 * np.sqrt(1 / 12 / count) and abs(values.var() - 1 / 12) < 5 * 0.0745 / 141
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 5 / np.sqrt(count)
    for one in range(4):
        for other in range(one):
            assert abs(np.corrcoef(got[one], got[other])[0, 1]) < 5 / np.sqrt(count)


@pytest.mark.parametrize("found, end", [(None, 2.0), (False, 2.0), (True, 1.0)])
def test_a_skipped_step_leaves_the_states(found, end):
    main, startup, scope = paddle.static.Program(), paddle.static.Program(), paddle.static.Scope()
    with build.static.building(main, startup):
        state = build.static.create_state("state", [1], "float32", 1.0)
        output = StepOutput(None, None, None, states=[(state, state + 1.0)])
        skip = None if found is None else paddle.full([1], found, "bool")
        gradients = Gradients([], Buckets.of_one_each([]), None, [], [], None, skip)
        updates = Updates.create(Optimizers.of(Config()), paddle.full([1], 0.1), Config())
        changed = append_update(gradients, output, StepEnd(Config(), UserObjects(), {}, None, updates, None))
        assert [variable.name for variable in changed.variables] == ["state"]
    executor = paddle.static.Executor(paddle.CPUPlace())
    with paddle.static.scope_guard(scope):
        executor.run(startup)
        executor.run(main)
        assert np.array(scope.find_var("state").get_tensor()) == [end]
