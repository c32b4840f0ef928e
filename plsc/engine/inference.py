"""The net that test and predict use: the backbone of a checkpoint, or an exported model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from plsc import checkpoint, compat
from plsc.checkpoint import Manifest
from plsc.config import Config
from plsc.engine.build import EvalProgram, build_eval
from plsc.engine.evaluate import Embedder, as_scalars, describe, verify_all
from plsc.engine.judging import Judging, Outputs
from plsc.engine.session import make_executor
from plsc.engine.start import Run, threads
from plsc.errors import CheckpointError
from plsc.evaluation.table import table
from plsc.evaluation.verification import Verification
from plsc.parallel.environment import Environment
from plsc.serving import Predictor, is_exported


class Variables:
    """A scope and an executor: the variables of programs that belong together."""

    def __init__(self, env: Environment):
        self._place = compat.place(env.on_gpu, env.device_id)
        self.scope = paddle.static.Scope()
        self.executor = make_executor(env)

    def run(self, program, feed: dict, fetches: list) -> list[np.ndarray]:
        """Run a program in these variables."""
        with paddle.static.scope_guard(self.scope):
            return self.executor.run(program, feed=feed, fetch_list=fetches)

    def set(self, name: str, value: np.ndarray) -> None:
        """Set a variable that a startup program has made."""
        self.scope.find_var(name).get_tensor().set(value, self._place)

    def load(self, program, path: str, stored: dict[str, np.ndarray], own: tuple[str, ...] = ()) -> None:
        """Set every variable of ``program`` but ``own`` from a checkpoint's tensors. Raises CheckpointError."""
        for name, value in compat.persistables(program).items():
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


@dataclass(frozen=True)
class Net:
    """Pictures to features on all ranks. ``config`` is the run's, with what the model itself says about its input.

    identity: the same for the same weights, another for others. name: for messages. step: training steps.
    """

    config: Config
    program: EvalProgram
    run: Any
    identity: str
    name: str
    step: int

    @property
    def size(self) -> int:
        """The length of a feature."""
        return int(self.program.feature.shape[1])

    def embedder(self, env: Environment) -> Embedder:
        return Embedder(self.config, env, self.program, self.run)


def open_net(run: Run) -> Net:
    """The net in ``checkpoint_dir``. Every rank calls it. Raises CheckpointError, ExportError."""
    if run.group.broadcast(is_exported(run.config.checkpoint_dir)):
        return _open_exported(run)
    backbone = Backbone(run, run.env, run.config.test_batch_size)
    identity = weights_identity(backbone.manifest)
    return Net(run.config, backbone.program, backbone.variables.run, identity, backbone.path, backbone.manifest.step)


class Backbone:
    """The backbone of the checkpoint in ``checkpoint_dir``, as the evaluation during training runs it."""

    def __init__(self, run: Run, env: Environment, batch_size: int):
        config = run.config
        self.program: EvalProgram = build_eval(config, run.parts, env, batch_size)
        self.path, self.manifest = checkpoint.open_checkpoint(
            config.checkpoint_dir, run.group, embedding_size=self.program.feature.shape[1]
        )
        self.variables = Variables(env)
        self.variables.run(self.program.startup, {}, [])
        self.stored = checkpoint.read_replicated(self.path, self.manifest)
        self.variables.load(self.program.main, self.path, self.stored)


def weights_identity(manifest: Manifest) -> str:
    """The same for two checkpoints of the same bytes."""
    return " ".join(entry.sha256 for _, entry in sorted(manifest.files.items()))


def _open_exported(run: Run) -> Net:
    env, config = run.env, run.config.copy()
    path = os.path.abspath(config.checkpoint_dir)
    predictor = Predictor(path, device=env.device, threads=threads(config, env), card=env.device_id)
    description = predictor.description
    config.update(
        {
            "model": {"image_shape": description.image_shape, "embedding_size": description.embedding_size},
            "data": {"pixel_std": description.pixel_std},
        },
        path,
    )
    program, variables = _gather(env, config.test_batch_size, description.embedding_size), Variables(env)

    def compute(main, feed: dict, fetches: list) -> list[np.ndarray]:
        (images,) = feed.values()
        own = predictor.run(images)[0]
        return [own] if env.world_size == 1 else variables.run(main, {"feature": own}, fetches)

    return Net(config, program, compute, description.identity, f"{path} ({predictor.runtime})", description.step)


def _gather(env: Environment, batch_size: int, size: int) -> EvalProgram:
    """A program that does nothing but bring the features [B, E] of all ranks together."""
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup):
        own = paddle.static.data("feature", [batch_size, size], "float32")
        everywhere = compat.all_gather(own, env.world_size)
    return EvalProgram(main, startup, {"feature": own}, everywhere, own)


def test(run: Run, outputs: Outputs) -> dict[str, Verification]:
    """Verify the checkpoint or the exported model on all sets."""
    net = open_net(run)
    judging = Judging(net.config, outputs) if run.env.rank == 0 else None
    results = verify_all(net.config, run.parts, net.embedder(run.env), judging.look if judging else None)
    for name, result in results.items():
        run.journal.say(f"test: {describe(name, result)}")
        run.journal.scalars(net.step, {"test": name, **as_scalars(result)})
    for line in table(results):
        run.journal.say(line)
    for path in judging.write(net.name, net.step, results) if judging else []:
        run.journal.say(f"test: {path} is written")
    return results
