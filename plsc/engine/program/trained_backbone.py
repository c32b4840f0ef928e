"""The backbone of a checkpoint, run by the evaluation program."""

from __future__ import annotations

import numpy as np
import paddle

from plsc import checkpoint
from plsc.backend import static
from plsc.engine.program.build import EvalProgram, build_eval
from plsc.engine.program.same_function import require_same_function
from plsc.engine.program.scopes import device_place, make_executor, make_scope
from plsc.engine.run.start import Run
from plsc.errors import CheckpointError
from plsc.parallel.environment import Environment


class Variables:
    """A scope and an executor: the variables of programs that belong together."""

    def __init__(self, env: Environment):
        self._place = device_place(env)
        self.scope, _ = make_scope(self)
        self.executor = make_executor(env)

    def run(self, program, feed: dict, fetches: list) -> list[np.ndarray]:
        """Run a program in these variables."""
        with paddle.static.scope_guard(self.scope):
            return self.executor.run(program, feed=feed, fetch_list=fetches)

    def set(self, name: str, value: np.ndarray) -> None:
        """Set a variable that a startup program has created."""
        self.scope.find_var(name).get_tensor().set(value, self._place)

    def load(self, program, path: str, stored: dict[str, np.ndarray], own: tuple[str, ...] = ()) -> None:
        """Set every variable of ``program`` but ``own`` from a checkpoint's tensors. Raises CheckpointError."""
        for name, value in static.persistables(program).items():
            array = stored.get(name)
            if name in own:
                continue
            if array is None or list(array.shape) != list(value.shape):
                found = "nothing" if array is None else list(array.shape)
                raise CheckpointError(
                    f"{path}: holds {found} for {name}, the model needs {list(value.shape)}; "
                    "set the section `model` as it was trained"
                )
            self.set(name, array)


class TrainedBackbone:
    """The backbone of the checkpoint that the run starts from, run by the evaluation program of training."""

    def __init__(self, run: Run, env: Environment, batch_size: int):
        config = run.config
        self.program: EvalProgram = build_eval(config, run.user_objects, env, batch_size)
        self.path, self.manifest = checkpoint.open_checkpoint(
            run.start_dir, run.group, checkpoint.Expected(embedding_size=self.program.feature.shape[1])
        )
        require_same_function(run, self.path, self.manifest)
        self.variables = Variables(env)
        self.variables.run(self.program.startup, {}, [])
        self.averaged = checkpoint.uses_averages(self.path, self.manifest, config.ema.weights)
        if self.averaged:
            run.log.info(f"using the averaged weights of {self.path}; ema.weights: last uses those of its last step")
        self.stored = checkpoint.read_weights(self.path, self.manifest, config.ema.weights)
        self.variables.load(self.program.main, self.path, self.stored)

    def features(self, images: np.ndarray) -> np.ndarray:
        """float32 [B, C, H, W] -> [B, E] of this rank, by the evaluation program."""
        feeds = dict.fromkeys(self.program.feeds, images)
        return self.variables.run(self.program.main, feeds, [self.program.own_feature])[0]


    @property
    def identity(self) -> str:
        """A text that is equal for the same weights of checkpoints with equal bytes."""
        files = " ".join(entry.sha256 for _, entry in sorted(self.manifest.files.items()))
        return f"{files} {checkpoint.AVERAGED}" if self.averaged else files
