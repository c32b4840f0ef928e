"""Helpers of the model tests: build a model into a program, run it, read and write its variables."""

from __future__ import annotations

import numpy as np
import paddle

from plsc.models import build_feature


def build(model, image_shape, is_train, label=False, optimizer=None):
    """(main program, startup program, feature) of one model, in fresh programs."""
    main, startup = paddle.static.Program(), paddle.static.Program()
    startup.random_seed = 7  # not main.random_seed: that gives every step the same dropout mask
    with paddle.static.program_guard(main, startup):
        inputs = {"image": paddle.static.data("image", [-1, *image_shape], "float32")}
        if label:
            inputs["label"] = paddle.static.data("label", [-1], "int64")
        feature = build_feature(model, inputs, is_train)
        if optimizer is not None:
            optimizer.minimize(paddle.mean(paddle.pow(feature, 3.0)))
    return main, startup, feature


def parameters(program) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters and statistics of a program by name."""
    return {v.name: tuple(v.shape) for v in program.global_block().all_parameters()}


class Run:
    """One scope and one executor on the CPU."""

    def __init__(self, startup):
        self.scope = paddle.base.core.Scope()
        self.executor = paddle.static.Executor(paddle.CPUPlace())
        self(startup, [])

    def __call__(self, program, fetch, **feed):
        with paddle.static.scope_guard(self.scope):
            return self.executor.run(program, feed=feed, fetch_list=fetch)

    def get(self, name: str) -> np.ndarray:
        return np.array(self.scope.find_var(name).get_tensor())

    def set(self, name: str, value: np.ndarray) -> None:
        self.scope.find_var(name).get_tensor().set(value.astype(np.float32), paddle.CPUPlace())

    def weights(self, program) -> dict[str, np.ndarray]:
        """Name without the leading "backbone." -> value."""
        return {name[len("backbone.") :]: self.get(name) for name in parameters(program)}

    def randomise(self, program, seed: int = 3) -> None:
        """Draw what starts as a constant as well, so that a layer in the wrong place cannot hide."""
        for index, (name, shape) in enumerate(sorted(parameters(program).items())):
            draw = np.random.Generator(np.random.Philox(key=[seed, index]))
            if name.endswith((".conv.weight", "conv1.weight", "conv2.weight", "fc.weight")):
                continue
            low, high = (-0.3, 0.3) if name.endswith((".bias", "running_mean")) else (0.5, 1.5)
            self.set(name, draw.uniform(low, high, shape))


def image(batch: int, shape, seed: int = 0) -> np.ndarray:
    draw = np.random.Generator(np.random.Philox(key=[seed, 99]))
    return draw.uniform(-1.0, 1.0, (batch, *shape)).astype(np.float32)
