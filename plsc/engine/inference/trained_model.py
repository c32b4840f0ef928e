"""The model that test and predict use: the backbone of a checkpoint, or an exported model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import paddle

from plsc.backend import collectives
from plsc.config import Config
from plsc.data import ImageReader
from plsc.engine.evaluation.evaluate import Embedder, verify_all
from plsc.engine.evaluation.outputs import Outputs, OutputWriter
from plsc.engine.inference import best_class
from plsc.engine.inference.agreement import distance
from plsc.engine.inference.saved_model import save_inference_model
from plsc.engine.inference.settings import stored_resize
from plsc.engine.program.build import EvalProgram
from plsc.engine.program.trained_backbone import TrainedBackbone, Variables
from plsc.engine.run.consistency import require_same
from plsc.engine.run.start import Run, threads
from plsc.errors import ExportError, PlscError, first_line
from plsc.evaluation.results import Verifications
from plsc.evaluation.tables import metric_tables
from plsc.parallel.environment import Environment
from plsc.serving import Predictor, is_exported
from plsc.serving.runtimes import PaddleRuntime, RuntimeOptions

Features = Callable[[np.ndarray], np.ndarray]  # images float32 [B, C, H, W] -> features float32 [B, E]


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a trained model. identity: the same for the same weights, another for other weights.

    name: for messages. step: the number of training steps. resize: what training did to images of another size; None
    where that is not known. class_names: None where the model gives no classes; of one
    that does the names by label, none of them where it has none.
    """

    embedding_size: int
    identity: str
    name: str
    step: int
    resize: str | None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TrainedModel:
    """Images to features on all ranks. ``config`` is the run's, with the input that the model itself describes.

    If ``info.class_names`` is not None a row is embedding, then the best class as plsc.engine.inference.best_class
    packs it.
    """

    config: Config
    program: EvalProgram
    run: Any
    info: ModelInfo

    def embedder(self, env: Environment) -> Embedder:
        return Embedder(self.config, env, self.program, self.run)


def open_model(run: Run, with_classes: bool = False) -> TrainedModel:
    """The model that the run starts from. Every rank calls it. Raises CheckpointError, ExportError.

    with_classes: its rows also say the best class, if it is an exported model with its classifier.
    """
    if run.group.broadcast(is_exported(run.start_dir)):
        return _open_exported(run, with_classes)
    backbone = TrainedBackbone(run, replace(run.env, rank=0, world_size=1), -1)
    features = backbone.features if run.env.on_gpu else _by_paddle_inference(run, backbone)
    manifest = backbone.manifest
    resize = stored_resize(manifest.config)
    info = ModelInfo(manifest.embedding_size, backbone.identity, backbone.path, manifest.step, resize)
    return _make_trained_model(run.env, run.config, features, info)


def _open_exported(run: Run, with_classes: bool) -> TrainedModel:
    env, config = run.env, run.config.copy()
    path = os.path.abspath(run.start_dir)
    if config.ema.weights != "auto":
        run.log.info(f"ema.weights={config.ema.weights!r}: has no effect, an exported model has one set of weights")
    predictor = Predictor(path, device=env.device, threads=threads(config, env), card=env.device_id)
    about = predictor.description
    require_same(run.group, ExportError, {f"the model in {run.start_dir}": about.identity})
    config.update(
        {
            "model": {"image_shape": about.image_shape, "embedding_size": about.embedding_size},
            "data": {"pixel_std": about.pixel_std},
        },
        path,
    )
    if about.resize is not None and "data.resize" not in config.given:
        config.set("data.resize", about.resize, path)
    info = ModelInfo(about.embedding_size, about.identity, f"{path} ({predictor.runtime})", about.step, about.resize)
    if not with_classes or about.num_classes is None:
        return _make_trained_model(env, config, lambda images: predictor.run(images)[0], info)
    info = replace(info, class_names=tuple(predictor.class_names or ()))
    return _make_trained_model(env, config, lambda images: best_class.pack(*predictor.run(images)), info)


def _by_paddle_inference(run: Run, backbone: TrainedBackbone) -> Features:
    """The features of a checkpoint's backbone by Paddle Inference, two to three times faster on a CPU than the
    evaluation program. The evaluation program is used where the two do not agree on two random images."""
    config = run.config.copy()
    config.update({"export": {"l2_normalise": False, "fuse_flip": False}}, "")
    alone = replace(run.env, rank=0, world_size=1)
    draw = np.random.Generator(np.random.Philox(key=[0, 0]))
    images = draw.uniform(-1, 1, (2, *config.model.image_shape)).astype(np.float32)
    try:
        with tempfile.TemporaryDirectory() as directory:
            files = save_inference_model(config, run.user_objects, backbone, None, alone, directory)
            paths = [os.path.join(directory, name) for name in files]
            runtime = PaddleRuntime(*paths, RuntimeOptions(threads(config, run.env), "cpu"))
            distance("Paddle Inference", "the evaluation", runtime.run(images), [backbone.features(images)])
    except (PlscError, RuntimeError, ValueError, OSError) as error:
        run.log.info(f"Paddle Inference cannot run this model, so the evaluation program does: {first_line(error)}")
        return backbone.features
    return lambda batch: runtime.run(batch)[0]


def _make_trained_model(env: Environment, config: Config, features: Features, info: ModelInfo) -> TrainedModel:
    """Computes the features of this rank's images by ``features`` and gathers those of all ranks."""
    size = info.embedding_size + (0 if info.class_names is None else best_class.COLUMNS)
    program, variables = _gather_program(env, config.test_batch_size, size), Variables(env)

    def compute(main, feed: dict, fetches: list) -> list[np.ndarray]:
        (images,) = feed.values()
        own = features(images)
        return [own] if env.world_size == 1 else variables.run(main, {"feature": own}, fetches)

    return TrainedModel(config, program, compute, info)


def _gather_program(env: Environment, batch_size: int, size: int) -> EvalProgram:
    """A program that only gathers the features [B, E] of all ranks."""
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup):
        own = paddle.static.data("feature", [batch_size, size], "float32")
        everywhere = collectives.all_gather(own, env.world_size)
    return EvalProgram(main, startup, {"feature": own}, everywhere, own)


def test(run: Run, outputs: Outputs) -> Verifications:
    """Evaluate the checkpoint or the exported model on all sets."""
    model = open_model(run)
    if run.user_objects.test_dataset is None and model.config.data.resize != "refuse":
        run.log.info(f"test: {ImageReader.from_config(model.config).resize_note()}")
    writer = OutputWriter(model.config, outputs) if run.env.rank == 0 else None
    on_set = writer.add if writer else None
    results = verify_all(model.config, run.user_objects, model.embedder(run.env), on_set, run.group)
    for name, one in results.items():
        for metric, reason in one.skipped.items():
            run.log.info(f"test: [{name}] {metric} is not computed: {reason}")
        for line in one.lines():
            run.log.info(f"test: {line}")
        run.log.scalars(model.info.step, {"test": name, **one.record})
    for line in metric_tables(results):
        run.log.info(line)
    for path in writer.write(model.info.name, model.info.step, results) if writer else []:
        run.log.info(f"test: {path} was written")
    return Verifications(results)
