"""What docs/train.md says of Paddle's own optimizers: 50 steps of a static program against NumPy float64."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from tests.reference import optimizers

SHAPES, STEPS, DECAY = [(7, 5), (5,), (3, 2, 3, 3)], 50, 0.05
RATES = [0.01 * min(1.0, (step + 1) / 10) for step in range(STEPS)]


class WholeRatio:
    """Paddle's LAMB and LARS have a ratio for weights of one dimension too: here they have two."""

    def __init__(self, optimizer):
        self.start = optimizer.start
        self._optimizer = optimizer

    def step(self, weight, states, gradient, rate, decay, count):
        as_row = [value.reshape(1, -1) for value in (weight, gradient)]
        states = [state.reshape(1, -1) for state in states]  # views
        return self._optimizer.step(as_row[0], states, as_row[1], rate, decay, count).reshape(weight.shape)


ADAM = optimizers.AdamW(0.9, 0.999, 1e-8)
LARS = paddle.incubate.optimizer.LarsMomentumOptimizer
CASES = {
    "AdamW": (lambda rate: paddle.optimizer.AdamW(rate, weight_decay=DECAY), ADAM),
    "Lamb": (lambda rate: paddle.optimizer.Lamb(rate, lamb_weight_decay=DECAY),
             WholeRatio(optimizers.Lamb(0.9, 0.999, 1e-6))),
    "LarsMomentum": (lambda rate: LARS(rate, 0.9, 0.001, DECAY), WholeRatio(optimizers.Lars(0.9, 0.001))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_optimizer_of_paddle_is_right(name):
    make, reference = CASES[name]
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape).astype("float32") for shape in SHAPES]
    gradients = [[(step % 3 + 0.3) * rng.standard_normal(shape).astype("float32") for shape in SHAPES]
                 for step in range(STEPS)]  # fmt: skip
    found = run(make, weights, gradients)
    for number, weight in enumerate(weights):
        expected = weight.astype(np.float64)
        states = reference.start(expected)
        for step, rate in enumerate(RATES):
            gradient = gradients[step][number].astype(np.float64)
            expected = reference.step(expected, states, gradient, rate, DECAY, step + 1)
        # 50 steps round the weight by up to half of 1.2e-7 each, up or down
        np.testing.assert_allclose(found[number], expected, rtol=0, atol=2e-6 * np.abs(expected).max())
        assert np.abs(expected - weight).max() > 3e-4


def run(make, weights, gradients) -> list[np.ndarray]:
    """The weights after all steps of the optimizer ``make(scheduler)``."""
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup), paddle.utils.unique_name.guard("paddle_optimizers."):
        schedule = paddle.optimizer.lr.LambdaDecay(1.0, lambda step: RATES[min(step, STEPS - 1)])
        inputs = [paddle.static.data(f"g{number}", list(shape), "float32") for number, shape in enumerate(SHAPES)]
        parameters = [
            paddle.static.create_parameter(
                list(value.shape), "float32",
                attr=paddle.ParamAttr(f"p{number}", paddle.nn.initializer.Assign(value)),
            )
            for number, value in enumerate(weights)
        ]  # fmt: skip
        make(schedule).minimize(sum(paddle.sum(one * other) for one, other in zip(parameters, inputs)))
    executor, scope = paddle.static.Executor(), paddle.static.Scope()
    with paddle.static.scope_guard(scope):
        executor.run(startup)
        for step in gradients:
            executor.run(main, feed={f"g{number}": value for number, value in enumerate(step)})
            schedule.step()
        return [np.array(scope.find_var(f"p{number}").get_tensor()) for number in range(len(weights))]
