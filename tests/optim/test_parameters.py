"""AdamW, LAMB, LARS and Adafactor of the backbone over hundreds of steps against NumPy float64: matrices, kernels of
convolutions, vectors and a scalar, with exempt vectors, rates of layers and averaged weights together."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.backend import static
from plsc.optim.average import append_averages, create_averages
from plsc.optim.parameters import create_slots, update_parameters
from plsc.rows.optimizer import Update
from plsc.rows.optimizers.adafactor import Adafactor
from plsc.rows.optimizers.adamw import AdamW
from plsc.rows.optimizers.lamb import Lamb
from plsc.rows.optimizers.lars import Lars
from tests.reference import optimizers as reference

SHAPES, FACTORS = [(7, 5), (5,), (3, 2, 3, 3), (4, 1), (6, 3), (1,)], [1.0, 2.0, 0.1, 1.0, 0.3, 1.0]
STEPS, DECAY, KEEP = 150, 0.05, 0.9
CASES = {
    "adamw": (AdamW(), reference.AdamW(0.9, 0.999, 1e-8), 0.01),
    "lamb": (Lamb(), reference.Lamb(0.9, 0.999, 1e-6), 0.01),
    "lars": (Lars(0.9), reference.Lars(0.9, 0.001), 1.0),
    "adafactor": (Adafactor(), reference.Adafactor(), 0.01),
    "adafactor, as it is": (Adafactor(relative_step=False, scale_parameter=False),
                            reference.Adafactor(False, False), 0.01),
    "adafactor, later": (Adafactor(), reference.Adafactor(), 0.01),
}  # fmt: skip
BEFORE = {"adafactor, later": 40_000}  # steps: the relative step is below 0.01, and the first changes are clipped


def rate_of(step, peak):
    return peak * min(1.0, (step + 1) / 20) * (0.1 if step > 100 else 1.0)


def gradient_of(step):
    """Of other sizes in each parameter; those of the fifth are 0 in the first ten steps, where v is 0."""
    rng = np.random.default_rng(step)
    found = [10.0 ** (number - 3) * rng.standard_normal(shape) for number, shape in enumerate(SHAPES)]
    found[4] *= step >= 10
    return [value.astype("float32") for value in found]


class Run:
    """The update of plsc.optim in a program of its own."""

    def __init__(self, optimizer, weights, vectors):
        self.optimizer, self.main, startup = optimizer, paddle.static.Program(), paddle.static.Program()
        with static.building(self.main, startup):
            parameters = [
                paddle.static.create_parameter(list(value.shape), "float32", attr=paddle.ParamAttr(
                    f"p{number}", paddle.nn.initializer.Assign(value), learning_rate=FACTORS[number]))
                for number, value in enumerate(weights)
            ]  # fmt: skip
            gradients = [paddle.static.data(f"g{number}", list(shape)) for number, shape in enumerate(SHAPES)]
            rate = paddle.static.data("rate", [1], "float32")
            self.count = len(optimizer.numbers(1))
            numbers = tuple(paddle.static.data(f"n{number}", [1], "float32") for number in range(self.count))
            update = Update(optimizer, rate, DECAY, numbers, vectors)
            slots = create_slots(parameters, optimizer)
            update_parameters(parameters, slots, gradients, update)
            step = paddle.static.data("step", [1], "int64")
            averages = create_averages([f"ema.p{number}" for number in range(len(SHAPES))], parameters)
            append_averages(averages, parameters, step, KEEP, False)
        self.states = [slot.name for of_parameter in slots for slot in of_parameter]
        self.executor, self.scope = paddle.static.Executor(paddle.CPUPlace()), paddle.static.Scope()
        with paddle.static.scope_guard(self.scope):
            self.executor.run(startup)

    def step(self, step, rate, count):
        feed = {f"g{number}": value for number, value in enumerate(gradient_of(step))}
        feed.update({f"n{number}": np.array([value], np.float32)
                     for number, value in enumerate(self.optimizer.numbers(count))})  # fmt: skip
        with paddle.static.scope_guard(self.scope):
            self.executor.run(self.main, feed={**feed, "rate": np.array([rate], np.float32),
                                               "step": np.array([step + 1])})  # fmt: skip

    def value(self, name):
        return np.array(self.scope.find_var(name).get_tensor())


def first_weights():
    """A vector begins at 0, as biases do."""
    rng = np.random.default_rng(1)
    return [(number != 1) * rng.standard_normal(shape).astype("float32") for number, shape in enumerate(SHAPES)]


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_the_backbone_moves_as_by_the_formula(name, vectors):
    paddle.enable_static()
    optimizer, written, peak = CASES[name]
    weights = first_weights()
    run = Run(optimizer, weights, vectors)
    expected = [value.astype(np.float64) for value in weights]
    averages = [np.zeros_like(value) for value in expected]
    states = [written.start(value) for value in expected]
    for step in range(STEPS):
        count = BEFORE.get(name, 0) + step + 1
        run.step(step, rate_of(step, peak), count)
        for number, gradient in enumerate(gradient_of(step)):
            decay = DECAY if vectors or len(SHAPES[number]) > 1 else 0.0
            expected[number] = written.step(expected[number], states[number], gradient.astype(np.float64),
                                            rate_of(step, peak) * FACTORS[number], decay, count)  # fmt: skip
            averages[number] = KEEP * averages[number] + (1.0 - KEEP) * expected[number]
    for number, value in enumerate(expected):
        # each step rounds the weight by up to 2^-24 of itself, up or down, and a change by some ten roundings
        bound = 4e-6 * max(np.abs(value).max(), np.abs(weights[number]).max())
        np.testing.assert_allclose(run.value(f"p{number}"), value, rtol=0, atol=bound)
        np.testing.assert_allclose(run.value(f"ema.p{number}"), averages[number], rtol=0, atol=bound)
        assert np.abs(value - weights[number]).max() > 10 * bound


def test_the_states_of_adafactor_are_small():
    """n + m numbers of a matrix; the kernel of a convolution is [out, in * height * width]."""
    paddle.enable_static()
    run = Run(Adafactor(), first_weights(), True)
    assert {name: list(run.value(name).shape) for name in run.states} == {
        "row_moment.p0": [7], "column_moment.p0": [5], "second_moment.p1": [5], "row_moment.p2": [3],
        "column_moment.p2": [18], "row_moment.p3": [4], "column_moment.p3": [1], "row_moment.p4": [6],
        "column_moment.p4": [3], "second_moment.p5": [1],
    }  # fmt: skip


@pytest.mark.parametrize("options, message", [
    ({"decay_power": 0.0}, "decay_power=0.0: must be in"), ({"clip_threshold": 0}, "clip_threshold=0: must be above 0"),
    ({"epsilons": [1e-30]}, "must be two numbers above 0"), ({"epsilons": [0, 1]}, "must be two numbers above 0"),
])  # fmt: skip
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Adafactor(**options)
